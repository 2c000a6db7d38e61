"""The tables as an open format: columns and types as documented, small files merged without a trace, old versions readable.

The columns are written out here and not read from the code: a change of one is a change of what analysts rely on.
"""

import json

import duckdb
import pytest
from harness import payloads
from harness.config import QUICK
from harness.payloads import custom
from harness.waiting import wait_equal, wait_until

TEXT = [
    *[
        "kind",
        "project",
        "environment",
        "payload_id",
        "source",
        "sdk",
        "sdk_version",
        "wrapper",
        "instance_id",
        "application_id",
    ],
    *[
        "application_version",
        "context_kind",
        "context_key",
        "context",
        "flag_key",
        "event_key",
        "value",
        "default_value",
        "reason",
        "data",
    ],
    *[
        "reason_kind",
        "rule_id",
        "prerequisite_of",
        "url",
        "selector",
        "operation",
        "previous_key",
        "previous_context_kind",
        "extra",
    ],
]
INTEGERS = ["payload_index", "log_partition", "log_row", "schema_version"]
LONGS = [
    *["log_offset", "variation", "version", "rule_index", "sampling_ratio", "count", "consistent_sampling_ratio"],
]
BOOLEANS = [
    *[
        "anonymous",
        "in_experiment",
        "exclude_from_summaries",
        "unknown",
        "invoked_old",
        "invoked_new",
        "consistent",
        "error_old",
        "error_new",
    ],
]
TIMES = ["received_at", "created_at", "started_at", "ended_at"]
DOUBLES = ["metric_value", "latency_old_ms", "latency_new_ms"]
EVENTS = {
    "event_date": "date",
    "context_keys": "map",
    "context_kinds": "array",
    **dict.fromkeys(TEXT, "string"),
    **dict.fromkeys(INTEGERS, "integer"),
    **dict.fromkeys(LONGS, "long"),
    **dict.fromkeys(BOOLEANS, "boolean"),
    **dict.fromkeys(TIMES, "timestamp"),
    **dict.fromkeys(DOUBLES, "double"),
}
DEAD_LETTERS = {
    "event_date": "date",
    "received_at": "timestamp",
    "redriven_at": "timestamp",
    "body": "binary",
    **dict.fromkeys(["id", "project", "environment", "payload_id", "path", "headers", "reason", "message"], "string"),
    **dict.fromkeys(["payload_index", "log_partition", "log_row"], "integer"),
    **dict.fromkeys(["byte_offset", "log_offset"], "long"),
}


def columns(table):
    """Name -> Delta type, the container alone for nested ones."""
    fields = json.loads(table.schema().to_json())["fields"]
    return {f["name"]: f["type"] if isinstance(f["type"], str) else f["type"]["type"] for f in fields}


@pytest.fixture(scope="module")
def filled(server):
    assert server.bulk([custom("table"), {"kind": "feature"}]).status == 202
    wait_equal(lambda: (len(server.events("kind", "true")), len(server.dead_letters("id"))), (1, 1))
    return server


@pytest.mark.parametrize("name, expected", [("events", EVENTS), ("dead_letters", DEAD_LETTERS)])
def test_columns_are_those_of_the_document(filled, name, expected):
    assert columns(filled.lake.table(name)) == expected


def test_partitions(filled):
    assert filled.lake.table("events").metadata().partition_columns == ["event_date", "kind"]
    assert filled.lake.table("dead_letters").metadata().partition_columns == ["event_date"]


def test_event_date_is_the_day_of_receipt(filled):
    old = {**custom("old"), "creationDate": 946684800000}
    assert filled.bulk([old]).status == 202
    rows = wait_until(lambda: filled.events("event_date, received_at, year(created_at) as y", "event_key = 'old'"))
    assert rows[0]["y"] == 2000 and rows[0]["event_date"] == rows[0]["received_at"].date()


def test_files_are_zstd_parquet_with_statistics(filled):
    file = filled.lake.files("events")[0]
    packed = duckdb.sql(f"select distinct compression from parquet_metadata('{file}')").fetchall()
    assert packed == [("ZSTD",)]


def totals(server):
    query = "select count(*) as n, count(distinct payload_id) as payloads, sum(metric_value) as s from events"
    return server.table_rows(query)[0]


def test_small_files_are_merged_and_nothing_changes(serve):
    """Many commits of one payload each: the number of files falls, while rows and sums stay, and old versions read on."""
    server = serve(settings={"compactor": {**QUICK["compactor"], "commit_interval": "50ms", "merge_files_min": 4}})
    for number in range(40):
        event = custom(payloads.unique("merge"), metricValue=float(number))
        assert server.bulk([event], payloads.payload_id()).status == 202
        wait_equal(lambda number=number: server.lake.count("events"), number + 1)
    expected = {"n": 40, "payloads": 40, "s": float(sum(range(40)))}
    assert totals(server) == expected
    wait_until(lambda: len(server.lake.files("events")) <= 12, 60, "few files")
    assert totals(server) == expected
    table = server.lake.table("events")
    table.load_as_version(max(table.version() - 3, 0))
    older = duckdb.sql(f"select count(*) from read_parquet({table.file_uris()!r})").fetchall()
    assert 0 < older[0][0] <= 40


def test_stages_that_were_off_catch_up(serve):
    """With compactor and indexer off nothing changes for clients; switched on again, they land what came meanwhile."""
    server = serve(settings={"compactor": {"enabled": False}, "indexer": {"enabled": False}})
    for number in range(50):
        context = {"kind": "user", "key": f"off-{number}"}
        assert server.bulk([payloads.identify(context)], payloads.payload_id()).status == 202
    assert server.lake.count("events") == 0
    server.stop()
    server.configure({})
    server.start()
    wait_equal(lambda: server.lake.count("events"), 50)
    wait_equal(lambda: len(server.found()), 50)
