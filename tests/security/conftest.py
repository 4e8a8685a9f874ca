"""Fixtures of the security rows: what a test left open is closed; several nodes on one database. Breaks nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from cluster import Cluster
from wire import hang_up


@pytest.fixture(autouse=True)
async def _hang_up() -> AsyncIterator[None]:
    yield
    await hang_up()


@pytest.fixture(scope="module")
def cluster(database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """``cluster(2, redis=…)``: so many nodes on one new PostgreSQL database. At the end all have to stop well."""
    with Cluster.opened(database, tmp_path_factory.mktemp) as nodes:
        yield nodes
