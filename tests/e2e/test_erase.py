"""Erased contexts are gone from index, copies and tables, whatever dies meanwhile; newer events bring them back, older do not.

Files are searched as outsiders read them: raw bytes, what is packed in them, all columns of all files that the newest version of
each table names. The terms and stored documents of the index are read by `indexer/tests/erase.rs`.
"""

import hashlib
import json
import os
import random
import subprocess
import time

import pyarrow.fs
import pyarrow.parquet
import pytest
import zstandard
from harness import payloads
from harness.config import OTHER
from harness.process import binary, clean_environment
from harness.waiting import wait_equal, wait_until
from playwright.sync_api import expect

from test_page import address, chromium, settle, visit  # noqa: F401
from test_s3 import bucket, copied, variable  # noqa: F401

# In everything that is told of the person, and in nothing else.
NEEDLE = "nadja"
KEY = "nadja/1:x%"
SEED = 20261128
ROUNDS = int(os.environ.get("TIDEGATE_KILL_ROUNDS", "3"))
KILLS_EACH = 4
MAGIC = b"\x28\xb5\x2f\xfd"
# Payloads on their way are waited for; copies of the index beside the tables.
QUICK = {
    "ingest": {"body_timeout": "200ms", "hold_max": "50ms", "append_timeout": "200ms"},
    "indexer": {"snapshots": "on", "snapshot_interval": "1s", "table_interval": "1s"},
    "compactor": {"commit_interval": "300ms"},
}


def nadja(**attributes):
    return {"kind": "user", "key": KEY, "name": "Nadja", "email": "nadja@shop.example", "plan": "gold", **attributes}


def others(number):
    return {"kind": "user", "key": f"u{number:03}", "plan": "gold" if number % 2 else "free", "n": number}


def personal_events():
    together = {"kind": "multi", "user": {"key": KEY, "name": "Nadja"}, "org": {"key": "lagoa", "city": "Recife"}}
    return [
        payloads.identify(nadja()),
        payloads.feature("flag-a", nadja(), value=True, variation=1, version=3, default=False),
        payloads.custom("buys", nadja(), data={"for": "nadja@shop.example"}, metricValue=2.5, note="of nadja"),
        payloads.custom("sells", together),
        {"kind": "alias", "key": "known", "contextKind": "user", "previousKey": KEY, "previousContextKind": "user", "creationDate": payloads.now_ms()},
        {
            "kind": "summary",
            "startDate": payloads.now_ms() - 5,
            "endDate": payloads.now_ms(),
            "features": {"flag-a": {"default": False, "contextKinds": ["user"], "counters": [{"value": True, "variation": 1, "version": 3, "count": 7}]}},
        },
    ]


def send(server, events, environment=None):
    """Sends events, and returns once all of them are in the table."""
    payload = payloads.payload_id()
    assert server.bulk(events, payload, environment).status == 202
    server.landed(payload, "kind", len(events))


def fill(server):
    """Her, others, and somebody in another environment; all of it in index and tables."""
    send(server, [payloads.identify(others(number)) for number in range(40)])
    send(server, personal_events())
    send(server, [payloads.identify({"kind": "user", "key": "elsewhere"})], OTHER)
    wait_until(lambda: len(found(server)) == 1 and len(found(server, "key startsWith u")) == 40)
    wait_until(lambda: everywhere(server) >= {"index", "table events", "table contexts"}, 30, "her in all places")


def found(server, text="key startsWith nadja"):
    return server.found(text)


def has(data):
    return NEEDLE in (data if isinstance(data, str) else data.decode("latin-1")).lower()


def packed(data):
    """Everything that lies in frames of zstd."""
    start = data.find(MAGIC)
    while start != -1:
        try:
            yield zstandard.ZstdDecompressor().decompressobj().decompress(data[start:])
        except zstandard.ZstdError:
            pass
        start = data.find(MAGIC, start + 1)


def in_files(folder):
    """Files below a folder that have the needle, packed or not."""
    hits = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            hits += [path] if has(data) or any(has(part) for part in packed(data)) else []
    return hits


def in_table(server, name):
    """Live files of a table that have the needle in any column."""
    if not server.lake.has_rows(name):
        return []
    files = [uri.removeprefix("file://") for uri in server.lake.files(name)]
    return [file for file in files if has(json.dumps(pyarrow.parquet.ParquetFile(file).read().to_pylist(), default=str))]


def everywhere(server):
    """Where she is."""
    places = {
        "index": in_files(server.data_dir / "index"),
        "copies": in_files(server.data_dir / "lake" / "snapshots"),
        "table events": in_table(server, "events"),
        "table contexts": in_table(server, "contexts"),
        "erasures": in_files(server.data_dir / "erasures"),
    }
    return {name for name, hits in places.items() if hits}


def path(server, rest=""):
    return f"/v2/{server.environments[0].path}/contexts/erasures{rest}"


def ask(server, **body):
    answer = server.api("POST", path(server), body)
    assert answer.status == 202, answer
    return answer.json()


def standing(server, noted):
    return server.api("GET", path(server, f"/{noted['id']}")).json()


def done(server, noted, deadline=60):
    return wait_until(lambda: (now := standing(server, noted)) and now["state"] == "done" and now, deadline, "the erasure")


def check_hash(certificate):
    rest = {name: value for name, value in certificate.items() if name != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == certificate["sha256"]


COUNTS = "select kind, flag_key, event_key, count(*) as n, sum(count) as evaluations, sum(metric_value) as metric from events group by all order by all"


def test_context_is_gone_everywhere_and_counts_stay(serve):
    server = serve(settings=QUICK)
    fill(server)
    before, kept = server.table_rows(COUNTS), found(server, "key startsWith u")
    noted = ask(server, contexts=[{"kind": "user", "key": KEY}])
    assert noted["contexts"] == [{"kind": "user", "key": KEY}] and noted["byRole"] == "writer"
    certificate = done(server, noted)["certificate"]
    assert everywhere(server) == set()
    assert found(server) == [] and found(server, "key startsWith u") == kept
    assert server.table_rows(COUNTS) == before
    for name in ("email", "name", "key"):
        values = server.api("GET", f"/v2/{server.environments[0].path}/context-attributes/{name}").body
        assert not has(values), name

    check_hash(certificate)
    assert not has(json.dumps(certificate)) and not has(json.dumps(standing(server, noted)))
    name = hashlib.sha256(b"user\0" + KEY.encode()).hexdigest()
    assert certificate["contexts"] == {"count": 1, "sha256": [name], "windowsSha256": certificate["contexts"]["windowsSha256"]}
    removed = certificate["removed"]
    assert removed["index"]["documents"] == 2, "she, and the combination"
    # Identify, feature, two custom events, alias.
    events, contexts = removed["eventsTable"], removed["contextsTable"]
    assert events["rows"] == 5 and events["replacedFiles"] >= 1 and contexts["rows"] >= 2
    assert server.lake.table("events").version() >= events["versionAfter"] > events["versionBefore"]
    assert server.lake.table("contexts").version() >= contexts["versionAfter"] > contexts["versionBefore"]
    assert len(removed["copies"]) == 2 and all(copy["removedObjects"] > 0 for copy in removed["copies"])
    left = {entry["place"]: entry.get("until") for entry in certificate["notReached"]}
    assert any("files of the table events" in place and until for place, until in left.items())
    assert any("log" in place and until for place, until in left.items())
    # Only readers of older versions see her still.
    operations = [commit["operation"] for commit in server.lake.table("events").history()]
    assert operations.count("UPDATE") == events["versionAfter"] - events["versionBefore"]

    # What is new brings her back, what is said of her alone is new.
    back = {"kind": "user", "key": KEY, "plan": "new"}
    send(server, [payloads.identify(back)])
    wait_equal(lambda: found(server), [back])
    server.kill9()
    server.start()
    wait_equal(lambda: found(server), [back])
    assert standing(server, noted)["certificate"] == certificate


def test_same_attributes_come_back_though_they_are_no_news(serve):
    """Ingest leaves out sightings that say nothing new; after an erasure all of it is news."""
    server = serve(settings=QUICK)
    fill(server)
    noted = ask(server, contexts=[{"kind": "user", "key": KEY}])
    done(server, noted)
    send(server, [payloads.identify(nadja())])
    wait_equal(lambda: found(server), [nadja()])
    send(server, [payloads.feature("flag-a", nadja())])
    assert found(server) == [nadja()]


def test_all_that_match_at_a_set_time(serve):
    server = serve(settings=QUICK)
    fill(server)
    at = payloads.now_ms() + 8_000
    noted = ask(server, filter='plan equals gold|key startsWith "nadja"', at=at)
    assert noted["state"] == "scheduled" and noted["filter"].startswith("plan")
    # Received before the time: they go too.
    late = [{**others(number), "plan": "gold"} for number in range(0, 10, 2)]
    assert server.bulk([payloads.identify(context) for context in late], payloads.payload_id()).status == 202
    # Her plan is not known any more: the newest event that named her did not tell it.
    wait_equal(lambda: len(found(server, "plan equals gold")), 25)
    assert standing(server, noted)["state"] == "scheduled"
    server.restart()
    finished = done(server, noted)
    assert finished["certificate"]["contexts"]["count"] == 26
    assert "filter" not in finished and finished["certificate"]["asked"]["by"] == "filter"
    assert found(server, "plan equals gold") == [] and len(found(server, "plan equals free")) == 15
    assert everywhere(server) == set()
    nothing = done(server, ask(server, filter="plan equals gold"))["certificate"]
    assert nothing["contexts"]["count"] == 0
    check_hash(nothing)
    listed = server.api("GET", path(server)).json()["items"]
    assert [item["state"] for item in listed] == ["done", "done"]
    assert server.api("GET", f"/v2/{OTHER.path}/contexts/erasures").json() == {"items": []}


def test_killed_at_any_step(serve, measured):
    """Kill -9 while an erasure runs and events come in, again and again; at the end nothing older is left, and all that is newer is."""
    server = serve(settings=QUICK)
    chance = random.Random(SEED)
    seen_steps, kills, slowest = set(), 0, 0
    for round_number in range(ROUNDS):
        fill(server)
        rows = server.table_rows("select count(*) as n from events")[0]["n"]
        noted = ask(server, contexts=[{"kind": "user", "key": KEY}])
        asked_at = time.monotonic()
        arrived = payloads.payload_id()
        assert server.bulk([payloads.identify(others(number)) for number in range(40)], arrived).status == 202
        for _ in range(KILLS_EACH):
            time_left = chance.uniform(0.02, 0.6)
            end = time.monotonic() + time_left
            wait_until(lambda end=end: time.monotonic() > end, 5)
            now = standing(server, noted)
            seen_steps.add(now["step"])
            server.kill9()
            server.start()
            kills += 1
        certificate = done(server, noted)["certificate"]
        assert found(server) == [] and everywhere(server) == set(), f"round {round_number}"
        check_hash(certificate)
        # Those of the fill, counted once, whoever did it; and what brought her back in the round before.
        assert certificate["removed"]["eventsTable"]["rows"] == (5 if round_number == 0 else 6)
        server.landed(arrived, "kind", 40)
        assert server.table_rows("select count(*) as n from events")[0]["n"] == rows + 40
        back = {"kind": "user", "key": KEY, "round": round_number}
        send(server, [payloads.identify(back)])
        wait_equal(lambda: found(server), [back])
        slowest = max(slowest, time.monotonic() - asked_at)
    measured(f"longest of {ROUNDS} erasures through {KILLS_EACH} kills each", f"{slowest:.1f} s")
    measured("steps at which the process was killed", ", ".join(sorted(seen_steps)) + f" ({kills} kills)")


def test_in_a_bucket(serve, bucket):  # noqa: F811
    """Tables and copies lie on an S3 server; no object of the copies has her afterwards."""
    server = serve(settings={**QUICK, **bucket, "indexer": QUICK["indexer"]})
    endpoint = {"endpoint_override": variable("ENDPOINT"), "access_key": variable("ACCESS_KEY")}
    store = pyarrow.fs.S3FileSystem(secret_key=variable("SECRET_KEY"), region="us-east-1", **endpoint)
    folder = bucket["storage"]["url"].removeprefix("s3://") + "/snapshots"

    def objects():
        found_there = store.get_file_info(pyarrow.fs.FileSelector(folder, recursive=True))
        names = [entry.path for entry in found_there if entry.is_file]
        contents = [store.open_input_stream(name).readall() for name in names]
        return names, [name for name, data in zip(names, contents, strict=True) if has(data) or any(map(has, packed(data)))]

    people = [payloads.identify(others(number)) for number in range(40)]
    assert server.bulk([*people, *personal_events()], payloads.payload_id()).status == 202
    wait_until(lambda: len(found(server)) == 1 and copied(server), 30, "copies")
    wait_until(lambda: objects()[1], 30, "her in the copies")
    before = set(objects()[0])
    certificate = done(server, ask(server, contexts=[{"kind": "user", "key": KEY}]))["certificate"]
    names, hits = objects()
    assert hits == [] and found(server) == [] and in_files(server.data_dir / "index") == []
    assert before - set(names), "objects were removed"
    assert sum(copy["removedObjects"] for copy in certificate["removed"]["copies"]) > 0
    sql = "SELECT * FROM events WHERE kind <> 'summary'"
    command_line = [binary(), "query", "--config", server.config_file, "--data-dir", server.data_dir, "--format", "json", sql]
    rows = subprocess.run(list(map(str, command_line)), capture_output=True, env=clean_environment(), timeout=60, check=True)
    assert rows.stdout.count(b"\n") >= 45 and not has(rows.stdout)


@pytest.fixture(scope="module")
def filled(serve_module):
    server = serve_module(settings=QUICK)
    fill(server)
    return server


def test_who_may_ask_and_how(filled):
    denied = filled.api("POST", path(filled), {"filter": "key equals a"}, token=filled.reader_token)
    assert denied.status == 403
    assert filled.api("GET", path(filled), token=filled.reader_token).status == 200
    for wrong in ({}, {"filter": ""}, {"filter": "key like a"}, {"contexts": []}, {"filter": "key equals a", "at": "soon"}):
        answer = filled.api("POST", path(filled), wrong)
        assert answer.status == 400 and answer.json()["code"] == "invalid_request", wrong
    assert filled.api("GET", path(filled, "/erasure-00000000-0000-4000-8000-000000000000")).status == 404
    assert filled.api("POST", "/v2/projects/none/environments/none/contexts/erasures", {"filter": "key equals a"}).status == 404


def command(server, *arguments):
    where = ("--server", server.url, "--project", server.project, "--environment", server.environment)
    line = [binary(), "contexts", *arguments, *where, "--token", server.api_token]
    return subprocess.run(line, env=clean_environment(), capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def test_by_command(filled):
    assert filled.bulk([payloads.identify(nadja(key="nadja-2"))], payloads.payload_id()).status == 202
    wait_until(lambda: found(filled, "key equals nadja-2"))
    asked = command(filled, "erase", "--key", "nadja-2")
    assert asked.returncode == 2 and "--yes" in asked.stderr
    assert command(filled, "erase").returncode == 2
    erased = command(filled, "erase", "--key", "nadja-2", "--yes", "--wait")
    assert erased.returncode == 0, erased.stderr
    certificate = json.loads(erased.stdout)
    check_hash(certificate)
    assert certificate["contexts"]["count"] == 1 and "1 contexts of default/dev erased" in erased.stderr
    assert found(filled, "key equals nadja-2") == []
    listed = command(filled, "erasures")
    assert certificate["erasure"] in listed.stdout and "done" in listed.stdout
    one = command(filled, "erasures", certificate["erasure"])
    assert json.loads(one.stdout)["certificate"] == certificate
    later = command(filled, "erase", "key equals nobody", "--yes", "--at", "2026-12-24T00:00:00Z")
    assert later.returncode == 0 and later.stdout.startswith("erasure-")


def test_on_the_page(filled, visit):  # noqa: F811
    for key in ("nadja-3", "nadja-4", "nadja-5"):
        assert filled.bulk([payloads.identify(nadja(key=key, team="erased"))], payloads.payload_id()).status == 202
    wait_equal(lambda: len(found(filled, "team equals erased")), 3)
    page = visit(filled, "/default/dev/contexts/user/nadja-3")
    page.get_by_role("button", name="Erase this context").click()
    dialog = page.get_by_role("dialog", name="Erase for good")
    expect(dialog.get_by_role("button", name="Erase")).to_be_disabled()
    dialog.get_by_role("textbox").fill("erase")
    dialog.get_by_role("textbox").press("Enter")
    expect(dialog.get_by_text("1 context erased.")).to_be_visible(timeout=30_000)
    expect(dialog.get_by_role("listitem").filter(has_text="files of the table events")).to_be_visible()
    dialog.get_by_role("button", name="Done").click()
    expect(page.get_by_text("This context is not in the index")).to_be_visible()
    page = visit(filled, "/")
    expect(page.get_by_role("button", name="Erase")).to_be_disabled()
    page = visit(filled, address(filter="team equals erased"))
    settle(page)
    page.get_by_role("button", name="Erase").click()
    dialog = page.get_by_role("dialog", name="Erase for good")
    expect(dialog.get_by_text("team equals erased")).to_be_visible()
    dialog.get_by_role("textbox").fill("erase")
    dialog.get_by_role("button", name="Erase", exact=True).click()
    expect(dialog.get_by_text("2 contexts erased.")).to_be_visible(timeout=30_000)
    assert found(filled, "team equals erased") == []
