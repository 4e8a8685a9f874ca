"""Three real gateways on one PostgreSQL database and one Redis, started once for a module. Breaks nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faulty import FastNode
from forks import Forks
from servers import Redis
from wire import HS256_KEYS, eventually, hang_up


@pytest.fixture(autouse=True)
async def _hang_up() -> AsyncIterator[None]:
    yield
    await hang_up()


@pytest.fixture(scope="module")
def start(
    forks: Forks, database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., list[FastNode]]]:
    """Starts so many nodes on one new database; at the end all have to stop well and may not have failed inside."""
    started: list[FastNode] = []

    def begin(count: int, *, redis: Redis | None, **settings: Any) -> list[FastNode]:
        url = database()
        shared: dict[str, Any] = {"database_url": url, "signing_keys": HS256_KEYS, **settings}
        if redis is not None:
            shared["redis_url"] = redis.url()
        nodes = []
        for number in range(count):
            directory: Path = tmp_path_factory.mktemp(f"node{number}-")
            nodes.append(FastNode(directory, forks, node=f"n{number}", **shared))
            started.append(nodes[-1])
            nodes[-1].start(wait=False)
        for node in nodes:
            node.until_ready()
            if redis is not None:
                eventually(partial(hears_the_bus, node), what="the bus")
        return nodes

    yield begin
    for node in started:
        if node.process is not None and node.process.poll() is None:
            assert node.stop() == 0
            assert node.complaints() == []


def hears_the_bus(node: FastNode) -> bool:
    return bool(node.request("GET", "/readyz").json() == {"status": "ready"})


@pytest.fixture(scope="module", params=["redis", "valkey"])
def nodes(request: pytest.FixtureRequest, start: Callable[..., list[FastNode]]) -> list[FastNode]:
    """Three of them, over plain channels and over sharded ones."""
    return start(3, redis=request.getfixturevalue(f"{request.param}_server"))
