"""Redis servers, and nodes that share one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal

import pytest
from presences import PresenceNode
from servers import Redis, short_directory

from gateway.presence import redis as redis_presence
from gateway.presence import upkeep


@pytest.fixture
def hasty() -> None:
    """For tests about time: askers wait as long as they do outside, and no longer."""


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stalls for a moment makes nothing unknown in a test that is not about time."""
    if "hasty" not in request.fixturenames:
        monkeypatch.setattr(redis_presence, "ASKED_WITHIN", 3.0)
        monkeypatch.setattr(redis_presence, "ANSWERED_WITHIN", 5.0)
        monkeypatch.setattr(upkeep, "QUICK", 3.0)


@pytest.fixture
def redis() -> Iterator[Redis]:
    with short_directory("presence") as directory:
        server = Redis(directory, kind="redis").start()
        yield server
        server.stop()


@pytest.fixture(params=["redis", "valkey"])
def either(request: pytest.FixtureRequest) -> Iterator[Redis]:
    with short_directory("presence") as directory:
        kind: Literal["redis", "valkey"] = request.param
        server = Redis(directory, kind=kind).start()
        yield server
        server.stop()


@pytest.fixture
async def launch() -> AsyncIterator[Callable[..., Any]]:
    """Starts nodes that know who is online; all are stopped at the end."""
    nodes: list[PresenceNode] = []

    async def begin(url: str, name: str, *, wait: bool = True, **changed: Any) -> PresenceNode:
        nodes.append(PresenceNode(url, name, **changed))
        await nodes[-1].start()
        return await nodes[-1].ready() if wait else nodes[-1]

    yield begin
    for node in nodes:
        await node.stop()
