"""Three real gateways on one PostgreSQL database and one Redis, started once for a module. Breaks nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from cluster import Cluster
from faulty import FastNode
from wire import hang_up


@pytest.fixture(autouse=True)
async def _hang_up() -> AsyncIterator[None]:
    yield
    await hang_up()


@pytest.fixture(scope="module")
def start(database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Starts so many nodes on one new database; at the end all have to stop well and may not have failed inside."""
    with Cluster.opened(database, tmp_path_factory.mktemp) as cluster:
        yield cluster


@pytest.fixture(scope="module", params=["redis", "valkey"])
def nodes(request: pytest.FixtureRequest, start: Cluster) -> list[FastNode]:
    """Three of them, over plain channels and over sharded ones."""
    return start(3, redis=request.getfixturevalue(f"{request.param}_server"))
