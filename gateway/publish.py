"""Commit, then ring: everything that changes an inbox and must be heard. Knows no wire and no SQL.

The bell is at most once and its failure never fails the request; it is rung from the commit itself, not from the caller
who asked, so a caller who goes away half-way leaves nobody unrung.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gateway.errors import GatewayError, Limited
from gateway.metrics import Metrics
from gateway.model import (
    Again,
    Append,
    Appended,
    Arrived,
    Draft,
    Entry,
    MarkedRead,
    Passing,
    Policy,
    Signal,
    Withdrawn,
    millis,
    new_id,
)
from gateway.ports import Bus, Clock, Inbox, Limiter, Presence

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Push:
    """One request to store: its recipients in order (no duplicates), the rendered content, its life in seconds.

    ``key``: the sender's idempotency key and the fingerprint of the request. ``listed``: as of ``Append``.
    """

    recipients: tuple[str, ...]
    content: str
    category: str | None
    ttl: int
    key: tuple[str, bytes] | None = None
    listed: bool = False


class Publisher:
    """``rate``: notifications per second and client, 0: no limit. ``overfull`` is told of inboxes over their limit."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        bus: Bus,
        presence: Presence,
        clock: Clock,
        metrics: Metrics,
        limiter: Limiter,
        rate: int,
        overfull: Callable[[Iterable[str]], None],
    ) -> None:
        self._inbox, self._bus, self._presence = inbox, bus, presence
        self._clock, self._metrics = clock, metrics
        self._limiter, self._policy = limiter, Policy("push", rate, burst=rate) if rate else None
        self._overfull = overfull

    async def admit(self, sender: str, amount: int) -> None:
        """Count ``amount`` notifications against the sender's rate. Raises Limited.

        A request larger than a second's worth is let in when the bucket is full, and pays for it afterwards by waiting.
        """
        policy = self._policy
        if policy is None:
            return
        wait = await self._limiter.take(policy, sender, amount)
        if wait:
            raise Limited(policy.name, retry_after=wait, quota=int(policy.burst), window=1)

    async def push_all(self, sender: str, pushes: Sequence[Push]) -> list[Appended | GatewayError]:
        """Store each push, atomically for itself, in order. One result each: what was stored, or why not.

        Returns after the commit has reached the disk. What was committed is announced even if the caller is cancelled.
        """
        now = self._clock()
        online = await self._presence.online([user_id for push in pushes for user_id in push.recipients])
        requests = [self._request(sender, push, online, now) for push in pushes]
        future = asyncio.ensure_future(self._inbox.append_all(requests))
        future.add_done_callback(lambda done: self._ring(requests, done))
        results = await asyncio.shield(future)
        return [_expected(result) for result in results]

    def _request(self, sender: str, push: Push, online: Mapping[str, bool | None], now: float) -> Append:
        created_at = millis(now)
        expires_at = created_at + push.ttl * 1000
        drafts = [
            Draft(new_id(now), user_id, push.content, push.category, created_at, expires_at, online.get(user_id))
            for user_id in push.recipients
        ]
        return Append(sender, tuple(drafts), push.key, push.listed)

    def _ring(self, requests: Sequence[Append], done: asyncio.Future[Sequence[Appended | BaseException]]) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        signals: list[Signal] = []
        replayed: dict[str, None] = {}
        for request, appended in zip(requests, done.result(), strict=True):
            if isinstance(appended, BaseException):
                continue
            if appended.overfull:
                self._overfull(appended.overfull)
            if appended.replayed:
                replayed |= dict.fromkeys([stored.user_id for stored in appended.outcomes if stored.seq is not None])
                continue
            signals += [
                Arrived(draft.user_id, _entry(draft, stored.seq))
                for draft, stored in zip(request.drafts, appended.outcomes, strict=True)
                if stored.seq is not None
            ]
        self._metrics.stored.inc(len(signals))
        if replayed:
            # If the answer of the database to the first try was lost, nobody has announced what it stored. By now it
            # may be read or taken back: only the log knows.
            signals.append(Again(tuple(replayed)))
        self._bus.publish(signals)

    def pass_by(self, sender: str, recipients: tuple[str, ...] | None, content: str) -> str:
        """The fast lane, stored nowhere: to whoever is caught up now (``recipients`` None: everyone). Its id."""
        now = self._clock()
        signal = Passing(recipients, new_id(now), content, millis(now))
        self._metrics.passed.inc(1)
        self._bus.publish([signal])
        return signal.id

    async def online(self, user_ids: Sequence[str]) -> Mapping[str, bool | None]:
        return await self._presence.online(user_ids)

    async def online_count(self, user_ids: Sequence[str] | None) -> int | None:
        """How many of these users are online, on all nodes; None if that cannot be known now. ``user_ids`` None: how
        many there are, where one with devices on two nodes counts on each."""
        if user_ids is None:
            summary = await self._presence.summary()
            return sum(node.users for node in summary.nodes) if summary.complete else None
        known = [*(await self._presence.online(user_ids)).values()]
        return None if None in known else known.count(True)

    async def mark_read(self, user_id: str, *, ids: Sequence[str] = (), up_to: int | None = None) -> MarkedRead:
        """Raises Invalid if ``up_to`` lies beyond the head."""
        return await self._change(
            self._inbox.mark_read(user_id, ids=ids, up_to=up_to, now=millis(self._clock())),
            lambda marked: [marked] if marked.changed else [],
        )

    async def withdraw(self, id: str, *, sender: str | None) -> None:
        """Take a notification back, wherever it is. Raises NotFound("notification")."""
        await self._change(
            self._inbox.withdraw(id, sender=sender, now=millis(self._clock())),
            lambda taken: [taken] if taken is not None else [],
        )

    async def hide(self, user_id: str, id: str) -> None:
        """Out of this user's own inbox. Raises NotFound("notification")."""
        await self._change(self._inbox.hide(user_id, id, now=millis(self._clock())), lambda hidden: [hidden])

    async def _change(self, work: Awaitable[T], signals: Callable[[T], Sequence[MarkedRead | Withdrawn]]) -> T:
        def ring(done: asyncio.Future[T]) -> None:
            if not done.cancelled() and done.exception() is None:
                self._bus.publish(signals(done.result()))

        future = asyncio.ensure_future(work)
        future.add_done_callback(ring)
        return await asyncio.shield(future)


def _entry(draft: Draft, seq: int) -> Entry:
    return Entry(seq, draft.id, draft.content, draft.created_at, draft.expires_at)


def _expected(result: Appended | BaseException) -> Appended | GatewayError:
    if isinstance(result, Appended | GatewayError):
        return result
    raise result
