"""The port ``Inbox`` over SQL: who waits together travels together. The statements stand beside it, not in it."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from functools import partial

from sqlalchemy import Connection

from gateway.epoch import Epoch
from gateway.errors import Conflict
from gateway.group import Group
from gateway.model import (
    Append,
    Appended,
    Entry,
    Listing,
    MarkedRead,
    Opening,
    Page,
    Receipt,
    State,
    Withdrawn,
)
from gateway.store import append, leaving, marking, pages
from gateway.store.database import Database

PAGES_AT_ONCE = 20
"""Who waits for a page of one group writes it in one turn of the event loop: 2000 frames at most."""
OVERFULL_STEP = 20_000
TRIM_USERS, TRIM_STEP = 200, 1000
"""Users whose inboxes one transaction of a trim holds at most, and entries that it moves."""


class SqlInbox:
    """``inbox_max``: beyond it a user is named in ``Appended.overfull``; nothing is refused or moved by itself.

    ``epoch`` is asked inside a transaction that takes a position: after a failover it may be another than when the
    position was given, and then the number means something that was never seen.
    """

    def __init__(self, database: Database, *, inbox_max: int, epoch: Epoch) -> None:
        self._database = database
        self._inbox_max = inbox_max
        self._epoch = epoch
        self._appends = Group(self._append, limit=1000, weight=2000, measure=lambda request: len(request.drafts))
        self._acks = Group(self._acknowledge)
        self._openings = Group(self._open, limit=200)
        self._pages = Group(self._read, limit=PAGES_AT_ONCE)
        self._states = Group(self._count, limit=500, weight=2000, measure=len)

    async def settled(self) -> None:
        """Return when nothing waits or is on its way."""
        for group in (self._appends, self._acks, self._openings, self._pages, self._states):
            await group.settled()

    async def append(self, request: Append) -> Appended:
        return await self._appends.submit(request)

    def append_all(self, requests: Sequence[Append]) -> Awaitable[Sequence[Appended | BaseException]]:
        return self._appends.submit_all(requests)

    async def opening(self, user_id: str, *, session: str, now: int) -> Opening:
        return await self._openings.submit(pages.Arrival(user_id, session, now))

    async def page(self, user_id: str, *, after: int, now: int) -> Page:
        return await self._pages.submit(pages.Position(user_id, after, now))

    async def states(self, user_ids: Sequence[str]) -> Mapping[str, State]:
        return await self._states.submit(tuple(user_ids))

    async def listing(
        self,
        user_id: str,
        *,
        after: int | None,
        before: int | None,
        limit: int,
        unread: bool,
        category: str | None,
        now: int,
    ) -> Listing:
        return await self._database.read(
            lambda connection: pages.listing(
                connection, user_id, after=after, before=before, limit=limit, unread=unread, category=category, now=now
            )
        )

    async def entry(self, user_id: str, id: str, *, now: int) -> Entry:
        return await self._database.read(lambda connection: pages.entry(connection, user_id, id, now=now))

    async def receipt(self, id: str, *, now: int) -> Receipt:
        return await self._database.read(lambda connection: pages.receipt(connection, id, now=now))

    async def ack(self, user_id: str, *, session: str, seq: int, now: int) -> None:
        await self._acks.submit((self._epoch.current, marking.Ack(user_id, session, seq, now)))

    async def mark_read(
        self, user_id: str, *, ids: Sequence[str] = (), up_to: int | None = None, now: int
    ) -> MarkedRead:
        """Also raises NotFound("user")."""
        meant = self._epoch.current

        def work(connection: Connection) -> MarkedRead:
            if self._epoch.current != meant:
                raise _of_another_log()
            return marking.mark_read(connection, user_id, ids=ids, up_to=up_to, now=now)

        return await self._database.write(work)

    async def withdraw(self, id: str, *, sender: str | None, now: int) -> Withdrawn | None:
        return await self._database.write(lambda connection: leaving.withdraw(connection, id, sender=sender, now=now))

    async def hide(self, user_id: str, id: str, *, now: int) -> Withdrawn:
        return await self._database.write(lambda connection: leaving.hide(connection, user_id, id, now=now))

    async def expire(self, *, now: int, limit: int) -> int:
        return await self._database.write(lambda connection: leaving.expire(connection, now=now, limit=limit))

    async def trim(self, user_ids: Iterable[str], *, keep: int, now: int) -> int:
        wanted = tuple(user_ids)
        moved = 0
        for at in range(0, len(wanted), TRIM_USERS):
            some = wanted[at : at + TRIM_USERS]
            step = TRIM_STEP
            while step == TRIM_STEP:
                step = await self._database.write(
                    partial(leaving.trim, user_ids=some, keep=keep, now=now, limit=TRIM_STEP)
                )
                moved += step
        return moved

    async def overfull(self, *, keep: int) -> Sequence[str]:
        found: list[str] = []
        after: str | None = ""
        while after is not None:  # step by step: with millions of users one statement would take longer than it may
            more, after = await self._database.read(
                partial(leaving.overfull, keep=keep, after=after, step=OVERFULL_STEP)
            )
            found += more
        return found

    async def purge(self, *, now: int, limit: int) -> int:
        return await self._database.write(lambda connection: leaving.purge(connection, now=now, limit=limit))

    async def _append(self, requests: list[Append]) -> Sequence[Appended | BaseException]:
        try:
            return await self._database.write(
                lambda connection: append.append_group(connection, requests, inbox_max=self._inbox_max), grouped=True
            )
        except append.BAD_DATA as error:
            if not append.is_bad_data(error):
                raise
            return await self._database.write(
                lambda connection: append.append_each(connection, requests, inbox_max=self._inbox_max), grouped=True
            )

    async def _acknowledge(self, asked: list[tuple[str, marking.Ack]]) -> Sequence[BaseException | None]:
        def work(connection: Connection) -> Sequence[BaseException | None]:
            now = self._epoch.current
            done = iter(marking.acknowledge(connection, [ack for epoch, ack in asked if epoch == now]))
            return [next(done) if epoch == now else _of_another_log() for epoch, _ in asked]

        return await self._database.write(work, grouped=True)

    async def _open(self, asked: list[pages.Arrival]) -> Sequence[Opening | BaseException]:
        return await self._database.read(lambda connection: pages.openings(connection, asked))

    async def _read(self, asked: list[pages.Position]) -> Sequence[Page | BaseException]:
        return await self._database.read(lambda connection: pages.pages(connection, asked))

    async def _count(self, asked: list[tuple[str, ...]]) -> Sequence[Mapping[str, State] | BaseException]:
        together = list({user_id for user_ids in asked for user_id in user_ids})
        found = await self._database.read(lambda connection: pages.states(connection, together))
        return [{user_id: found[user_id] for user_id in user_ids if user_id in found} for user_ids in asked]


def _of_another_log() -> Conflict:
    return Conflict("epoch_mismatch", "The log has another name now: forget the numbers kept with it.")
