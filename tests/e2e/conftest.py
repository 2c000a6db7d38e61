"""Fixtures of the end-to-end suite: real servers, each test failing when one of them logs an unexpected WARN or ERROR.

`server`      one running server per module with the environments `default/dev` (the recorded keys) and `default/staging`.
`serve`       a factory of servers for one test: `serve(environments=…, settings=…)`; all of them are ended afterwards.
`serve_module` the same with the life of a module.
`measured`    `measured(name, value)` puts a figure into the summary at the end of the run.
"""

import itertools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("harness")

from harness.process import Server  # noqa: E402

ALIVE = []
FIGURES = []


def _factory(tmp_path_factory):
    numbers = itertools.count()

    def make(start=True, **options):
        server = Server(tmp_path_factory.mktemp(f"server-{next(numbers)}"), **options)
        ALIVE.append(server)
        return server.start() if start else server

    return make


def _end(servers):
    for server in servers:
        server.close()
        ALIVE.remove(server)


def _serving(tmp_path_factory):
    before = list(ALIVE)
    yield _factory(tmp_path_factory)
    _end([server for server in ALIVE if server not in before])


@pytest.fixture
def serve(tmp_path_factory):
    yield from _serving(tmp_path_factory)


@pytest.fixture(scope="module")
def serve_module(tmp_path_factory):
    yield from _serving(tmp_path_factory)


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module()


@pytest.fixture(autouse=True)
def no_surprises(request):
    """Fails the test during which a server logged something that a person would have to look at."""
    yield
    surprises = [line for server in ALIVE for line in server.surprises()]
    assert not surprises, "unexpected log lines:\n" + "\n".join(surprises[:20])


@pytest.fixture(scope="session")
def measured():
    return lambda name, value: FIGURES.append((name, value))


def pytest_terminal_summary(terminalreporter):
    if FIGURES:
        terminalreporter.section("figures")
        for name, value in FIGURES:
            terminalreporter.write_line(f"{name}: {value}")
