"""One search API over three index processes, which die, hang and come back: answers are whole or say that they are not."""

import contextlib
import csv
import io
import signal
import threading
import time

import pytest
from harness.cluster import PARTITIONS, SESSION_SECONDS, Cluster, shared_settings, users
from harness.config import merged
from harness.waiting import wait_equal, wait_until

SECRET = "a-secret-of-the-cluster"
DEADLINE_SECONDS = 1
USERS = 120
STATE = "x-tidegate-index"
# What an API process says of others that go.
AWAY = "process with shards of the index"
SEARCH = "/v2/projects/default/environments/dev/contexts/search"


@pytest.fixture
def cluster(serve, tmp_path):
    api = {"secret": SECRET, "deadline": f"{DEADLINE_SECONDS}s", "hedge_after": "200ms"}
    cluster = Cluster(serve, merged(shared_settings(tmp_path), {"api": api}))
    cluster.add("ingest", 1)
    for number in (1, 2, 3):
        cluster.add("index", number)
    wait_until(cluster.divided, 60, "shards divided among all")
    cluster.add("api", 1, settings=peers(cluster))
    return cluster


def peers(cluster):
    return {"api": {"peers": [server.url for server in cluster.of("index")]}}


@pytest.fixture
def api(cluster):
    """The API process of a cluster that knows some users."""
    api = cluster.processes["api", 1]
    api.expect_log(AWAY)
    assert cluster.of("ingest")[0].bulk(users(range(USERS), plan="gold"), "users").status == 202
    wait_until(lambda: whole(api), 60, "all users in a whole answer")
    return api


def asked(api):
    """State and total of a search."""
    answer = api.api("POST", SEARCH, {"filter": "plan equals gold", "limit": 50})
    if answer.status != 200:
        return f"status {answer.status}", 0
    return answer.headers.get(STATE), answer.json()["totalCount"]


def whole(api):
    return asked(api) == (None, USERS)


class Searches(threading.Thread):
    """Searches without a pause, and keeps what was wrong or late."""

    def __init__(self, api):
        super().__init__(daemon=True)
        self.server, self.halt = api, threading.Event()
        self.silent, self.states, self.longest = [], [], 0.0

    def run(self):
        while not self.halt.is_set():
            began = time.monotonic()
            state, total = asked(self.server)
            self.longest = max(self.longest, time.monotonic() - began)
            self.states.append(state)
            if state is None and total != USERS:
                self.silent.append(total)

    @contextlib.contextmanager
    def under_way(self):
        self.start()
        try:
            yield self
        finally:
            self.halt.set()
            self.join()


def test_one_api_answers_for_all(cluster, api):
    keys = [f"u{number:05}" for number in range(USERS)]
    assert [context["key"] for context in api.found("plan equals gold")] == keys
    by_plan = api.search(sort="-attr:plan", limit=50)
    assert (len(by_plan["items"]), by_plan["totalCount"]) == (50, USERS)
    environment = "/v2/projects/default/environments/dev"
    values = api.api("GET", f"{environment}/context-attributes/plan").json()
    assert values["items"] == [{"kind": "user", "values": [{"name": "gold", "weight": USERS}]}]
    one = api.api("GET", f"{environment}/contexts/user/u00007").json()
    assert [item["context"]["key"] for item in one["items"]] == ["u00007"]
    exported = api.api("POST", f"{environment}/contexts/export", {"columns": ["key"], "format": "csv"})
    assert [row["key"] for row in csv.DictReader(io.StringIO(exported.body.decode()))] == keys
    assert exported.headers["x-tidegate-total-count"] == str(USERS)
    kinds = api.api("GET", "/v2/projects/default/context-kinds").json()
    assert [kind["key"] for kind in kinds["items"]] == ["user"]
    assert api.get("/").status == 200, "the page"
    assert sorted(api.pipeline()["index"]["partitions"]) == list(range(PARTITIONS))
    for number, server in enumerate(cluster.of("index")):
        state, total = asked(server)
        assert state == "partial" and 0 < total < USERS, f"index {number} has a part"
    assert api.api("DELETE", "/v2/users/default/dev/u00007").status == 204
    wait_equal(lambda: asked(api), (None, USERS - 1))


def test_nothing_is_silently_missing_when_index_processes_die(cluster, api, measured):
    with Searches(api).under_way() as searches:
        for number in (2, 3):
            server = cluster.processes["index", number]
            server.kill9()
            began = time.monotonic()
            wait_until(lambda: asked(api)[0] is not None, 20, "an answer that says that it is partial")
            wait_until(lambda: whole(api), 90, "whole answers after the take-over")
            measured("api: whole again after the death of an index process", f"{time.monotonic() - began:.1f} s (session {SESSION_SECONDS} s)")
            server.start()
            wait_until(cluster.divided, 60, "shards divided among all")
            wait_until(lambda: whole(api), 60, "whole answers after the return")
    assert searches.silent == [], "answers that lacked contexts and did not say so"
    assert set(searches.states) <= {None, "partial", "rebuilding"}
    measured("api: searches while index processes died", f"{len(searches.states)}, longest {searches.longest:.2f} s")


def test_process_that_hangs_holds_up_nobody(cluster, api, measured):
    server = cluster.processes["index", 2]
    with Searches(api).under_way() as searches:
        server.process.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: asked(api)[0] == "partial", 20, "an answer that says that it is partial")
            wait_until(lambda: whole(api), 90, "whole answers after the take-over")
        finally:
            server.process.send_signal(signal.SIGCONT)
        wait_until(cluster.divided, 60, "shards divided among all")
        wait_until(lambda: whole(api), 60, "whole answers after the return")
    assert searches.silent == [], "answers that lacked contexts and did not say so"
    # The kinds are asked for first where a filter depends on them.
    assert searches.longest < 2 * DEADLINE_SECONDS + 2, searches.longest
    measured("api: longest search while an index process hung", f"{searches.longest:.2f} s (deadline {DEADLINE_SECONDS} s)")


def test_another_secret_is_refused_and_told(cluster, api):
    settings = merged(peers(cluster), {"api": {**peers(cluster)["api"], "secret": "another-secret-of-another"}})
    stranger = cluster.add("api", 2, settings=settings, start=False)
    stranger.expect_log("api.secret")
    stranger.launch()
    wait_until(lambda: any("refuses the secret (api.secret)" in line for line in stranger.output), 30, "the reason in the log")
    assert not stranger.is_ready()
    assert b"api.secret" in stranger.get("/readyz").body
    answer = stranger.api("POST", SEARCH, {})
    assert (answer.status, answer.json()["code"]) == (503, "service_unavailable")
    for path in ("shards", "ask/kinds"):
        for headers in ({}, {"Authorization": "Bearer another-secret-of-another"}, {"Authorization": api.api_token}):
            asked_for = cluster.of("index")[0].send("GET" if path == "shards" else "POST", f"/internal/index/v1/{path}", None, headers)
            assert asked_for.status == 401, path
    assert whole(api)
