"""Every recorded SDK request, posted to a running server, is counted by outside readers exactly as expected.

Each folder of `tests/fixtures/sdk` gets an environment of its own: only the credential is rewritten, so that one server
serves all folders. Counted with `deltalake` and DuckDB, and once more with Polars and with pyarrow's data set.
"""

import contextlib

import polars
import pytest
from harness import recorded
from harness.config import Environment
from harness.waiting import wait_equal
from harness.wire import Wire

FOLDERS = recorded.folders()
ENVIRONMENTS = {
    folder: Environment.numbered("recorded", f"run-{number}", 0x100 + number) for number, folder in enumerate(FOLDERS)
}

# Counters of one summary share their place in the payload. A payload without an id is told by its time of receipt.
ONE_EVENT = "(coalesce(payload_id, cast(received_at as varchar)), payload_index)"


def post_folder(server, folder):
    with contextlib.closing(Wire(server.address)) as wire:
        return [request.addressed_to(ENVIRONMENTS[folder]).send(wire) for request in recorded.requests(folder)]


@pytest.fixture(scope="module")
def answers(serve_module):
    server = serve_module(environments=ENVIRONMENTS.values())
    return server, {folder: post_folder(server, folder) for folder in FOLDERS}


def due_status(request, noted):
    """What a request is answered here: a provoked failure of the recording is an ordinary success."""
    if request.method == "OPTIONS":
        return (200, 204)
    if request.method == "GET":
        return (200,)
    return (noted if noted in (200, 202) else 202,)


def rows_by(server, key, value, where):
    query = f"select environment, {key} as k, {value} as v from events where {where} group by environment, {key}"
    counted = {folder: {} for folder in FOLDERS}
    folder_of = {environment.key: folder for folder, environment in ENVIRONMENTS.items()}
    for row in server.table_rows(query) if server.lake.has_rows("events") else ():
        counted[folder_of[row["environment"]]][row["k"]] = row["v"]
    return counted


def events_by_kind(server):
    return rows_by(server, "kind", f"count(distinct {ONE_EVENT})", "true")


def evaluations_by_flag(server):
    return rows_by(server, "flag_key", "cast(sum(count) as bigint)", "kind = 'summary'")


@pytest.mark.parametrize("folder", FOLDERS)
def test_answers_are_those_of_the_recording(answers, folder):
    _, given = answers
    noted = recorded.expectations()[folder]["answers"]
    for request, answer, note in zip(recorded.requests(folder), given[folder], noted, strict=True):
        assert answer.status in due_status(request, note), (request.method, request.path, answer)


@pytest.fixture(scope="module")
def landed(answers):
    """The server once the table holds what was posted; a wrong count is left for the tests of the folders to show."""
    server, _ = answers
    expected = {folder: facts["events"] for folder, facts in recorded.expectations().items()}
    with contextlib.suppress(AssertionError):
        wait_equal(lambda: events_by_kind(server), expected, 60)
    return server


@pytest.fixture(scope="module")
def kinds(landed):
    return events_by_kind(landed)


@pytest.fixture(scope="module")
def evaluations(landed):
    return evaluations_by_flag(landed)


@pytest.fixture(scope="module")
def payloads(landed):
    return rows_by(landed, "payload_id", "count(distinct (log_partition, log_offset))", "payload_id is not null")


@pytest.mark.parametrize("folder", FOLDERS)
def test_events_by_kind(kinds, folder):
    assert kinds[folder] == recorded.expectations()[folder]["events"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_summary_sums_by_flag(evaluations, folder):
    expected = recorded.expectations()[folder]
    assert evaluations[folder] == expected["byFlag"]
    assert sum(evaluations[folder].values()) == expected["summaryEvaluations"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_payload_is_stored_once(payloads, folder):
    assert payloads[folder] == dict.fromkeys(recorded.expectations()[folder]["payloadIds"], 1)


def test_nothing_went_to_the_dead_letters(landed):
    assert landed.lake.count("dead_letters") == 0


def test_every_row_has_an_origin_of_its_own(landed):
    query = "select count(*) as n, count(distinct (log_partition, log_offset, log_row)) as origins from events"
    rows = landed.table_rows(query)[0]
    assert rows["n"] == rows["origins"] > 0


def test_polars_and_pyarrow_read_the_same(landed):
    expected = sum(facts["summaryEvaluations"] for facts in recorded.expectations().values())
    frame = polars.read_delta(landed.lake.table("events"))
    assert frame.filter(polars.col("kind") == "summary")["count"].sum() == expected
    dataset = landed.lake.table("events").to_pyarrow_dataset()
    assert sum(count for count in dataset.to_table(columns=["count"])["count"].to_pylist() if count) == expected
