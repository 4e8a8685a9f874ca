"""The task that keeps this node's part of Redis true, and the roll of the others fresh. Answers no question itself.

It alone writes, one round trip after the other; what changes meanwhile goes together in the next. No timer but that
of the sign of life and that of the next user who will be gone.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable

from gateway.presence.here import Here
from gateway.presence.roll import Roll
from gateway.presence.standing import AT_ONCE, WITHIN, Lost, Standing, names
from gateway.presence.written import Keys
from gateway.redis_link import Link, Unreached

log = logging.getLogger("gateway.presence")

QUICK = 0.1
"""Seconds. A Redis slower than this is not asked while somebody waits."""
RENEWED = 600.0
"""Seconds in which each user is written again, changed or not: what Redis dropped comes back, and no key ends."""
RETRIES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
SPARED = 1.0
"""Seconds in which nobody asks a Redis that has been slow to answer."""
PAUSE = 0.05
COMPLAIN = 10.0
"""Seconds between two complaints in the log."""
GOODBYE = 1.0


class Upkeep:
    """``begin`` makes another instance of ours. ``beat``: seconds between two signs of life."""

    def __init__(
        self,
        link: Link,
        keys: Keys,
        roll: Roll,
        here: Here,
        *,
        begin: Callable[[], Standing],
        monotonic: Callable[[], float],
        beat: float,
    ) -> None:
        self._link, self._keys, self._roll, self._here = link, keys, roll, here
        self._make, self._monotonic, self._beat = begin, monotonic, beat
        self._own: Standing | None = None
        self._sound = False
        self._former: deque[str] = deque(maxlen=20)
        """Instances of ours that may still stand. One that is forgotten here ends by itself all the same."""
        self._dirty: dict[str, None] = {}
        self._to_renew: list[str] = []
        self._next_beat = 0.0
        self._failures = 0
        self._complained, self._last_complaint = False, -math.inf
        self._wake, self._ended = asyncio.Event(), asyncio.Event()

    # -- what others call ----------------------------------------------------------------------------------------

    @property
    def instance(self) -> str | None:
        """Ours, while Redis may be asked by those who cannot wait; else None."""
        return self._own.instance if self._own is not None and self._sound else None

    def changed(self, user_id: str) -> None:
        """Something is different about this user: it will be told. Never waits."""
        if self._own is not None:  # else all that are here will be written anyway
            self._dirty[user_id] = None
        self._wake.set()

    def doubt(self, why: str, *, slow: bool = False) -> None:
        """Somebody who asked got no good answer: nobody asks until a sign of life is answered, if Redis was ``slow``
        no sooner than in a second."""
        self._troubled(why)
        self._next_beat = self._monotonic() + (SPARED if slow else 0.0)
        self._wake.set()

    async def run(self) -> None:
        """Until ``end``."""
        while not self._ended.is_set():
            self._wake.clear()
            started = self._monotonic()
            pause, waits = 0.0, self._ended
            try:
                await self._round()
            except Lost as lost:
                self._begin_anew()
                pause = self._failed(str(lost))
            except Unreached as error:
                pause = self._failed(str(error))
            except Exception:  # a bug in here must not silence this node for the life of the process
                log.exception("presence: the upkeep failed and begins anew")
                self._begin_anew()
                pause = self._failed("the upkeep failed")
            else:
                # With pauses: a node that writes all its users again has sockets to serve meanwhile.
                pause = min(PAUSE, (self._monotonic() - started) / 2) if self._dirty else self._idle()
                waits = self._ended if self._dirty else self._wake
            await _happens(waits, within=pause)

    async def end(self, task: asyncio.Task[None]) -> None:
        """Take our part back, if Redis answers, within about two seconds."""
        self._ended.set()
        self._wake.set()
        try:  # it is not torn out of a write, which might take effect after the goodbye
            await asyncio.wait([task], timeout=GOODBYE)
        finally:
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if self._own is not None and self._sound:
            self._sound = False
            try:
                async with asyncio.timeout(GOODBYE):
                    await self._own.goodbye()
            except (TimeoutError, Unreached) as error:
                log.info("presence: the goodbye is cut short: %s", error)
        self._sound = False

    # -- one turn of it ------------------------------------------------------------------------------------------

    async def _round(self) -> None:
        self._here.sweep()
        own = self._own
        if own is None:
            own = await self._begin()
        elif self._monotonic() >= self._next_beat:
            await self._tell_we_live(own)
        if self._dirty:
            await self._write(own)
        if not self._dirty and not own.whole:
            own.whole = True
            await own.send([])

    async def _begin(self) -> Standing:
        members, settling = await self._link.send(
            [("SMEMBERS", self._keys.nodes), ("GET", self._keys.settling)], within=WITHIN
        )
        others = names(members)
        await self._roll.take(others.difference(self._former), settling=settling is not None, within=WITHIN)
        own = self._make()
        former = tuple(self._former)
        self._former.append(own.instance)  # until it is known to stand
        # Nobody there: all is lost, or nobody has begun yet. Who is not found now may be found a moment later.
        if await own.begin(former=former, others=others, settling=2 * self._beat):
            self._roll.settling = True
        self._former.clear()
        self._own = own
        self._dirty = dict.fromkeys(self._here.present)
        self._alive()
        return own

    async def _tell_we_live(self, own: Standing) -> None:
        for user_id in self._renewed():
            self._dirty[user_id] = None
        started = self._monotonic()
        others, settling = await own.beat()
        quick = self._monotonic() - started <= QUICK
        dead = await self._roll.take(others, settling=settling, within=WITHIN)
        if dead:
            await self._link.send([("SREM", self._keys.nodes, *dead)], within=WITHIN)
        self._alive(quick=quick)
        self._failures = 0  # only now: should Redis drop our record again and again, we begin less and less often

    def _renewed(self) -> list[str]:
        """The next slice of those that are here."""
        present = self._here.present
        if not self._to_renew:
            self._to_renew = list(present)
        amount = min(len(self._to_renew), math.ceil(len(present) * self._beat / RENEWED))
        return [user_id for user_id in (self._to_renew.pop() for _ in range(amount)) if user_id in present]

    async def _write(self, own: Standing) -> None:
        """Tell what is so of the next group. Read first: since when they were elsewhere, and what the dead left."""
        group = [self._dirty.popitem()[0] for _ in range(min(AT_ONCE, len(self._dirty)))]
        try:
            stands, found = await self._roll.read(group, own=own.instance, within=WITHIN)
            if not stands:
                raise Lost("what was written is lost")
            await own.send(
                [one for user_id, now in zip(group, found, strict=True) for one in own.commands(user_id, now)]
            )
        except Unreached:
            self._dirty.update(dict.fromkeys(group))
            raise

    # -- how it stands -------------------------------------------------------------------------------------------

    def _idle(self) -> float:
        return min(self._next_beat, self._here.next_gone or math.inf) - self._monotonic()

    def _alive(self, *, quick: bool = True) -> None:
        self._next_beat = self._monotonic() + self._beat
        if quick and not self._sound:
            self._sound = True
            if self._complained:
                log.info("presence: it is known again")
            self._complained = False

    def _failed(self, why: str) -> float:
        """How long to wait, in seconds, before the next try."""
        self._troubled(why)
        self._next_beat = self._monotonic()
        pause = min(self._beat, RETRIES[min(self._failures, len(RETRIES) - 1)])
        self._failures += 1
        return pause

    def _troubled(self, why: str) -> None:
        self._sound = False
        now = self._monotonic()
        if not self._complained and now - self._last_complaint >= COMPLAIN:
            log.warning("presence: it is not known who is online on other nodes: %s", why)
            self._complained, self._last_complaint = True, now

    def _begin_anew(self) -> None:
        if self._own is not None:
            self._former.append(self._own.instance)
        self._own = None
        self._dirty.clear()
        self._to_renew.clear()


async def _happens(event: asyncio.Event, *, within: float) -> None:
    """Return when ``event`` is set, or after ``within`` seconds; the loop turns in any case."""
    try:
        async with asyncio.timeout(max(0.0, within)):
            await event.wait()
    except TimeoutError:
        return
    await asyncio.sleep(0)
