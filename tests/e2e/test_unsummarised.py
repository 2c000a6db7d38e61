"""Payloads that their sender did not summarise yield what a newer SDK would have sent.

Section 8 of the event protocol, item 14.7: PHP by schema 2 and by `X-LaunchDarkly-Unsummarized`, oldest SDKs by their shape.
"""

import pytest
from harness import payloads
from harness.payloads import now_ms
from harness.waiting import wait_equal

USER = {"kind": "user", "key": "u1", "plan": "pro"}
DATE = 1760000000000
LATER = 4_000_000_000_000
OLD_STYLE = [
    {
        "kind": "feature",
        "creationDate": DATE,
        "key": "a",
        "context": USER,
        "variation": 1,
        "version": 7,
        "value": "x",
        "default": "d",
    },
    {
        "kind": "feature",
        "creationDate": DATE + 5,
        "key": "a",
        "context": USER,
        "variation": 1,
        "version": 7,
        "value": "x",
        "default": "d",
        "trackEvents": True,
    },
    {
        "kind": "feature",
        "creationDate": DATE + 9,
        "key": "a",
        "context": USER,
        "variation": 0,
        "version": 7,
        "value": "y",
        "default": "d",
    },
    {"kind": "feature", "creationDate": DATE + 2, "key": "gone", "context": USER, "value": "d", "default": "d"},
    {
        "kind": "feature",
        "creationDate": DATE + 3,
        "key": "b",
        "context": USER,
        "variation": 0,
        "version": 1,
        "value": 1,
        "debugEventsUntilDate": LATER,
    },
    {
        "kind": "feature",
        "creationDate": DATE + 4,
        "key": "c",
        "context": USER,
        "variation": 0,
        "version": 1,
        "value": 1,
        "excludeFromSummaries": True,
    },
    {"kind": "custom", "creationDate": DATE + 6, "key": "bought", "context": USER},
]
EXPECTED_COUNTERS = {("a", 1, 7, '"x"', 2), ("a", 0, 7, '"y"', 1), ("gone", None, None, '"d"', 1), ("b", 0, 1, "1", 1)}


@pytest.mark.parametrize(
    "headers",
    [{"X-LaunchDarkly-Event-Schema": "2"}, {"X-LaunchDarkly-Unsummarized": "x"}],
    ids=["schema 2", "unsummarized"],
)
def test_unsummarised_payload_is_summarised(server, headers):
    payload = payloads.payload_id()
    user = {**USER, "key": payloads.unique("php")}
    events = [{**event, "context": user} for event in OLD_STYLE]
    given = {
        "Authorization": server.sdk_key,
        "User-Agent": "PHPClient/6.4.0",
        "X-LaunchDarkly-Event-Schema": "4",
        "X-LaunchDarkly-Payload-ID": payload,
    }
    assert server.post("/bulk", events, {**given, **headers}).status == 202
    columns = "kind, flag_key, event_key, variation, version, value, count, unknown, epoch_ms(started_at) as s, epoch_ms(ended_at) as e"
    rows = server.landed(payload, columns, 8)
    counters = [row for row in rows if row["kind"] == "summary"]
    assert {
        (r["flag_key"], r["variation"], r["version"], r["value"], r["count"]) for r in counters
    } == EXPECTED_COUNTERS
    assert [r["flag_key"] for r in counters if r["unknown"]] == ["gone"]
    assert {(r["s"], r["e"]) for r in counters} == {(DATE, DATE + 9)}
    others = sorted((r["kind"], r["flag_key"] or r["event_key"]) for r in rows if r["kind"] != "summary")
    assert others == [("custom", "bought"), ("debug", "b"), ("feature", "a"), ("index", None)]


def test_features_with_a_schema_of_today_are_taken_as_they_are(server):
    payload = payloads.payload_id()
    assert server.bulk([payloads.feature("plain", USER, variation=1, version=1, value=1)], payload).status == 202
    rows = server.landed(payload, "kind", 1)
    assert [row["kind"] for row in rows] == ["feature"]


def test_users_without_any_header_are_summarised(server):
    flag = payloads.unique("oldest")
    event = {
        "kind": "feature",
        "creationDate": now_ms(),
        "key": flag,
        "user": {"key": "u1"},
        "value": True,
        "version": 3,
    }
    assert server.post("/bulk", [event, event], {"Authorization": server.sdk_key}).status == 202
    wait_equal(
        lambda: server.events("kind, count, version", f"flag_key = '{flag}'"),
        [{"kind": "summary", "count": 2, "version": 3}],
    )
