"""Faults of all sorts at random moments, on the real servers: what was acknowledged is in the table exactly once, and
contexts are newest, whatever broke in between.

First all in one process, then the stages as processes of their own. Clients repeat as SDKs do. One fault at a time, each followed by a wait until clients are answered again, so that a fault
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
from harness.cluster import SESSION_SECONDS, Cluster, settings_of_a_cluster
from harness.config import merged
from harness.disk import ballast, fill, on_a_small_disk
from harness.load import Load, Loads
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
# Of a run that takes longer than this, minutes without a store are a part.
LONG_SECONDS = 600
AWAY_SECONDS = 60


class Chaos:
    """Breaks things one after the other, and counts what it broke."""

    def __init__(self, chance, load):
        self.chance, self.load = chance, load
        self.done = Counter()

    def until(self, end, actions, look=lambda: None):
        """Faults until `end`. `actions`: name -> what breaks something and mends it again. `look`: called after each."""
        while time.monotonic() < end:
            name = self.chance.choice(sorted(actions))
            actions[name]()
            self.done[name] += 1
            goal = self.load.acknowledged + self.chance.randrange(20, 200)
            wait_until(lambda goal=goal: self.load.acknowledged >= goal, RECOVERY_SECONDS, f"answers after {name}")
            look()

    def told(self):
        return ", ".join(f"{count} x {action}" for action, count in sorted(self.done.items()))

    def last(self, most=4.0):
        """How long a fault holds. Time that passes is the fault itself, no wait for anything."""
        time.sleep(self.chance.uniform(0.2, most))

    def on_the_way(self, proxy, mode, least=0):
        def act():
            proxy.mode = mode
            time.sleep(least)
            self.last()
            proxy.mode = faults.PASS

        return act

    def death(self, server):
        def act():
            server.kill9()
            server.start(RECOVERY_SECONDS)

        return act

    def standstill(self, server, least=0):
        def act():
            os.kill(server.pid, signal.SIGSTOP)
            time.sleep(least)
            self.last()
            os.kill(server.pid, signal.SIGCONT)

        return act

    def any_of(self, servers, sort, *more):
        """One of the servers, by chance, is broken by `sort`."""
        return lambda: sort(self.chance.choice(servers), *more)()

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


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "kafka") as broker:
        yield broker


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
    return f"{load.acknowledged} payloads acknowledged, none lost or doubled; {chaos.told()}"


def test_faults_of_the_store(serve, bucket, measured):
    """Tables and states of contexts in a bucket that fails in every way, and a program that is killed and stopped."""
    server = on_bucket(serve, bucket, SETTINGS)
    measured("chaos, tables in a bucket", hold_out(server, bucket, "store", STORE_FAULTS))


def test_faults_of_the_broker(serve, broker, measured):
    """The log on a Kafka broker that fails in every way, and a program that is killed and stopped."""
    server = serve(settings={**SETTINGS, **broker.settings()}, start=False)
    server.expect_log("^")
    server.start()
    measured("chaos, log on a broker", hold_out(server, broker, "broker", BROKER_FAULTS, freezes=True))


# The stages as processes of their own.


@pytest.fixture
def cluster(serve, broker, bucket, tmp_path):
    """Two of each stage, and a third endpoint whose disk, for the spill, is small. That one cannot be killed: its disk would be gone."""
    secret = {"api": {"secret": "a-secret-of-the-cluster"}}
    settings = merged(settings_of_a_cluster(broker.settings(), bucket.settings("lake")), secret)
    cluster = Cluster(serve, merged(SETTINGS, settings), bucket.lake("lake"))
    for task in ("ingest", "compact", "index"):
        for number in (1, 2):
            cluster.add(task, number)
    small = tmp_path / "small"
    small.mkdir()
    cluster.add("ingest", 3, wrapper=on_a_small_disk(small), data_dir=small)
    wait_until(cluster.divided, 60, "shards divided among both")
    cluster.add("api", 1, settings={"api": {"peers": [server.url for server in cluster.of("index")]}})
    for server in cluster.processes.values():
        server.expect_log("^")
    return cluster


class Memory:
    """Resident memory of each process over time."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.mib = {}

    def look(self):
        for (task, number), server in self.cluster.processes.items():
            self.mib.setdefault(f"{task}-{number}", []).append(server.memory_bytes() >> 20)

    def told(self):
        """Of each process the most in each third of the time."""

        def of(seen):
            third = -(-len(seen) // 3)
            return "/".join(str(max(seen[begin : begin + third])) for begin in range(0, len(seen), third))

        return ", ".join(f"{name} {of(seen)}" for name, seen in sorted(self.mib.items()))


def storm(servers):
    """All of a group die, and are back before anybody has noticed."""

    def act():
        for server in servers:
            server.kill9()
        for server in servers:
            server.launch()
        for server in servers:
            server.wait_ready(RECOVERY_SECONDS)

    return act


def without_room(chaos, server, broker):
    """The brokers are away, and there is no room for the spill either."""

    def act():
        fill(server)
        chaos.on_the_way(broker.proxy, faults.CUT)()
        ballast(server).unlink()

    return act


def faults_of_a_cluster(chaos, cluster, broker, bucket):
    actions = {f"broker: {mode}": chaos.on_the_way(broker.proxy, mode) for mode in BROKER_FAULTS}
    actions |= {f"store: {mode}": chaos.on_the_way(bucket.proxy, mode) for mode in STORE_FAULTS}
    actions |= {"broker: killed": chaos.restart_of(broker), "broker: stopped": chaos.freeze_of(broker)}
    actions |= {"store: killed": chaos.restart_of(bucket)}
    for task in ("ingest", "compact", "index", "api"):
        servers = [cluster.processes[key] for key in sorted(cluster.processes) if key[0] == task and key != ("ingest", 3)]
        actions[f"{task}: killed"] = chaos.any_of(servers, chaos.death)
        actions[f"{task}: stopped beyond its session"] = chaos.any_of(servers, chaos.standstill, SESSION_SECONDS)
        if task in ("compact", "index"):
            actions[f"{task}: all of the group killed"] = storm(servers)
    actions["ingest: disk full and broker away"] = without_room(chaos, cluster.processes["ingest", 3], broker)
    if SECONDS > LONG_SECONDS:
        actions["store: away for a minute"] = chaos.on_the_way(bucket.proxy, faults.CUT, AWAY_SECONDS)
    return actions


def test_faults_of_a_cluster(cluster, broker, bucket, measured):
    """Every stage as processes of their own, whatever breaks: broker, store, the ways to them, the processes, a disk."""
    loads = Loads(
        *(Load(server, 3, f"i{number}-", padding="x" * 100) for number, server in enumerate(cluster.of("ingest")))
    )
    memory = Memory(cluster)
    with loads:
        chaos = Chaos(random.Random(SEED), loads)
        actions = faults_of_a_cluster(chaos, cluster, broker, bucket)
        chaos.until(time.monotonic() + SECONDS, actions, memory.look)
    audit.assert_exactly_once(cluster, loads.ledgers, 180)
    audit.assert_newest_state(cluster.processes["api", 1], loads.ledgers, 180)
    assert cluster.of("ingest")[0].dead_letters("reason") == []
    assert not [line for server in cluster.processes.values() for line in server.output if "panicked at" in line]
    measured("chaos, cluster", f"{loads.acknowledged} payloads acknowledged, none lost or doubled; {chaos.told()}")
    measured("chaos, cluster, memory in MiB, most of each third", memory.told())
