"""What requests are answered: credentials, faulty bodies, wrong methods, repeated payload ids.

Sections 2 and 9 of the event protocol with section 8 of the design, and item 14.3. Every answer carries a true `Date`; no
answer of an SDK path is 413, 415 or 3xx, as those silence SDKs.
"""

import email.utils
import gzip
import json
import threading
import time

import pytest
from harness import payloads
from harness.config import OTHER, RECORDED, Environment
from harness.payloads import custom, server_headers
from harness.waiting import wait_equal

UNKNOWN = Environment.numbered("default", "nowhere", 0xFFF)
EVENTS = [custom("answers")]


def post(server, path, body, headers):
    answer = server.post(path, body, headers)
    age = time.time() - email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp()
    assert -2 < age < 5, answer.headers["date"]
    assert answer.status not in (413, 415) and not 300 <= answer.status < 400
    return answer


def refused(answer, status):
    assert answer.status == status, answer
    fault = answer.json()
    assert fault["code"] and fault["message"]
    return fault


# Credentials.


@pytest.mark.parametrize(
    "path", ["/bulk", "/diagnostic", "/mobile", "/mobile/events", "/mobile/events/bulk", "/mobile/events/diagnostic"]
)
@pytest.mark.parametrize(
    "credential", ["", UNKNOWN.sdk_key, UNKNOWN.mobile_key, RECORDED.client_side_id, "Basic abc", "two words"]
)
def test_unknown_credential_is_unauthorized(server, path, credential):
    headers = {"Authorization": credential} if credential else {}
    refused(post(server, path, EVENTS, headers), 401)


@pytest.mark.parametrize(
    "path, key",
    [("/bulk", RECORDED.mobile_key), ("/mobile", RECORDED.sdk_key), ("/mobile/events/bulk", RECORDED.sdk_key)],
)
def test_credential_is_valid_on_its_own_paths_only(server, path, key):
    refused(post(server, path, EVENTS, {"Authorization": key}), 401)


@pytest.mark.parametrize("kind", ["bulk", "diagnostic"])
def test_unknown_client_side_id_is_not_found_with_cors(server, kind):
    answer = post(server, f"/events/{kind}/{UNKNOWN.client_side_id}", EVENTS, {"Origin": "http://shop.example"})
    refused(answer, 404)
    assert answer.headers["access-control-allow-origin"] == "http://shop.example"


def test_browser_path_ignores_authorization(server):
    for value in (RECORDED.client_side_id, "nonsense"):
        assert post(server, f"/events/bulk/{RECORDED.client_side_id}", EVENTS, {"Authorization": value}).status == 202


def test_import_needs_a_token_and_an_environment(server):
    path = "/v2/event-data-import/default/dev"
    assert post(server, path, EVENTS, {"Authorization": server.api_token}).status == 202
    refused(post(server, path, EVENTS, {"Authorization": "api-unknown"}), 401)
    refused(post(server, path, EVENTS, {}), 401)
    refused(post(server, "/v2/event-data-import/default/nowhere", EVENTS, {"Authorization": server.api_token}), 404)


# Bodies.


def test_accepted_answer_is_empty(server):
    answer = post(server, "/bulk", EVENTS, server_headers(RECORDED))
    assert (answer.status, answer.body) == (202, b"")


@pytest.mark.parametrize("body", [b"", b"[]", b" \n[ ]\n", b"{}"])
def test_harmless_body_is_accepted(server, body):
    assert post(server, "/bulk", body, server_headers(RECORDED)).status == 202


# Body, byte offset of the fault, reason of the dead letter.
BROKEN = {
    "unfinished array": (b'[{"kind":"custom"', 17, "invalid_json"),
    "text": (b'"events"', 0, "not_an_event"),
    "number": (b"12", 0, "not_an_event"),
    "null": (b"null", 0, "not_an_event"),
    "words": (b"hello there", 0, "invalid_json"),
    "two arrays": (b"[] []", 3, "invalid_json"),
    "NUL": (b"\x00\x00\x00", 0, "invalid_json"),
    "comma": (b'[{"kind":"custom"},,]', 19, "invalid_json"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_unreadable_json_is_refused_and_kept(server, name):
    body, offset, reason = BROKEN[name]
    payload = payloads.payload_id()
    headers = server_headers(RECORDED, X_LaunchDarkly_Payload_ID=payload)
    for _ in range(2):
        fault = refused(post(server, "/bulk", body, headers), 400)
        assert str(offset) in fault["message"], fault
    columns = "reason, body, payload_index, byte_offset"
    where = f"payload_id = '{payload}'"
    wait_equal(lambda: [bytes(row["body"]) for row in server.dead_letters(columns, where)], [body])
    letter = server.dead_letters(columns, where)[0]
    assert (letter["reason"], letter["payload_index"], letter["byte_offset"]) == (reason, None, offset)


ENCODINGS = {
    "not gzip": ("gzip", b"[]"),
    "truncated gzip": ("gzip", gzip.compress(json.dumps(EVENTS).encode())[:-9]),
    "gzip with a wrong checksum": ("gzip", gzip.compress(json.dumps(EVENTS).encode())[:-8] + b"\0" * 8),
    "truncated zstd": ("zstd", payloads.zstd(json.dumps(EVENTS).encode())[:-4]),
    "unknown encoding": ("br", b"[]"),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_unreadable_encoding_is_refused(server, name):
    encoding, body = ENCODINGS[name]
    refused(post(server, "/bulk", body, server_headers(RECORDED, Content_Encoding=encoding)), 400)


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[1,2]", b'{"kind":5}', b"\xff"])
def test_diagnostic_of_a_known_key_is_always_accepted(server, body):
    assert post(server, "/diagnostic", body, {"Authorization": RECORDED.sdk_key}).status == 202
    assert post(server, f"/events/diagnostic/{RECORDED.client_side_id}", body, {}).status == 202


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    "path", ["/bulk", "/mobile", "/mobile/events/bulk", "/diagnostic", f"/events/bulk/{RECORDED.client_side_id}"]
)
def test_wrong_method_says_what_is_allowed(server, method, path):
    answer = server.send(method, path, b"" if method != "GET" else None, {"Authorization": RECORDED.sdk_key})
    assert answer.status == 405
    assert "POST" in [name.strip() for name in answer.headers["allow"].split(",")]


def test_large_body_up_to_the_limit_is_stored(server):
    key = payloads.unique("large")
    events = [custom(key, data="x" * 300) for _ in range(40_000)]
    body = json.dumps(events).encode()
    assert 15 << 20 < len(body) < 32 << 20
    assert post(server, "/bulk", body, server_headers(RECORDED)).status == 202
    wait_equal(
        lambda: server.lake.has_rows("events") and server.lake.count("events", f"event_key = '{key}'"), len(events), 60
    )


# Repeated payloads.


def stored(server, key):
    return [row["payload_id"] for row in server.events("payload_id", f"event_key = '{key}'")]


def settle(server):
    """Waits until events sent now are in the table, and with them everything that was answered before.

    Several, since payloads go to the partitions of the log by their id.
    """
    keys = {payloads.unique("settled") for _ in range(16)}
    for key in keys:
        assert server.bulk([custom(key)], payloads.payload_id()).status == 202
    wait_equal(lambda: {row["event_key"] for row in server.events("event_key", "true")} >= keys, True)


def test_repeated_payload_is_stored_once(server):
    key, payload = payloads.unique("twice"), payloads.payload_id()
    assert [server.bulk([custom(key)], payload).status for _ in range(3)] == [202] * 3
    settle(server)
    assert stored(server, key) == [payload]


def test_payload_repeated_at_once_is_stored_once(server):
    key, payload = payloads.unique("race"), payloads.payload_id()
    barrier, answers = threading.Barrier(8), []

    def sender():
        barrier.wait()
        answers.append(server.bulk([custom(key)], payload).status)

    threads = [threading.Thread(target=sender) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [202] * 8
    settle(server)
    assert stored(server, key) == [payload]


def test_payload_repeated_after_a_crash_is_stored_once(serve):
    server = serve()
    server.expect_log("(?i)recover|unclean|crash|torn")
    key, payload = payloads.unique("crash"), payloads.payload_id()
    assert server.bulk([custom(key)], payload).status == 202
    server.kill9()
    server.start()
    assert server.bulk([custom(key)], payload).status == 202
    settle(server)
    assert stored(server, key) == [payload]


def test_same_id_in_another_environment_is_another_payload(server):
    key, payload = payloads.unique("both"), payloads.payload_id()
    for environment in (RECORDED, OTHER):
        assert server.bulk([custom(key)], payload, environment).status == 202
    wait_equal(lambda: stored(server, key), [payload] * 2)


@pytest.mark.parametrize("payload", [None, "x" * 129, "tab\there"], ids=["none", "too long", "not printable"])
def test_payload_without_a_usable_id_is_stored_each_time(server, payload):
    key = payloads.unique("idless")
    assert [server.bulk([custom(key)], payload).status for _ in range(2)] == [202] * 2
    wait_equal(lambda: stored(server, key), [None] * 2)


def test_id_of_128_bytes_counts(server):
    key, payload = payloads.unique("long"), "y" * 110 + payloads.unique("z")
    assert len(payload) <= 128
    assert [server.bulk([custom(key)], payload).status for _ in range(2)] == [202] * 2
    settle(server)
    assert stored(server, key) == [payload]
