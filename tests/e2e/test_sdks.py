"""The official Python, Node and Go server SDKs, unmodified, report to a running server without loss or doubling.

Section 14.9 of the event protocol: many flushes, and the same through one refused post and through one lost answer, after
which an SDK repeats the payload under its id. Evaluations made = sum of `count` in the table, by flag; every identified
context is found by search with its attributes.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import payloads, proxy
from harness.waiting import wait_equal

SDKS = Path(__file__).parents[1] / "sdk"
ROUNDS = 6
SECONDS_MAX = 60
TROUBLES = {
    "nothing": [],
    "one refusal": [proxy.PASS, proxy.REFUSE],
    "one lost answer": [proxy.PASS, proxy.LOSE_ANSWER],
}


def go_program():
    """`./test` builds it into the cache and says where it is; run by hand, the Go tool is asked directly."""
    built = os.environ.get("TIDEGATE_GO_SDK")
    return [built] if built else ["go", "run", "."]


PROGRAMS = {
    "python": lambda: [sys.executable, "run.py"],
    "node": lambda: [shutil.which("node") or "node", "run.js"],
    "go": go_program,
}


def run(sdk, events_url, sdk_key, prefix):
    command = [*PROGRAMS[sdk](), events_url, sdk_key, prefix, str(ROUNDS)]
    result = subprocess.run(command, cwd=SDKS / sdk, capture_output=True, text=True, timeout=SECONDS_MAX)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def evaluations(server, prefix):
    where = f"kind = 'summary' and payload_id in (select payload_id from events where starts_with(context_key, '{prefix}') or context_key like '%:{prefix}%')"
    rows = server.events("flag_key, count", where)
    return {
        flag: sum(row["count"] for row in rows if row["flag_key"] == flag)
        for flag in sorted({row["flag_key"] for row in rows})
    }


def tracked(server, prefix):
    return len(
        server.events(
            "event_key", f"kind = 'custom' and (starts_with(context_key, '{prefix}') or context_key like '%:{prefix}%')"
        )
    )


def found(server, single):
    """The context as search shows it, without what the server adds."""
    contexts = server.found(f"kindKey equals {json.dumps(single['kind'] + ':' + single['key'])}")
    return [{name: value for name, value in context.items() if name != "_meta"} for context in contexts]


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("sdk", PROGRAMS)
def test_sdk_loses_and_doubles_nothing(server, sdk, trouble):
    prefix = payloads.unique(f"{sdk}-") + "."
    with proxy.Proxy(server.address, {"/bulk"}, TROUBLES[trouble]) as between:
        done = run(sdk, between.url, server.sdk_key, prefix)
        assert not between.verdicts, "the trouble never came"
    assert set(between.answers) == {202}
    wait_equal(lambda: evaluations(server, prefix), dict(sorted(done["evaluations"].items())))
    wait_equal(lambda: tracked(server, prefix), done["custom"])
    for single in done["identified"]:
        wait_equal(lambda single=single: found(server, single), [single])


@pytest.mark.parametrize("sdk", PROGRAMS)
def test_sdk_reports_straight_to_the_server(server, sdk):
    """Without the proxy between them: the SDK's own HTTP against the server's."""
    prefix = payloads.unique(f"{sdk}-straight") + "."
    done = run(sdk, server.url, server.sdk_key, prefix)
    wait_equal(lambda: evaluations(server, prefix), dict(sorted(done["evaluations"].items())))
    wait_equal(lambda: tracked(server, prefix), done["custom"])


@pytest.mark.parametrize("sdk", PROGRAMS)
def test_sdk_survives_a_restart_of_the_server(server, sdk):
    """Twice the same program on either side of a restart: what was there stays, what comes is added."""
    prefix = payloads.unique(f"{sdk}-restart") + "."
    first = run(sdk, server.url, server.sdk_key, prefix)
    server.restart()
    second = run(sdk, server.url, server.sdk_key, prefix)
    expected = {flag: count + second["evaluations"][flag] for flag, count in sorted(first["evaluations"].items())}
    wait_equal(lambda: evaluations(server, prefix), expected)
