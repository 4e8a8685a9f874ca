"""What ``UsedTickets`` promises, over every adapter."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.store.engine import open_store

if TYPE_CHECKING:
    from tests.contracts.conftest import World


async def test_WSH_03_a_ticket_is_used_once_however_many_ask_at_once(world: World) -> None:
    tickets = world.store.tickets
    assert await tickets.use("one", until=world.until)
    assert not await tickets.use("one", until=world.until)
    asked = ["two", "three"] * 20 + ["one"]
    answers = await asyncio.gather(*(tickets.use(id, until=world.until) for id in asked))
    assert sorted(id for id, first in zip(asked, answers, strict=True) if first) == ["three", "two"]
    assert answers[:2] == [True, True], "whoever came first"


async def test_a_use_is_known_to_whoever_opens_the_database_next(world: World, url: str) -> None:
    assert await world.store.tickets.use("one", until=world.until)
    if url.startswith("postgresql"):
        async with open_store(url) as other:
            answers = await asyncio.gather(
                *(
                    store.tickets.use(f"t{number}", until=world.until)
                    for number in range(50)
                    for store in (world.store, other)
                )
            )
            assert sum(answers) == 50
            assert not await other.tickets.use("one", until=world.until)


async def test_a_caller_that_goes_away_has_used_its_ticket(world: World) -> None:
    waiting = asyncio.ensure_future(world.store.tickets.use("one", until=world.until))
    await asyncio.sleep(0)  # noqa: TID251 - it has been handed in
    waiting.cancel()
    await world.store.tickets.settled()
    assert not await world.store.tickets.use("one", until=world.until)


async def test_what_ran_out_is_forgotten_in_slices(world: World) -> None:
    tickets = world.store.tickets
    for number in range(5):
        await tickets.use(f"old{number}", until=world.now - number)
    await tickets.use("young", until=world.now + 1)
    assert await tickets.purge(now=world.now, limit=3) == 3
    assert await tickets.purge(now=world.now, limit=3) == 2
    assert await tickets.purge(now=world.now, limit=3) == 0
    assert not await tickets.use("young", until=world.now + 1)
    assert await tickets.use("old0", until=world.now)
