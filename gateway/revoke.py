"""Revocation: into the database, into memory, onto the sockets. The decision who may revoke is the caller's.

A revocation counts when it is committed. This node then closes the matching sockets before it answers; every node, this
one included, also reads new ones from the database twice a second, whatever the bus says (contract 8).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from gateway.closing import BY_REASON, TOKEN_REVOKED
from gateway.errors import StoreUnavailable
from gateway.granting import ban_until
from gateway.hub import Hub
from gateway.model import Actor, Ban, Revocation, RevocationsChanged, Target, millis
from gateway.ports import Bus, Clock
from gateway.ports import Revocations as RevocationLog
from gateway.revocations import Revocations

POLL_EVERY = 0.5
PAGE = 1000
"""Rules read at once: between two pages the event loop, and whoever waits for the database, go on."""

log = logging.getLogger("gateway.revoke")


class Revoker:
    def __init__(
        self,
        *,
        store: RevocationLog,
        memory: Revocations,
        hub: Hub,
        bus: Bus,
        clock: Clock,
        monotonic: Callable[[], float],
        access_ttl: int,
    ) -> None:
        self._store, self._memory, self._hub, self._bus = store, memory, hub, bus
        self._clock, self._monotonic, self._access_ttl = clock, monotonic, access_ttl
        self._highest = self._histories = 0
        self._rung = asyncio.Event()
        self._fresh_waiters: asyncio.Event = asyncio.Event()

    def until(self) -> int:
        """Until when (ms) a ban written now has to stand: every token it is aimed at has expired by then."""
        return ban_until(millis(self._clock()), self._access_ttl)

    async def revoke(
        self,
        target: Target,
        *,
        reason: str | None,
        by: Actor,
        why: str = "token_revoked",
        listed: bool = True,
        because: tuple[str, Mapping[str, object]] | None = None,
    ) -> tuple[Revocation, int]:
        """Revoke, and close the matching sockets here before returning; how many those were. ``listed`` and ``because``
        are the port's.

        Raises NotFound("user" | "session" | "client"), StoreUnavailable (unknown whether it was written).
        """
        now = millis(self._clock())
        work = asyncio.ensure_future(
            self._store.revoke(
                target, why=why, reason=reason, by=by, now=now, until=self.until(), listed=listed, because=because
            )
        )
        # The caller may go away while it commits: the sockets die all the same, now and not at the next poll.
        closed: list[int] = []
        work.add_done_callback(
            lambda done: None if done.cancelled() or done.exception() else closed.append(self.apply(done.result().bans))
        )
        revocation = await asyncio.shield(work)
        return revocation, sum(closed)

    def apply(self, bans: Iterable[Ban]) -> int:
        """Take in what this node has committed, and ring: the sockets it ends here are closed when this returns. How
        many."""
        written = tuple(bans)
        closed = self._take(written)
        if written:
            self._bus.publish([RevocationsChanged()])
        return closed

    def _take(self, bans: Iterable[Ban]) -> int:
        new = self._memory.add(bans)
        closed = 0
        for ban in new:
            for connection in self._hub.matching(ban):
                connection.close(BY_REASON.get(ban.why, TOKEN_REVOKED))
                closed += 1
        return closed

    def rung(self) -> None:
        """Somebody revoked: poll now."""
        self._rung.set()

    @property
    def fresh(self) -> bool:
        return self._memory.fresh(at=self._monotonic())

    async def until_fresh(self) -> None:
        """Return when news of revocations is fresh."""
        while not self.fresh:
            self._fresh_waiters.clear()
            await self._fresh_waiters.wait()

    def begin_again(self) -> None:
        """The log has another name: numbers may be given again, so all rules are read again. Who is banned stays so."""
        self._highest = 0
        self._histories += 1
        self._rung.set()

    async def poll(self) -> None:
        """Read what is new. Raises StoreUnavailable; then nothing changed and freshness runs out by itself."""
        histories, more = self._histories, True
        while more:
            began = self._monotonic()  # the last page holds all that was committed before its read began
            bans = await self._store.since(self._highest, now=millis(self._clock()), limit=PAGE)
            self._take(bans)  # whoever wrote them has rung
            if histories != self._histories:
                return  # read before the log got its other name: it says nothing about the numbers of now
            self._highest = max([self._highest, *(ban.number for ban in bans)])
            more = len(bans) == PAGE
        self._memory.refreshed(at=began)
        self._fresh_waiters.set()

    async def keep_polling(self) -> None:
        complained = False
        while True:
            self._rung.clear()
            try:
                await self.poll()
                complained = False
            except StoreUnavailable:
                if not complained:
                    log.error("news of revocations cannot be read: no notification is written until they can")
                complained = True
            try:
                async with asyncio.timeout(POLL_EVERY):
                    await self._rung.wait()
            except TimeoutError:
                pass
