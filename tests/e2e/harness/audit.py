"""Holds what clients were told against what outside readers and search find: exactly once, and the newest state."""

from harness.waiting import wait_equal

EVENTS_PER_PAYLOAD = 3


def stored_events(server):
    """Payload id -> number of its rows, over the whole table."""
    rows = server.events("payload_id", "payload_id is not null")
    counted = {}
    for row in rows:
        counted[row["payload_id"]] = counted.get(row["payload_id"], 0) + 1
    return counted


def missing(server, ledgers):
    """Acknowledged payloads that are not in the table, or not in their full size."""
    stored = stored_events(server)
    return sorted(
        payload for ledger in ledgers for payload in ledger.acknowledged if stored.get(payload, 0) < EVENTS_PER_PAYLOAD
    )


def assert_exactly_once(server, ledgers, deadline=60):
    wait_equal(lambda: missing(server, ledgers)[:10], [], deadline, "acknowledged payloads missing from the table")
    stored = stored_events(server)
    given_up = {payload for ledger in ledgers for payload in ledger.given_up}
    wrong = {payload: count for payload, count in stored.items() if count != EVENTS_PER_PAYLOAD}
    assert not wrong, "payloads stored in part or twice"
    ours = {payload for ledger in ledgers for payload in ledger.acknowledged} | given_up
    assert set(stored) <= ours
    rows = server.table_rows(
        "select count(*) as n, count(distinct (log_partition, log_offset, log_row)) as origins from events"
    )[0]
    assert rows["n"] == rows["origins"]


def revisions(server):
    return {context["key"]: context["rev"] for context in server.found("kind equals user")}


def stale(server, ledgers):
    """Contexts whose state in the index is none of those that may be the newest."""
    found = revisions(server)
    expected = {
        key: revisions for ledger in ledgers for key, revisions in ledger.possible.items() if key in ledger.newest
    }
    return {
        key: (found.get(key), sorted(allowed)) for key, allowed in expected.items() if found.get(key) not in allowed
    }


def assert_newest_state(server, ledgers, deadline=60):
    wait_equal(lambda: stale(server, ledgers), {}, deadline, "contexts with an old state")
