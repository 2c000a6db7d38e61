"""The stages as processes of their own, two of each, on one Kafka log: work is divided, and taken over when one dies."""

import contextlib
import random
import shutil
import subprocess
import time

import pytest
from harness import audit
from harness.cluster import SESSION_SECONDS, TAKEN_OVER, Cluster, shared_settings, users
from harness.config import merged
from harness.load import Load
from harness.process import binary, clean_environment
from harness.waiting import wait_equal, wait_until

SEED = 20261128


@pytest.fixture
def cluster(serve, tmp_path):
    cluster = Cluster(serve, shared_settings(tmp_path))
    for task in ("ingest", "compact", "index"):
        for number in (1, 2):
            cluster.add(task, number)
    wait_until(cluster.divided, 60, "shards divided among both")
    return cluster


def test_stages_share_their_work(cluster):
    one, other = cluster.of("ingest")
    assert one.bulk(users(range(40), plan="gold"), "one").status == 202
    assert other.bulk(users(range(40, 80), plan="gold"), "other").status == 202
    # Sent to both, as a client does whose first answer was lost on the way.
    assert other.bulk(users(range(40), plan="gold"), "one").status == 202
    assert len(one.landed("one", "kind", 40)) == 40
    assert len(one.landed("other", "kind", 40)) == 40
    wait_equal(lambda: len({context["key"] for context in cluster.found("plan equals gold")}), 80)
    assert all(server.found("plan equals gold") for server in cluster.of("index")), "each has a part"
    wait_until(cluster.caught_up, 60, "no lag")
    assert cluster.lake.count("events") == 80
    part = cluster.of("index")[0].api("POST", "/v2/projects/default/environments/dev/contexts/search", {})
    assert part.headers["x-tidegate-index"] == "partial"


def test_processes_that_take_no_events_say_so(cluster):
    for task in ("compact", "index"):
        answer = cluster.of(task)[0].bulk(users([1]), "refused")
        assert answer.status == 503
        assert cluster.of(task)[0].is_ready()


def test_part_without_what_is_shared_says_all_that_it_lacks(tmp_path):
    ran = subprocess.run(
        [binary(), "index", "--data-dir", tmp_path / "data"], capture_output=True, text=True, env=clean_environment(), timeout=30
    )
    assert ran.returncode == 2
    for key in ("log.kind", "storage.url", "environments"):
        assert key in ran.stderr, ran.stderr
    assert not (tmp_path / "data").exists()


def test_nothing_is_lost_when_processes_die_and_move(cluster, measured):
    chance = random.Random(SEED)
    ingests = cluster.of("ingest")
    deaths = 0
    with contextlib.ExitStack() as stack:
        loads = [stack.enter_context(Load(server, clients=4, prefix=f"i{number}-")) for number, server in enumerate(ingests)]
        for task in ("compact", "index", "compact", "index"):
            number = chance.choice((1, 2))
            server = cluster.processes[task, number]
            server.kill9()
            deaths += 1
            if task == "index":
                shutil.rmtree(server.data_dir)
                began = time.monotonic()
                wait_until(cluster.divided, 60, "shards of the dead process taken over")
                measured("index owner killed, shards at work elsewhere", f"{time.monotonic() - began:.1f} s (session {SESSION_SECONDS} s)")
            target = sum(load.acknowledged for load in loads) + chance.randrange(50, 200)
            wait_until(lambda goal=target: sum(load.acknowledged for load in loads) >= goal, 60, "more acknowledged payloads")
            server.start()
            wait_until(cluster.divided, 60, "shards divided among both")
    ledgers = [client.ledger for load in loads for client in load.clients]
    audit.assert_exactly_once(cluster, ledgers, 120)
    audit.assert_newest_state(cluster, ledgers, 120)
    acknowledged = sum(len(ledger.acknowledged) for ledger in ledgers)
    measured(f"roles, {deaths} processes killed", f"{acknowledged} payloads, none lost or doubled")


def test_rolling_restart_is_not_felt(cluster):
    """Every process is restarted, one after the other. Clients try twice, as SDKs do, and a balancer takes them to the other endpoint."""
    one, other = cluster.of("ingest")
    with Load(one, clients=4, prefix="steady-", spare=other) as load:
        for task in ("compact", "index", "ingest", "ingest"):
            for number in (1, 2):
                before = load.acknowledged
                cluster.processes[task, number].restart()
                wait_until(cluster.divided, 60, "shards divided among both")
                wait_until(lambda goal=before: load.acknowledged >= goal + 50, 30, "acknowledged payloads afterwards")
    ledgers = [client.ledger for client in load.clients]
    assert not any(ledger.given_up or ledger.refused for ledger in ledgers), "a client has seen an error"
    audit.assert_exactly_once(cluster, ledgers, 120)
    audit.assert_newest_state(cluster, ledgers, 120)


def test_process_with_the_name_of_another_takes_its_place(cluster, serve):
    first = cluster.processes["compact", 1]
    second = cluster.serve(settings=merged(cluster.settings, {"kafka": {"member": "compact-1"}}), task="compact")
    second.expect_log(TAKEN_OVER)
    wait_until(lambda: not first.is_ready(), 60, "the first one to be thrown out")
    assert b"thrown out" in first.get("/readyz").body
    assert second.is_ready()
