"""Who reads the inbox now: so many at once, and two lines that are served alternately."""

from __future__ import annotations

import asyncio

import pytest

from gateway.turns import Turns


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)  # noqa: TID251 - lets the loop turn, waits for no time


class Reading:
    """Readers of ``turns`` who keep their turn until they are told to go on."""

    def __init__(self, at_once: int) -> None:
        self.turns = Turns(at_once)
        self.had: list[str] = []
        self.now: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *names: str) -> None:
        """Who begins with ``new`` has just come; the others fell behind."""
        for name in names:
            self.tasks[name] = asyncio.create_task(self._read(name))
            await settle()

    async def _read(self, name: str) -> None:
        async with self.turns.turn(arriving=name.startswith("new")):
            self.had.append(name)
            self.now[name] = asyncio.Event()
            await self.now[name].wait()
            del self.now[name]

    async def finish(self) -> None:
        """Everybody who reads now has read."""
        for event in list(self.now.values()):
            event.set()
        await settle()


async def test_so_many_read_at_once_and_the_others_wait() -> None:
    reading = Reading(2)
    await reading.come("new1", "new2", "new3")
    assert list(reading.now) == ["new1", "new2"]
    await reading.finish()
    assert list(reading.now) == ["new3"]
    await reading.finish()
    assert not reading.now


async def test_a_storm_of_new_ones_does_not_keep_those_who_were_here_from_reading() -> None:
    reading = Reading(1)
    await reading.come(*(f"new{n}" for n in range(6)), "old1", "old2")
    for _ in range(8):
        await reading.finish()
    assert reading.had == ["new0", "new1", "old1", "new2", "old2", "new3", "new4", "new5"]


async def test_those_who_were_here_do_not_keep_new_ones_from_reading() -> None:
    reading = Reading(1)
    await reading.come(*(f"old{n}" for n in range(6)), "new1")
    for _ in range(7):
        await reading.finish()
    assert reading.had.index("new1") <= 2
    assert [name for name in reading.had if name != "new1"] == [f"old{n}" for n in range(6)]


@pytest.mark.parametrize("given", [False, True], ids=["while it waits", "as it is given the turn"])
async def test_who_goes_away_takes_no_turn_with_it(given: bool) -> None:
    reading = Reading(1)
    await reading.come("new1", "new2", "new3")
    if given:
        reading.now["new1"].set()
        for _ in range(20):
            if "new1" not in reading.now:
                break
            await asyncio.sleep(0)  # noqa: TID251 - to the moment at which the turn has been passed on
    reading.tasks["new2"].cancel()
    await settle()
    if not given:
        await reading.finish()
    await reading.finish()
    await reading.finish()
    assert reading.had[-1] == "new3"
    await reading.come("new4")
    assert list(reading.now) == ["new4"], "the turn is free again"
    await reading.finish()


async def test_a_failure_gives_the_turn_back() -> None:
    turns = Turns(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="read"):
            async with turns.turn(arriving=True):
                raise ValueError("read")
    async with turns.turn(arriving=False):
        pass
