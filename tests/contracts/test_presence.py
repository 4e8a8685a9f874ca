"""Who is online, as one node sees its own users: the same sentences over every adapter. Time is virtual."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest
from fakes import Seconds
from servers import Redis, short_directory
from wire import eventually_async

from gateway.model import NodePresence, PresenceInfo, millis
from gateway.ports import Presence
from gateway.presence import redis
from gateway.presence.memory import MemoryPresence
from gateway.presence.redis import RedisPresence

SECRETS = itertools.count()


@pytest.fixture(scope="module", params=["memory", "redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[Redis | None]:
    if request.param == "memory":
        yield None
        return
    with short_directory("presence") as directory:
        server = Redis(directory, kind=request.param).start()
        yield server
        server.stop()


@dataclass
class World:
    """One node. Its clocks stand until they are moved."""

    presence: Presence
    clock: Seconds
    monotonic: Seconds = field(default_factory=lambda: Seconds(50.0))

    @property
    def now(self) -> int:
        return millis(self.clock.now)

    def pass_by(self, seconds: float) -> None:
        self.clock.now += seconds
        self.monotonic.now += seconds

    async def online(self, user_id: str = "ada") -> bool | None:
        return (await self.presence.online([user_id]))[user_id]

    async def of(self, user_id: str = "ada") -> PresenceInfo:
        (one,) = await self.presence.of([user_id])
        return one


@pytest.fixture
async def world(server: Redis | None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(redis, "ASKED_WITHIN", 3.0)  # a machine that stalls for a moment makes nothing unknown here
    monkeypatch.setattr(redis, "ANSWERED_WITHIN", 5.0)
    clock, monotonic = Seconds(), Seconds(50.0)
    presence: Presence
    if server is None:
        presence = MemoryPresence(node="n1", clock=clock, monotonic=monotonic)
    else:
        presence = RedisPresence(
            server.url(), node="n1", secret=b"%d" % next(SECRETS), clock=clock, monotonic=monotonic, beat=0.05, ttl=60
        )
    world = World(presence, clock, monotonic)
    async with presence.keep():

        async def settled() -> bool:
            monotonic.now += 0.05
            return await world.online("nobody") is False

        await eventually_async(settled, what="Redis has settled")
        yield world


async def test_a_user_is_online_while_a_connection_is_open(world: World) -> None:
    assert await world.of() == PresenceInfo("ada", online=False)
    world.presence.joined("ada", "s1")
    assert await world.presence.online(["ada", "bob"]) == {"ada": True, "bob": False}
    assert await world.of() == PresenceInfo(
        "ada", online=True, since=world.now, devices=1, connections=1, nodes=("n1",)
    )


async def test_devices_are_sessions_not_connections(world: World) -> None:
    for session in ("s1", "s1", "s2"):
        world.presence.joined("ada", session)
    one = await world.of()
    assert (one.devices, one.connections) == (2, 3)
    world.presence.left("ada", "s1")
    one = await world.of()
    assert (one.devices, one.connections) == (2, 2)
    world.presence.left("ada", "s1")
    one = await world.of()
    assert (one.devices, one.connections) == (1, 1)


async def test_who_comes_back_within_a_moment_was_never_away(world: World) -> None:
    since = world.now
    world.presence.joined("ada", "s1")
    world.pass_by(60)
    world.presence.left("ada", "s1")
    world.pass_by(4.9)
    assert await world.online() is True
    assert (await world.of()).since == since
    world.presence.joined("ada", "s2")
    world.pass_by(60)
    one = await world.of()
    assert (one.online, one.since, one.devices, one.connections) == (True, since, 1, 1)


async def test_who_does_not_come_back_is_gone_after_a_moment(world: World) -> None:
    world.presence.joined("ada", "s1")
    world.presence.joined("ada", "s2")
    world.presence.left("ada", "s1")
    world.pass_by(60)
    assert await world.online() is True
    world.presence.left("ada", "s2")
    world.pass_by(5.1)
    assert await world.of() == PresenceInfo("ada", online=False)
    assert await world.online() is False
    world.presence.joined("ada", "s1")
    assert (await world.of()).since == world.now


async def test_the_moment_is_counted_from_the_last_time_of_leaving(world: World) -> None:
    world.presence.joined("ada", "s1")
    world.presence.left("ada", "s1")
    world.pass_by(3)
    world.presence.joined("ada", "s1")
    world.presence.left("ada", "s1")
    world.pass_by(3)
    assert await world.online() is True
    world.pass_by(2.1)
    assert await world.online() is False


async def test_a_leave_without_a_join_is_nothing(world: World) -> None:
    world.presence.left("ada", "s1")
    world.presence.joined("ada", "s1")
    world.presence.left("ada", "s2")
    assert (await world.of()).connections == 1
    world.presence.left("ada", "s1")
    world.presence.left("ada", "s1")
    assert (await world.presence.summary()).nodes[0].connections == 0


async def test_answers_come_one_for_each_in_order(world: World) -> None:
    world.presence.joined("bob", "s1")
    asked = ["ada", "bob", "cyd", "bob"]
    answers = await world.presence.of(asked)
    assert [one.user_id for one in answers] == asked
    assert [one.online for one in answers] == [False, True, False, True]
    assert await world.presence.of([]) == []
    assert await world.presence.online([]) == {}


async def test_many_ask_at_once_and_each_gets_an_own_answer(world: World) -> None:
    for number in range(0, 3000, 2):
        world.presence.joined(f"u{number}", "s")
    asked = [[f"u{number}" for number in range(first, first + 100)] for first in range(0, 3000, 100)]
    for users, answers in zip(asked, await asyncio.gather(*map(world.presence.online, asked)), strict=True):
        assert answers == {user: int(user[1:]) % 2 == 0 for user in users}


async def test_the_summary_counts_what_is_open(world: World) -> None:
    began = (await world.presence.summary()).nodes[0].since
    for user, session in (("ada", "s1"), ("ada", "s2"), ("bob", "s3"), ("cyd", "s4")):
        world.presence.joined(user, session)
    world.presence.left("cyd", "s4")
    summary = await world.presence.summary()
    assert summary.complete
    assert summary.nodes == (NodePresence("n1", users=2, connections=3, since=began),)
    world.presence.joined("cyd", "s4")
    assert (await world.presence.summary()).nodes[0].users == 3
