"""How many handshakes go on, and who waits for one. Reads no request and answers none.

When thousands come back at once each costs little and all of them a second, in which nobody else would be served: so
a few begin in each turn of the event loop, and the others wait, in order, as what they are: a request that was read.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

EACH_TURN = 8
"""Handshakes that begin in one turn of the loop: about two milliseconds of work."""


class Waiting(Protocol):
    """A handshake that has not begun. ``begin`` does not wait; whoever began calls ``Admission.over`` once."""

    def begin(self) -> None: ...


class Admission:
    """``at_once``: handshakes under way; some wait for the database or Redis. ``waiting``: how many more may wait."""

    def __init__(self, *, at_once: int, waiting: int) -> None:
        self._at_once, self._most = at_once, waiting
        self._waiting: dict[Waiting, None] = {}
        self._under_way = 0
        self._begun = 0  # in this turn

    def enter(self, one: Waiting) -> bool:
        """Begin with it now or in its turn. False: there are too many before it."""
        if self._may_begin and not self._waiting:
            self._begin(one)
        elif len(self._waiting) < self._most:
            self._waiting[one] = None
        else:
            return False
        return True

    def leave(self, one: Waiting) -> bool:
        """It waits no longer. Whether it did."""
        return self._waiting.pop(one, self) is None

    def over(self) -> None:
        """One that began has come to its end."""
        self._under_way -= 1
        self._go_on()

    @property
    def _may_begin(self) -> bool:
        return self._under_way < self._at_once and self._begun < EACH_TURN

    def _go_on(self) -> None:
        while self._waiting and self._may_begin:
            first = next(iter(self._waiting))
            del self._waiting[first]
            self._begin(first)

    def _begin(self, one: Waiting) -> None:
        self._under_way += 1
        self._begun += 1
        if self._begun == 1:
            asyncio.get_running_loop().call_soon(self._next_turn)
        one.begin()

    def _next_turn(self) -> None:
        self._begun = 0
        self._go_on()
