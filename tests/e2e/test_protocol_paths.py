"""Each event path takes every form that its senders use, and each request lands in the table exactly once.

Section 14.1 of the event protocol: plain, gzip (one member and two), zstd, chunked, `Expect`, trailing slash, `api_key `
and `Bearer ` before the credential, over HTTP/1.1 and cleartext HTTP/2; with and without a configured path prefix.
"""

import gzip
import json
import socket
from dataclasses import dataclass

import pytest
from harness import payloads, wire
from harness.config import RECORDED
from harness.waiting import wait_equal

SOURCES = {
    "/bulk": "server",
    "/mobile": "mobile",
    "/mobile/events": "mobile",
    "/mobile/events/bulk": "mobile",
    f"/events/bulk/{RECORDED.client_side_id}": "browser",
}
DIAGNOSTICS = {
    "/diagnostic": "server",
    "/mobile/events/diagnostic": "mobile",
    f"/events/diagnostic/{RECORDED.client_side_id}": "browser",
}
PREFIX = "/relay/ld"


def credential(source):
    return {
        "server": {"Authorization": RECORDED.sdk_key},
        "mobile": {"Authorization": RECORDED.mobile_key},
        "browser": {},
    }[source]


def with_scheme(headers, scheme):
    return {**headers, **({"Authorization": scheme + headers["Authorization"]} if "Authorization" in headers else {})}


def expecting(address, path, body, headers):
    """Sends the head with `Expect: 100-continue`, and the body only once the server has asked for it."""
    head = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Length: {len(body)}",
        "Expect: 100-continue",
        "Connection: close",
    ]
    head += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection(address, timeout=wire.TIMEOUT_SECONDS) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        assert wire.statuses(wire.read_head(connection)) == [100]
        connection.sendall(body)
        return wire.statuses(wire.read_head(connection))[0]


def packed(encoding, pack):
    def post(address, path, body, headers):
        return wire.send(address, "POST", path, pack(body), {**headers, "Content-Encoding": encoding}).status

    return post


def plain(address, path, body, headers):
    return wire.send(address, "POST", path, body, headers).status


FORMS = {
    "plain": plain,
    "gzip": packed("gzip", gzip.compress),
    "gzip in capitals": packed("GZIP", gzip.compress),
    "gzip of two members": packed("gzip", payloads.gzip_members),
    "zstd": packed("zstd", payloads.zstd),
    "identity": packed("identity", bytes),
    "chunked": lambda *given: wire.send(given[0], "POST", *given[1:], chunked=True).status,
    "chunked gzip": lambda a, p, b, h: (
        wire.send(a, "POST", p, gzip.compress(b), {**h, "Content-Encoding": "gzip"}, chunked=True).status
    ),
    "expect": expecting,
    "trailing slash": lambda a, p, b, h: plain(a, p + "/", b, h),
    "unknown query": lambda a, p, b, h: plain(a, p + "?filter=x&y", b, h),
    "api_key": lambda a, p, b, h: plain(a, p, b, with_scheme(h, "api_key ")),
    "bearer": lambda a, p, b, h: plain(a, p, b, with_scheme(h, "Bearer ")),
    "odd header case": lambda a, p, b, h: plain(a, p, b, {name.swapcase(): value for name, value in h.items()}),
    "no content type": lambda a, p, b, h: plain(a, p, b, {n: v for n, v in h.items() if n != "Content-Type"}),
    "charset": lambda a, p, b, h: plain(a, p, b, {**h, "Content-Type": "application/json; charset=utf-8"}),
    "http2": lambda a, p, b, h: wire.send_h2(a, "POST", p, b, h).status,
    "prefix": lambda a, p, b, h: plain(a, PREFIX + p, b, h),
}
CASES = [(path, form) for path in SOURCES for form in FORMS]


@dataclass(frozen=True)
class Sent:
    """What a request was answered, and the key of the one event in it."""

    status: int
    key: str


def post_event(address, path, form):
    key = payloads.unique("form")
    body = json.dumps([payloads.custom(key, data={"form": form})]).encode()
    headers = {**credential(SOURCES[path]), "Content-Type": "application/json", "X-LaunchDarkly-Event-Schema": "4"}
    headers["X-LaunchDarkly-Payload-ID"] = payloads.payload_id()
    return Sent(FORMS[form](address, path, body, headers), key)


@pytest.fixture(scope="module")
def prefixed(serve_module):
    return serve_module(settings={"ingest": {"path_prefix": PREFIX}})


@pytest.fixture(scope="module")
def sent(prefixed):
    return {case: post_event(prefixed.address, *case) for case in CASES}


@pytest.fixture(scope="module")
def landed(prefixed, sent):
    """Key of each event in the table -> its source, one entry for each row."""

    def read():
        rows = prefixed.events("event_key, source", "starts_with(event_key, 'form-')")
        return sorted((row["event_key"], row["source"]) for row in rows)

    expected = sorted((one.key, SOURCES[path]) for (path, _), one in sent.items())
    wait_equal(read, expected)
    return read()


@pytest.mark.parametrize("path, form", CASES)
def test_form_is_accepted(sent, path, form):
    assert sent[path, form].status == 202


def test_every_form_is_stored_exactly_once(sent, landed):
    assert len(landed) == len(sent)


@pytest.mark.parametrize("form", ["plain", "gzip", "chunked", "trailing slash", "prefix", "http2"])
def test_diagnostics_are_accepted_on_their_paths(prefixed, form):
    for path, source in DIAGNOSTICS.items():
        body = json.dumps(payloads.diagnostic(marker=form)).encode()
        assert FORMS[form](prefixed.address, path, body, credential(source)) == 202
    where = f"kind = 'diagnostic-init' and json_extract_string(data, '$.marker') = '{form}'"
    wait_equal(lambda: sorted(row["source"] for row in prefixed.events("source", where)), sorted(DIAGNOSTICS.values()))


def test_import_takes_custom_events(server):
    key = payloads.unique("import")
    path = f"/v2/event-data-import/{server.project}/{server.environment}"
    event = {
        "kind": "custom",
        "key": key,
        "creationDate": payloads.now_ms(),
        "metricValue": 1.5,
        "contextKeys": {"user": "u1"},
    }
    headers = {"Content-Type": "application/json", "X-LaunchDarkly-Event-Schema": "4"}
    answer = server.post(path, [event], {**headers, "Authorization": server.api_token})
    assert answer.status == 202 and answer.body == b""
    wait_equal(
        lambda: server.events("source, metric_value, context_key", f"event_key = '{key}'"),
        [{"source": "import", "metric_value": 1.5, "context_key": "u1"}],
    )
    assert server.post(path, [event], {**headers, "Authorization": server.sdk_key}).status == 401


def test_goals_are_an_empty_list(server):
    answer = server.get(f"/sdk/goals/{server.client_side_id}")
    assert (answer.status, answer.json()) == (200, [])


def test_headers_become_columns(server):
    key = payloads.unique("headers")
    headers = payloads.server_headers(
        server.environments[0],
        User_Agent="PythonClient/9.17.0",
        X_LaunchDarkly_Tags="application-id/checkout-web application-version/2026.11.3-rc.1",
        X_LaunchDarkly_Wrapper="flask/1.2",
        X_LaunchDarkly_Instance_Id="4a38dece-7190-40e1-8841-df837609c296",
        X_LaunchDarkly_Payload_ID="headers-1",
    )
    assert server.post("/bulk", [payloads.custom(key)], headers).status == 202
    columns = "sdk, sdk_version, wrapper, instance_id, application_id, application_version, schema_version, payload_id, payload_index, project, environment"
    expected = {
        "sdk": "PythonClient",
        "sdk_version": "9.17.0",
        "wrapper": "flask/1.2",
        "instance_id": "4a38dece-7190-40e1-8841-df837609c296",
        "application_id": "checkout-web",
        "application_version": "2026.11.3-rc.1",
        "schema_version": 4,
        "payload_id": "headers-1",
        "payload_index": 0,
        "project": "default",
        "environment": "dev",
    }
    wait_equal(lambda: server.events(columns, f"event_key = '{key}'"), [expected])


def test_the_browsers_own_agent_header_wins(server):
    key = payloads.unique("agent")
    headers = {
        "User-Agent": "Mozilla/5.0 (X11)",
        "X-LaunchDarkly-User-Agent": "JSClient/4.10.3",
        "Content-Type": "application/json",
    }
    assert server.post(f"/events/bulk/{server.client_side_id}", [payloads.custom(key)], headers).status == 202
    wait_equal(
        lambda: server.events("sdk, sdk_version", f"event_key = '{key}'"),
        [{"sdk": "JSClient", "sdk_version": "4.10.3"}],
    )
