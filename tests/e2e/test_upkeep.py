"""Work on the index by order: merging it, holding it against the table `contexts`, mending either; the bound on contexts."""

import json
import subprocess

import pytest
from harness import payloads
from harness.process import binary, clean_environment
from harness.waiting import wait_equal, wait_until

QUICK = {"indexer": {"table_interval": "300ms"}}


def users(numbers, **attributes):
    return [payloads.identify({"kind": "user", "key": f"u{number:03}", "n": number, **attributes}) for number in numbers]


def index(server, *arguments, token=None):
    command = [binary(), "index", *arguments, "--server", server.url, "--token", token or server.api_token]
    return subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60)


def segments(server):
    metas = sorted((server.data_dir / "index").glob("*/meta.json"))
    return [len(json.loads(meta.read_text())["segments"]) for meta in metas]


@pytest.fixture
def filled(serve):
    server = serve(settings=QUICK)
    for first in range(0, 100, 10):
        assert server.bulk(users(range(first, first + 10)), payloads.payload_id()).status == 202
        wait_equal(lambda: len(server.found()), first + 10)
    wait_until(lambda: sum(rows(server)) >= 100, 30, "states in the table")
    return server


def rows(server):
    if not server.lake.has_rows("contexts"):
        return [0]
    return server.lake.table("contexts").get_add_actions(flatten=True)["num_records"].to_pylist()


def test_index_is_merged_while_it_is_searched(filled):
    assert max(segments(filled)) > 1
    done = index(filled, "merge")
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["shard 0", "shard 1"]
    assert segments(filled) == [1, 1] and len(filled.found()) == 100
    files = list((filled.data_dir / "index" / "0").iterdir())
    assert len([file for file in files if len(file.stem.split(".")[0]) == 32]) == 6, "one segment has six files"
    again = index(filled, "merge", "--partition", "1")
    assert again.stdout == "shard 1: 0 segments merged, 0 removed documents freed\n"
    refused = index(filled, "merge", "--partition", "2")
    assert refused.returncode == 2 and "there are 2" in refused.stderr
    assert index(filled, "merge", token=filled.reader_token).returncode == 1


def test_table_that_lost_states_is_mended(filled):
    whole = index(filled, "check")
    assert (whole.returncode, whole.stdout) == (0, "100 states in the index, 100 in the table\nno differences\n"), whole
    # Somebody else has deleted rows.
    filled.lake.table("contexts").delete("key = 'u003' or key = 'u050'")
    found = index(filled, "check")
    assert found.returncode == 1 and "2 only in the index, 0 only in the table, 0 different" in found.stdout, found
    assert "--repair mends them" in found.stderr
    mended = index(filled, "check", "--repair")
    assert mended.returncode == 0 and "2 mended" in mended.stdout, mended
    assert "no differences" in index(filled, "check").stdout


def test_index_is_rebuilt_while_it_is_searched(filled):
    before = {context["key"] for context in filled.found()}
    arguments = ["rebuild", "--online", "--server", filled.url, "--token", filled.api_token]
    with subprocess.Popen([binary(), "index", *arguments], env=clean_environment(), stdout=subprocess.PIPE) as rebuild:
        number = 100
        while rebuild.poll() is None:
            assert filled.bulk(users([number]), payloads.payload_id()).status == 202
            assert before <= {context["key"] for context in filled.found()}
            number += 1
        assert rebuild.returncode == 0 and b"rebuilt 2 shards" in rebuild.stdout.read()
    wait_equal(lambda: len(filled.found()), number)
    assert sorted(path.name for path in (filled.data_dir / "index").iterdir()) == ["0", "1"]
    assert index(filled, "rebuild", "--online", "--partition", "2").returncode == 2
    assert index(filled, "rebuild").returncode == 2, "a server is asked only with --online"


def test_bound_of_an_environment_is_kept(serve):
    server = serve(settings={"indexer": {"environment_contexts_max": 40}})
    for first in range(0, 100, 10):
        assert server.bulk(users(range(first, first + 10)), payloads.payload_id()).status == 202
    wait_until(lambda: 30 <= len(server.found()) <= 40, 30, "the bound")
    keys = {context["key"] for context in server.found()}
    assert server.bulk(users([200]), payloads.payload_id()).status == 202
    wait_until(lambda: server.found("key equals u200"))
    assert "u200" in {context["key"] for context in server.found()} and keys
