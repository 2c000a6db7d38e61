"""Contexts and questions of hostile shape: an answer for each, in bounded memory and time, and none about another environment.

The list "Hostile shapes" of context search, at a size that a test can take. Each case reports its time and its peak of resident memory.
"""

import json
import threading
import time

import pytest
from harness import payloads
from harness.config import OTHER, RECORDED
from harness.waiting import wait_equal

MIB = 1 << 20
PEAK_BYTES_MAX = 1 << 30
SECONDS_MAX = 30

# Look-ups tell of the first hundred names of one context, its key among them.
NAMES, NAMES_EACH = 100_000, 50
VALUES = 50_000
LONG_VALUE = "v" * MIB
ODD = "/:%|\"+#\\,() \u202eשלום\u202c \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 "
LONG_KEYS = [(ODD * 40)[: 1000 - number] for number in range(20)]
MIXED = [1, "1", True, None, 1.5, [1, "1"], {"a": 1}, "true", -0.0, 10**20, "", []]
KIND_WITH_DOTS = "kind.with.dots"


def nested(depth):
    value = "bottom"
    for _ in range(depth):
        value = {"in": value}
    return value


def user(key, **attributes):
    return {"kind": "user", "key": key, **attributes}


def hostile_contexts():
    for first in range(0, NAMES, NAMES_EACH):
        yield user(f"wide-{first}", **{f"attribute-{number}": number for number in range(first, first + NAMES_EACH)})
    for number in range(VALUES):
        yield user(f"value-{number:05}", distinct=f"value {number:05}")
    for number in range(10):
        yield user(f"long-{number}", long=f"{number}{LONG_VALUE}")
    for key in LONG_KEYS:
        yield user(key, odd=True)
    for number, value in enumerate(MIXED):
        yield user(f"mixed-{number}", mixed=value)
    yield {"kind": KIND_WITH_DOTS, "key": "dotted", "with.dots": {"a.b": "found"}}
    yield user("deep", deep=nested(100))


def batches(contexts):
    """Bodies of about a megabyte."""
    body, size = [], 0
    for context in contexts:
        body.append(payloads.identify(context))
        size += len(json.dumps(context))
        if size > MIB:
            yield body
            body, size = [], 0
    yield body


@pytest.fixture(scope="module")
def victim(serve_module, measured):
    """The hostile ones in one environment, and one ordinary context in another."""
    server = serve_module()
    assert server.bulk([payloads.identify(user("ana", plan="gold"))], environment=RECORDED).status == 202
    contexts, began = list(hostile_contexts()), time.monotonic()
    server.reset_peak_memory()
    for body in batches(contexts):
        assert server.bulk(body, payloads.payload_id(), OTHER).status == 202
    wait_equal(lambda: server.search(OTHER, limit=1)["totalCount"], len(contexts), 120, "contexts found")
    told = f"{len(contexts)} contexts in {time.monotonic() - began:.1f} s, peak {server.memory_bytes('VmHWM') / MIB:.0f} MiB"
    measured("hostile contexts, taken in", told)
    assert server.memory_bytes("VmHWM") < PEAK_BYTES_MAX
    return server


@pytest.fixture
def bounded(victim, measured, request):
    """Asks within the bounds, and sees that the other environment has its answer afterwards."""
    victim.reset_peak_memory()
    slowest = 0.0

    def ask(question):
        nonlocal slowest
        began = time.monotonic()
        answer = question()
        slowest = max(slowest, time.monotonic() - began)
        assert [context["key"] for context in victim.found("plan equals gold", RECORDED)] == ["ana"]
        return answer

    yield ask
    peak = victim.memory_bytes("VmHWM")
    measured(f"hostile search, {request.node.name}", f"{slowest:.2f} s, peak {peak / MIB:.0f} MiB")
    assert slowest < SECONDS_MAX and peak < PEAK_BYTES_MAX


def keys(page):
    return [item["context"]["key"] for item in page["items"]]


def values_of(victim, name, **parameters):
    """Attribute values of the hostile environment, as a look-up lists them."""
    query = "&".join(f"{key}={value}" for key, value in parameters.items())
    answer = victim.api("GET", f"/v2/{OTHER.path}/context-attributes/{name}?{query}")
    assert answer.status == 200, answer
    return {item["kind"]: item["values"] for item in answer.json()["items"]}


def test_100_000_names_of_attributes(victim, bounded):
    answer = bounded(lambda: victim.api("GET", f"/v2/{OTHER.path}/context-attributes?limit=100"))
    assert answer.status == 200
    (users,) = [item for item in answer.json()["items"] if item["kind"] == "user"]
    assert 0 < len(users["names"]) <= 100
    path = f"/v2/{OTHER.path}/context-attributes?limit=100&filter=name%20startsWith%20attribute-9999"
    answer = victim.api("GET", path)
    (users,) = [item for item in answer.json()["items"] if item["kind"] == "user"]
    assert {name["name"] for name in users["names"]} == {
        "/attribute-9999",
        *(f"/attribute-9999{n}" for n in range(10)),
    }


def test_each_of_100_000_names_is_searched(victim, bounded):
    for number in (0, 50_000, NAMES - 1):
        found = bounded(lambda number=number: victim.search(OTHER, filter=f"attribute-{number} equals {number}"))
        assert keys(found) == [f"wide-{number // NAMES_EACH * NAMES_EACH}"]


def test_many_distinct_values(victim, bounded):
    found = bounded(lambda: values_of(victim, "distinct", limit=50))
    assert len(found["user"]) == 50
    found = values_of(victim, "distinct", limit=50, filter="value%20startsWith%20%22value%2049%22")
    assert all(value["name"].startswith("value 49") for value in found["user"]) and len(found["user"]) == 50
    assert keys(victim.search(OTHER, filter='distinct equals "value 31415"')) == ["value-31415"]
    page = bounded(lambda: victim.search(OTHER, filter='distinct contains "1415"', limit=50))
    assert {"value-31415", "value-21415"} <= set(keys(page))


def test_values_of_a_megabyte(victim, bounded):
    page = bounded(lambda: victim.search(OTHER, filter='long startsWith "3vvvvvvv"'))
    assert keys(page) == ["long-3"] and len(page["items"][0]["context"]["long"]) == MIB + 1
    assert len(keys(bounded(lambda: victim.search(OTHER, filter="long exists true")))) == 10
    whole = victim.api("POST", f"/v2/{OTHER.path}/contexts/search", {"filter": f'long equals "3{LONG_VALUE}"'})
    assert whole.status in (400, 413), "a filter has at most 8192 bytes"


def test_keys_of_a_kilobyte_with_odd_letters(victim, bounded):
    for key in LONG_KEYS:
        page = bounded(lambda key=key: victim.search(OTHER, filter=f"key equals {json.dumps(key)}"))
        assert keys(page) == [key]
    assert set(keys(victim.search(OTHER, filter="odd equals true", limit=50))) == set(LONG_KEYS)
    assert set(keys(victim.search(OTHER, filter="odd equals true", limit=50, sort="-ts"))) == set(LONG_KEYS)


def test_one_attribute_of_mixed_types(victim, bounded):
    expected = {"1": [1], '"1"': ["1"], "true": [True], '"true"': ["true"], "1.5": [1.5], '""': [""]}
    for text, values in expected.items():
        page = bounded(lambda text=text: victim.search(OTHER, filter=f"mixed equals {text}"))
        assert [item["context"]["mixed"] for item in page["items"]] == values, text
    for sort in ("attr:mixed", "-attr:mixed"):
        assert len(victim.search(OTHER, filter="mixed exists true", sort=sort, limit=50)["items"]) == len(MIXED) - 1


def test_kind_with_dots(victim, bounded):
    page = bounded(lambda: victim.search(OTHER, filter=f"{KIND_WITH_DOTS}./with.dots/a.b equals found"))
    assert keys(page) == ["dotted"]


def test_objects_100_deep(victim, bounded):
    path = "/deep" + "/in" * 100
    page = bounded(lambda: victim.search(OTHER, filter=f"user.{path} equals bottom"))
    assert keys(page) in (["deep"], []), "found, or too deep to be searched by"
    assert victim.search(OTHER, filter="deep exists true")["items"][0]["context"]["deep"] == nested(100)


def test_q_of_8_kilobytes(victim, bounded):
    for text in ("x" * 8000, "ab " * 2600, "ü" * 4000, "value " * 1300):
        body = {"filter": f"q equals {json.dumps(text, ensure_ascii=False)}"}
        answer = bounded(lambda body=body: victim.api("POST", f"/v2/{OTHER.path}/contexts/search", body))
        assert answer.status in (200, 400), answer
        assert answer.status == 200 or answer.json()["message"]


def test_or_64_deep(victim, bounded):
    flat = " | ".join(f'distinct equals "value {number:05}"' for number in range(64))
    page = bounded(lambda: victim.search(OTHER, filter=flat, limit=50))
    assert page["totalCount"] == 64
    deep = "(" * 63 + "key equals a" + " | key equals b)" * 63
    answer = victim.api("POST", f"/v2/{OTHER.path}/contexts/search", {"filter": deep})
    assert answer.status == 400 and "16" in answer.json()["message"]


def test_500_filters_that_match_everything(victim, bounded):
    """From eight clients at once: each has an answer, and so has the other environment meanwhile."""
    statuses, beside = [], []

    def storm():
        for number in range(63):
            body = {"filter": "key notEquals nobody", "sort": ("ts", "-ts", "attr:distinct")[number % 3]}
            statuses.append(victim.api("POST", f"/v2/{OTHER.path}/contexts/search", body).status)

    def attack():
        clients = [threading.Thread(target=storm) for _ in range(8)]
        for client in clients:
            client.start()
        while any(client.is_alive() for client in clients):
            answer = victim.api("POST", f"/v2/{RECORDED.path}/contexts/search", {"filter": "plan equals gold"})
            beside.append((answer.status, [item["context"]["key"] for item in answer.json().get("items", [])]))
        for client in clients:
            client.join()

    bounded(attack)
    assert len(statuses) == 504 and set(statuses) <= {200, 429, 503}, set(statuses)
    assert statuses.count(200) > 100
    assert beside and all(answer == (200, ["ana"]) for answer in beside), beside
