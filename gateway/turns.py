"""Whose turn it is, of two lines: who reads the inbox, who writes to the one database. Awaits only its own futures."""

from __future__ import annotations

import asyncio
from collections import deque

AT_ONCE = 40
"""Two groups of pages (``store.inbox.PAGES_AT_ONCE``): one on its way, the next one gathering."""


class Turns:
    """At most ``at_once`` have a turn. Who waits stands in one of two lines, each in order: those who have just come,
    and those who were here and fell behind (of the writer: groups, and who comes alone). The lines are served
    alternately, so that a storm of the ones and a flood for the others do not wait for each other's end."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._free = at_once
        self._lines: tuple[deque[asyncio.Future[None]], deque[asyncio.Future[None]]] = (deque(), deque())
        self._last = 0
        self._either = (Turn(self, False), Turn(self, True))

    def turn(self, *, arriving: bool) -> Turn:
        """In an ``async with`` block of it, it is the caller's turn."""
        return self._either[arriving]

    async def take(self, arriving: bool) -> None:
        if self._free:
            self._free -= 1
        else:
            await self._wait(self._lines[arriving])

    def give_back(self) -> None:
        """To the first of the line that was not served last; of the other one, if nobody stands there."""
        for at in (1 - self._last, self._last):
            line = self._lines[at]
            while line:
                first = line.popleft()
                if not first.done():  # else it was cancelled
                    self._last = at
                    first.set_result(None)
                    return
        self._free += 1

    async def _wait(self, line: deque[asyncio.Future[None]]) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if not mine.cancelled():  # it was given the turn at the same moment
                self.give_back()
            raise


class Turn:
    """The block. It keeps nothing, so there is one for all who stand in a line."""

    __slots__ = ("_arriving", "_turns")

    def __init__(self, turns: Turns, arriving: bool) -> None:
        self._turns, self._arriving = turns, arriving

    async def __aenter__(self) -> None:
        await self._turns.take(self._arriving)

    async def __aexit__(self, *exc: object) -> None:
        self._turns.give_back()
