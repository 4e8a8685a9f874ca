"""Fixtures of the fault rows: gateways of the row, and a row that fails if it did nothing."""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faultproxy import Links
from faulty import FastNode, Row
from servers import Postgres, short_directory
from wire import hang_up


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """FAULTS_SEEDS=10: every row ten times, with ten seeds of its own."""
    seeds = int(os.environ.get("FAULTS_SEEDS") or 1)
    if seeds > 1 and "row" in metafunc.fixturenames:
        metafunc.parametrize("row", range(seeds), indirect=True, ids=[f"seed{number}" for number in range(seeds)])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "faults" in item.path.parts:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(autouse=True)
async def _hang_up() -> AsyncIterator[None]:
    yield
    await hang_up()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., FastNode]]:
    """Starts gateways with settings of the test's own; all are stopped at its end, and none may have failed inside."""
    nodes: list[FastNode] = []

    def begin(*, wait: bool = True, directory: Path | None = None, **settings: Any) -> FastNode:
        place = directory or tmp_path / f"node{len(nodes)}"
        place.mkdir(exist_ok=True)
        nodes.append(FastNode(place, **settings))
        nodes[-1].start(wait=wait)
        return nodes[-1]

    yield begin
    for node in nodes:
        node.end()


@pytest.fixture
def links(row: Row) -> Iterator[Links]:
    """Links that can be made to fail; what they draw follows the seed of the row."""
    with Links(seed=row.seed) as links:
        yield links


@pytest.fixture
def own(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """A PostgreSQL server that the row may break. Its parameter, if indirect: what ``Postgres`` is made with."""
    with short_directory("own-pg") as directory:
        given = getattr(request, "param", None) or {}
        server = Postgres(directory, **given).start()
        yield server
        if server.running:
            server.resume()
            server.stop(how="immediate")


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Iterator[Row]:
    """The record of this row, shown at the end of the run. FAULTS_SEED chooses another seed than the row's own."""
    seed = int(os.environ.get("FAULTS_SEED") or zlib.crc32(request.node.name.encode()))
    row = Row(request.node.name, random.Random(seed), seed)
    yield row
    request.node.user_properties.append(("row", str(row)))
