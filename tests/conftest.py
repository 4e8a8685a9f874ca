"""Fixtures every suite may use: a real gateway for those that speak over the wire."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import wire
from forks import end_shared
from servers import Postgres, Redis, short_directory
from wire import Node, running

from gateway.store.engine import upgrade

if TYPE_CHECKING:
    from browser import Chromium


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One gateway for the tests of a module, with its defaults."""
    with running(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture(scope="module")
def shop(node: Node) -> str:
    """An access token of a backend service at ``node``."""
    return node.client_token()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Starts gateways with settings of the test's own; all are stopped at its end."""
    nodes: list[Node] = []

    def begin(**settings: Any) -> Node:
        directory = tmp_path / str(len(nodes))
        directory.mkdir()
        nodes.append(Node(directory, **settings))
        return nodes[-1].start()

    yield begin
    for node in nodes:
        if node.process is not None and node.process.poll() is None:
            node.kill()


@pytest.fixture(scope="session", autouse=True)
def _forks_end() -> Iterator[None]:
    """The process that gateways are forked from was started by the first that wanted it."""
    yield
    end_shared()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """A browser for this run. Each test has a profile of its own in it."""
    from browser import launched  # it costs most suites nothing

    with launched() as chromium:
        yield chromium


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for this run. Tests that kill theirs start one of their own."""
    with short_directory("pg") as directory:
        server = Postgres(directory).start()
        yield server
        server.stop(how="immediate")


@pytest.fixture(scope="session")
def database(postgres: Postgres) -> Callable[[], str]:
    """Makes an empty, migrated database; its URL. Copying one is quicker than making one."""
    asyncio.run(upgrade(postgres.create("blank")))
    numbers = itertools.count()
    return lambda: postgres.create(f"copy{next(numbers)}", template="blank")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--postgres", action="store_true", help="nodes of the wire suite keep their data in PostgreSQL")


@pytest.fixture(scope="session", autouse=True)
def _nodes_on_postgres(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.config.getoption("--postgres"):
        wire.on_postgres = request.getfixturevalue("database")
    yield
    wire.on_postgres = None


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A Redis server for this run, shared by tests that do not break it."""
    with short_directory("redis") as directory:
        server = Redis(directory).start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Redis]:
    """As ``redis_server``, of the kind that has sharded channels."""
    with short_directory("valkey") as directory:
        server = Redis(directory, kind="valkey").start()
        yield server
        server.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The counts of the fault rows, whether they passed or not."""
    for report in [report for reports in terminalreporter.stats.values() for report in reports]:
        if getattr(report, "when", None) == "teardown":
            for name, value in report.user_properties:
                if name == "row":
                    terminalreporter.write_line(value)
