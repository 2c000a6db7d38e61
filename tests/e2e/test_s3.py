"""Tables and copies of the index in a bucket of a real S3 server: a machine that loses its disk finds all of it there."""

import os
import shutil
import subprocess
import uuid

import pytest
from harness import payloads
from harness.metrics import metric
from harness.process import binary, clean_environment
from harness.services import store_options
from harness.waiting import wait_equal, wait_until

CONTEXTS = 500


def variable(name):
    value = os.environ.get(f"TIDEGATE_TEST_S3_{name}")
    assert value, f"TIDEGATE_TEST_S3_{name} is not set; ./test starts an S3 server and sets it"
    return value


@pytest.fixture
def bucket():
    """Settings that put everything into a folder of its own on the S3 server."""
    return {
        "storage": {"url": f"s3://{variable('BUCKET')}/e2e-{uuid.uuid4()}"},
        "storage.options": store_options(variable("ENDPOINT"), variable("ACCESS_KEY"), variable("SECRET_KEY")),
        "indexer": {"snapshot_interval": "1s", "table_interval": "1s"},
    }


def users(numbers, **attributes):
    return [payloads.identify({"kind": "user", "key": f"u{number:05}", "n": number, **attributes}) for number in numbers]


def copied(server):
    """Whether all shards have been copied since all that was sent can be found."""
    state = server.pipeline()["index"]
    return state["lagRecords"] == 0 and (metric(server, "tidegate_index_snapshots_total") or 0) >= 2


def test_index_comes_back_from_its_copies(serve, bucket, measured):
    server = serve(settings=bucket)
    for start in range(0, CONTEXTS, 100):
        assert server.bulk(users(range(start, start + 100), plan="gold")).status == 202
    wait_equal(lambda: server.pipeline()["index"]["contexts"], CONTEXTS)
    wait_until(lambda: copied(server), 30, "copies of the shards")
    server.bulk(users(range(10), plan="after the copy"))
    wait_equal(lambda: len(server.found('plan equals "after the copy"')), 10)
    before = sorted(context["key"] for context in server.found())
    server.kill9()
    shutil.rmtree(server.data_dir / "index")

    server.start()
    wait_until(lambda: not server.pipeline()["index"]["rebuilding"], 30, "a whole index")
    wait_equal(lambda: sorted(context["key"] for context in server.found()), before)
    wait_equal(lambda: len(server.found('plan equals "after the copy"')), 10)
    assert metric(server, "tidegate_index_snapshots_restored_total") == 2
    assert metric(server, "tidegate_index_snapshots_passed_over_total") == 0
    # What was taken over goes on: written, found and copied.
    server.bulk(users([0], plan="new"))
    wait_equal(lambda: [context["key"] for context in server.found("plan equals new")], ["u00000"])


def test_tables_in_a_bucket_are_queried_by_the_program(serve, bucket):
    server = serve(settings=bucket)
    assert server.bulk(users(range(20)), "s3-1").status == 202
    sql = "SELECT count(*) AS n FROM events WHERE payload_id = 's3-1'"

    def rows():
        command = [binary(), "query", "--config", server.config_file, "--data-dir", server.data_dir, "--format", "csv", sql]
        ran = subprocess.run(list(map(str, command)), capture_output=True, env=clean_environment(), timeout=60)
        return ran.returncode, ran.stdout.decode().split()

    wait_equal(rows, (0, ["n", "20"]))
    assert not (server.data_dir / "lake").exists()


def test_bucket_that_is_missing_is_told_at_the_start(serve, bucket):
    bucket["storage"]["url"] = f"s3://no-such-bucket-{uuid.uuid4().hex[:8]}/lake"
    server = serve(start=False, settings=bucket)
    server.launch()
    assert server.wait_exit(60) == 1
    assert "there is no such bucket" in server.text()
