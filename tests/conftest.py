"""Fixtures every suite may use: a real gateway for those that speak over the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from wire import Node, running


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The counts of the fault rows, whether they passed or not."""
    for report in [report for reports in terminalreporter.stats.values() for report in reports]:
        if getattr(report, "when", None) == "teardown":
            for name, value in report.user_properties:
                if name == "row":
                    terminalreporter.write_line(value)
