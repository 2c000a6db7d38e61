"""The check data of context search (`tests/fixtures/search`): contexts, filters that find them, filters that are refused."""

import json
from pathlib import Path

from harness import payloads
from harness.config import OTHER

_DATA = json.loads((Path(__file__).parents[2] / "fixtures" / "search" / "check_data.json").read_text())
CONTEXTS, MATCHES, FAULTS = _DATA["contexts"], _DATA["matches"], _DATA["faults"]

_LETTERS = {context["key"]: letter for letter, context in CONTEXTS.items()}


def send(server):
    """Makes the contexts known in the server's first environment, oldest first, among others that must not be found."""
    for event in payloads.identify_each(CONTEXTS.values()):
        assert server.bulk([event], payloads.payload_id()).status == 202
    server.bulk([payloads.identify({"kind": "user", "key": "ghost", "anonymous": True, "plan": "gold"})])
    server.bulk([payloads.identify({"kind": "user", "key": "elsewhere", "plan": "gold"})], environment=OTHER)


def letters(page):
    """Letters of the contexts in an answer, in its order."""
    return [_LETTERS[item["context"]["key"]] for item in page["items"]]
