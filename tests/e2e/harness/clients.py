"""The official REST clients: programs of `tests/clients` that make calls and say what came of them."""

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.config import WRITER_TOKEN

FOLDER = Path(__file__).parents[2] / "clients"
# The newest Python client needs seconds to load its modules, and many on a busy machine.
CALL_SECONDS_MAX = 120


def _built(name):
    """What `./test` prepares in the cache and says where it is."""
    folder = os.environ.get("TIDEGATE_CLIENTS")
    assert folder, "TIDEGATE_CLIENTS does not say where ./test has put the REST clients"
    return Path(folder) / name


def _python(version):
    # The suite's own interpreter, with the packages of one version of the client before its own.
    return [sys.executable, "run.py"], {"PYTHONPATH": str(_built(f"python-{version}"))}


# Name of a client -> folder of its program, command, variables.
PROGRAMS = {
    "python-25": lambda: ("python", *_python(25)),
    "python-17": lambda: ("python", *_python(17)),
    "typescript-17": lambda: ("node", [shutil.which("node") or "node", "run.js"], {}),
    "go-22": lambda: ("go", [str(_built("go"))], {}),
}


class Client:
    """One running program, which talks to the server at `url` unless a call says otherwise."""

    def __init__(self, name, url):
        self.name, self.url = name, url
        folder, command, variables = PROGRAMS[name]()
        self._complaints = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            command,
            cwd=FOLDER / folder,
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
        )

    def call(self, operation, *path, url=None, token=WRITER_TOKEN, **parameters):
        """What came of one call, with the names of the API's description: a decoded `value`, or `status` and `error`.

        `path`: what stands in the places of the path, in their order. An operation that the client does not have is
        `absent`; what it stumbled over, such as an answer that it cannot decode, is a `fault`.
        """
        place = {"url": url or self.url, "token": token, "path": path}
        wanted = {"operation": operation, **place, "parameters": parameters}
        self._process.stdin.write(json.dumps(wanted).encode() + b"\n")
        self._process.stdin.flush()
        readable, _, _ = select.select([self._process.stdout], [], [], CALL_SECONDS_MAX)
        assert readable, f"{self.name} has not come back from {wanted} after {CALL_SECONDS_MAX} s"
        line = self._process.stdout.readline()
        assert line, f"{self.name} ended during {wanted}: {self._complained()}"
        return json.loads(line)

    def answer(self, operation, *path, **parameters):
        """What the client made of an answer; fails if it was refused or not understood."""
        outcome = self.call(operation, *path, **parameters)
        assert "value" in outcome, f"{operation} {path} {parameters}: {outcome}"
        return outcome["value"]

    def refusal(self, operation, *path, **parameters):
        """Status and code of an error that the client understood."""
        outcome = self.call(operation, *path, **parameters)
        assert "error" in outcome, f"{operation} {path} {parameters}: {outcome}"
        assert outcome["error"]["message"], outcome
        return outcome["status"], outcome["error"]["code"]

    def _complained(self):
        self._complaints.seek(0)
        return self._complaints.read().decode(errors="replace")[-2000:]

    def close(self):
        """Ends the program: left to itself, the newest Python client takes seconds for that too."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._complaints):
            pipe.close()
