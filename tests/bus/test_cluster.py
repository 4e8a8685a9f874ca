"""The bus over a cluster of three: a link to each primary, and channels that move with their slots."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator

import pytest
from buses import Cluster, Here, arrived, listening
from redis.crc import key_slot
from servers import Redis, short_directory
from wire import eventually_async

from gateway.bus.redis import RedisBus
from gateway.model import Passing, RevocationsChanged

USERS = [f"u{n}" for n in range(60)]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    with short_directory("cluster") as root:
        cluster = Cluster(root)
        try:
            yield await cluster.start()
        finally:
            cluster.stop()


@contextlib.asynccontextmanager
async def two(cluster: Cluster) -> AsyncIterator[tuple[Here, Here]]:
    """Two nodes that were told of different servers of the cluster; the second watches everybody."""
    secret = os.urandom(32)
    async with (
        listening(cluster.servers[0].url(), node="a", secret=secret) as a,
        listening(cluster.servers[2].url(), node="b", secret=secret) as b,
    ):
        for here in (a, b):
            await eventually_async(lambda here=here: len(list(bus_of(here)._links)) == 3, what="all are known")  # type: ignore[misc]
            await here.up()
        await b.watching(*USERS)
        yield a, b


def bus_of(here: Here) -> RedisBus:
    assert isinstance(here.bus, RedisBus)
    return here.bus


async def everybody_hears(a: Here, b: Here) -> None:
    await a.up()
    await b.up()
    seq = time.monotonic_ns()
    signals = [arrived(user, seq) for user in USERS]
    a.bus.publish([*signals, Passing(None, str(seq), "", 1), RevocationsChanged()])
    await b.hears(*signals, Passing(None, str(seq), "", 1), RevocationsChanged())
    assert all(b.ear.seqs(user).count(seq) == 1 for user in USERS), "once each"


async def test_every_primary_has_a_link_and_hints_travel_over_all_of_them(cluster: Cluster) -> None:
    async with two(cluster) as (a, b):
        await everybody_hears(a, b)
        spread = {bus_of(b)._links.of(bus_of(b)._codec.user(user)).server.port for user in USERS}
        assert spread == {server.port for server in cluster.servers}
        a.ear.open, b.ear.open = [], []
        assert (await a.bus.connections(None, after=None, limit=5)).missing == ()


async def test_one_primary_dies_and_returns(cluster: Cluster) -> None:
    async with two(cluster) as (a, b):
        for victim in (cluster.servers[1], cluster.owner(bus_of(a)._codec.everybody)):
            before = {user: b.ear.told_again(user) for user in USERS}
            hit = [user for user in USERS if cluster.owner(bus_of(a)._codec.user(user)) is victim]
            assert hit
            victim.kill()
            await eventually_async(lambda: a.bus.trouble, what="it is noticed")
            a.bus.publish([arrived(user, 1) for user in USERS])
            victim.start()
            await eventually_async(lambda: cluster.whole(cluster.servers[0]), within=20, what="it is whole again")
            await everybody_hears(a, b)
            told = [b.ear.told_again(user) > before[user] for user in hit]
            assert all(told)


async def test_slots_move_to_another_primary_and_the_channels_follow(cluster: Cluster) -> None:
    async with two(cluster) as (a, b):
        codec = bus_of(a)._codec
        for channel in (codec.user("u0"), codec.user("u1"), codec.everybody, bus_of(b)._codec.node(bus_of(b)._me)):
            source = cluster.owner(channel)
            target = next(server for server in cluster.servers if server is not source)
            before = b.ear.told_again("u0")
            _move(cluster, channel, source, target)
            await moved(a, b, channel, target)
            if channel == codec.user("u0"):
                assert b.ear.told_again("u0") > before
            await everybody_hears(a, b)
            await eventually_async(lambda: _all_answer(a, b), what="both know of all connections")


async def _all_answer(*nodes: Here) -> bool:
    rosters = [await here.bus.connections(None, after=None, limit=5) for here in nodes]
    return all(roster.missing == () for roster in rosters)


async def moved(a: Here, b: Here, channel: bytes, target: Redis) -> None:
    """Whoever publishes finds out by being refused; what was refused is made up for, or was worth nothing later."""

    def both() -> bool:
        a.bus.publish([arrived("u0", 1), arrived("u1", 1)])
        return _follows(b, channel, target) and (_follows(a, channel, target) or channel == own)

    own = bus_of(b)._codec.node(bus_of(b)._me)  # the first answer on it goes astray, then it is known
    await eventually_async(both, what="both follow")


async def test_a_channel_that_is_taken_away_and_given_back_is_heard_again(cluster: Cluster) -> None:
    async with two(cluster) as (a, b):
        channel = bus_of(b)._codec.user("u0")
        before = b.ear.told_again("u0")
        bus_of(b)._links.of(channel)._came([[b"sunsubscribe", channel, 0]])
        await eventually_async(lambda: b.ear.told_again("u0") > before, what="u0 is named")
        await everybody_hears(a, b)


def _follows(here: Here, channel: bytes, target: Redis) -> bool:
    return bus_of(here)._links.of(channel).server.port == target.port


def _move(cluster: Cluster, channel: bytes, source: Redis, target: Redis) -> None:
    slot, to, origin = str(key_slot(channel)), cluster.id_of(target), cluster.id_of(source)
    assert target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", origin) == b"+OK\r\n"
    assert source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", to) == b"+OK\r\n"
    for server in (target, source, *(s for s in cluster.servers if s not in (source, target))):
        assert server.command("CLUSTER", "SETSLOT", slot, "NODE", to) == b"+OK\r\n"
