"""A deleted index comes back from the table `contexts` and the log, also when the log has long forgotten and when it is killed.

What the log's retention does after its hours is done here by hand: the oldest segments go, which it may only remove once
table and index have them.
"""

import random
import shutil
import subprocess
import time

import duckdb
import pytest
from harness import payloads
from harness.payloads import custom
from harness.process import binary, clean_environment
from harness.waiting import wait_equal, wait_until

SEED = 20261122
SMALL = {"log": {"segment_bytes": "1MiB"}, "indexer": {"table_interval": "300ms"}}
ANEW = "index begun anew"
KILLS = 4


def records(server, **question):
    """Everything that a search tells of all contexts, page by page."""
    page = server.search(limit=50, **question)
    found = page["items"]
    while "continuationToken" in page:
        page = server.search(limit=50, continuationToken=page["continuationToken"], **question)
        found += page["items"]
    return found


def told(server):
    """Everything that the API tells: records in both orders, and the versions of some of them."""
    by_key, by_time = records(server), records(server, sort="ts")
    links = [record["_links"]["self"]["href"] for record in by_key[:30]]
    versions = [server.send("GET", link, headers={"Authorization": server.api_token}).json()["items"] for link in links]
    return by_key, by_time, versions


def segments(server):
    return sorted((server.data_dir / "log").glob("*.seg"))


def covered(server):
    """Whether the table covers all that the log holds, as its own history tells."""
    ends = {p["partition"]: p["next"] for p in server.pipeline()["log"]["partitions"] if p["topic"] == "contexts"}
    written = {}
    for commit in sorted(server.lake.table("contexts").history(), key=lambda commit: commit["version"]):
        said = commit.get("operationParameters") or {}
        if "next" in said:
            written[int(said["partition"])] = int(said["next"])
    return all(written.get(partition, 0) >= end for partition, end in ends.items())


def push_out_of_the_log(server):
    """Writes until what was there lies in segments that are full, and stops the server; then the log forgets these."""
    held = len(segments(server))
    chance = random.Random(SEED)
    while len(segments(server)) < held + 2:
        filler = [custom("filler", data=chance.randbytes(4000).hex()) for _ in range(50)]
        assert server.bulk(filler).status == 202
    wait_until(
        lambda: (p := server.pipeline()) and p["table"]["lagRecords"] == 0 == p["index"]["lagRecords"], 30, "no lag"
    )
    wait_until(lambda: covered(server), 30, "a table that covers the log")
    server.stop()
    for segment in segments(server)[:-1]:
        segment.unlink()


def lose_index(server):
    shutil.rmtree(server.data_dir / "index")
    server.expect_log(ANEW)


def whole(server):
    state = server.pipeline()["index"]
    return not state["rebuilding"] and state["lagRecords"] == 0


def states(server):
    """Rows of the table `contexts`, as an outsider counts them."""
    if not server.lake.has_rows("contexts"):
        return 0
    return sum(server.lake.table("contexts").get_add_actions(flatten=True)["num_records"].to_pylist())


def users(numbers, **attributes):
    return [
        payloads.identify({"kind": "user", "key": f"u{number:05}", "plan": "gold", "n": number, **attributes})
        for number in numbers
    ]


@pytest.fixture
def filled(serve):
    """A server with contexts of all sorts in its table, and a log that holds none of them any more."""
    server = serve(settings=SMALL)
    server.bulk(users(range(60)))
    server.bulk(users(range(10, 20), plan="silver"))
    multi = {"kind": "multi", "user": {"key": "u00003", "plan": "bronze"}, "org": {"key": "lagoa", "city": "Recife"}}
    held_back = {"kind": "user", "key": "u00004", "n": 4, "_meta": {"redactedAttributes": ["/plan"]}}
    server.bulk([custom("buys", multi), payloads.identify(held_back)])
    server.bulk([{**custom("by key"), "context": None, "contextKeys": {"user": "u00005", "device": "known by its key"}}])
    server.bulk([payloads.identify({"kind": "user", "key": "ghost", "anonymous": True, "plan": "gold"})])
    headers = payloads.server_headers(server.environments[0], User_Agent="RubyClient/8.0.0")
    server.post("/bulk", users(range(5, 8), seen="by another application"), headers)
    wait_equal(lambda: len(server.found()), 62)
    wait_until(lambda: states(server) >= 63, 30, "states in the table")
    return server


def test_contexts_older_than_the_log_come_back(filled):
    before = told(filled)
    push_out_of_the_log(filled)
    lose_index(filled)
    filled.start()
    wait_until(lambda: whole(filled), 30, "a whole index")
    after = told(filled)
    # The filler named one context more.
    fresh = [[record for record in found if record["context"]["key"] != "u1"] for found in after[:2]]
    assert (*fresh, after[2]) == before
    assert any(version.get("applicationId") == "RubyClient/8.0.0" for item in after[2] for version in item)
    filled.bulk(users([3], plan="changed"))
    wait_equal(lambda: [c["key"] for c in filled.found("plan equals changed")], ["u00003"])


def rebuild(server, *flags):
    command = [binary(), "index", "rebuild", "--config", server.config_file, "--data-dir", server.data_dir, *flags]
    return subprocess.run(list(map(str, command)), capture_output=True, env=clean_environment(), timeout=60, text=True)


def test_index_is_rebuilt_by_command(filled):
    refused = rebuild(filled)
    assert refused.returncode == 1
    assert f"another process has it open, process id {filled.pid}" in refused.stderr, refused
    before = told(filled)
    push_out_of_the_log(filled)
    shards = [filled.data_dir / "index" / str(partition) for partition in range(2)]
    inodes = [shard.stat().st_ino for shard in shards]
    one = rebuild(filled, "--partition", "1")
    assert (one.returncode, one.stderr) == (0, ""), one
    assert one.stdout.startswith("rebuilt 1 of 2 shards; the index has 63 contexts")
    assert [shard.stat().st_ino == inode for shard, inode in zip(shards, inodes, strict=True)] == [True, False]
    both = rebuild(filled)
    assert both.returncode == 0 and both.stdout.startswith("rebuilt 2 of 2 shards; the index has 63 contexts"), both
    filled.start()
    after = told(filled)
    fresh = [[record for record in found if record["context"]["key"] != "u1"] for found in after[:2]]
    assert (*fresh, after[2]) == before


def test_rebuild_that_would_lose_something_is_refused(filled):
    """The table has fallen behind what the log still holds: the shard stays as it is."""
    push_out_of_the_log(filled)
    shutil.rmtree(filled.data_dir / "lake" / "contexts")
    refused = rebuild(filled)
    assert refused.returncode == 1 and "a rebuild would lose" in refused.stderr, refused
    filled.start()
    assert len(filled.found()) >= 62


@pytest.mark.parametrize(("flags", "says"), [(["--partition", "2"], "there are 2, counted from 0")])
def test_rebuild_of_what_is_not_there_is_refused(serve, flags, says):
    server = serve(start=False)
    assert "there is no data of tidegate" in rebuild(server).stderr
    refused = rebuild(server, *flags)
    assert (refused.returncode, says in refused.stderr) == (2, True), refused


def test_table_of_contexts_is_open(filled):
    """Readers that know nothing of this program find the newest state of each context by its highest sequence."""
    filled.bulk(users([1], plan="platinum"))
    wait_equal(lambda: len(filled.found("plan equals platinum")), 1)

    def newest():
        files = filled.lake.files("contexts")
        columns = "kind, key, context, last_seen, applications, sequence"
        rows = [row for file in files for row in read(file, columns)]
        return {(row["kind"], row["key"]): row for row in sorted(rows, key=lambda row: row["sequence"])}

    def read(file, columns):
        table = duckdb.sql(f"select {columns} from read_parquet('{file}', hive_partitioning = true)")
        return [dict(zip(table.columns, row, strict=True)) for row in table.fetchall()]

    found = wait_until(lambda: (n := newest()) and "platinum" in n["user", "u00001"]["context"] and n, 30, "the state")
    contexts = [kind for kind, _ in found if kind != "multi"]
    assert len(contexts) == 63 and ("multi", "org:lagoa:user:u00003") in found
    assert "known by its key" in {key for _, key in found}
    assert found["user", "u00006"]["applications"].keys() >= {"RubyClient/8.0.0"}


def test_rebuild_survives_kills(serve, measured):
    """kill -9 while the index is coming back, several times: nobody takes the half for the whole."""
    server = serve(settings=SMALL)
    for start in range(0, 12_000, 1000):
        assert server.bulk(users(range(start, start + 1000), padding="x" * 100)).status == 202
    wait_equal(lambda: server.pipeline()["index"]["contexts"], 12_000)
    wait_until(lambda: states(server) >= 12_000, 30, "states in the table")
    before = records(server)
    push_out_of_the_log(server)
    lose_index(server)
    chance, interrupted = random.Random(SEED), 0
    for _ in range(KILLS):
        server.launch()
        wait_until(server.is_ready, 30, "readiness")
        for _ in range(chance.randrange(1, 60)):
            rebuilding = server.pipeline()["index"]["rebuilding"]
        server.kill9()
        interrupted += rebuilding
    assert interrupted > 0, "no kill met a rebuild"
    began = time.monotonic()
    server.start()
    wait_until(lambda: whole(server), 60, "a whole index")
    measured("index of 12,000 contexts back from the table, with the start", f"{time.monotonic() - began:.1f} s")
    assert [record for record in records(server) if record["context"]["key"] != "u1"] == before
