"""The recorded SDK requests of `tests/fixtures/sdk`: loading them and posting them as they were sent."""

import base64
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from harness.config import RECORDED

FOLDER = Path(__file__).parents[2] / "fixtures" / "sdk"
SET_BY_THE_CONNECTION = {"host", "content-length", "transfer-encoding", "connection"}


@dataclass(frozen=True)
class Request:
    """One request: `body` is exactly what was sent, after removing chunked transfer coding."""

    method: str
    path: str
    headers: tuple
    body: bytes
    chunked: bool

    @classmethod
    def load(cls, file):
        text = json.loads(file.read_text())
        body = base64.b64decode(text["body_base64"]) if "body_base64" in text else text["body"].encode()
        path = f"{text['path']}?{text['query']}" if text["query"] else text["path"]
        chunked = "chunked" in {value for name, value in text["headers"].items() if name.lower() == "transfer-encoding"}
        return cls(text["method"], path, tuple(text["headers"].items()), body, chunked)

    def addressed_to(self, environment):
        """The same request with the credential of another environment; the body stays as it is."""
        swap = {
            RECORDED.sdk_key: environment.sdk_key,
            RECORDED.mobile_key: environment.mobile_key,
        }
        headers = tuple((name, swap.get(value, value)) for name, value in self.headers)
        return replace(
            self, path=self.path.replace(RECORDED.client_side_id, environment.client_side_id), headers=headers
        )

    def send(self, wire):
        headers = {name: value for name, value in self.headers if name.lower() not in SET_BY_THE_CONNECTION}
        body = self.body if self.method == "POST" else None
        return wire.send(self.method, self.path, body, headers, chunked=self.chunked)


@cache
def expectations():
    return json.loads((FOLDER / "expected.json").read_text())


def folders():
    return sorted(expectations())


@cache
def requests(folder):
    return [Request.load(file) for file in sorted((FOLDER / folder).glob("*.json"))]
