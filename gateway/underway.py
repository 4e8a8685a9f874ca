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
from itertools import chain

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
class Visit:
    """One who may fail, and counts for ``keys``. ``number``: who came earlier has a lower one. ``until``: what is known
    to be kept. ``line``: of the first count of a barrier that is in the way, while they stand there; when their
    ``turn`` has come they are ``placed``."""

    number: int
    barriers: Sequence[Barrier]
    keys: Sequence[bytes]
    until: Mapping[bytes, int] = field(default_factory=dict)
    placed: bool = False
    waits: bool = False
    line: bytes | None = None
    turn: asyncio.Future[None] = field(default_factory=_new_turn)


class UnderWay:
    """The places of those who may fail, by the keys of what they count for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._came = 0
        self._places: Counter[bytes] = Counter()
        self._lines: dict[bytes, deque[Visit]] = {}
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many have waited and have not entered yet."""
        return self._waiting

    def at(self, key: bytes) -> int:
        """How many have a place that count for ``key``."""
        return self._places[key]

    def crowded(self, barriers: Sequence[Barrier]) -> bool:
        """Whether ``room`` would refuse who comes now."""
        if self._waiting < WAITING:
            return False
        return (self._in_the_way(barriers, {}) or self._before(barriers, self._came + 1)) is not None

    def newcomer(self, barriers: Sequence[Barrier]) -> Visit:
        """Somebody comes. ``leave`` is called when they are gone, whatever has happened until then."""
        self._came += 1
        return Visit(self._came, barriers, [count.key for count in chain.from_iterable(barriers)])

    async def room(self, visit: Visit) -> None:
        """Return when there is room beside the others who have a place, by what ``visit`` knows to be kept. Whoever has
        waited for it is placed now, who need not wait is not yet: ``enter`` does it. Who is placed and has learnt that
        there is no room gives the place back and waits where they stood. Raises TooManySignIns, at once, if too many
        wait."""
        placed = visit.placed
        if placed:
            self._give_back(visit)
        line = self._line_for(visit)
        if line is None:
            if placed:
                self._place(visit)
            return
        if not visit.waits:
            if self._waiting >= WAITING:
                raise TooManySignIns
            visit.waits = True
            self._waiting += 1
        visit.turn = _new_turn()
        self._stand(visit, line)
        if placed:
            self._move_up(visit.keys)
        await visit.turn

    def enter(self, visit: Visit) -> None:
        """Their place is theirs until they ``leave``."""
        if not visit.placed:
            self._place(visit)
        self._waits_no_more(visit)

    def leave(self, visit: Visit) -> None:
        """One less: who waited for that has the place, in the same turn of the loop and in order."""
        self._waits_no_more(visit)
        if visit.placed:
            self._give_back(visit)
            self._move_up(visit.keys)
        elif visit.line is not None:
            self._lines[visit.line].remove(visit)
            self._move_up([visit.line])  # whoever stood behind may have been held up by what this one knew

    def _place(self, visit: Visit) -> None:
        self._places.update(visit.keys)
        visit.placed = True

    def _give_back(self, visit: Visit) -> None:
        visit.placed = False
        for key in visit.keys:
            self._places[key] -= 1
            if not self._places[key]:
                del self._places[key]

    def _waits_no_more(self, visit: Visit) -> None:
        self._waiting -= visit.waits
        visit.waits = False

    def _stand(self, visit: Visit, line: bytes) -> None:
        """By when they came: who stood in another line, or had a place for a moment, is not passed for that."""
        visit.line, standing = line, self._lines.setdefault(line, deque())
        at = len(standing)
        while at and standing[at - 1].number > visit.number:
            at -= 1
        standing.insert(at, visit)

    def _move_up(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            line = self._lines.get(key)
            while line and self._moves_up(line, key):
                pass
            if line is not None and not line:
                del self._lines[key]

    def _moves_up(self, line: deque[Visit], key: bytes) -> bool:
        """Whether the first of the line ``key`` has stood there long enough."""
        first = line[0]
        gone = first.turn.done()
        another = None if gone else self._line_for(first)
        if another == key:
            return False
        line.popleft()
        first.line = None
        if line:  # what the first of the line knows of ``key`` goes for those behind them
            known = max(first.until.get(key, 0), line[0].until.get(key, 0))
            line[0].until = {**line[0].until, key: known}
        if another is not None:
            self._stand(first, another)
        elif not gone:
            self._place(first)
            first.turn.set_result(None)
        return True

    def _line_for(self, visit: Visit) -> bytes | None:
        return self._in_the_way(visit.barriers, visit.until) or self._before(visit.barriers, visit.number)

    def _before(self, barriers: Sequence[Barrier], number: int) -> bytes | None:
        """A line that may not be passed by who came later, though they would fit: whoever stands there may know more of
        what is kept. At an account the innocent pass those whose network has failed there."""
        for barrier in barriers:
            line = self._lines.get(barrier[0].key)
            if len(barrier) == 1 and line and line[0].number < number:
                return barrier[0].key
        return None

    def _in_the_way(self, barriers: Sequence[Barrier], until: Mapping[bytes, int]) -> bytes | None:
        """The line to stand in; None if nobody is under way that need be waited for."""
        found = longest_wait(barriers, until, self._places, now=millis(self._clock()))
        if found is None or found[1].key not in self._places:
            return None
        return found[1].key
