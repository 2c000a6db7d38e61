"""The official REST clients, unmodified, against a running server: section 11 of context-search-api, with each of them.

Python in its newest version and in the last of its older generator, TypeScript, Go; section 2 there says in what they
differ. Every answer is what a client made of it. The newest Python client has neither operations on instances nor a way to
delete or sort users any more, so these are checked with the others.
"""

import datetime
import functools
import json
import time

import pytest
from harness import check_data, client_data, payloads
from harness.check_data import CONTEXTS, FAULTS, MATCHES
from harness.client_data import (
    ANA_ALONE,
    ANA_AT_LAGOA,
    BO_AT_ACME,
    BO_AT_LAGOA,
    CHANGED,
    INSTANCES,
    ODD,
    ODD_TEXTS,
    SEVERAL,
    TAGGED,
    UNTAGGED,
    canonical_key,
    instance_id,
    multi,
)
from harness.clients import PROGRAMS, Client
from harness.config import OTHER, READER_TOKEN, RECORDED
from harness.waiting import wait_equal, wait_until

NEWEST = "python-25"
CLASSIC = [name for name in PROGRAMS if name != NEWEST]
CLASSIC_OPERATIONS = ["searchContextInstances", "getContextInstances", "deleteContextInstances", "deleteUser"]


@pytest.fixture(scope="module")
def filled(serve_module):
    server = serve_module(environments=[RECORDED, OTHER, ODD, SEVERAL, CHANGED])
    client_data.fill(server)
    return server


@pytest.fixture(scope="module")
def started(filled):
    """Starts each client once, when it is first wanted."""
    clients = {}

    def start(name):
        if name not in clients:
            clients[name] = Client(name, filled.url)
        return clients[name]

    yield start
    for client in clients.values():
        client.close()


@pytest.fixture(params=PROGRAMS)
def client(request, started):
    return started(request.param)


classic = pytest.mark.parametrize("client", CLASSIC, indirect=True)


def place(environment):
    return environment.project, environment.key


ONE = (*place(RECORDED), "user", "u-ana")
NOWHERE = (RECORDED.project, "none")
INVALID, UNKNOWN = (400, "invalid_request"), (404, "not_found")


# Searching contexts.


@pytest.mark.parametrize("text, letters", MATCHES)
def test_filter_by_body(client, text, letters):
    page = client.answer("searchContexts", *place(RECORDED), contextSearch={"filter": text})
    assert sorted(check_data.letters(page)) == letters and page["totalCount"] == len(letters)


@pytest.mark.parametrize("text, letters", MATCHES)
def test_filter_by_query(client, text, letters):
    page = client.answer("searchContexts", *place(RECORDED), contextSearch={}, filter=text)
    assert sorted(check_data.letters(page)) == letters and page["totalCount"] == len(letters)


@pytest.mark.parametrize("text", FAULTS)
def test_faulty_filter(client, text):
    for parameters in ({"contextSearch": {"filter": text}}, {"contextSearch": {}, "filter": text}):
        assert client.refusal("searchContexts", *place(RECORDED), **parameters) == INVALID


ORDERS = {
    "kind and key": ({}, ["E", "D", "A", "B", "C"]),
    "oldest first": ({"sort": "ts"}, ["A", "B", "C", "D", "E"]),
    "newest first": ({"sort": "-ts"}, ["E", "D", "C", "B", "A"]),
}


def contexts_of(page):
    return [item["context"] for item in page["items"]]


def moments(page, name="lastSeen"):
    """Clients write times each in their own way."""
    return [datetime.datetime.fromisoformat(item[name]) for item in page["items"]]


def test_records_are_decoded_with_all_their_fields(client, filled):
    page = client.answer("searchContexts", *place(RECORDED), contextSearch={})
    sent = filled.search()
    assert contexts_of(page) == [CONTEXTS[letter] for letter in ORDERS["kind and key"][1]]
    assert page["_environmentId"] == sent["_environmentId"] and moments(page) == moments(sent)
    assert page["_links"]["self"]["type"] == "application/json" and "next" not in page["_links"]
    for item in page["items"]:
        assert item["associatedContexts"] == 1 and "applicationId" not in item
        assert item["_links"]["self"]["type"] == "application/json" and item["_links"]["site"]["type"] == "text/html"


def pages(client, **parameters):
    """All pages of two; the token travels the way that the other parameters do."""
    page = client.answer("searchContexts", *place(RECORDED), **parameters)
    yield page
    while "continuationToken" in page:
        carrier = parameters["contextSearch"] or parameters
        carrier["continuationToken"] = page["continuationToken"]
        page = client.answer("searchContexts", *place(RECORDED), **parameters)
        yield page


@pytest.mark.parametrize("order", ORDERS)
def test_pages_of_two_give_each_context_once(client, order):
    sort, expected = ORDERS[order]
    for parameters in ({"contextSearch": {"limit": 2, **sort}}, {"contextSearch": {}, "limit": 2, **sort}):
        found = [check_data.letters(page) for page in pages(client, **parameters)]
        assert found == [expected[:2], expected[2:4], expected[4:]]


def test_total_count_can_be_left_out(client):
    page = client.answer("searchContexts", *place(RECORDED), contextSearch={}, includeTotalCount=False)
    assert len(page["items"]) == len(CONTEXTS) and "totalCount" not in page


# One context.


def test_unknown_context_is_an_empty_list(client):
    assert client.answer("getContexts", *place(RECORDED), "user", "nobody")["items"] == []


def test_context_has_a_version_of_each_application(client):
    page = client.answer("getContexts", *place(SEVERAL), "user", "u-ana")
    assert [item["applicationId"] for item in page["items"]] == [UNTAGGED, TAGGED] and page["totalCount"] == 2
    oldest = client.answer("getContexts", *place(SEVERAL), "user", "u-ana", sort="ts", limit=1)
    assert [item["applicationId"] for item in oldest["items"]] == [TAGGED] and "continuationToken" in oldest
    chosen = client.answer("getContexts", *place(SEVERAL), "user", "u-ana", filter=f"applicationId equals {UNTAGGED}")
    assert [item["applicationId"] for item in chosen["items"]] == [UNTAGGED]


def test_search_tests_versions_if_the_filter_names_applications(client):
    text = f"applicationId equals {UNTAGGED}"
    page = client.answer("searchContexts", *place(SEVERAL), contextSearch={"filter": text})
    assert [item["context"]["key"] for item in page["items"]] == ["lagoa", "u-ana"]
    assert {item["applicationId"] for item in page["items"]} == {UNTAGGED}


# Keys and names that a path must survive.


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_key(client, text):
    page = client.answer("getContexts", *place(ODD), "odd", text)
    assert contexts_of(page) == [{"kind": "odd", "key": text, text: "here"}]


def pointer(text):
    return "/" + text.replace("~", "~0").replace("/", "~1")


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_attribute_name(client, text):
    for name in (text, pointer(text)):
        answer = client.answer("getContextAttributeValues", *place(ODD), name)
        assert answer["items"] == [{"kind": "odd", "values": [{"name": "here", "weight": 1}]}]


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_key_of_a_user(client, text):
    record = client.answer("getUser", *place(ODD), text)
    assert record["user"] == {"key": text}


@classic
@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_key_in_an_instance(client, text):
    alone = [{"kind": "odd", "key": text}]
    for name in (instance_id(alone), canonical_key(alone)):
        page = client.answer("getContextInstances", *place(ODD), name)
        assert [(item["id"], item["context"]) for item in page["items"]] == [(instance_id(alone), alone[0])]


# Instances.


def found_instances(client, **parameters):
    page = client.answer("searchContextInstances", *place(SEVERAL), **parameters)
    return [(item["context"], item["applicationId"]) for item in page["items"]], page["totalCount"]


@classic
@pytest.mark.parametrize(
    "text, numbers",
    [
        ("", [0, 1, 2, 3, 4]),
        ('kinds equals ["user","org"]', [0, 1, 2, 3]),
        ("kinds equals user", [4]),
        ('kindKeys contains ["org:lagoa"]', [1, 2, 3]),
        ('kindKeys anyOf ["user:v:bo%","org:acme"]', [0, 3]),
        (f"applicationId equals {UNTAGGED}", [1]),
        (f"id equals {instance_id(BO_AT_LAGOA)}", [3]),
    ],
)
def test_instances_are_found(client, text, numbers):
    expected = [INSTANCES[number] for number in numbers]
    distinct = len({str(context) for context, _ in expected})
    for parameters in ({"contextInstanceSearch": {"filter": text}}, {"contextInstanceSearch": {}, "filter": text}):
        assert found_instances(client, **parameters) == (expected, distinct)


@classic
@pytest.mark.parametrize("order", [{}, {"sort": "ts"}, {"sort": "-ts"}], ids=str)
def test_pages_of_two_give_each_version_of_an_instance_once(client, order):
    found, wanted = [], {"limit": 2, **order}
    while True:
        page = client.answer("searchContextInstances", *place(SEVERAL), contextInstanceSearch=wanted)
        found.append([(item["context"], item["applicationId"]) for item in page["items"]])
        if "continuationToken" not in page:
            break
        wanted["continuationToken"] = page["continuationToken"]
    assert [len(items) for items in found] == [2, 2, 1]
    # Clients may order the members of an object as they like.
    in_order = functools.partial(json.dumps, sort_keys=True)
    assert sorted(sum(found, []), key=in_order) == sorted(INSTANCES, key=in_order)


@classic
def test_versions_of_an_instance(client):
    page = client.answer("getContextInstances", *place(SEVERAL), instance_id(ANA_AT_LAGOA))
    assert [item["applicationId"] for item in page["items"]] == [UNTAGGED, TAGGED]
    assert {item["id"] for item in page["items"]} == {instance_id(ANA_AT_LAGOA)} and moments(page)
    text = f"applicationId equals {TAGGED}"
    chosen = client.answer("getContextInstances", *place(SEVERAL), instance_id(ANA_AT_LAGOA), filter=text)
    assert [item["applicationId"] for item in chosen["items"]] == [TAGGED]
    assert client.answer("getContextInstances", *place(SEVERAL), instance_id(ANA_AT_LAGOA[:1]))["items"] == []


@classic
def test_instance_names_its_anonymous_kinds(client):
    for parts, kinds in ((BO_AT_ACME, ["device"]), (ANA_ALONE, None)):
        (record,) = client.answer("getContextInstances", *place(SEVERAL), instance_id(parts))["items"]
        assert record.get("anonymousKinds") == kinds and record["context"] == multi(parts)


@classic
def test_deleted_instance_goes_with_the_parts_that_no_other_holds(client, filled):
    name = payloads.unique(f"{client.name}/:%")
    held, lost = {"kind": "org", "key": name}, {"kind": "user", "key": name}
    filled.bulk([payloads.identify(multi([held, lost])), payloads.identify(held)], environment=CHANGED)
    wanted = instance_id([held, lost])
    wait_equal(lambda: len(client.answer("getContextInstances", *place(CHANGED), wanted)["items"]), 1)
    wait_equal(lambda: len(client.answer("getContextInstances", *place(CHANGED), instance_id([held]))["items"]), 1)
    assert client.answer("deleteContextInstances", *place(CHANGED), wanted) is None
    wait_equal(lambda: client.answer("getContextInstances", *place(CHANGED), wanted)["items"], [])
    kept = {"filter": f'kindKeys anyOf ["org:{name}","user:{name}"]'}
    wait_equal(lambda: contexts_of(client.answer("searchContexts", *place(CHANGED), contextSearch=kept)), [held])
    assert client.refusal("deleteContextInstances", *place(CHANGED), wanted) == UNKNOWN


# Names and values of attributes.


def test_attribute_names(client):
    answer = client.answer("getContextAttributeNames", *place(RECORDED))
    names = {item["kind"]: {name["name"]: name["weight"] for name in item["names"]} for item in answer["items"]}
    assert list(names) == ["device", "org", "user"]
    assert names["device"] == {"/key": 1, "/os": 1, "/job~1title": 1}
    assert names["user"]["/plan"] == 3 and names["user"]["/address/city"] == 1 and "/kind" not in names["user"]


def test_attribute_names_by_prefix_and_limit(client):
    text = 'name startsWith "/NA",kind equals "user"'
    answer = client.answer("getContextAttributeNames", *place(RECORDED), filter=text)
    assert answer["items"] == [{"kind": "user", "names": [{"name": "/name", "weight": 3}]}]
    answer = client.answer("getContextAttributeNames", *place(RECORDED), limit=1)
    assert [len(item["names"]) for item in answer["items"]] == [1, 1, 1]


@pytest.fixture(scope="module")
def redacted(filled):
    context = {"kind": "guest", "key": "g-1", "_meta": {"redactedAttributes": ["/email"]}}
    filled.bulk([payloads.identify(context)], environment=CHANGED)
    wait_until(lambda: filled.found("kind equals guest", CHANGED))


def test_redacted_names_are_marked(client, redacted):
    answer = client.answer("getContextAttributeNames", *place(CHANGED), filter="kind equals guest")
    (guest,) = answer["items"]
    assert [name for name in guest["names"] if name["name"] == "/email"] == [
        {"name": "/email", "weight": 1, "redacted": True}
    ]


def typed(value):
    """Value and type, so that `1` is not `true`; some clients read every number as a float."""
    return value["name"], float if type(value["name"]) is int else type(value["name"]), value["weight"]


def values(client, name, **parameters):
    answer = client.answer("getContextAttributeValues", *place(RECORDED), name, **parameters)
    return {item["kind"]: [typed(value) for value in item["values"]] for item in answer["items"]}


@pytest.mark.parametrize(
    "name, filter_text, expected",
    [
        ("plan", "kind equals user", {"user": [("gold", str, 2), ("silver", str, 1)]}),
        ("plan", "value startsWith GO,kind equals user", {"user": [("gold", str, 2)]}),
        ("plan", "kind equals org", {}),
        ("seats", "kind equals user", {"user": [(3, float, 1), (44, float, 1)]}),
        ("seats", "value startsWith 4", {"user": [(44, float, 1)]}),
        ("beta", "", {"user": [(False, bool, 1), (True, bool, 1)]}),
        ("groups", "", {"user": [("ops", str, 1), ("qa", str, 1)]}),
        ("/address/city", "", {"user": [("Recife", str, 1)]}),
        ("job/title", "", {"device": [("kiosk", str, 1)]}),
        ("/job~1title", "", {"device": [("kiosk", str, 1)]}),
        ("nothing", "", {}),
    ],
)
def test_attribute_values(client, name, filter_text, expected):
    assert values(client, name, filter=filter_text) == expected


def test_attribute_values_have_a_limit(client):
    assert values(client, "plan", limit=1) == {"user": [("gold", str, 2)]}


# Kinds.


def kinds(client, environment):
    return {kind["key"]: kind for kind in client.answer("getContextKindsByProjectKey", environment.project)["items"]}


def test_kinds_that_events_named(client):
    found = kinds(client, RECORDED)
    created = {key: kind["createdFrom"] for key, kind in found.items()}
    assert created == {"device": "auto-add", "org": "auto-add", "user": "default"}
    for kind in found.values():
        assert kind["name"] and kind["description"] == "" and kind["version"] == 1 and kind["archived"] is False
        hour_ago, now = (time.time() - 3600) * 1000, time.time() * 1000
        assert all(hour_ago < kind[name] <= now for name in ("creationDate", "lastModified", "lastSeen")), kind


def test_kind_is_created_and_changed(client):
    key = payloads.unique(f"kind-{client.name}")

    def put(**payload):
        answer = client.answer("putContextKind", CHANGED.project, key, upsertContextKindPayload=payload)
        assert answer["status"] == "success"
        return {name: kinds(client, CHANGED)[key][name] for name in ("name", "description", "version", "archived")}

    created = {"name": "Company", "description": "who pays", "version": 1, "archived": False}
    assert put(name="Company", description="who pays") == created
    assert kinds(client, CHANGED)[key]["createdFrom"] == "manual"
    assert put(name="Firm", version=1) == {**created, "name": "Firm", "version": 2}
    assert put(name="Firm", hideInTargeting=True) == {**created, "name": "Firm", "version": 3, "archived": True}
    for payload in ({"name": "Firm", "version": 1}, {"name": "Firm", "archived": True, "hideInTargeting": False}):
        refusal = client.refusal("putContextKind", CHANGED.project, key, upsertContextKindPayload=payload)
        assert refusal == INVALID


# Legacy users.


def user_keys(answer):
    return [item["user"]["key"] for item in answer["items"]]


def test_users_are_listed(client, filled):
    answer = client.answer("getUsers", *place(RECORDED), limit=2)
    assert user_keys(answer) == ["u-ana", "u-bo"] and answer["totalCount"] == 3 and answer["_links"]["next"]["href"]
    assert moments(answer, "lastPing") == moments(filled.search(filter="key startsWith u-"))
    rest = client.answer("getUsers", *place(RECORDED), limit=2, searchAfter="u-bo")
    assert user_keys(rest) == ["u:jo|1"] and "next" not in rest["_links"]
    nobody = client.answer("getUsers", *place(RECORDED), searchAfter="zz")
    assert nobody["items"] == []


def test_user_has_the_shape_that_clients_know(client):
    known = {"key", "name", "email"}
    ana = {name: value for name, value in CONTEXTS["A"].items() if name != "kind"}
    record = client.answer("getUser", *place(RECORDED), "u-ana")
    assert record["environmentId"] and record["lastPing"]
    custom = {name: ana[name] for name in ana if name not in known}
    # The older Python client takes text that looks like a time for one.
    custom["joined"] = datetime.datetime.fromisoformat(custom["joined"])
    record["user"]["custom"]["joined"] = datetime.datetime.fromisoformat(record["user"]["custom"]["joined"])
    assert record["user"] == {**{name: ana[name] for name in known}, "custom": custom}


@pytest.mark.parametrize(
    "parameters, keys",
    [
        ({}, ["u-ana", "u-bo", "u:jo|1"]),
        ({"q": "souza"}, ["u-ana"]),
        ({"q": "ana@lagoa.example"}, ["u-ana"]),
        ({"filter": "plan:gold"}, ["u-ana", "u:jo|1"]),
        ({"filter": "plan:gold,seats:44"}, ["u-ana"]),
        ({"q": "nobody-at-all"}, []),
        ({"limit": 1, "searchAfter": "u-ana"}, ["u-bo"]),
    ],
    ids=str,
)
def test_users_are_found(client, parameters, keys):
    assert user_keys(client.answer("getSearchUsers", *place(RECORDED), **parameters)) == keys


@classic
def test_users_are_sorted_and_passed_over(client):
    answer = client.answer("getSearchUsers", *place(RECORDED), sort="-userKey", offset=1)
    assert user_keys(answer) == ["u-bo", "u-ana"]
    assert [item["sortValue"] for item in answer["items"]] == user_keys(answer)
    newest = client.answer("getSearchUsers", *place(RECORDED), sort="-lastSeen", limit=1)
    last_seen = newest["items"][0]["sortValue"]
    epoch = datetime.datetime.fromtimestamp(0, datetime.UTC)
    assert user_keys(newest) == ["u:jo|1"]
    assert last_seen == (moments(newest, "lastPing")[0] - epoch) // datetime.timedelta(milliseconds=1)
    since = client.answer("getSearchUsers", *place(RECORDED), after=int(last_seen))
    assert user_keys(since)[-1] == "u:jo|1"
    assert user_keys(client.answer("getSearchUsers", *place(RECORDED), after=int(last_seen) + 3_600_000)) == []


@classic
def test_deleted_user_is_gone(client, filled):
    key = payloads.unique(f"{client.name} a/b:50%?#+ключ")
    filled.bulk([payloads.identify({"kind": "user", "key": key})], environment=CHANGED)
    wait_until(lambda: "value" in client.call("getUser", *place(CHANGED), key))
    assert client.answer("deleteUser", *place(CHANGED), key) is None
    wait_until(lambda: "error" in client.call("getUser", *place(CHANGED), key))
    assert client.refusal("getUser", *place(CHANGED), key) == UNKNOWN
    assert client.answer("getContexts", *place(CHANGED), "user", key)["items"] == []
    assert client.refusal("deleteUser", *place(CHANGED), key) == UNKNOWN


# What is refused.


REFUSALS = [
    (INVALID, "searchContexts", place(RECORDED), {"contextSearch": {"filter": "kind equals user"}, "limit": 1}),
    (INVALID, "searchContexts", place(RECORDED), {"contextSearch": {"sort": "name"}}),
    (INVALID, "searchContexts", place(RECORDED), {"contextSearch": {"limit": 0}}),
    (INVALID, "searchContexts", place(RECORDED), {"contextSearch": {"continuationToken": "damaged"}}),
    (INVALID, "getContexts", ONE, {"filter": "plan equals gold"}),
    (INVALID, "getContexts", ONE, {"sort": "name"}),
    (INVALID, "getContextAttributeNames", place(RECORDED), {"filter": "plan equals gold"}),
    (INVALID, "getContextAttributeValues", (*place(RECORDED), "plan"), {"filter": "name startsWith a"}),
    (INVALID, "putContextKind", (CHANGED.project, "k"), {"upsertContextKindPayload": {"name": ""}}),
    (INVALID, "putContextKind", (CHANGED.project, "multi"), {"upsertContextKindPayload": {"name": "M"}}),
    (INVALID, "getSearchUsers", place(RECORDED), {"filter": "plan"}),
    (UNKNOWN, "searchContexts", NOWHERE, {"contextSearch": {}}),
    (UNKNOWN, "getContextAttributeNames", NOWHERE, {}),
    (UNKNOWN, "getUsers", NOWHERE, {}),
    (UNKNOWN, "getContextKindsByProjectKey", ("none",), {}),
    (UNKNOWN, "getUser", (*place(RECORDED), "nobody"), {}),
]


@pytest.mark.parametrize("case", REFUSALS, ids=[f"{operation} {asked}" for _, operation, _, asked in REFUSALS])
def test_refusal(client, case):
    expected, operation, path, parameters = case
    assert client.refusal(operation, *path, **parameters) == expected


@classic
@pytest.mark.parametrize(
    "parameters",
    [
        {"contextInstanceSearch": {"filter": "kind equals user"}},
        {"contextInstanceSearch": {"limit": 2}, "sort": "ts"},
        {"contextInstanceSearch": {}, "sort": "name"},
    ],
    ids=str,
)
def test_refused_search_for_instances(client, parameters):
    assert client.refusal("searchContextInstances", *place(SEVERAL), **parameters) == INVALID


QUESTIONS = [
    ("searchContexts", place(RECORDED), {"contextSearch": {}}),
    ("getContexts", ONE, {}),
    ("getContextAttributeNames", place(RECORDED), {}),
    ("getContextAttributeValues", (*place(RECORDED), "plan"), {}),
    ("getContextKindsByProjectKey", (RECORDED.project,), {}),
    ("getSearchUsers", place(RECORDED), {}),
    ("getUsers", place(RECORDED), {}),
    ("getUser", (*place(RECORDED), "u-ana"), {}),
]
CHANGES = [
    ("putContextKind", (CHANGED.project, "k"), {"upsertContextKindPayload": {"name": "K"}}),
    ("deleteContextInstances", (*place(SEVERAL), instance_id(ANA_ALONE)), {}),
    ("deleteUser", (*place(RECORDED), "u-ana"), {}),
]


@pytest.mark.parametrize("token", ["api-unknown", RECORDED.sdk_key, RECORDED.mobile_key, RECORDED.client_side_id])
def test_other_credentials_are_refused(client, token):
    for operation, path, parameters in QUESTIONS:
        assert client.refusal(operation, *path, token=token, **parameters) == (401, "unauthorized")


def test_reader_may_ask_and_change_nothing(client):
    for operation, path, parameters in QUESTIONS:
        assert client.answer(operation, *path, token=READER_TOKEN, **parameters)
    for operation, path, parameters in CHANGES:
        if client.name != NEWEST or operation not in CLASSIC_OPERATIONS:
            assert client.refusal(operation, *path, token=READER_TOKEN, **parameters) == (403, "forbidden")


@pytest.mark.parametrize("operation", CLASSIC_OPERATIONS)
def test_newest_client_has_no_classic_operations(started, operation):
    """Else the tests above would leave it out without a reason."""
    assert started(NEWEST).call(operation) == {"absent": True}


@pytest.fixture(scope="module")
def limited(serve_module):
    return serve_module(settings={"api_rate_limit": {"route": 1}})


def test_rate_limit_is_told(client, limited):
    """One search in ten seconds: of three in a row, at most one on either side of a window's end is answered."""
    search = {"url": limited.url, "contextSearch": {}}
    outcomes = [client.call("searchContexts", *place(RECORDED), **search) for _ in range(3)]
    refused = [outcome for outcome in outcomes if "value" not in outcome]
    assert refused and {(outcome["status"], outcome["error"]["code"]) for outcome in refused} == {(429, "rate_limited")}
