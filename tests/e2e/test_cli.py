"""The program's commands against a running server and its data: what they print, where, and with which exit code."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import tomllib

import duckdb
import pytest
from harness import payloads, wire
from harness.config import RECORDED
from harness.process import binary, clean_environment
from harness.waiting import wait_equal, wait_until

SHELLS = ["bash", "zsh", "fish", "elvish", "powershell"]
COMMANDS = [
    [],
    ["serve"],
    ["query"],
    ["contexts"],
    ["contexts", "search"],
    ["contexts", "export"],
    ["contexts", "attributes"],
    ["contexts", "values"],
    ["dead-letters"],
    ["dead-letters", "list"],
    ["dead-letters", "show"],
    ["index"],
    ["index", "rebuild"],
    ["config"],
    ["config", "check"],
    ["config", "print"],
    ["completions"],
]


def tidegate(*arguments, variables=None, cwd=None):
    environment = {**clean_environment(), **(variables or {})}
    return subprocess.run([binary(), *map(str, arguments)], capture_output=True, env=environment, cwd=cwd, timeout=60)


@pytest.fixture(scope="module")
def filled(server):
    """A server with two contexts, one summary and one dead letter, all of them in the tables and the index."""
    counters = [{"value": True, "variation": 0, "version": 3, "count": 318}]
    events = [
        payloads.identify(
            {"kind": "user", "key": "u-ana", "name": "Ana", "plan": "gold", "address": {"city": "Recife"}}
        ),
        payloads.identify({"kind": "org", "key": "lagoa", "name": "Lagoa, Foods"}),
        {
            "kind": "summary",
            "startDate": 1,
            "endDate": 2,
            "features": {"checkout": {"default": False, "counters": counters}},
        },
        {"kind": "feature", "broken": "caf\u00e9"},
    ]
    assert server.bulk(json.dumps(events, ensure_ascii=False), "cli-1").status == 202
    wait_equal(
        lambda: (len(server.events("kind", "true")), len(server.dead_letters("id")), len(server.found())), (3, 1, 2)
    )
    return server


@pytest.fixture
def run(filled):
    """Runs a command with the server's configuration."""

    def command(*arguments, **options):
        return tidegate(*arguments, "--config", filled.config_file, "--data-dir", filled.data_dir, **options)

    return command


def query(run, sql, form="json", *more):
    result = run("query", sql, "--format", form, *more)
    assert result.returncode == 0, result.stderr
    return result.stdout.decode()


# SQL.


def test_query_prints_json_lines(run):
    lines = query(run, "select kind, count(*) as n from events group by kind order by kind").splitlines()
    assert [json.loads(line) for line in lines] == [{"kind": "identify", "n": 2}, {"kind": "summary", "n": 1}]


def test_query_prints_a_table(run):
    text = query(run, "select flag_key, count from events where kind = 'summary'", "table")
    assert "flag_key" in text and "checkout" in text and "318" in text


def test_query_prints_csv(run):
    text = query(run, "select context_key, context from events where kind = 'identify' order by context_key", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["context_key"] for row in rows] == ["org:lagoa", "u-ana"]
    assert json.loads(rows[0]["context"])["name"] == "Lagoa, Foods"


def test_query_writes_parquet(run, tmp_path):
    file = tmp_path / "out.parquet"
    query(run, "select flag_key, count from events where kind = 'summary'", "parquet", "--output", file)
    assert duckdb.sql(f"select * from '{file}'").fetchall() == [("checkout", 318)]


@pytest.mark.parametrize(
    "view",
    [
        "evaluations",
        "evaluation_counts",
        "custom_events",
        "migration_ops",
        "experiment_exposures",
        "contexts_seen",
        "contexts",
        "context_states",
        "diagnostics",
        "ledger",
        "events",
        "dead_letters",
    ],
)
def test_every_view_can_be_queried(run, view):
    query(run, f"select * from {view} limit 5")


def test_ledger_adds_up(run, filled):
    """Accepted = landed + deduplicated + dead-lettered once nothing is left in the log. The end of a server completes the
    account if there is time for it, else its next start does."""
    assert filled.bulk([payloads.custom("again")], "cli-1").status == 202
    filled.restart()

    def account():
        rows = [json.loads(line) for line in query(run, "select * from ledger").splitlines()]
        assert {(row["project"], row["environment"]) for row in rows} <= {("default", "dev")}
        names = ("accepted", "landed", "deduplicated", "dead_lettered")
        sums = {name: sum(row[name] for row in rows) for name in names}
        left = sums["accepted"] - sums["landed"] - sums["deduplicated"] - sums["dead_lettered"]
        return sums["landed"], sums["dead_lettered"], left

    wait_equal(account, (3, 1, 0))


def test_query_needs_no_server(filled, run):
    filled.stop()
    try:
        assert json.loads(query(run, "select count(*) as n from events")) == {"n": 3}
    finally:
        filled.start()


@pytest.mark.parametrize(
    "sql",
    [
        "select",
        "select nothing from events",
        "select * from nowhere",
        "drop table events",
        "delete from events",
        "insert into events select * from events",
    ],
)
def test_bad_or_writing_sql_fails(run, sql):
    result = run("query", sql)
    assert result.returncode == 1 and result.stderr and not result.stdout
    assert json.loads(query(run, "select count(*) as n from events")) == {"n": 3}


# Contexts.


def searched(run, filled, *arguments):
    result = run(
        "contexts", "search", *arguments, "--server", filled.url, "--project", "default", "--environment", "dev"
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.decode()


def test_contexts_search_prints_a_table(run, filled):
    text = searched(run, filled, "plan equals gold")
    assert "u-ana" in text and "lagoa" not in text


def test_contexts_search_prints_json(run, filled):
    records = [json.loads(line) for line in searched(run, filled, "--format", "json", "--sort", "kind").splitlines()]
    assert [record["context"]["key"] for record in records] == ["lagoa", "u-ana"]


def test_contexts_search_shows_chosen_columns(run, filled):
    assert "Recife" in searched(run, filled, "kind equals user", "--columns", "key,/address/city")


def test_contexts_search_explains_a_faulty_filter(run, filled):
    result = run(
        "contexts", "search", "kind like user", "--server", filled.url, "--project", "default", "--environment", "dev"
    )
    assert result.returncode == 1 and b"offset" in result.stderr


def test_contexts_search_says_that_no_server_answers(run):
    result = run("contexts", "search", "--server", "http://127.0.0.1:1", "--project", "default", "--environment", "dev")
    assert result.returncode == 1 and b"127.0.0.1:1" in result.stderr


def test_contexts_search_asks_which_environment(run, filled):
    result = run("contexts", "search", "--server", filled.url)
    assert result.returncode == 2 and b"--environment" in result.stderr


# Dead letters.


def test_dead_letters_are_listed_and_shown(run):
    listed = [json.loads(line) for line in run("dead-letters", "list", "--format", "json").stdout.splitlines()]
    assert [(letter["reason"]) for letter in listed] == ["missing_field"]
    assert b"missing_field" in run("dead-letters", "list").stdout
    shown = run("dead-letters", "show", listed[0]["id"])
    assert shown.returncode == 0 and b"missing_field" in shown.stdout
    assert RECORDED.sdk_key.encode() not in shown.stdout
    assert (
        run("dead-letters", "show", listed[0]["id"], "--raw").stdout
        == '{"kind": "feature", "broken": "caf\u00e9"}'.encode()
    )


def test_dead_letters_by_reason(run):
    assert run("dead-letters", "list", "--format", "json", "--reason", "too_deep").stdout == b""


def test_unknown_dead_letter_fails(run):
    result = run("dead-letters", "show", "0000")
    assert result.returncode == 1 and b"0000" in result.stderr


# Configuration.

BROKEN = """
listen = "nowhere"
dta_dir = "data"
[compactor]
commit_interval = "ten seconds"
dedup_window = "1s"
[ingest]
no_such_key = 1
[[environments]]
project = "default"
sdk_keys = "not a list"
"""


def test_config_check_accepts_what_the_server_runs_with(run):
    assert run("config", "check").returncode == 0


def test_config_check_names_all_mistakes_at_once(tmp_path):
    file = tmp_path / "broken.toml"
    file.write_text(BROKEN)
    result = tidegate("config", "check", "--config", file)
    text = (result.stdout + result.stderr).decode()
    assert result.returncode == 2
    for part in (
        "listen",
        "nowhere",
        "dta_dir",
        "data_dir",
        "compactor.commit_interval",
        "ten seconds",
        "compactor.dedup_window",
        "ingest.no_such_key",
        "environments[0]",
    ):
        assert part in text, text


def test_serve_refuses_a_broken_configuration(tmp_path):
    file = tmp_path / "broken.toml"
    file.write_text(BROKEN)
    result = tidegate("serve", "--config", file, "--data-dir", tmp_path / "data")
    assert result.returncode == 2 and b"compactor.commit_interval" in result.stderr


@pytest.mark.parametrize("content", ["[", "listen = ", "listen = 5", "\x00", "environments = 5"])
def test_config_that_is_no_config(tmp_path, content):
    file = tmp_path / "odd.toml"
    file.write_text(content)
    result = tidegate("config", "check", "--config", file)
    assert result.returncode == 2 and (result.stderr or result.stdout)


def test_missing_config_file_is_named(tmp_path):
    result = tidegate("config", "check", "--config", tmp_path / "absent.toml")
    assert result.returncode == 2 and b"absent.toml" in result.stderr + result.stdout


def test_config_print_masks_secrets_and_shows_layers(run):
    result = run("config", "print", variables={"TIDEGATE__INDEXER__COMMIT_INTERVAL": "3s"})
    assert result.returncode == 0
    printed = tomllib.loads(result.stdout.decode())
    assert printed["indexer"]["commit_interval"] == "3s" and printed["compactor"]["commit_interval"] == "500ms"
    for secret in (RECORDED.sdk_key, RECORDED.mobile_key, "api-00000000-0000-4000-8000-0000000000aa"):
        assert secret.encode() not in result.stdout


# Help, completions, exit codes.


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command) or "tidegate")
def test_help_is_there(command):
    result = tidegate(*command, "--help")
    assert result.returncode == 0 and b"Usage" in result.stdout and len(result.stdout) > 100


@pytest.mark.parametrize(
    "arguments", [[], ["bogus"], ["serve", "--bogus"], ["query"], ["contexts", "search", "--limit", "x"]]
)
def test_wrong_usage_is_exit_code_2(arguments):
    assert tidegate(*arguments).returncode == 2


@pytest.mark.parametrize("shell", SHELLS)
def test_completions(shell):
    result = tidegate("completions", shell)
    assert result.returncode == 0 and b"tidegate" in result.stdout and b"dead-letters" in result.stdout


def test_version():
    result = tidegate("--version")
    assert result.returncode == 0 and result.stdout.startswith(b"tidegate ")


# A server without a configuration.


@pytest.fixture
def plain(tmp_path):
    """`serve` with nothing but a data directory; all of its output goes to one file."""
    with open(tmp_path / "output", "wb") as output:
        command = [binary(), "serve", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0"]
        process = subprocess.Popen(command, stdout=output, stderr=output, env=clean_environment())
    yield tmp_path
    process.terminate()
    assert process.wait(10) == 0


def test_serve_without_a_config_prints_keys_that_work(plain):
    file = plain / "data" / "dev-keys.toml"
    wait_until(file.exists)
    sdk_key = tomllib.loads(file.read_text())["environments"][0]["sdk_keys"][0]
    text = wait_until(lambda: sdk_key in (seen := (plain / "output").read_text()) and "curl" in seen and seen)
    port = int(re.search(r"http://127\.0\.0\.1:(\d+)", text).group(1))
    answer = wire.send(("127.0.0.1", port), "POST", "/bulk", [payloads.custom("first")], {"Authorization": sdk_key})
    assert answer.status == 202
    assert file.stat().st_mode & 0o077 == 0


def test_serve_speaks_text_to_a_terminal(tmp_path):
    main, side = pty.openpty()
    process = subprocess.Popen(
        [binary(), "serve", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0"],
        stdout=side,
        stderr=side,
        env=clean_environment(),
    )
    os.close(side)
    try:
        text = b""
        while b"curl" not in text:
            text += os.read(main, 4096)
        assert b"http://127.0.0.1:" in text
    finally:
        process.terminate()
        assert process.wait(10) == 0
        os.close(main)
