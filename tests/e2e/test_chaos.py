"""Faults of all sorts at random moments, on the real servers: what was acknowledged is in the table exactly once, and
contexts are newest, whatever broke in between.

Clients repeat as SDKs do. One fault at a time, each followed by a wait until clients are answered again, so that a fault
which is never recovered from shows at its place. The audit reads the bucket directly, past the proxies.

TIDEGATE_CHAOS_SECONDS sets the time (40), TIDEGATE_CHAOS_SEED the order of faults.
"""

import os
import random
import signal
import time
from collections import Counter

import pytest
from harness import audit, faults
from harness.load import Load
from harness.services import Broker, Bucket
from harness.waiting import wait_until

SECONDS = float(os.environ.get("TIDEGATE_CHAOS_SECONDS", "40"))
SEED = int(os.environ.get("TIDEGATE_CHAOS_SEED", "20261127"))
# Longest time from the end of a fault until clients are answered again.
RECOVERY_SECONDS = 60
BROKER_FAULTS = (faults.DELAY, faults.SLOW, faults.HANG, faults.CUT, faults.LOSE_ANSWERS)
STORE_FAULTS = (faults.DELAY, faults.SLOW, faults.HANG, faults.CUT, faults.LOSE_ANSWERS, faults.ERRORS)
SETTINGS = {
    "log": {"segment_bytes": "1MiB"},
    "compactor": {"merge_files_min": 4, "commit_interval": "500ms"},
    "indexer": {"commit_interval": "200ms", "table_interval": "3s"},
}


class Chaos:
    """Breaks things one after the other, and counts what it broke."""

    def __init__(self, chance, load):
        self.chance, self.load = chance, load
        self.done = Counter()

    def until(self, end, actions):
        """Faults until `end`. `actions`: name -> what breaks something and mends it again."""
        while time.monotonic() < end:
            name = self.chance.choice(sorted(actions))
            actions[name]()
            self.done[name] += 1
            goal = self.load.acknowledged + self.chance.randrange(20, 200)
            wait_until(lambda goal=goal: self.load.acknowledged >= goal, RECOVERY_SECONDS, f"answers after {name}")

    def last(self, most=4.0):
        """How long a fault holds. Time that passes is the fault itself, no wait for anything."""
        time.sleep(self.chance.uniform(0.2, most))

    def on_the_way(self, proxy, mode):
        def act():
            proxy.mode = mode
            self.last()
            proxy.mode = faults.PASS

        return act

    def death(self, server):
        def act():
            server.kill9()
            server.start(RECOVERY_SECONDS)

        return act

    def standstill(self, server):
        def act():
            os.kill(server.pid, signal.SIGSTOP)
            self.last()
            os.kill(server.pid, signal.SIGCONT)

        return act

    def freeze_of(self, service):
        def act():
            service.freeze()
            self.last()
            service.thaw()

        return act

    def restart_of(self, service):
        def act():
            service.kill9()
            self.last()
            service.start()

        return act


def assert_intact(server, load):
    audit.assert_exactly_once(server, load.ledgers, 120)
    audit.assert_newest_state(server, load.ledgers, 120)
    assert server.dead_letters("reason") == []
    assert not [line for line in server.output if "panicked at" in line]


@pytest.fixture
def bucket(tmp_path):
    with Bucket(tmp_path / "s3") as bucket:
        yield bucket


def on_bucket(serve, bucket, settings):
    server = serve(settings={**settings, **bucket.settings("lake")}, start=False)
    server.lake_elsewhere = bucket.lake("lake")
    # Faults are what this is about; each is told, as it should be.
    server.expect_log("^")
    return server.start()


def hold_out(server, service, name, modes, freezes=False):
    """Load through faults of a service, called `name`, and of the program, and what has to hold afterwards. Tells what was done."""
    with Load(server, clients=4, padding="x" * 100) as load:
        chaos = Chaos(random.Random(SEED), load)
        actions = {f"{name}: {mode}": chaos.on_the_way(service.proxy, mode) for mode in modes}
        actions |= {
            f"{name}: killed": chaos.restart_of(service),
            "program: killed": chaos.death(server),
            "program: stopped": chaos.standstill(server),
        }
        if freezes:
            actions[f"{name}: stopped"] = chaos.freeze_of(service)
        chaos.until(time.monotonic() + SECONDS, actions)
    assert_intact(server, load)
    told = ", ".join(f"{count} x {action}" for action, count in sorted(chaos.done.items()))
    return f"{load.acknowledged} payloads acknowledged, none lost or doubled; {told}"


def test_faults_of_the_store(serve, bucket, measured):
    """Tables and states of contexts in a bucket that fails in every way, and a program that is killed and stopped."""
    server = on_bucket(serve, bucket, SETTINGS)
    measured("chaos, tables in a bucket", hold_out(server, bucket, "store", STORE_FAULTS))


def test_faults_of_the_broker(serve, tmp_path, measured):
    """The log on a Kafka broker that fails in every way, and a program that is killed and stopped."""
    with Broker(tmp_path / "kafka") as broker:
        server = serve(settings={**SETTINGS, **broker.settings()}, start=False)
        server.expect_log("^")
        server.start()
        measured("chaos, log on a broker", hold_out(server, broker, "broker", BROKER_FAULTS, freezes=True))
