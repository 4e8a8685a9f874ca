"""What ``ports.Bus`` promises, over every bus: in memory, over Redis (plain channels) and Valkey (sharded ones)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest
from buses import KINDS, Ear, Here, arrived, connection, listening, serving
from freeport import free_port
from servers import Redis, short_directory
from wire import eventually_async

from gateway.bus.memory import MemoryBus
from gateway.bus.wire import Beat, Codec
from gateway.metrics import Metrics
from gateway.model import Arrived, Entry, MarkedRead, Passing, RevocationsChanged, Signal, Withdrawn

ALL: list[Signal] = [
    Arrived("ada", Entry(7, "n7", '"title":"Ж \\" \\u0000"', 1, 2, read_at=3)),
    Arrived("ada", Entry(8, "n8", '"title":"t"', 1, 2)),
    Passing(("ada",), "p", '"title":"now"', 5),
    MarkedRead("ada", 3, 2, ("n7", "n8")),
    MarkedRead("ada", 4, 0, up_to=8),
    Withdrawn("ada", 5, 1, "n8", 8),
]
FOR_ALL: list[Signal] = [Passing(None, "q", '"title":"all"', 5), RevocationsChanged()]


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Redis]:
    with serving(request.param) as server:
        yield server


@pytest.fixture
def secret() -> bytes:
    """Every test has its own gateway on the shared server."""
    return os.urandom(32)


@pytest.fixture
async def ada(server: Redis, secret: bytes) -> AsyncIterator[Here]:
    async with listening(server.url(), node="a", secret=secret) as here:
        yield here


@pytest.fixture
async def ben(server: Redis, secret: bytes) -> AsyncIterator[Here]:
    async with listening(server.url(), node="b", secret=secret) as here:
        yield here


@pytest.fixture(params=["memory", "redis"])
async def any_bus(request: pytest.FixtureRequest, server: Redis, secret: bytes) -> AsyncIterator[Here]:
    if request.param == "memory":
        here = Here(MemoryBus(), Ear(), Metrics())
        async with here.bus.listen(here.ear):
            yield here
    else:
        async with listening(server.url(), secret=secret) as here:
            yield here


# -- one node ------------------------------------------------------------------------------------------------------


async def test_this_nodes_receiver_has_heard_all_in_order_when_publish_returns(any_bus: Here) -> None:
    any_bus.ear.heard.clear()
    any_bus.bus.publish(ALL)
    any_bus.bus.publish(FOR_ALL)
    assert any_bus.ear.heard == [*ALL, *FOR_ALL]


async def test_a_bus_that_works_has_no_trouble(any_bus: Here) -> None:
    assert any_bus.bus.trouble is None


async def test_connections_come_by_id_from_after_and_no_more_than_asked(any_bus: Here) -> None:
    any_bus.ear.open = [connection("n-3"), connection("n-1"), connection("n-2", "bob"), connection("n-4")]
    whole = await any_bus.bus.connections(None, after=None, limit=10)
    assert ([one.id for one in whole.connections], whole.missing) == (["n-1", "n-2", "n-3", "n-4"], ())
    page = await any_bus.bus.connections("ada", after="n-1", limit=1)
    assert page.connections == (connection("n-3"),)


@pytest.mark.parametrize("where", ["memory", "redis"])
async def test_after_the_block_nothing_is_heard(where: str, server: Redis, secret: bytes) -> None:
    if where == "memory":
        here = Here(MemoryBus(), Ear(), Metrics())
        async with here.bus.listen(here.ear):
            here.bus.publish(ALL)
    else:
        async with listening(server.url(), secret=secret) as here:
            here.ear.heard.clear()
            here.bus.publish(ALL)
    here.bus.publish(ALL)
    assert here.ear.heard == ALL


# -- two nodes -----------------------------------------------------------------------------------------------------


async def test_another_node_hears_who_it_watches_and_nobody_else(ada: Here, ben: Here) -> None:
    await ben.watching("ada")
    ben.ear.heard.clear()
    ada.bus.publish([arrived("bob", 1), *ALL, *FOR_ALL, arrived("bob", 2)])
    await ben.hears(*ALL, *FOR_ALL)
    assert [one for one in ben.ear.heard if one not in FOR_ALL] == ALL
    assert [one for one in ben.ear.heard if one in FOR_ALL] == FOR_ALL


async def test_the_signals_of_one_publisher_come_in_order_and_once(ada: Here, ben: Here) -> None:
    await ben.watching("ada")
    await ada.watching("ada")
    for seq in range(3000):
        ada.bus.publish([arrived("ada", seq)])
    await ben.hears(arrived("ada", 2999))
    assert ben.ear.seqs("ada") == list(range(3000))
    assert ada.ear.seqs("ada") == list(range(3000)), "its own come back to it"


async def test_who_is_no_longer_watched_is_no_longer_heard(ada: Here, ben: Here) -> None:
    await ben.watching("ada", "bob")
    ben.bus.unwatch("ada")
    await ben.watching("cy")  # asked for later, so the other has taken effect
    ada.bus.publish([arrived("ada", 1), arrived("bob", 1), arrived("cy", 1)])
    await ben.hears(arrived("bob", 1), arrived("cy", 1))
    assert ben.ear.seqs("ada") == []


@pytest.mark.parametrize("turns_between", [0, 1, 5])
async def test_who_leaves_and_comes_back_is_heard_and_named_again(ada: Here, ben: Here, turns_between: int) -> None:
    await ben.watching("ada")
    for _ in range(20):
        ben.bus.unwatch("ada")
        for _ in range(turns_between):
            await eventually_async(lambda: True)
        before = ben.ear.told_again("ada")
        ben.bus.watch("ada")
        await eventually_async(partial(_more, ben, before), what="ada is named")
    await ben.watching("ada")
    ada.bus.publish([arrived("ada", 1)])
    await ben.hears(arrived("ada", 1))


def _more(here: Here, before: int) -> bool:
    return here.ear.told_again("ada") > before


async def test_thousands_are_watched_at_once(ada: Here, ben: Here) -> None:
    users = [f"u{n}" for n in range(5000)]
    await ben.watching(*users)
    assert all(ben.ear.told_again(user) == 1 for user in users)
    ada.bus.publish([arrived(user, 1) for user in users])
    await ben.hears(arrived("u4999", 1))
    assert len(ben.ear.heard) >= 5000
    for user in users[1:]:
        ben.bus.unwatch(user)
    await ben.watching("last")
    ben.ear.heard.clear()
    ada.bus.publish([arrived(user, 2) for user in users])
    await ben.hears(arrived("u0", 2))
    ada.bus.publish([arrived("last", 1)])
    await ben.hears(arrived("last", 1))
    assert ben.ear.heard == [arrived("u0", 2), arrived("last", 1)]


async def test_a_list_of_users_reaches_each_of_them_on_the_node_where_they_are(ada: Here, ben: Here) -> None:
    await ben.watching("ada", "bob")
    ada.bus.publish([Passing(("ada", "bob", "cy"), "p", '"title":"now"', 5)])
    await ben.hears(Passing(("ada",), "p", '"title":"now"', 5), Passing(("bob",), "p", '"title":"now"', 5))
    assert len([one for one in ben.ear.heard if isinstance(one, Passing)]) == 2


async def test_two_gateways_on_one_server_do_not_meet(server: Redis, ada: Here) -> None:
    async with listening(server.url(), node="other", secret=b"another" * 4) as other:
        await other.watching("ada")
        await ada.watching("ada")
        ada.ear.heard.clear()
        other.bus.publish([*ALL, *FOR_ALL])
        ada.bus.publish([arrived("ada", 9)])
        assert (await other.bus.connections(None, after=None, limit=10)).missing == ()
        assert ada.ear.heard == [arrived("ada", 9)]
        assert other.ear.heard[-len(FOR_ALL) :] == FOR_ALL


async def test_what_was_published_last_still_goes_out(server: Redis, secret: bytes, ben: Here) -> None:
    await ben.watching("ada")
    async with listening(server.url(), node="a", secret=secret) as ada:
        ada.bus.publish([arrived("ada", seq) for seq in range(2000)])
    await ben.hears(arrived("ada", 1999))


# -- a server that is not there --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_without_a_server_nothing_fails_or_waits_and_it_is_looked_for_until_it_answers(kind: str) -> None:
    port = free_port()
    async with (
        listening(f"redis://127.0.0.1:{port}/0", node="a", up=False) as ada,
        listening(f"redis://127.0.0.1:{port}/0", node="b", up=False) as ben,
    ):
        await eventually_async(lambda: "Connect" in (ada.bus.trouble or ""), what="the trouble is put into words")
        ben.bus.watch("ada")
        began = time.monotonic()
        for seq in range(10_000):
            ada.bus.publish([arrived("ada", seq)])
        assert time.monotonic() - began < 2.0
        assert ada.ear.seqs("ada") == list(range(10_000))
        ada.bus.publish([RevocationsChanged(), Passing(("ada",), "p", "", 1)])
        asked = await ada.bus.connections(None, after=None, limit=10)
        assert (asked.connections, asked.missing) == ((), ())
        before = ben.ear.heard.count(RevocationsChanged())
        with contextlib.ExitStack() as stack:
            stack.enter_context(_at(port, kind))
            await ada.up()
            await ben.up()
            await eventually_async(lambda: ben.ear.told_again("ada"), what="ada is looked at again")
            await eventually_async(lambda: ben.ear.heard.count(RevocationsChanged()) > before, what="the bell rings")
            assert ada.dropped("unsent") >= 1
            ada.bus.publish([arrived("ada", 20_000)])
            await ben.hears(arrived("ada", 20_000))


@contextlib.contextmanager
def _at(port: int, kind: str) -> Iterator[None]:
    with short_directory("late") as root:
        server = Redis(root, kind="valkey" if kind == "valkey" else "redis")
        server.port = port
        server.start()
        try:
            yield
        finally:
            server.stop()


# -- connections of all nodes ------------------------------------------------------------------------------------------


async def test_the_connections_of_every_node_are_one_list(ada: Here, ben: Here) -> None:
    ada.ear.open = [connection(f"a-{n:04}", node="a") for n in range(0, 3000, 2)]
    ben.ear.open = [connection(f"a-{n:04}", node="b") for n in range(1, 3000, 2)]
    await eventually_async(lambda: _knows(ada), what="the nodes know each other")
    found = await ada.bus.connections(None, after="a-0009", limit=2500)
    assert [one.id for one in found.connections] == [f"a-{n:04}" for n in range(10, 2510)]
    assert {one.node for one in found.connections} == {"a", "b"}
    assert found.missing == ()
    assert (await ada.bus.connections("bob", after=None, limit=10)).connections == ()


async def _knows(here: Here) -> bool:
    return len({one.node for one in (await here.bus.connections(None, after=None, limit=9)).connections}) == 2


async def test_a_node_that_does_not_answer_is_named_and_one_that_said_goodbye_is_not(
    server: Redis, secret: bytes, ada: Here
) -> None:
    silent = Codec(secret, sender=b"8 bytes.", clock=time.time, monotonic=time.monotonic)
    beat = silent.encode(silent.everybody, Beat("frozen"), stream=1, number=1)
    server.command("SPUBLISH" if server.kind == "valkey" else "PUBLISH", silent.everybody, beat)
    async with listening(server.url(), node="b", secret=secret) as ben:
        ben.ear.open = [connection("b-1", node="b")]
        ada.ear.open = [connection("a-1", node="a")]
        began = time.monotonic()
        asked = await ada.bus.connections(None, after=None, limit=10)
        assert asked.missing == ("frozen",)
        assert time.monotonic() - began < 3.0

    async def gone() -> bool:
        return (await ada.bus.connections(None, after=None, limit=10)).missing == ()

    await eventually_async(gone, what="who said goodbye is gone, and in time the other too")
