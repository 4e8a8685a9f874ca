"""Who is under way of those that may fail, and who waits until there is room. Asks no database, and knows no failures.

So many may be under way as could fail without one too many: if all of them do, nobody was let through who should not
have been. Whoever waits stands in a line, and has the place of who leaves: a crowd at one address costs a step for each
sign-in, not one for each that waits.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.errors import TooManySignIns
from gateway.model import millis
from gateway.ports import Clock

WAITING = 64
"""How many may wait to hear how others fared; who comes on top is told to come back."""


@dataclass(frozen=True, slots=True)
class Count:
    """``quota`` failures fit, each of ``step`` milliseconds. ``policy``: what the limit is called to the outside."""

    key: bytes
    policy: str
    quota: int
    step: int

    @property
    def full(self) -> int:
        return self.quota * self.step

    def wait(self, until: int, *, ahead: int, now: int) -> int:
        """Milliseconds until one more failure fits, should the ``ahead`` that are under way all fail; 0: it does."""
        level = until - now
        if not 0 < level <= 2 * self.full:  # empty; or a clock was set back, which must not keep anybody out for hours
            level = 0
        return max(0, level + (ahead + 1) * self.step - self.full)


Barrier = tuple[Count, ...]
"""Stands in the way as long as each of its counts does. Whoever counts for one of them counts for the first."""


def longest_wait(
    barriers: Sequence[Barrier], until: Mapping[bytes, int], ahead: Mapping[bytes, int], *, now: int
) -> tuple[int, Count] | None:
    """The longest wait any barrier asks for (ms), and the count to name; None if none is in the way."""
    longest: tuple[int, Count] | None = None
    for barrier in barriers:
        wait = min([one.wait(until.get(one.key, 0), ahead=ahead.get(one.key, 0), now=now) for one in barrier])
        if wait > (longest[0] if longest else 0):
            longest = wait, barrier[0]
    return longest


def _new_turn() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False)
class _Waiter:
    """Stands in the line of the first count of a barrier that is in its way. When its ``turn`` has come it has its
    place."""

    barriers: Sequence[Barrier]
    keys: Sequence[bytes]
    until: Mapping[bytes, int]
    line: bytes
    turn: asyncio.Future[None] = field(default_factory=_new_turn)


class UnderWay:
    """The places of those who may fail, by the keys of what they count for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._places: Counter[bytes] = Counter()
        self._lines: dict[bytes, deque[_Waiter]] = {}
        self._waiting = 0

    @property
    def waiting(self) -> int:
        return self._waiting

    def at(self, key: bytes) -> int:
        """How many have a place that count for ``key``."""
        return self._places[key]

    def crowded(self, barriers: Sequence[Barrier]) -> bool:
        """Whether ``room`` would refuse who comes now."""
        return self._waiting >= WAITING and (self._in_the_way(barriers, {}) or self._before(barriers)) is not None

    async def room(self, barriers: Sequence[Barrier], keys: Sequence[bytes], until: Mapping[bytes, int]) -> bool:
        """Return when there is room beside those who have a place, by what is known to be kept (``until``). Whoever
        has waited for it has a place now (True), who need not wait has none yet (False): ``enter`` takes it. Raises
        TooManySignIns, at once, if too many wait."""
        line = self._in_the_way(barriers, until) or self._before(barriers)
        if line is None:
            return False
        if self._waiting >= WAITING:
            raise TooManySignIns
        waiter = _Waiter(barriers, keys, until, line)
        self._lines.setdefault(line, deque()).append(waiter)
        self._waiting += 1
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.cancelled():
                self._give_up(waiter)
            else:  # its turn came in the same moment
                self.leave(keys)
            raise
        finally:
            self._waiting -= 1
        return True

    def enter(self, keys: Sequence[bytes]) -> None:
        """Take a place, until ``leave``."""
        self._places.update(keys)

    def leave(self, keys: Sequence[bytes]) -> None:
        """One less: who waited for that has the place, in the same turn of the loop and in order."""
        for key in keys:
            self._places[key] -= 1
            if not self._places[key]:
                del self._places[key]
        for key in keys:
            self._move_up(key)

    def _move_up(self, key: bytes) -> None:
        line = self._lines.get(key)
        known = 0  # what the first of the line knows of ``key`` goes for those behind them
        while line:
            first = line[0]
            if first.turn.done():  # it has gone away
                line.popleft()
                continue
            known = max(known, first.until.get(key, 0))
            in_the_way = self._in_the_way(first.barriers, {**first.until, key: known})
            if in_the_way == key:
                return
            line.popleft()
            if in_the_way is None:
                self._places.update(first.keys)
                first.turn.set_result(None)
            else:
                first.line = in_the_way
                self._lines.setdefault(in_the_way, deque()).append(first)
        if line is not None:
            del self._lines[key]

    def _give_up(self, waiter: _Waiter) -> None:
        line = self._lines.get(waiter.line, deque())
        if waiter in line:
            line.remove(waiter)
            if not line:
                del self._lines[waiter.line]

    def _before(self, barriers: Sequence[Barrier]) -> bytes | None:
        """A line that nobody may pass, though they would fit: whoever stands there may know more of what is kept. At
        an account the innocent pass those whose network has failed there."""
        return next(
            (barrier[0].key for barrier in barriers if len(barrier) == 1 and barrier[0].key in self._lines), None
        )

    def _in_the_way(self, barriers: Sequence[Barrier], until: Mapping[bytes, int]) -> bytes | None:
        """The line to stand in; None if nobody is under way that need be waited for."""
        found = longest_wait(barriers, until, self._places, now=millis(self._clock()))
        if found is None or found[1].key not in self._places:
            return None
        return found[1].key
