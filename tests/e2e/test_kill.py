"""kill -9 under load, a torn and a flipped log, a full disk: what was acknowledged is stored once, and contexts are newest.

TIDEGATE_KILL_ROUNDS sets the number of rounds (25).
"""

import os
import random
import re
import time

import pytest
from harness import audit, payloads
from harness.disk import MIB, ballast, fill, free_bytes, on_a_small_disk
from harness.load import Load
from harness.payloads import custom
from harness.waiting import wait_equal, wait_until

ROUNDS = int(os.environ.get("TIDEGATE_KILL_ROUNDS", "25"))
SEED = 20261122
RECOVERY = "(?i)recover|torn|cut"
SMALL_SEGMENTS = {"log": {"segment_bytes": "1MiB"}, "compactor": {"merge_files_min": 4}}


def acknowledge_more(load, count):
    """Waits until clients were given `count` more answers."""
    target = load.acknowledged + count
    wait_until(lambda: load.acknowledged >= target, 60, f"{count} more acknowledged payloads")


def test_kill_under_load(serve, measured):
    """Rounds of kill -9 at random moments between a just started and a busy server; clients go on all the while."""
    server = serve(settings=SMALL_SEGMENTS)
    server.expect_log(RECOVERY)
    chance, slowest = random.Random(SEED), 0.0
    with Load(server) as load:
        for _ in range(ROUNDS):
            acknowledge_more(load, chance.randrange(1, 400))
            server.kill9()
            began = time.monotonic()
            server.start()
            slowest = max(slowest, time.monotonic() - began)
        acknowledge_more(load, 100)
    audit.assert_exactly_once(server, load.ledgers)
    audit.assert_newest_state(server, load.ledgers)
    given_up = sum(len(ledger.given_up) for ledger in load.ledgers)
    measured(
        f"kill -9, {ROUNDS} rounds",
        f"{load.acknowledged} payloads acknowledged, {given_up} given up, none lost or doubled",
    )
    measured("kill -9, slowest start to ready under load", f"{slowest:.2f} s")


def test_kill_while_starting(serve):
    """Killed again before it is ready, several times in a row: the next start finds everything."""
    server = serve(settings=SMALL_SEGMENTS)
    server.expect_log(RECOVERY)
    with Load(server) as load:
        acknowledge_more(load, 300)
        server.kill9()
        for _ in range(8):
            server.launch()
            wait_until(lambda: server.is_ready() or server.memory_bytes() > 8 * MIB)
            server.kill9()
        server.start()
        acknowledge_more(load, 50)
    audit.assert_exactly_once(server, load.ledgers)
    audit.assert_newest_state(server, load.ledgers)


# The log after a crash of the machine.


def log_files(server):
    """Segment files of the embedded log, oldest first."""
    return sorted((server.data_dir / "log").glob("*.seg"))


@pytest.fixture
def crashed(serve):
    """A server that was killed under load, with what its clients were told."""
    server = serve(settings=SMALL_SEGMENTS)
    server.expect_log(RECOVERY)
    with Load(server, padding="x" * 500) as load:
        acknowledge_more(load, 600)
    audit.assert_exactly_once(server, load.ledgers)
    server.kill9()
    return server, load.ledgers


def starts_or_explains(server):
    """Starts the server. True: it is ready. False: it refused with a text that names a file of the log and an offset."""
    server.launch()
    wait_until(lambda: server.process.poll() is not None or server.is_ready(), 30, "a start or a refusal")
    if server.process.poll() is None:
        return True
    server.expect_log(".")
    server.wait_exit(5)
    text = server.text()
    assert server.process.returncode != 0
    assert any(file.name in text for file in log_files(server)) and re.search(
        r"offset\D{0,12}\d+|byte\D{0,12}\d+", text
    ), text
    return False


def intact(server, ledgers):
    audit.assert_exactly_once(server, ledgers)
    audit.assert_newest_state(server, ledgers)


def test_torn_tail_is_cut(crashed):
    """Half a record after the last whole one, as a power cut leaves it: no client was told of it."""
    server, ledgers = crashed
    with open(log_files(server)[-1], "ab") as newest:
        newest.write(random.Random(SEED).randbytes(777))
    server.start()
    intact(server, ledgers)
    assert server.bulk([custom("after")], payloads.payload_id()).status == 202


@pytest.mark.parametrize("removed", [1, 100, 5000])
def test_truncated_last_segment(crashed, removed):
    server, ledgers = crashed
    newest = log_files(server)[-1]
    os.truncate(newest, newest.stat().st_size - removed)
    if starts_or_explains(server):
        intact(server, ledgers)
        assert server.bulk([custom("after")], payloads.payload_id()).status == 202


@pytest.mark.parametrize("place", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_flipped_byte(crashed, which, place):
    server, ledgers = crashed
    victim = log_files(server)[0 if which == "oldest" else -1]
    content = bytearray(victim.read_bytes())
    content[int(len(content) * place)] ^= 0x40
    victim.write_bytes(content)
    if starts_or_explains(server):
        intact(server, ledgers)


# A disk of its own that fills up.

NO_ROOM = "(?i)no space|disk|full|room|storage|log"


@pytest.fixture
def small_disk(serve, tmp_path):
    data_dir = tmp_path / "small"
    data_dir.mkdir()
    server = serve(wrapper=on_a_small_disk(data_dir), data_dir=data_dir)
    server.expect_log(NO_ROOM)
    return server


def incompressible(size):
    return random.Random(SEED).randbytes(size // 2).hex()


def test_full_disk_is_503_and_then_goes_on(small_disk):
    """First answer 503, the second stored: the repeat of a refused payload lands, and lands once."""
    server = small_disk
    before = payloads.payload_id()
    assert server.bulk([custom("before")], before).status == 202
    fill(server)
    event = [custom("full", data=incompressible(200_000))]

    def refusal():
        """A payload that was refused, with its answer. A log may have set room aside, and files that could not be
        finished give theirs back: such room is used up first."""
        payload = payloads.payload_id()
        answer = server.bulk(event, payload)
        return answer.status != 202 and (payload, answer)

    refused, answer = wait_until(refusal, 60, "a refusal")
    assert answer.status == 503 and "retry-after" in answer.headers
    wait_until(lambda: refusal() and server.get("/readyz").status == 503, what="a server that is not ready")
    assert server.get("/healthz").status == 200
    ballast(server).unlink()
    wait_until(server.is_ready, 30, "readiness after there was room")
    assert server.bulk(event, refused).status == 202
    assert server.bulk(event, refused).status == 202
    wait_equal(lambda: len(server.events("payload_id", f"payload_id = '{refused}'")), 1)
    wait_equal(lambda: len(server.events("payload_id", f"payload_id = '{before}'")), 1)


def test_disk_filled_by_load_loses_nothing(small_disk):
    """The load itself runs into the full disk; what was acknowledged before, meanwhile and after is stored once."""
    server = small_disk
    with Load(server, clients=4, padding="z" * 300) as load:
        acknowledge_more(load, 200)
        fill(server)
        wait_until(lambda: load.refused > 0, 60, "a refusal")
        ballast(server).unlink()
        acknowledge_more(load, 200)
    audit.assert_exactly_once(server, load.ledgers)
    audit.assert_newest_state(server, load.ledgers)
