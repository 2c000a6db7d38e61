"""Context search over what SDKs sent: every line of section 6.5 by body and by query, paging, errors, CORS, look-ups.

The contexts arrive as `identify` events on `/bulk`, in the order of the spec, so that the last seen time grows from A to E.
"""

import json
import urllib.parse

import pytest
from harness import check_data, payloads
from harness.check_data import CONTEXTS, FAULTS, MATCHES
from harness.config import OTHER, RECORDED, WRITER_TOKEN
from harness.waiting import wait_equal

SEARCH = f"/v2/{RECORDED.path}/contexts/search"
ATTRIBUTES = f"/v2/{RECORDED.path}/context-attributes"


@pytest.fixture(scope="module")
def filled(server):
    check_data.send(server)
    wait_equal(lambda: len(server.found()), len(CONTEXTS))
    wait_equal(lambda: len(server.found("", OTHER)), 1)
    return server


def names(page):
    """Letters of the contexts in an answer, sorted."""
    return sorted(check_data.letters(page))


def by_query(server, **parameters):
    quoted = urllib.parse.urlencode(parameters, quote_via=urllib.parse.quote)
    return server.api("POST", f"{SEARCH}?{quoted}", {})


@pytest.mark.parametrize("text, letters", MATCHES)
def test_filter_by_body(filled, text, letters):
    page = filled.search(filter=text)
    assert names(page) == letters and page["totalCount"] == len(letters)


@pytest.mark.parametrize("text, letters", MATCHES)
def test_filter_by_query(filled, text, letters):
    answer = by_query(filled, filter=text)
    assert answer.status == 200 and names(answer.json()) == letters


@pytest.mark.parametrize("text, letters", MATCHES)
def test_filter_by_a_link(filled, text, letters):
    answer = filled.api("GET", f"{SEARCH}?{urllib.parse.urlencode({'filter': text})}")
    assert answer.status == 200 and names(answer.json()) == letters


@pytest.mark.parametrize("text", FAULTS)
def test_faulty_filter(filled, text):
    for answer in (filled.api("POST", SEARCH, {"filter": text}), by_query(filled, filter=text)):
        assert answer.status == 400 and answer.headers["content-type"].startswith("application/json")
        fault = answer.json()
        assert fault["code"] == "invalid_request" and any(character.isdigit() for character in fault["message"]), fault


def test_contexts_come_back_as_they_were_sent(filled):
    sent = {context["key"]: context for context in CONTEXTS.values()}
    assert {context["key"]: context for context in filled.found()} == sent


def test_record_has_its_fields(filled):
    page = filled.search(filter="kindKey equals user:u-ana")
    assert page["_environmentId"] and "continuationToken" not in page and "next" not in page.get("_links", {})
    record = page["items"][0]
    assert record["associatedContexts"] == 1 and "T" in record["lastSeen"] and "applicationId" not in record


def pages(server, limit, **parameters):
    page = server.search(limit=limit, **parameters)
    yield page
    while "continuationToken" in page:
        page = server.search(limit=limit, continuationToken=page["continuationToken"], **parameters)
        yield page


@pytest.mark.parametrize(
    "order, letters",
    [
        ({}, ["E", "D", "A", "B", "C"]),
        ({"sort": "ts"}, ["A", "B", "C", "D", "E"]),
        ({"sort": "-ts"}, ["E", "D", "C", "B", "A"]),
    ],
    ids=["kind and key", "oldest first", "newest first"],
)
def test_pages_of_two_give_each_context_once(filled, order, letters):
    found = list(pages(filled, 2, **order))
    assert [len(page["items"]) for page in found] == [2, 2, 1]
    keys = [item["context"]["key"] for page in found for item in page["items"]]
    assert keys == [CONTEXTS[letter]["key"] for letter in letters]


def test_next_link_leads_through_all_pages(filled):
    page = filled.search(limit=2, sort="ts")
    keys = []
    while True:
        keys += [item["context"]["key"] for item in page["items"]]
        link = page.get("_links", {}).get("next")
        if not link:
            break
        answer = filled.send("GET", link["href"], headers={"Authorization": WRITER_TOKEN})
        assert answer.status == 200
        page = answer.json()
    assert keys == [context["key"] for context in CONTEXTS.values()]


def test_token_survives_a_restart(filled):
    page = filled.search(limit=2, sort="ts")
    filled.restart()
    rest = filled.search(limit=5, sort="ts", continuationToken=page["continuationToken"])
    assert names(rest) == ["C", "D", "E"]


@pytest.mark.parametrize(
    "body",
    [
        {"limit": 0},
        {"limit": -1},
        {"limit": "two"},
        {"sort": "name"},
        {"continuationToken": "damaged"},
        {"filter": 5},
        "[",
    ],
)
def test_wrong_parameters(filled, body):
    answer = filled.api("POST", SEARCH, body)
    assert answer.status == 400 and answer.json()["code"] == "invalid_request"


def test_token_is_bound_to_filter_and_sort(filled):
    token = filled.search(limit=1, filter="kind equals user")["continuationToken"]
    for changed in ({"filter": "kind equals org"}, {"filter": "kind equals user", "sort": "ts"}):
        assert filled.api("POST", SEARCH, {"continuationToken": token, **changed}).status == 400


def test_limit_above_fifty_is_cut(filled):
    assert len(filled.search(limit=5000)["items"]) == len(CONTEXTS)


def test_parameters_in_query_and_body_are_refused(filled):
    answer = filled.api("POST", SEARCH + "?limit=1", {"filter": "kind equals user"})
    assert answer.status == 400 and answer.json()["code"] == "invalid_request"


def test_repeated_parameter_is_refused(filled):
    assert filled.api("POST", SEARCH + "?limit=1&limit=2", {}).status == 400


def test_total_count_can_be_left_out(filled):
    answer = filled.api("POST", SEARCH + "?includeTotalCount=False", {})
    assert answer.status == 200 and "totalCount" not in answer.json()


@pytest.mark.parametrize("token", ["", "api-unknown", RECORDED.sdk_key, RECORDED.mobile_key, RECORDED.client_side_id])
def test_only_api_tokens_may_search(filled, token):
    answer = filled.send("POST", f"/api{SEARCH}", {}, {"Authorization": token} if token else {})
    assert answer.status == 401 and answer.json()["code"] == "unauthorized"


@pytest.mark.parametrize("form", ["{}", "Bearer {}"])
def test_reader_may_search(filled, form):
    assert filled.api("POST", SEARCH, {}, token=form.format(filled.reader_token)).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v2/projects/default/environments/none/contexts/search",
        "/v2/projects/none/environments/dev/contexts/search",
        "/v2/nothing",
    ],
)
def test_unknown_place(filled, path):
    answer = filled.api("POST", path, {})
    assert answer.status == 404 and answer.json()["code"] == "not_found"


def test_wrong_method(filled):
    answer = filled.api("PUT", SEARCH, {})
    assert answer.status == 405 and answer.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize("version, status", [("20240415", 200), ("20160426", 200), ("beta", 200), ("20990101", 400)])
def test_api_version(filled, version, status):
    assert filled.api("POST", SEARCH, {}, headers={"LD-API-Version": version}).status == status


def test_cors(filled):
    asked = {
        "Origin": "http://a.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    preflight = filled.send("OPTIONS", f"/api{SEARCH}", headers=asked)
    assert preflight.status in (200, 204) and preflight.headers["access-control-allow-origin"] == "http://a.example"
    allowed = {name.strip().lower() for name in preflight.headers["access-control-allow-headers"].split(",")}
    assert {"authorization", "ld-api-version", "content-type"} <= allowed
    refused = filled.api("POST", SEARCH, {}, token="api-unknown", headers={"Origin": "http://a.example"})
    assert refused.status == 401 and refused.headers["access-control-allow-origin"] == "http://a.example"


ODD_KEYS = ["a/b:c", "50%", "x+y z", "why?", "#1", "ключ", "名前", "a\\b", '"quoted"', "\U0001f600"]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_are_found_by_path(filled, key):
    filled.bulk([payloads.identify({"kind": "odd", "key": key, "n": 1})], environment=OTHER)
    path = f"/v2/{OTHER.path}/contexts/odd/{urllib.parse.quote(key, safe='')}"
    wait_equal(
        lambda: [item["context"] for item in filled.api("GET", path).json()["items"]],
        [{"kind": "odd", "key": key, "n": 1}],
    )


def test_unknown_context_is_an_empty_list(filled):
    answer = filled.api("GET", f"/v2/{RECORDED.path}/contexts/user/nobody")
    assert answer.status == 200 and answer.json()["items"] == []


def test_newest_state_wins_and_redacted_attributes_stay(filled):
    who = {"kind": "user", "key": "moves"}
    filled.bulk(
        [payloads.identify({**who, "plan": "gold", "email": "m@x.example", "city": "Recife"})], environment=OTHER
    )
    filled.bulk(
        [payloads.identify({**who, "plan": "iron", "_meta": {"redactedAttributes": ["email"]}})], environment=OTHER
    )
    expected = {**who, "plan": "iron", "email": "m@x.example", "_meta": {"redactedAttributes": ["email"]}}

    def read():
        found = filled.found("kindKey equals user:moves", OTHER)
        for context in found:
            meta = context.get("_meta", {})
            meta["redactedAttributes"] = [name.lstrip("/") for name in meta.get("redactedAttributes", [])]
        return found

    wait_equal(read, [expected])


# Look-ups of attribute names and values.


def attribute_names(server, filter_text="", **more):
    answer = server.api("GET", f"{ATTRIBUTES}?{urllib.parse.urlencode({'filter': filter_text, **more})}")
    assert answer.status == 200, answer
    return {item["kind"]: {name["name"]: name["weight"] for name in item["names"]} for item in answer.json()["items"]}


def attribute_values(server, name, filter_text=""):
    path = f"{ATTRIBUTES}/{urllib.parse.quote(name, safe='')}?{urllib.parse.urlencode({'filter': filter_text})}"
    answer = server.api("GET", path)
    assert answer.status == 200, answer
    return {
        item["kind"]: [(json.dumps(value["name"]), value["weight"]) for value in item["values"]]
        for item in answer.json()["items"]
    }


def test_attribute_names(filled):
    found = attribute_names(filled)
    assert sorted(found) == ["device", "org", "user"]
    assert found["device"] == {"/key": 1, "/os": 1, "/job~1title": 1}
    assert found["user"]["/plan"] == 3 and found["user"]["/address/city"] == 1 and found["user"]["/groups"] == 1
    assert "/kind" not in found["user"] and "/_meta" not in found["user"]


@pytest.mark.parametrize("text", ["name startsWith na,kind equals user", 'name startsWith "/NA",kind equals "user"'])
def test_attribute_names_by_prefix(filled, text):
    assert attribute_names(filled, text) == {"user": {"/name": 3}}


@pytest.mark.parametrize("text", ["plan equals gold", "kind notEquals user", "name equals a", "kind equals"])
def test_attribute_names_refuse_other_filters(filled, text):
    assert filled.api("GET", f"{ATTRIBUTES}?{urllib.parse.urlencode({'filter': text})}").status == 400


def test_attribute_values(filled):
    assert attribute_values(filled, "plan", "kind equals user") == {"user": [('"gold"', 2), ('"silver"', 1)]}
    assert attribute_values(filled, "/address/city") == {"user": [('"Recife"', 1)]}
    assert attribute_values(filled, "seats") == {"user": [("3", 1), ("44", 1)]}
    assert attribute_values(filled, "beta") == {"user": [("false", 1), ("true", 1)]}
    assert attribute_values(filled, "groups") == {"user": [('"ops"', 1), ('"qa"', 1)]}
    assert attribute_values(filled, "job/title") == {"device": [('"kiosk"', 1)]}
    assert attribute_values(filled, "nothing") == {}


def test_attribute_values_by_prefix(filled):
    assert attribute_values(filled, "plan", "kind equals user,value startsWith GO") == {"user": [('"gold"', 2)]}
    assert attribute_values(filled, "seats", "value startsWith 4") == {"user": [("44", 1)]}
