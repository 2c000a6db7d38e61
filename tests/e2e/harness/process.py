"""A running `tidegate serve`: started on a free port, watched, stopped by its process id.

A server outlives its process: `restart` and `kill9` keep the data directory, the port and the configuration.
"""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from harness import config, lake, payloads, wire
from harness.waiting import wait_equal, wait_until

READY_SECONDS = 30
DRAIN_SECONDS = 10
LEVEL = re.compile(r"\b(WARN|ERROR)\b")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def binary():
    """The program under test: `TIDEGATE_BIN`, else what `cargo build -p tidegate` leaves behind."""
    target = os.environ.get("CARGO_TARGET_DIR") or Path(__file__).parents[3] / "target"
    return os.environ.get("TIDEGATE_BIN") or str(Path(target) / "debug" / "tidegate")


def clean_environment():
    """The environment without variables that would change the program's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE")}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def level_of(line):
    """The level of one line of the server's output, whether it is JSON or text; empty for anything else."""
    try:
        record = json.loads(line)
        return str(record.get("level", "")).upper() if isinstance(record, dict) else ""
    except ValueError:
        found = LEVEL.search(line[:80])
        return found.group(1) if found else ""


class Server:
    """One server with its own folder: `server.toml`, `data/`, and what it wrote to its output."""

    def __init__(self, folder, environments=(config.RECORDED, config.OTHER), settings=None, wrapper=(), data_dir=None, task="serve"):
        """`settings`: sections laid over `config.QUICK`. `wrapper`: a command that starts the server in its place.

        `task`: the subcommand that runs it.
        """
        self.folder = Path(folder)
        self.environments = list(environments)
        self.data_dir = Path(data_dir or self.folder / "data")
        self.config_file = self.folder / "server.toml"
        self.address = ("127.0.0.1", free_port())
        self.wrapper = list(wrapper)
        self.task = task
        self.process = None
        self.output = []
        self.expected = []
        # Where outside readers find the tables, if not below the data directory.
        self.lake_elsewhere = None
        self.checked = 0
        self._reader = None
        self.configure(settings or {})

    # What a client needs to know.

    @property
    def url(self):
        return f"http://{self.address[0]}:{self.address[1]}"

    @property
    def project(self):
        return self.environments[0].project

    @property
    def environment(self):
        return self.environments[0].key

    @property
    def sdk_key(self):
        return self.environments[0].sdk_key

    @property
    def mobile_key(self):
        return self.environments[0].mobile_key

    @property
    def client_side_id(self):
        return self.environments[0].client_side_id

    @property
    def api_token(self):
        return config.WRITER_TOKEN

    @property
    def reader_token(self):
        return config.READER_TOKEN

    @property
    def pid(self):
        return self.process.pid

    # Its life.

    def configure(self, settings):
        """Writes the config file; takes effect at the next start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config_file.write_text(config.to_toml(self.environments, config.merged(config.QUICK, settings)))

    def command(self):
        listen = f"{self.address[0]}:{self.address[1]}"
        flags = ["--config", self.config_file, "--data-dir", self.data_dir, "--listen", listen]
        return [str(part) for part in (*self.wrapper, binary(), self.task, *flags)]

    def launch(self):
        """Starts the process without waiting for it."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
        self.process = subprocess.Popen(self.command(), cwd=self.folder, env=clean_environment(), **pipes)
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()
        return self

    def start(self, deadline=READY_SECONDS):
        self.launch()
        try:
            self.wait_ready(deadline)
        except AssertionError as failure:
            self.kill9()
            raise AssertionError(f"{failure}\n{self.text()}") from None
        return self

    def wait_ready(self, deadline=READY_SECONDS):
        wait_until(self._ready_or_dead, deadline, "readiness")
        assert self.process.poll() is None, f"the server ended with {self.process.returncode}"

    def _ready_or_dead(self):
        return self.process.poll() is not None or self.is_ready()

    def is_ready(self):
        try:
            return wire.send(self.address, "GET", "/readyz", timeout=5).status == 200
        except OSError:
            return False

    def stop(self):
        """SIGTERM; the server must drain and exit with 0 in time."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.wait_exit(DRAIN_SECONDS)
        assert code == 0, f"exit code {code} after SIGTERM\n{self.text()}"
        return time.monotonic() - began

    def kill9(self):
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def wait_exit(self, deadline):
        code = self.process.wait(deadline)
        self._reader.join()
        return code

    def restart(self):
        self.stop()
        return self.start()

    def close(self):
        """Ends the process whatever its state."""
        if self.process and self.process.poll() is None:
            self.kill9()

    # What it says.

    def _read(self, stream):
        for line in stream:
            self.output.append(COLOURS.sub("", line.rstrip("\n")))

    def text(self):
        return "\n".join(self.output[-200:])

    def expect_log(self, pattern):
        """Declares that lines at WARN or ERROR which match `pattern` are no surprise."""
        self.expected.append(re.compile(pattern))

    def surprises(self):
        """Lines at WARN or ERROR since the last call that nobody expected, and lines of a panic."""
        fresh, self.checked = self.output[self.checked :], len(self.output)
        loud = [line for line in fresh if level_of(line) in ("WARN", "ERROR") or "panicked at" in line]
        return [line for line in loud if not any(pattern.search(line) for pattern in self.expected)]

    # Talking to it.

    def send(self, method, path, body=None, headers=None, **options):
        return wire.send(self.address, method, path, body, headers, **options)

    def get(self, path, headers=None):
        return self.send("GET", path, headers=headers)

    def post(self, path, body, headers=None, **options):
        return self.send("POST", path, body, headers, **options)

    def bulk(self, events, payload_id=None, environment=None):
        """Posts events as a server SDK would and returns the answer."""
        headers = {"Authorization": (environment or self.environments[0]).sdk_key, "Content-Type": "application/json"}
        headers["X-LaunchDarkly-Event-Schema"] = "4"
        if payload_id is not None:
            headers["X-LaunchDarkly-Payload-ID"] = payload_id
        return self.post("/bulk", events, headers)

    def fill(self, contexts):
        """Makes these contexts known, and returns once all of them are found."""
        for first in range(0, len(contexts), 10):
            events = [payloads.identify(context) for context in contexts[first : first + 10]]
            assert self.bulk(json.dumps(events), payloads.payload_id()).status == 202
        wait_equal(lambda: len(self.found()), len(contexts), what="contexts found")

    def api(self, method, path, body=None, token=config.WRITER_TOKEN, headers=None):
        """One call of the REST API below `/api/`."""
        return self.send(
            method, f"/api{path}", body, {"Authorization": token, "Content-Type": "application/json", **(headers or {})}
        )

    def search(self, environment=None, **body):
        """The answer of a context search with `body` as its parameters; fails unless it is 200."""
        answer = self.api("POST", f"/v2/{(environment or self.environments[0]).path}/contexts/search", body)
        assert answer.status == 200, answer
        return answer.json()

    def found(self, filter_text="", environment=None):
        """All contexts that match, over all pages."""
        page = self.search(environment, filter=filter_text, limit=50)
        items = page["items"]
        while "continuationToken" in page:
            page = self.search(environment, filter=filter_text, limit=50, continuationToken=page["continuationToken"])
            items += page["items"]
        return [item["context"] for item in items]

    def pipeline(self):
        return self.api("GET", "/tidegate/pipeline").json()

    # Its files and its memory.

    @property
    def root(self):
        """Where the process sees `/`: its own mounts are below it."""
        return Path(f"/proc/{self.pid}/root") if self.wrapper else Path("/")

    def seen(self, path):
        """A path of the process, as this process can open it."""
        return self.root / path.relative_to("/")

    @property
    def lake(self):
        if self.lake_elsewhere:
            return self.lake_elsewhere
        folder = self.data_dir / "lake"
        if self.wrapper:
            folder = lake.mirror(self.seen(folder), self.folder / "lake-seen")
        return lake.Lake(str(folder))

    def table_rows(self, query):
        """Rows of an SQL query over the views `events` and `dead_letters`."""
        return self.lake.sql(query)

    def events(self, columns, where):
        """Rows of the `events` table, in the order of the log; none where there is no table yet."""
        order = "order by log_partition, log_offset, log_row"
        return (
            self.table_rows(f"select {columns} from events where {where} {order}")
            if self.lake.has_rows("events")
            else []
        )

    def landed(self, payload, columns, rows):
        """The rows of a payload in the table, once there are `rows` of them or more."""

        def read():
            found = self.events(columns, f"payload_id = '{payload}'")
            return found if len(found) >= rows else None

        return wait_until(read, what=f"{rows} rows of payload {payload}")

    def dead_letters(self, columns, where="true"):
        """Rows of the `dead_letters` table, in the order of the log; none where there is no table yet."""
        order = "order by log_partition, log_offset, log_row"
        return (
            self.table_rows(f"select {columns} from dead_letters where {where} {order}")
            if self.lake.has_rows("dead_letters")
            else []
        )

    def memory_bytes(self, field="VmRSS"):
        """A field of /proc/<pid>/status, such as `VmRSS` or `VmHWM`."""
        found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        return int(found.group(1)) * 1024

    def reset_peak_memory(self):
        """Makes `VmHWM` start again from the present size."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
