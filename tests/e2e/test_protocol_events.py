"""What becomes of each event: its columns, its unknown parts, what strict JSON refuses, and misrouted diagnostics.

Section 14.2 and 14.4 of the event protocol.
"""

import json

import pytest
from harness import payloads
from harness.payloads import server_headers
from harness.waiting import wait_equal, wait_until

USER = {"kind": "user", "key": "u1", "plan": "pro"}
MULTI = {"kind": "multi", "user": {"key": "u:1"}, "org": {"key": "acme", "tier": 3}}
DATE = 1760000000000

# One of each kind of section 7, `kind` last, every optional field null where null may stand.
NULLS = {
    "variation": None,
    "version": None,
    "reason": None,
    "prereqOf": None,
    "samplingRatio": None,
    "value": None,
    "default": None,
}
EVERY_KIND = [
    {"creationDate": DATE, "key": "f", "context": USER, **NULLS, "kind": "feature"},
    {"creationDate": DATE, "key": "f", "context": USER, **NULLS, "kind": "debug"},
    {"creationDate": DATE, "context": USER, "kind": "index"},
    {"creationDate": DATE, "context": MULTI, "key": None, "samplingRatio": None, "kind": "identify"},
    {
        "creationDate": DATE,
        "key": "c",
        "contextKeys": {"user": "u1"},
        "data": None,
        "metricValue": None,
        "url": None,
        "kind": "custom",
    },
    {
        "creationDate": DATE,
        "key": "g",
        "url": "http://a/",
        "selector": ".x",
        "userKey": "u1",
        "data": None,
        "kind": "click",
    },
    {"creationDate": DATE, "key": "g", "url": "http://a/", "user": {"key": "u1"}, "kind": "pageview"},
    {"creationDate": DATE, "key": "g", "url": "http://a/", "contextKeys": {"user": "u1"}, "kind": "click_pageview"},
    {
        "startDate": DATE,
        "endDate": DATE + 1,
        "features": {
            "f": {
                "default": None,
                "contextKinds": None,
                "counters": [{"value": None, "variation": None, "version": None, "unknown": None, "count": 2}],
            }
        },
        "kind": "summary",
    },
    {
        "creationDate": DATE,
        "operation": "read",
        "context": USER,
        "samplingRatio": None,
        "measurements": None,
        "evaluation": {
            "key": "m",
            "value": "live",
            "default": "off",
            "variation": None,
            "version": None,
            "reason": None,
        },
        "kind": "migration_op",
    },
    {
        "creationDate": DATE,
        "key": "u1",
        "contextKind": "user",
        "previousKey": "a1",
        "previousContextKind": "anonymousUser",
        "kind": "alias",
    },
    {
        "relayId": "r",
        "startDate": DATE,
        "endDate": DATE,
        "connections": [],
        "newConnections": [],
        "kind": "relayMetrics",
    },
    {"relayId": "r", "startDate": DATE, "endDate": DATE, "pollingCounts": [], "kind": "relayUsage"},
    {"creationDate": DATE, "zoo": [1, {"a": None}], "kind": "some-future-kind"},
]


def dead(server, payload, letters, columns="payload_index, reason"):
    return wait_until(
        lambda: (
            (found := server.dead_letters(columns, f"payload_id = '{payload}'")) and len(found) >= letters and found
        ),
        what=f"{letters} dead letters of payload {payload}",
    )


def row_of(server, events, columns, raw=None):
    """Posts one event (or the text `raw`) and returns the wanted columns of its only row."""
    payload = payloads.payload_id()
    assert server.bulk(raw or [events], payload).status == 202
    rows = server.landed(payload, columns, 1)
    assert len(rows) == 1
    return rows[0]


def test_every_kind_is_kept(server):
    payload = payloads.payload_id()
    assert server.bulk(EVERY_KIND, payload).status == 202
    rows = server.landed(payload, "kind, payload_index, extra, created_at", len(EVERY_KIND))
    by_index = {row["payload_index"]: row for row in rows}
    assert [by_index[index]["kind"] for index in range(len(EVERY_KIND) - 1)] == [
        event["kind"] for event in EVERY_KIND[:-1]
    ]
    last = by_index[len(EVERY_KIND) - 1]
    assert last["kind"] == "other"
    assert json.loads(last["extra"]) == EVERY_KIND[-1]
    assert len(rows) == len(EVERY_KIND)
    assert server.dead_letters("id", f"payload_id = '{payload}'") == []


def test_unknown_fields_are_kept(server):
    row = row_of(server, payloads.custom("c", shape={"a": [1.50, None]}, colour="red"), "extra")
    assert json.loads(row["extra"]) == {"shape": {"a": [1.5, None]}, "colour": "red"}


LENIENT = {
    "NaN": ('"data":{"x":NaN}', '{"x":null}'),
    "Infinity": ('"data":[Infinity,-Infinity]', "[null,null]"),
    "lone surrogate": ('"data":"a\\ud800b"', '"a\ufffdb"'),
    "bad UTF-8": (b'"data":"a\xffb"', '"a\ufffdb"'),
}


@pytest.mark.parametrize("name", LENIENT)
def test_event_that_strict_json_refuses_is_reread(server, name):
    field, expected = LENIENT[name]
    head = b'[{"kind":"custom","creationDate":1760000000000,"key":"before","userKey":"u"},{"kind":"custom","creationDate":1760000000000,"userKey":"u",'
    tail = b',"key":"odd"},{"kind":"custom","creationDate":1760000000000,"key":"after","userKey":"u"}]'
    payload = payloads.payload_id()
    body = head + (field if isinstance(field, bytes) else field.encode()) + tail
    assert server.bulk(body, payload).status == 202
    rows = server.landed(payload, "event_key, data", 3)
    assert [row["event_key"] for row in rows] == ["before", "odd", "after"]
    assert json.loads(rows[1]["data"]) == json.loads(expected)


def test_integer_of_forty_digits(server):
    digits = "1234567890" * 4
    text = (
        f'[{{"kind":"custom","creationDate":{DATE},"key":"big","userKey":"u","data":{digits},"metricValue":{digits}}}]'
    )
    row = row_of(server, None, "data, metric_value", raw=text)
    assert row["metric_value"] == float(digits)
    assert float(row["data"]) == float(digits)


def test_bad_events_are_dead_lettered_singly(server):
    good = payloads.custom("good")
    nameless = {"kind": "feature", "creationDate": DATE, "context": USER, "value": 1}
    events = [good, 5, good, {"creationDate": DATE, "key": "no-kind"}, nameless, "text", None, [], good]
    payload = payloads.payload_id()
    assert server.bulk(events, payload).status == 202
    rows = server.landed(payload, "payload_index, event_key", 3)
    assert [row["payload_index"] for row in rows] == [0, 2, 8]
    letters = dead(server, payload, 6)
    assert sorted(letter["payload_index"] for letter in letters) == [1, 3, 4, 5, 6, 7]
    reasons = {letter["payload_index"]: letter["reason"] for letter in letters}
    assert reasons[1] == reasons[5] == reasons[6] == reasons[7] == "not_an_event"
    assert reasons[4] == "missing_field"


def test_dead_letter_holds_the_events_bytes(server):
    payload = payloads.payload_id()
    text = '[{"kind":"custom","key":"k","userKey":"u","creationDate":1}, {"kind":"feature", "no":"key\\u00e9"} ]'
    headers = server_headers(server.environments[0], X_LaunchDarkly_Payload_ID=payload, X_Trace="yes")
    assert server.post("/bulk", text, headers).status == 202
    columns = "id, reason, message, byte_offset, body, path, headers, project, environment, payload_index"
    letter = dead(server, payload, 1, columns)[0]
    assert bytes(letter["body"]) == b'{"kind":"feature", "no":"key\\u00e9"}'
    assert letter["byte_offset"] == text.index('{"kind":"feature"')
    assert letter["path"] == "/bulk" and letter["project"] == "default" and letter["environment"] == "dev"
    assert letter["id"] and letter["message"]
    assert "yes" in letter["headers"] and server.sdk_key not in letter["headers"]


def test_fields_of_a_feature_become_columns(server):
    reason = {"kind": "RULE_MATCH", "ruleIndex": 0, "ruleId": "r-7", "inExperiment": True}
    event = payloads.feature(
        "new-checkout", USER, variation=1, version=42.0, value="blue", default="grey", reason=reason
    )
    event |= {"prereqOf": "parent", "samplingRatio": 3, "excludeFromSummaries": True, "creationDate": 1760000000005.9}
    columns = (
        "kind, flag_key, context_kind, context_key, variation, version, value, default_value, reason, reason_kind, rule_index, rule_id, "
        "in_experiment, prerequisite_of, sampling_ratio, exclude_from_summaries, epoch_ms(created_at) as created, anonymous, context"
    )
    row = row_of(server, event, columns)
    assert json.loads(row.pop("reason")) == reason
    assert json.loads(row.pop("context")) == USER
    assert not row.pop("anonymous")
    assert row == {
        "kind": "feature",
        "flag_key": "new-checkout",
        "context_kind": "user",
        "context_key": "u1",
        "variation": 1,
        "version": 42,
        "value": '"blue"',
        "default_value": '"grey"',
        "reason_kind": "RULE_MATCH",
        "rule_index": 0,
        "rule_id": "r-7",
        "in_experiment": True,
        "prerequisite_of": "parent",
        "sampling_ratio": 3,
        "exclude_from_summaries": True,
        "created": 1760000000005,
    }


def test_multi_context_has_all_its_keys(server):
    row = row_of(server, payloads.custom("c", MULTI), "context_kind, context_key, context_keys")
    assert row == {
        "context_kind": "multi",
        "context_key": "org:acme:user:u%3A1",
        "context_keys": {"org": "acme", "user": "u:1"},
    }


def test_summary_is_one_row_for_each_counter(server):
    counters = [
        {"variation": 1, "version": 42, "value": "blue", "count": 318},
        {"version": 42, "value": "grey", "count": 2},
    ]
    features = {
        "new-checkout": {"default": "grey", "contextKinds": ["user", "org"], "counters": counters},
        "gone/\u00e9": {"default": False, "counters": [{"unknown": True, "value": False, "count": 7}]},
    }
    payload = payloads.payload_id()
    event = {"kind": "summary", "startDate": DATE, "endDate": DATE + 4000, "features": features}
    assert server.bulk([event], payload).status == 202
    columns = "flag_key, variation, version, value, default_value, count, unknown, context_kinds, epoch_ms(ended_at) - epoch_ms(started_at) as ms, payload_index"
    rows = server.landed(payload, columns, 3)
    assert {row["payload_index"] for row in rows} == {0} and {row["ms"] for row in rows} == {4000}
    assert {(r["flag_key"], r["variation"], r["version"], r["value"], r["count"]) for r in rows} == {
        ("new-checkout", 1, 42, '"blue"', 318),
        ("new-checkout", None, 42, '"grey"', 2),
        ("gone/\u00e9", None, None, "false", 7),
    }
    unknown = next(row for row in rows if row["flag_key"].startswith("gone"))
    assert unknown["unknown"] and unknown["context_kinds"] == ["user"] and unknown["default_value"] == "false"


def test_migration_op_becomes_columns(server):
    measurements = [
        {"key": "invoked", "values": {"old": True, "new": True}},
        {"key": "consistent", "value": False, "samplingRatio": 2},
        {"key": "latency_ms", "values": {"old": 1.5, "new": 2}},
        {"key": "error", "values": {"new": True}},
    ]
    evaluation = {
        "key": "m",
        "value": "live",
        "default": "off",
        "variation": 3,
        "version": 5,
        "reason": {"kind": "FALLTHROUGH"},
    }
    event = {
        "kind": "migration_op",
        "creationDate": DATE,
        "operation": "write",
        "context": USER,
        "evaluation": evaluation,
        "measurements": measurements,
    }
    columns = (
        "flag_key, operation, value, variation, version, reason_kind, invoked_old, invoked_new, consistent, consistent_sampling_ratio, "
        "latency_old_ms, latency_new_ms, error_new, coalesce(error_old, false) as error_old"
    )
    row = row_of(server, event, columns)
    assert (row["flag_key"], row["operation"], row["value"], row["variation"], row["version"]) == (
        "m",
        "write",
        '"live"',
        3,
        5,
    )
    assert (row["invoked_old"], row["invoked_new"], row["consistent"], row["consistent_sampling_ratio"]) == (
        True,
        True,
        False,
        2,
    )
    assert (row["latency_old_ms"], row["latency_new_ms"], row["error_new"], row["error_old"]) == (1.5, 2.0, True, False)


def test_legacy_user_becomes_a_context(server):
    user = {
        "key": "u9",
        "email": "a@b.example",
        "custom": {"plan": "gold", "email": "loses", "kind": "x"},
        "privateAttrs": ["ip", "/odd"],
        "secondary": "s",
    }
    row = row_of(server, {"kind": "index", "creationDate": DATE, "user": user}, "context_kind, context_key, context")
    context = json.loads(row["context"])
    assert (row["context_kind"], row["context_key"]) == ("user", "u9")
    assert context["email"] == "a@b.example" and context["plan"] == "gold" and context["kind"] == "user"
    assert sorted(context["_meta"]["redactedAttributes"]) == ["/~1odd", "ip"]
    assert "secondary" not in context


@pytest.mark.parametrize(
    "path, credential",
    [("/mobile", "mobile_key"), ("/bulk", "sdk_key"), ("/mobile/events/bulk", "mobile_key")],
    ids=["Flutter's diagnostic on /mobile", "a retried diagnostic on /bulk", "the same on the longest path"],
)
def test_diagnostic_on_an_analytics_path_is_one(server, path, credential):
    marker = payloads.unique("misrouted")
    answer = server.post(
        path,
        payloads.diagnostic("diagnostic", marker=marker, droppedEvents=3),
        {"Authorization": getattr(server, credential)},
    )
    assert answer.status == 202
    where = f"json_extract_string(data, '$.marker') = '{marker}'"
    wait_equal(lambda: server.events("kind", where), [{"kind": "diagnostic"}])
