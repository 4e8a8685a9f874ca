"""What waits travels together; nobody is left waiting; one caller's going away is nobody else's business."""

from __future__ import annotations

import asyncio

import pytest

from gateway.group import Group


class Trips:
    """A ``run`` that is let go by hand and remembers what travelled together."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def run(self, items: list[int]) -> list[int | BaseException]:
        self.groups.append(items)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [ValueError(str(item)) if item < 0 else item * 10 for item in items]


async def turn(times: int = 5) -> None:
    for _ in range(times):
        await asyncio.sleep(0)  # noqa: TID251 - lets the loop turn, waits for no time


async def test_what_arrives_while_a_group_is_on_its_way_travels_as_the_next_one() -> None:
    trips = Trips()
    group: Group[int, int] = Group(trips.run)
    first = group.submit(1)
    await turn()
    rest = [group.submit(item) for item in (2, 3, 4)]
    await turn()
    assert trips.groups == [[1]]
    trips.gate.set()
    assert await asyncio.gather(first, *rest) == [10, 20, 30, 40]
    assert trips.groups == [[1], [2, 3, 4]]


async def test_a_group_is_bounded_in_items_and_in_weight() -> None:
    trips = Trips()
    trips.gate.set()
    group: Group[int, int] = Group(trips.run, limit=3, weight=10, measure=lambda item: item)
    futures = [group.submit(item) for item in (1, 1, 1, 1, 8, 4, 50, 1)]
    await asyncio.gather(*futures)
    assert trips.groups == [[1, 1, 1], [1, 8], [4], [50], [1]]


async def test_an_item_that_fails_fails_alone_and_a_group_that_fails_fails_whole() -> None:
    trips = Trips()
    trips.gate.set()
    group: Group[int, int] = Group(trips.run)
    good, bad = group.submit(1), group.submit(-1)
    assert await good == 10
    with pytest.raises(ValueError, match="-1"):
        await bad
    trips.error = OSError("no disk")
    for future in [group.submit(2), group.submit(3)]:
        with pytest.raises(OSError, match="no disk"):
            await future
    trips.error = None
    assert await group.submit(4) == 40


async def test_a_caller_who_goes_away_does_not_take_the_item_back() -> None:
    trips = Trips()
    group: Group[int, int] = Group(trips.run)
    leaving, staying = group.submit(1), group.submit(2)
    leaving.cancel()
    await turn()
    trips.gate.set()
    assert await staying == 20
    assert trips.groups == [[1, 2]]


async def test_settled_returns_when_nothing_is_on_its_way() -> None:
    trips = Trips()
    group: Group[int, int] = Group(trips.run)
    future = group.submit(1)
    settled = asyncio.create_task(group.settled())
    await turn()
    assert not settled.done()
    trips.gate.set()
    await settled
    assert future.done()


async def test_nobody_waits_for_ever_when_the_loop_ends_in_the_middle() -> None:
    trips = Trips()
    group: Group[int, int] = Group(trips.run, limit=1)
    under_way, waiting, batch = group.submit(1), group.submit(2), group.submit_all([3])
    await turn()
    assert group._runner is not None
    group._runner.cancel()
    await turn()
    assert (under_way.cancelled(), waiting.cancelled(), batch.cancelled()) == (True, True, True)
