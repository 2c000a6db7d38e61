"""A Kafka broker and an S3 server of one's own, for tests that kill, stop or cut them off: `tests/servers/*.sh`.

What a program under test is given is the address of a proxy in front of each, so that the way can be broken too.
"""

import os
import signal
import subprocess
from pathlib import Path

from harness.faults import FaultProxy
from harness.lake import Lake

SCRIPTS = Path(__file__).parents[2] / "servers"
ACCESS_KEY, SECRET_KEY, BUCKET = "tidegate", "tidegate-test", "tidegate"


def store_options(endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY):
    """How a program, or the `deltalake` package, reaches an S3 server."""
    return {
        "endpoint": endpoint,
        "region": "us-east-1",
        "access_key_id": access_key,
        "secret_access_key": secret_key,
        "allow_http": "true",
    }


class Service:
    """A server that lives in a folder. Use as a context manager; what it keeps survives `kill9` and `start`."""

    script = None

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = None
        self.proxy = FaultProxy(None)

    def _run(self, command, *more):
        words = [str(SCRIPTS / self.script), command, str(self.folder), *map(str, more)]
        done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **self.variables()}, timeout=300)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def variables(self):
        return {}

    def start(self):
        """Starts on the port that it had before, if it had one."""
        address = self._run("start", *([self.port] if self.port else []))
        host, port = address.removeprefix("http://").split(":")
        self.port, self.proxy.upstream = int(port), (host, int(port))
        return self

    def kill9(self):
        self._run("kill")

    def stop(self):
        self._run("stop")

    def pid(self):
        return int(self._run("pid"))

    def freeze(self):
        os.kill(self.pid(), signal.SIGSTOP)

    def thaw(self):
        os.kill(self.pid(), signal.SIGCONT)

    def __enter__(self):
        self.proxy.__enter__()
        return self.start()

    def __exit__(self, *_):
        self.kill9()
        self.proxy.__exit__()


def shared_broker():
    """The address of the broker that `./test` has started."""
    address = os.environ.get("TIDEGATE_TEST_KAFKA")
    assert address, "TIDEGATE_TEST_KAFKA is not set; ./test starts a broker and sets it"
    return address


def kafka_settings(brokers, prefix, **librdkafka):
    """The sections of a program whose log is on these brokers. Names of librdkafka's settings with underscores."""
    return {
        "log": {"kind": "kafka"},
        "kafka": {"brokers": brokers, "topic_prefix": prefix, "message_timeout": "3s"},
        "kafka.librdkafka": librdkafka,
    }


class Broker(Service):
    """Clients learn the proxy's address from the broker itself, so that all they send takes this way."""

    script = "kafka.sh"

    def __init__(self, folder, settings=()):
        """`settings`: lines laid over those of the script."""
        super().__init__(folder)
        self.more_settings = list(settings)

    def variables(self):
        return {"KAFKA_SETTINGS": "\n".join([f"advertised.listeners=PLAINTEXT://{self.address}", *self.more_settings])}

    @property
    def address(self):
        host, port = self.proxy.address
        return f"{host}:{port}"

    def settings(self, prefix="tidegate.", **librdkafka):
        return kafka_settings(self.address, prefix, **librdkafka)


def kafka_tool(name, brokers, *words):
    """Runs one of Kafka's own tools, named by its class, and returns what it prints."""
    command = [SCRIPTS / "kafka.sh", "tool", f"org.apache.kafka.tools.{name}", "--bootstrap-server", brokers, *words]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def kafka_topics(brokers, *words):
    return kafka_tool("TopicCommand", brokers, *words)


class Bucket(Service):
    """An S3 server with one bucket."""

    script = "s3.sh"

    def settings(self, prefix):
        """The sections `[storage]` and `[storage.options]` of a program that keeps its tables here."""
        host, port = self.proxy.address
        return {
            "storage": {"url": f"s3://{BUCKET}/{prefix}"},
            "storage.options": store_options(f"http://{host}:{port}"),
        }

    def lake(self, prefix):
        """The tables as outsiders see them, past the proxy."""
        return Lake(f"s3://{BUCKET}/{prefix}", store_options(f"http://127.0.0.1:{self.port}"))
