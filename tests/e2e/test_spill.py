"""A broker that is away or slow: events are kept on the local disk, answered 202, and reach the table once when it is back."""

import random
import time

import pytest
from harness import audit, faults
from harness.config import merged
from harness.load import Load
from harness.metrics import metric
from harness.payloads import custom
from harness.services import Broker
from harness.waiting import wait_until

SEED = 20261128
# What the program says of a broker that is away; each is told once, as it should be.
BROKER_AWAY = "Kafka takes no records|append of a batch failed|could not be landed|indexing failed|could not be written"


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "kafka") as broker:
        yield broker


@pytest.fixture
def spilling(serve, broker):
    """A server on the broker; with more settings of `[kafka]` if given."""

    def make(**kafka):
        server = serve(settings=merged(broker.settings(), {"kafka": kafka}))
        server.expect_log(BROKER_AWAY)
        return server

    return make


def acknowledge_more(load, count, deadline=60):
    target = load.acknowledged + count
    wait_until(lambda: load.acknowledged >= target, deadline, f"{count} more acknowledged payloads")


def spill(server):
    return server.pipeline()["log"]["spill"]


def is_drained(server):
    state = spill(server)
    return state["records"] == 0 and not state["spilling"] and state["breaker"] == "closed"


def assert_intact(server, load):
    wait_until(lambda: is_drained(server), 60, "an empty spill")
    audit.assert_exactly_once(server, load.ledgers, 90)
    audit.assert_newest_state(server, load.ledgers, 90)


def test_broker_killed_under_load_is_not_noticed_by_clients(spilling, broker, measured):
    server = spilling()
    with Load(server) as load:
        acknowledge_more(load, 100)
        broker.kill9()
        acknowledge_more(load, 500)
        state = spill(server)
        assert state["spilling"] and state["records"] > 0 and state["breaker"] != "closed", state
        assert server.is_ready()
        assert metric(server, "tidegate_spill_held_records_count") > 0
        assert load.refused == 0
        broker.start()
        began = time.monotonic()
        wait_until(lambda: is_drained(server), 60, "an empty spill under load")
        drained = time.monotonic() - began
        acknowledge_more(load, 100)
    assert_intact(server, load)
    total = metric(server, "tidegate_spill_drained_records_total")
    measured("Kafka, broker away under load", f"{load.acknowledged} payloads, {total:.0f} records spilled, drained after {drained:.1f} s")


def test_program_killed_while_the_broker_is_away(spilling, broker, measured):
    server = spilling()
    chance = random.Random(SEED)
    with Load(server) as load:
        for _ in range(2):
            acknowledge_more(load, 50)
            broker.kill9()
            acknowledge_more(load, chance.randrange(20, 200))
            server.kill9()
            broker.start()
            server.start()
        wait_until(lambda: is_drained(server), 90, "an empty spill under load")
        acknowledge_more(load, 50)
    assert_intact(server, load)
    measured("Kafka, broker away and program killed", f"{load.acknowledged} payloads, none lost or doubled")


@pytest.mark.parametrize("mode", [faults.HANG, faults.LOSE_ANSWERS])
def test_what_had_reached_the_broker_is_not_sent_again(spilling, broker, mode):
    """Acknowledgements are lost on the way, and then the program dies: nobody knows what the broker has."""
    server = spilling()
    with Load(server) as load:
        acknowledge_more(load, 50)
        broker.proxy.mode = mode
        acknowledge_more(load, 50)
        server.kill9()
        broker.proxy.mode = faults.PASS
        server.start()
        acknowledge_more(load, 20)
    assert_intact(server, load)


def test_full_spill_is_503_and_loses_nothing(spilling, broker):
    server = spilling(spill_max="1MiB")
    padding = "".join(random.Random(SEED).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=20_000))
    with Load(server, clients=4, padding=padding) as load:
        acknowledge_more(load, 20)
        broker.kill9()
        wait_until(lambda: load.refused > 0, 60, "a refusal")
        wait_until(lambda: server.get("/readyz").status == 503, 15, "a server that is not ready")
        assert spill(server)["bytes"] <= 1 << 20
        broker.start()
        wait_until(server.is_ready, 30, "readiness")
        acknowledge_more(load, 20)
    assert_intact(server, load)


def test_end_without_a_broker_leaves_the_spill_for_the_next_start(spilling, broker):
    server = spilling()
    assert server.bulk([custom("x")], "before").status == 202
    broker.kill9()
    assert server.bulk([custom("x")], "spilled").status == 202
    assert server.stop() < 10
    assert "stays on the local disk for the next start" in server.text()
    broker.start()
    server.start()
    assert len(server.landed("spilled", "kind", 1)) == 1
    assert len(server.landed("before", "kind", 1)) == 1


def test_start_without_a_broker_takes_events_and_drains_them_later(spilling, broker):
    server = spilling()
    server.expect_log("started all the same")
    assert server.bulk([custom("x")], "before").status == 202
    broker.kill9()
    assert server.bulk([custom("x")], "spilled").status == 202
    server.kill9()
    server.start(60)
    assert server.bulk([custom("x")], "after the start").status == 202
    server.kill9()
    server.start(60)
    broker.start()
    for payload in ("before", "spilled", "after the start"):
        assert len(server.landed(payload, "kind", 1)) == 1
    wait_until(lambda: is_drained(server), 60, "an empty spill")
    assert server.bulk([custom("x")], "last").status == 202
    assert len(server.landed("last", "kind", 1)) == 1
    assert server.lake.count("events") == 4
