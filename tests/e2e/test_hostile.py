"""Hostile input: the answers of the spec, in bounded memory and time, without a panic, and nothing acknowledged is hurt.

The list "Bad input" of the design: depth, one giant string, millions of empty objects, bombs, truncated and mislabelled
bodies, 100,000 headers, NUL, invalid UTF-8 at each position, duplicate keys, endless numbers, and filter text of all kinds.
Each case reports its peak of resident memory and its time.
"""

import gzip
import json
import random
import socket
import string
import time
import zlib

import pytest
import zstandard
from harness import payloads, wire
from harness.payloads import custom, server_headers
from harness.waiting import wait_equal, wait_until

MIB = 1 << 20
LIMIT = 32 * MIB
PEAK_BYTES_MAX = 1 << 30
SECONDS_MAX = 60
CONTEXT = b'"context":{"kind":"user","key":"u"}'


def event(field):
    return b'{"kind":"custom","key":"hostile","creationDate":1760000000000,' + CONTEXT + b"," + field + b"}"


def blanks(pack):
    """256 MiB of blanks through a packer: valid JSON as far as it goes, and far beyond the limit."""
    return b"".join([*(pack.compress(b" " * MIB) for _ in range(256)), pack.flush()])


def gzip_bomb():
    return blanks(zlib.compressobj(9, wbits=31))


def zstd_bomb():
    return blanks(zstandard.ZstdCompressor().compressobj())


# Name -> (body, headers, the statuses that the spec allows).
BODIES = {
    "depth 10,000 in one event": (
        lambda: b"[" + event(b'"data":' + b"[" * 10_000 + b"]" * 10_000) + b"]",
        {},
        {202, 400},
    ),
    "depth 10,000 of objects": (
        lambda: b"[" + event(b'"data":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000) + b"]",
        {},
        {202, 400},
    ),
    "[ repeated to the limit": (lambda: b"[" * (LIMIT - 1), {}, {400}),
    "[ repeated, closed": (lambda: b"[" * MIB + b"]" * MIB, {}, {202, 400}),
    "{ repeated": (lambda: b'{"a":' * MIB, {}, {400}),
    "one string of 32 MiB": (lambda: b'["' + b"x" * (LIMIT - 4) + b'"]', {}, {202}),
    "a value of 31 MiB": (lambda: b"[" + event(b'"data":"' + b"y" * (31 * MIB) + b'"') + b"]", {}, {202}),
    "one byte over the limit": (lambda: b'["' + b"x" * (LIMIT - 3) + b'"]', {}, {400}),
    "64 MiB": (lambda: b" " * (2 * LIMIT), {}, {400}),
    "10 million empty objects": (lambda: b"[" + b"{}," * 9_999_999 + b"{}]", {}, {202, 400}),
    "10 million nulls in one event": (lambda: b"[" + event(b'"data":[' + b"0," * 9_999_999 + b"0]") + b"]", {}, {202}),
    "gzip bomb of 256 MiB": (gzip_bomb, {"Content-Encoding": "gzip"}, {400}),
    "gzip bomb of 16 GiB in 64 members": (lambda: gzip_bomb() * 64, {"Content-Encoding": "gzip"}, {400}),
    "zstd bomb of 256 MiB": (zstd_bomb, {"Content-Encoding": "zstd"}, {400}),
    "zstd bomb of 64 GiB in 256 frames": (lambda: zstd_bomb() * 256, {"Content-Encoding": "zstd"}, {400}),
    "gzip in gzip": (lambda: gzip.compress(gzip.compress(b"[]")), {"Content-Encoding": "gzip"}, {400}),
    "a million gzip members": (lambda: gzip.compress(b"") * 1_000_000, {"Content-Encoding": "gzip"}, {202, 400}),
    "NUL bytes": (lambda: b"\0" * MIB, {}, {400}),
    "NUL in a string": (lambda: b"[" + event(b'"data":"a\0b"') + b"]", {}, {202, 400}),
    "duplicate keys": (lambda: b"[" + event(b",".join(b'"data":%d' % n for n in range(200_000))) + b"]", {}, {202}),
    "200,000 different keys": (
        lambda: b"[" + event(b",".join(b'"k%d":1' % n for n in range(200_000))) + b"]",
        {},
        {202},
    ),
    "a number of 10,000 digits": (lambda: b"[" + event(b'"metricValue":' + b"9" * 10_000) + b"]", {}, {202}),
    "an exponent of 10,000 digits": (lambda: b"[" + event(b'"metricValue":1e' + b"9" * 10_000) + b"]", {}, {202}),
    "a key of 1 MiB": (lambda: b"[" + event(b'"' + b"k" * MIB + b'":1') + b"]", {}, {202}),
    "a context with 100,000 attributes": (lambda: many_attributes(100_000), {}, {202}),
    "a multi-context of 10,000 kinds": (lambda: many_kinds(10_000), {}, {202}),
    "a summary of 100,000 flags": (lambda: many_flags(100_000), {}, {202}),
}


def many_attributes(count):
    context = {"kind": "user", "key": "wide", **{f"a{number}": number for number in range(count)}}
    return json.dumps([payloads.identify(context)]).encode()


def many_kinds(count):
    return json.dumps(
        [payloads.identify({"kind": "multi", **{f"k{number}": {"key": "x"} for number in range(count)}})]
    ).encode()


def many_flags(count):
    features = {f"flag-{number}": {"counters": [{"value": 1, "count": 1}]} for number in range(count)}
    return json.dumps([{"kind": "summary", "startDate": 1, "endDate": 2, "features": features}]).encode()


@pytest.fixture(scope="module")
def victim(serve_module):
    """One server for all cases. What it must still hold at the end was acknowledged before the first of them."""
    server = serve_module()
    server.bulk([custom("acknowledged", data=number) for number in range(100)], "before")
    return server


def intact(server):
    key = payloads.unique("after")
    assert server.bulk([custom(key)], payloads.payload_id()).status == 202
    wait_equal(
        lambda: [row["event_key"] for row in server.events("event_key", f"event_key = '{key}'")], [key], SECONDS_MAX
    )
    wait_equal(lambda: len(server.events("data", "payload_id = 'before'")), 100)


def bounded(server, measured, name, attack):
    server.reset_peak_memory()
    began = time.monotonic()
    result = attack()
    seconds, peak = time.monotonic() - began, server.memory_bytes("VmHWM")
    measured(f"hostile, {name}", f"{result}, {seconds:.2f} s, peak {peak / MIB:.0f} MiB")
    assert server.process.poll() is None
    assert peak < PEAK_BYTES_MAX and seconds < SECONDS_MAX
    return result


@pytest.mark.parametrize("name", BODIES)
def test_hostile_body(victim, measured, name):
    make, headers, allowed = BODIES[name]
    body, headers = make(), {**server_headers(victim.environments[0]), **headers}
    status = bounded(victim, measured, name, lambda: victim.post("/bulk", body, headers).status)
    assert status in allowed
    intact(victim)


def head(server, *lines):
    return "\r\n".join([f"POST /bulk HTTP/1.1\r\nHost: x\r\nAuthorization: {server.sdk_key}", *lines, "", ""]).encode()


def test_100_000_headers(victim, measured):
    request = head(victim, "Content-Length: 2", *(f"X-H{number}: {number}" for number in range(100_000))) + b"[]"
    answered = bounded(
        victim, measured, "100,000 headers", lambda: wire.statuses(wire.raw(victim.address, request, half_close=True))
    )
    assert answered in ([], [400], [431])
    intact(victim)


def test_header_of_16_mib(victim, measured):
    request = head(victim, "Content-Length: 2", "X-Big: " + "x" * (16 * MIB)) + b"[]"
    answered = bounded(
        victim, measured, "header of 16 MiB", lambda: wire.statuses(wire.raw(victim.address, request, half_close=True))
    )
    assert answered in ([], [400], [431])
    intact(victim)


def test_body_shorter_than_its_length_is_not_stored(victim):
    key = payloads.unique("short")
    body = json.dumps([custom(key)]).encode()
    answered = wire.statuses(
        wire.raw(victim.address, head(victim, f"Content-Length: {len(body) + 1}") + body, half_close=True)
    )
    assert answered in ([], [400])
    intact(victim)
    assert victim.events("event_key", f"event_key = '{key}'") == []


def test_body_longer_than_its_length_is_cut_there(victim):
    key = payloads.unique("surplus")
    body = json.dumps([custom(key)]).encode()
    answered = wire.statuses(
        wire.raw(
            victim.address,
            head(victim, f"Content-Length: {len(body)}") + body + b"\x01 surplus\r\n\r\n",
            half_close=True,
        )
    )
    assert answered in ([202], [202, 400])
    wait_equal(lambda: len(victim.events("event_key", f"event_key = '{key}'")), 1)


@pytest.mark.parametrize(
    "line",
    [
        "Content-Length: -1",
        "Content-Length: 1e3",
        "Content-Length: 2\r\nContent-Length: 3",
        "Transfer-Encoding: chunked, gzip",
    ],
)
def test_wrong_framing_is_refused(victim, line):
    answered = wire.statuses(wire.raw(victim.address, head(victim, line) + b"[]", half_close=True))
    assert answered in ([], [400], [501])
    intact(victim)


def test_broken_chunk_is_refused(victim):
    answered = wire.statuses(
        wire.raw(victim.address, head(victim, "Transfer-Encoding: chunked") + b"2\r\n[]\r\nzz\r\n", half_close=True)
    )
    assert answered in ([], [400])
    intact(victim)


@pytest.mark.parametrize(
    "request_line",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"GET",
        b"\0\0\0\0",
        b"POST /bulk HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ],
)
def test_no_http_at_all(victim, request_line):
    assert set(wire.statuses(wire.raw(victim.address, request_line, half_close=True))) <= {400, 505}
    intact(victim)


def test_invalid_utf8_at_each_position(victim):
    """A bad byte inside a text costs nothing; outside of texts it is a fault of the body. The neighbours stay either way."""
    before, after = custom("before-utf8"), custom("after-utf8")
    middle = b'{"kind":"custom","key":"k\xc3\xa9y","creationDate":1760000000000,"context":{"kind":"user","key":"u"},"data":{"a":["x"]}}'
    body = json.dumps(before).encode() + b"," + middle + b"," + json.dumps(after).encode()
    start, stored = body.index(middle), 0
    connection = wire.Wire(victim.address)
    for position in range(len(middle)):
        spoilt = bytearray(body)
        spoilt[start + position] = 0xFF
        status = connection.send(
            "POST", "/bulk", b"[" + bytes(spoilt) + b"]", server_headers(victim.environments[0])
        ).status
        assert status in (202, 400), position
        stored += status == 202
    connection.close()
    assert stored > 50
    for key in ("before-utf8", "after-utf8"):
        wait_equal(lambda key=key: victim.lake.count("events", f"event_key = '{key}'"), stored)


def test_every_truncation_of_a_body(victim):
    body = json.dumps(
        [custom("cut"), payloads.feature("cut", value={"a": [1, "\u00e9"]}, variation=1, version=2)], ensure_ascii=False
    ).encode()
    connection = wire.Wire(victim.address)
    answers = [
        connection.send("POST", "/bulk", body[:end], server_headers(victim.environments[0])).status
        for end in range(len(body) + 1)
    ]
    connection.close()
    assert answers == [202] + [400] * (len(body) - 1) + [202]
    intact(victim)


def test_slow_bodies_do_not_hold_others_up(victim):
    """Two hundred connections that never finish their body: another client is served at once."""
    stuck = [socket.create_connection(victim.address) for _ in range(200)]
    for connection in stuck:
        connection.sendall(head(victim, "Content-Length: 1000000") + b"[")
    began = time.monotonic()
    assert victim.bulk([custom("beside")]).status == 202
    assert time.monotonic() - began < 5
    for connection in stuck:
        connection.close()
    intact(victim)


ALPHABET = string.ascii_letters + string.digits + string.punctuation + " \t\n\0é☃\U0001f600"
WORDS = [
    "kind",
    "equals",
    "anyOf",
    "exists",
    "q",
    "user.a",
    "(",
    ")",
    "|",
    ",",
    '"',
    "[",
    "{",
    "\\",
    "!",
    ":",
    "true",
    "null",
    "1e999",
    "-",
    "/a/b",
    "*.x",
    "before",
]


def filters(seed, count):
    chance = random.Random(seed)
    for _ in range(count):
        if chance.random() < 0.5:
            yield "".join(chance.choices(ALPHABET, k=chance.randrange(60)))
        else:
            yield " ".join(chance.choices(WORDS, k=chance.randrange(12)))


def test_filter_text_of_all_kinds(victim):
    giants = [
        "(" * 9000,
        "a" * 9000,
        "kind equals " + "[" * 4000,
        ",".join(["kind equals a"] * 500),
        '"' * 8000,
        "kind anyOf " + json.dumps(list(range(2000))),
    ]
    for text in [*filters(20261122, 1500), *giants]:
        answer = victim.api("POST", f"/v2/{victim.environments[0].path}/contexts/search", {"filter": text})
        assert answer.status in (200, 400), (text, answer)
        assert answer.status == 200 or answer.json()["message"]


def test_memory_comes_back(victim, measured):
    """After all of the above the server is as small as one that has merely worked."""
    resident = wait_until(lambda: (now := victim.memory_bytes()) < 600 * MIB and now, 60, "a small resident size")
    measured("hostile, resident memory afterwards", f"{resident / MIB:.0f} MiB")


def test_stops_cleanly_afterwards(victim):
    intact(victim)
    victim.restart()
    intact(victim)
