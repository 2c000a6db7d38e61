"""The lines of the README do what it says, word for word, in a folder whose `data/` is that of a running server.

Not run here: the lines that need something which cannot be had from Python's or Rust's registry (DuckDB's Delta extension,
Spark; `tests/README.md` says how to check that one by hand) or that only set up an SDK (`test_sdks` does that).
"""

import ast
import csv
import io
import re
import shlex
import subprocess
from pathlib import Path

import duckdb
import polars
import pytest
from harness import payloads
from harness.config import RECORDED
from harness.process import binary, clean_environment
from harness.waiting import wait_equal

README = (Path(__file__).parents[2] / "README.md").read_text()
COUNTS = {"checkout": 320, "banner": 7}


def section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL).group(1)


def block(mark):
    """The one Python block of the section on queries that mentions `mark`."""
    found = [text for text in re.findall(r"```python\n(.*?)```", section("Query"), re.DOTALL) if mark in text]
    assert len(found) == 1, f"{len(found)} blocks with {mark}"
    return found[0]


def command(start):
    """The arguments of the one indented command that starts with these words."""
    found = [line.strip() for line in README.splitlines() if line.startswith(f"    {start}")]
    assert len(found) == 1, f"{len(found)} commands {start}"
    return shlex.split(found[0])[1:]


@pytest.fixture(scope="module")
def filled(serve_module):
    server = serve_module(environments=[RECORDED])
    for number, counts in enumerate([{"checkout": 200, "banner": 7}, {"checkout": 120}]):
        features = {flag: {"counters": [{"value": True, "count": count}]} for flag, count in counts.items()}
        summary = {"kind": "summary", "startDate": 1, "endDate": 2, "features": features}
        who = {"kind": "user", "key": f"u-{number}", "email": "ana@lagoa.example", "plan": "gold"}
        assert server.bulk([summary, payloads.identify(who)], payloads.payload_id()).status == 202
    wait_equal(lambda: server.lake.count("events"), 5)
    wait_equal(lambda: len(server.found()), 2)
    return server


@pytest.fixture
def here(filled, monkeypatch):
    """The working directory of somebody who follows the README."""
    monkeypatch.chdir(filled.folder)
    return filled


def value_of(text):
    """Runs Python as a person would type it and gives the value of its last line."""
    *lines, last = ast.parse(text).body
    scope = {}
    exec(compile(ast.Module(lines, []), "README.md", "exec"), scope)
    return eval(compile(ast.Expression(last.value), "README.md", "eval"), scope)


def tidegate(arguments, *more):
    return subprocess.run(
        [binary(), *arguments, *map(str, more)], capture_output=True, text=True, env=clean_environment(), timeout=60
    )


def test_duckdb_reads_the_file_list(here):
    result = value_of(block("import duckdb"))
    assert isinstance(result, duckdb.DuckDBPyRelation)
    assert dict(result.fetchall()) == COUNTS


def test_polars_scans_the_table(here):
    frame = value_of(block("import polars"))
    assert isinstance(frame, polars.DataFrame)
    assert dict(frame.rows()) == COUNTS


def test_query_with_the_program(here):
    shown = tidegate([*command("tidegate query 'SELECT"), "--format", "csv"])
    assert shown.returncode == 0, shown.stderr
    rows = csv.DictReader(io.StringIO(shown.stdout))
    assert [(row["flag_key"], int(row["evaluations"])) for row in rows] == list(COUNTS.items())


def test_query_into_a_file(here):
    done = tidegate(command("tidegate query --format parquet"))
    assert done.returncode == 0, done.stderr
    assert duckdb.sql("select count(*) from 'day.parquet'").fetchall() == [(5,)]


def test_search_with_the_program(here):
    found = tidegate(command("tidegate contexts search"), "--config", here.config_file, "--server", here.url)
    assert found.returncode == 0, found.stderr
    assert "u-0" in found.stdout and "u-1" in found.stdout
