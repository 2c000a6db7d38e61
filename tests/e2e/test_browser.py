"""What browsers need: CORS on every answer, preflights of any header, and the pixel in its three places.

Sections 1.1 and 3 of the event protocol, items 14.5 and 14.6.
"""

import base64
import json

import pytest
from harness import payloads
from harness.config import RECORDED
from harness.waiting import wait_equal

ID = RECORDED.client_side_id
ORIGIN = "http://shop.example:8080"
BROWSER_PATHS = [f"/events/bulk/{ID}", f"/events/diagnostic/{ID}"]
PIXELS = [f"/a/{ID}.gif", f"/events/bulk/{ID}/a/{ID}.gif", f"/events/diagnostic/{ID}/a/{ID}.gif"]
GIF = (b"GIF87a", b"GIF89a")


def preflight(server, path, asked, method="POST"):
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": asked}
    return server.send("OPTIONS", path, headers=headers)


def has_cors(answer, origin=ORIGIN):
    assert answer.headers["access-control-allow-origin"] == origin, answer
    exposed = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
    assert "date" in exposed and "date" in answer.headers
    assert answer.headers.get("access-control-allow-credentials", "false") == "false"


@pytest.mark.parametrize("path", [*BROWSER_PATHS, "/events/bulk/ffffffffffffffffffffffff"])
def test_preflight_passes_with_an_unheard_of_header(server, path):
    answer = preflight(server, path, "content-type,x-launchdarkly-event-schema,x-page-trace-77")
    assert answer.status in (200, 204) and answer.body == b""
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    allowed = {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}
    assert {
        "content-type",
        "x-launchdarkly-event-schema",
        "x-launchdarkly-payload-id",
        "authorization",
        "x-page-trace-77",
    } <= allowed
    assert {"POST", "OPTIONS"} <= {name.strip() for name in answer.headers["access-control-allow-methods"].split(",")}
    assert answer.headers["access-control-max-age"] == "300"
    assert "origin" in answer.headers["vary"].lower()


@pytest.mark.parametrize("path", [*PIXELS, f"/sdk/goals/{ID}"])
def test_preflight_of_a_get_path(server, path):
    answer = preflight(server, path, "x-launchdarkly-user-agent", "GET")
    assert answer.status in (200, 204)
    assert "GET" in [name.strip() for name in answer.headers["access-control-allow-methods"].split(",")]


@pytest.mark.parametrize(
    "path, method, body, status",
    [
        (BROWSER_PATHS[0], "POST", b"[]", 202),
        (BROWSER_PATHS[0], "POST", b"[", 400),
        (BROWSER_PATHS[0], "PUT", b"", 405),
        (BROWSER_PATHS[1], "POST", b"{}", 202),
        ("/events/bulk/ffffffffffffffffffffffff", "POST", b"[]", 404),
        (f"/sdk/goals/{ID}", "GET", None, 200),
    ],
)
def test_every_answer_has_cors(server, path, method, body, status):
    answer = server.send(method, path, body, {"Origin": ORIGIN})
    assert answer.status == status
    has_cors(answer)


def test_without_an_origin_everyone_is_allowed(server):
    has_cors(server.post(BROWSER_PATHS[0], b"[]"), "*")


ALPHABETS = {
    "URL-safe": lambda text: base64.urlsafe_b64encode(text).rstrip(b"="),
    "URL-safe, padded": base64.urlsafe_b64encode,
    "standard": lambda text: base64.b64encode(text).rstrip(b"="),
    "standard, padded": base64.b64encode,
    "standard, escaped": lambda text: (
        base64.b64encode(text).replace(b"+", b"%2B").replace(b"/", b"%2F").replace(b"=", b"%3D")
    ),
}


def is_pixel(answer):
    assert answer.status == 200 and answer.headers["content-type"] == "image/gif"
    assert answer.body[:6] in GIF and answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", PIXELS)
@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_pixel_is_answered_and_stored(server, path, alphabet):
    key = payloads.unique("pixel") + "?~ÿ>>>???"  # gives both of the characters in which the alphabets differ
    text = json.dumps([payloads.custom(key, url="http://shop.example/?a=1")], ensure_ascii=False).encode()
    is_pixel(server.get(f"{path}?d={ALPHABETS[alphabet](text).decode()}"))
    wait_equal(
        lambda: server.events("source, url, payload_id", f"event_key = '{key}'"),
        [{"source": "pixel", "url": "http://shop.example/?a=1", "payload_id": None}],
    )


def test_pixel_with_a_diagnostic(server):
    marker = payloads.unique("pixel")
    text = json.dumps(payloads.diagnostic("diagnostic-combined", marker=marker)).encode()
    is_pixel(server.get(f"{PIXELS[2]}?d={ALPHABETS['URL-safe'](text).decode()}"))
    wait_equal(
        lambda: server.events("kind", f"json_extract_string(data, '$.marker') = '{marker}'"),
        [{"kind": "diagnostic-combined"}],
    )


@pytest.mark.parametrize("query", ["", "?d=", "?d=%00", "?d=!!!!", "?d=aGVsbG8", "?e=1"])
@pytest.mark.parametrize("path", PIXELS)
def test_pixel_answers_garbage_with_the_image(server, path, query):
    is_pixel(server.get(path + query))


def test_pixel_of_64_kib(server):
    key = payloads.unique("wide")
    text = json.dumps([payloads.custom(key, data="x" * 47_000)]).encode()
    is_pixel(server.get(f"{PIXELS[0]}?d={ALPHABETS['URL-safe'](text).decode()}"))
    wait_equal(lambda: server.events("length(data) as n", f"event_key = '{key}'"), [{"n": 47_002}])


def test_pixel_of_today_is_not_summarised(server):
    flag = payloads.unique("pixel-flag")
    event = {
        "kind": "feature",
        "creationDate": payloads.now_ms(),
        "key": flag,
        "userKey": "u1",
        "value": True,
        "version": 3,
        "variation": 0,
    }
    is_pixel(server.get(f"{PIXELS[1]}?d={ALPHABETS['URL-safe'](json.dumps([event]).encode()).decode()}"))
    wait_equal(lambda: server.events("kind", f"flag_key = '{flag}'"), [{"kind": "feature"}])
