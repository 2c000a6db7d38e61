"""All contexts that match as a file: by the API, by the command, by the page, through interruptions.

The command is killed and the server is killed while an export is under way; the file must hold each context once all the same.
"""

import csv
import io
import json
import re
import signal
import subprocess

import duckdb
import pyarrow.parquet
import pytest
from harness import payloads
from harness.process import binary, clean_environment
from harness.waiting import wait_until
from playwright.sync_api import expect

from test_page import address, chromium, script, settle, shoot, visit  # noqa: F401

# Several parts of 20,000 rows.
COUNT = 65_000
BODY = 500
ODD = 'a/b:c|d, "e"\r\n=1+1'


def person(number):
    return {"kind": "user", "key": f"u{number:06}", "plan": "gold" if number % 4 == 0 else "free", "seats": number}


@pytest.fixture(scope="module")
def filled(server):
    """Many users, and one whose key and values want quoting."""
    odd = {"kind": "org", "key": ODD, "plan": "gold", "note": 'two\nlines, "quoted"', "tags": ["eu", "vip"]}
    for first in range(0, COUNT, BODY):
        people = [payloads.identify(person(number)) for number in range(first, first + BODY)]
        assert server.bulk(people, payloads.payload_id()).status == 202
    assert server.bulk([payloads.identify(odd)]).status == 202
    wait_until(lambda: server.search(limit=1)["totalCount"] == COUNT + 1, 60, "all contexts in the index")
    return server


def command(server, *arguments):
    where = ("--server", server.url, "--project", server.project, "--environment", server.environment)
    return [binary(), "contexts", *arguments, *where, "--token", server.api_token]


def run(server, folder, *arguments, check=True):
    done = subprocess.run(
        command(server, *arguments), cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=120
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def expected_keys(of=lambda number: True):
    return [ODD] + [person(number)["key"] for number in range(COUNT) if of(number)]


def test_csv_is_read_by_others(filled, tmp_path):
    done = run(filled, tmp_path, "export", "--columns", "kind,key,seats,note,tags", "--output", "all.csv")
    assert f"{COUNT + 1} contexts of default/dev" in done.stderr
    with open(tmp_path / "all.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == expected_keys()
    assert rows[0] == {"kind": "org", "key": ODD, "seats": "", "note": 'two\nlines, "quoted"', "tags": '["eu","vip"]'}
    assert rows[8] == {"kind": "user", "key": "u000007", "seats": "7", "note": "", "tags": ""}
    assert not (tmp_path / "all.csv.resume").exists()
    refused = run(filled, tmp_path, "export", "--output", "all.csv", check=False)
    assert refused.returncode == 2 and "--overwrite" in refused.stderr


def test_json_lines_to_standard_output(filled, tmp_path):
    done = run(filled, tmp_path, "export", "plan equals gold", "--format", "ndjson", "--columns", "key,seats,tags")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["key"] for row in rows] == expected_keys(lambda number: number % 4 == 0)
    assert rows[0] == {"key": ODD, "seats": None, "tags": ["eu", "vip"]} and rows[2]["seats"] == 4


def test_list_of_keys(filled, tmp_path):
    wanted = [person(number)["key"] for number in range(0, COUNT, 7)][:9_000]
    (tmp_path / "keys.txt").write_text("\n".join(wanted + ["nobody"]) + "\n")
    done = run(filled, tmp_path, "export", "--keys", "keys.txt", "--columns", "key")
    assert done.stdout.splitlines() == ["key", *wanted]


def test_parquet_is_a_folder_that_engines_read_as_one_table(filled, tmp_path):
    run(filled, tmp_path, "export", "--format", "parquet", "--columns", "kind,key,plan,lastSeen", "--output", "contexts/")
    assert len(list((tmp_path / "contexts").iterdir())) == 4
    found = duckdb.sql(f"SELECT plan, count(*), count(DISTINCT key) FROM '{tmp_path}/contexts/*.parquet' GROUP BY 1 ORDER BY 1")
    gold = COUNT // 4 + 1
    assert found.fetchall() == [("free", COUNT + 1 - gold, COUNT + 1 - gold), ("gold", gold, gold)]
    schema = pyarrow.parquet.read_schema(tmp_path / "contexts" / "part-000000.parquet")
    assert str(schema.field("lastSeen").type) == "timestamp[us, tz=UTC]"


def test_whole_export_in_one_answer(filled):
    path = f"/api/v2/projects/{filled.project}/environments/{filled.environment}/contexts/export"
    headers = {"Authorization": filled.api_token}
    answer = filled.send("GET", f"{path}?format=csv&columns=key", headers=headers)
    rows = list(csv.reader(io.StringIO(answer.body.decode(), newline="")))
    assert rows == [["key"]] + [[key] for key in expected_keys()]
    assert answer.headers["x-tidegate-total-count"] == str(COUNT + 1)


def test_killed_command_goes_on_where_it_stopped(filled, tmp_path):
    arguments = ("export", "--columns", "key,seats", "--output", "all.csv")
    output, place = tmp_path / "all.csv", tmp_path / "all.csv.resume"
    kills = 0
    while True:
        export = subprocess.Popen(
            command(filled, *arguments), cwd=tmp_path, env=clean_environment(), stderr=subprocess.PIPE, text=True
        )
        size = output.stat().st_size if output.exists() else 0
        # As soon as something new has come, so that parts are cut in their middle.
        wait_until(lambda: export.poll() is not None or (output.exists() and output.stat().st_size > size), 60, "rows")
        if export.poll() is None and kills < 8:
            export.send_signal(signal.SIGKILL)
            kills += 1
            export.communicate()
            continue
        _, errors = export.communicate(timeout=120)
        assert export.returncode == 0, errors
        break
    assert kills >= 2
    with open(output, newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["key"] + expected_keys()
    assert not place.exists()


def test_other_question_does_not_go_on(filled, tmp_path):
    export = subprocess.Popen(
        command(filled, "export", "--columns", "key,seats", "--output", "all.csv"), cwd=tmp_path, env=clean_environment()
    )
    wait_until(lambda: export.poll() is not None or (tmp_path / "all.csv.resume").exists(), 60, "the place")
    export.send_signal(signal.SIGKILL)
    export.wait()
    if not (tmp_path / "all.csv.resume").exists():
        pytest.fail("the export was complete before it could be killed")
    other = run(filled, tmp_path, "export", "--columns", "key", "--output", "all.csv", check=False)
    assert other.returncode == 2 and "something else" in other.stderr
    run(filled, tmp_path, "export", "--columns", "key", "--output", "all.csv", "--overwrite")
    assert len((tmp_path / "all.csv").read_text().splitlines()) >= COUNT + 2


def test_server_killed_under_an_export_is_waited_for(serve, tmp_path):
    server = serve()
    people = [payloads.identify({**person(number), "note": "x" * 400}) for number in range(45_000)]
    for first in range(0, len(people), BODY):
        assert server.bulk(people[first : first + BODY], payloads.payload_id()).status == 202
    wait_until(lambda: server.search(limit=1)["totalCount"] == len(people), 60, "all contexts in the index")
    output = tmp_path / "all.ndjson"
    export = subprocess.Popen(
        command(server, "export", "--format", "ndjson", "--columns", "key,note", "--output", output),
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: export.poll() is not None or (output.exists() and output.stat().st_size > 0), 60, "rows")
    server.kill9()
    server.start()
    _, errors = export.communicate(timeout=120)
    assert export.returncode == 0, errors
    keys = [json.loads(line)["key"] for line in output.read_text().splitlines()]
    assert keys == [person(number)["key"] for number in range(len(people))]


def test_names_and_values_by_command(filled, tmp_path):
    names = run(filled, tmp_path, "attributes", "s", "--kind", "user").stdout
    assert re.search(rf"user +/seats +{COUNT}\b", names) and "/plan" not in names
    values = run(filled, tmp_path, "values", "plan", "g", "--kind", "user").stdout
    assert re.search(rf'user +"gold" +{COUNT // 4}\b', values) and "free" not in values


@pytest.mark.parametrize("name", ["CSV", "NDJSON", "Parquet"])
def test_page_saves_all_matches(filled, visit, shoot, tmp_path, name):  # noqa: F811
    page = visit(filled, address(filter="plan equals gold", column=["/seats", "/note"]))
    page.get_by_role("button", name="Export", exact=True).click()
    dialog = page.get_by_role("dialog", name="Export all matches")
    expect(dialog).to_contain_text("kind, key, seats, note")
    dialog.get_by_role("radio", name=name).check()
    shoot(page, f"export-{name.lower()}")
    with page.expect_download() as download:
        dialog.get_by_role("button", name="Export", exact=True).click()
    gold = COUNT // 4 + 1
    expect(dialog.get_by_role("status")).to_contain_text("contexts saved as contexts.")
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    read = {"CSV": "read_csv", "NDJSON": "read_json", "Parquet": "read_parquet"}[name]
    options = ", all_varchar = true" if name == "CSV" else ""
    rows = duckdb.sql(f"SELECT count(*), count(DISTINCT key), count(note) FROM {read}('{saved}'{options})").fetchall()
    assert rows == [(gold, gold, 1)]
    dialog.get_by_role("button", name="Done").click()
    expect(dialog).to_be_hidden()


def test_page_goes_on_after_a_broken_connection(filled, visit, tmp_path):  # noqa: F811
    page = visit(filled, address())
    asked = []

    def break_the_third(route):
        asked.append(route.request.post_data_json)
        route.abort() if len(asked) == 3 else route.continue_()

    page.route("**/contexts/export", break_the_third)
    page.get_by_role("button", name="Export", exact=True).click()
    dialog = page.get_by_role("dialog", name="Export all matches")
    dialog.get_by_role("button", name="Export", exact=True).click()
    expect(dialog.get_by_role("status")).to_contain_text("40,000 contexts are here already")
    with page.expect_download() as download:
        dialog.get_by_role("button", name="Try again").click()
    saved = tmp_path / "contexts.csv"
    download.value.save_as(saved)
    with open(saved, newline="") as file:
        assert [row[1] for row in csv.reader(file)] == ["key"] + expected_keys()
    assert asked[2] == asked[3] and len(asked) == 5
