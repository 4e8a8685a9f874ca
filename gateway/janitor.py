"""Expiry, the inbox limit, and everything nobody can ask for any more. Works in small slices; decides nothing live.

What leaves an inbox is told by ``gap`` when somebody reads past it; nothing is announced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from gateway.errors import StoreUnavailable
from gateway.metrics import Metrics
from gateway.model import millis
from gateway.ports import Clock, Failures, Inbox, Revocations, Sessions, UsedTickets
from gateway.revocations import Revocations as Denylist

EVERY = 5.0
SLICE = 500
CLOCK_MAY_JUMP = 2 * 3_600_000
"""Milliseconds a ban, or a used ticket, is kept longer than needed: a clock that was set an hour ahead comes back."""
SESSIONS_KEPT = 7 * 86_400_000
"""Milliseconds an ended session stays visible to whoever looks for what happened."""

log = logging.getLogger("gateway.janitor")


class Janitor:
    """``keep``: entries an inbox may hold. ``idle``: milliseconds after which a session that was not refreshed is
    over, its last token too. ``overfull`` is told by whoever stores."""

    def __init__(
        self, *, inbox: Inbox, sessions: Sessions, revocations: Revocations, tickets: UsedTickets,
        failures: Failures, denylist: Denylist, clock: Clock, metrics: Metrics, keep: int, idle: int,
    ) -> None:  # fmt: skip
        self._inbox, self._sessions, self._revocations, self._tickets = inbox, sessions, revocations, tickets
        self._failures = failures
        self._denylist, self._clock, self._metrics, self._keep = denylist, clock, metrics, keep
        self._idle = idle
        self._overfull: set[str] = set()

    def overfull(self, user_ids: Iterable[str]) -> None:
        """These inboxes went over the limit."""
        self._overfull.update(user_ids)

    async def sweep(self) -> None:
        """One round, slice by slice until nothing is left to do. Raises StoreUnavailable; the next round goes on."""
        now = millis(self._clock())
        await self._all("expired", lambda: self._inbox.expire(now=now, limit=SLICE))
        users, self._overfull = self._overfull, set()
        try:
            if users:
                self._metrics.janitor.labels("trimmed").inc(
                    await self._inbox.trim(sorted(users), keep=self._keep, now=now)
                )
        except StoreUnavailable:
            self._overfull |= users
            raise
        await self._all("receipts and keys", lambda: self._inbox.purge(now=now, limit=SLICE))
        before = now - SESSIONS_KEPT
        await self._all("sessions", lambda: self._sessions.purge(before=before, idle=self._idle, limit=SLICE))
        await self._all("revocations", lambda: self._revocations.purge(now=now - CLOCK_MAY_JUMP, limit=SLICE))
        await self._all("tickets", lambda: self._tickets.purge(now=now - CLOCK_MAY_JUMP, limit=SLICE))
        await self._all("failed sign-ins", lambda: self._failures.purge(now=now, limit=SLICE))
        self._denylist.forget(now=now - CLOCK_MAY_JUMP)

    async def _all(self, kind: str, slice_of: Callable[[], Awaitable[int]]) -> None:
        while (gone := await slice_of()) > 0:
            self._metrics.janitor.labels(kind).inc(gone)
            if gone < SLICE:
                return

    async def run(self) -> None:
        try:
            self.overfull(await self._inbox.overfull(keep=self._keep))
        except StoreUnavailable:
            log.warning("could not look for inboxes over their limit; those that grow will be found")
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.sweep()
            except StoreUnavailable:
                log.warning("a round of the janitor was cut short: the database cannot be used right now")
