"""Bus → hub: what is announced reaches the connections of this node. Keeps nothing and promises nothing: the log does.

Long lists are handed over in slices, and the loop turns between them: 9000 sockets at once would block it for 74 ms.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from gateway import frames
from gateway.errors import StoreUnavailable
from gateway.hub import Attached, Hub
from gateway.metrics import Metrics
from gateway.model import (
    Again,
    Arrived,
    ConnectionInfo,
    MarkedRead,
    Passing,
    RevocationsChanged,
    Signal,
    State,
    Withdrawn,
)

log = logging.getLogger("gateway.relay")

SLICE = 200
TOGETHER = 8 * 1024
"""Bytes of frames that travel in one write, and one more: below a transport's high-water mark."""
ENVELOPE = 200
"""Bytes of a frame besides its content, about."""
MOST_PASSING = 100_000
"""Deliveries of ``ttl: 0`` that may be waiting, one push aside: about a second of work, and all waits behind them."""
RECHECK_EVERY = 20.0
RECHECK_EVERY_IN_TROUBLE = 3.0
RECHECK_SLICE = 500
RESYNC_PAUSE = 0.02
"""Seconds between two questions of a resync: many nodes may have one at the same moment, and they share a database."""


class States(Protocol):
    """The one verb of the inbox that the slow re-check needs."""

    async def states(self, user_ids: Sequence[str]) -> Mapping[str, State]: ...


class Relay:
    """Implements ``ports.Receiver``. ``fresh`` says whether this node may write notifications now (contract 8);
    ``trouble`` whether hints do not travel now, and the slow re-check has to be quicker; ``clock`` in seconds."""

    def __init__(
        self,
        *,
        hub: Hub,
        states: States,
        fresh: Callable[[], bool],
        revocations_rung: Callable[[], None],
        metrics: Metrics,
        trouble: Callable[[], str | None] = lambda: None,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._hub, self._states, self._fresh, self._trouble = hub, states, fresh, trouble
        self._revocations_rung, self._metrics, self._clock = revocations_rung, metrics, clock
        self._observed = 0
        self._queue: deque[tuple[Signal, int]] = deque()
        self._passing = 0
        self._draining: asyncio.Task[None] | None = None
        self._owed: dict[str, None] = {}
        self._resyncing: asyncio.Task[None] | None = None

    def signals(self, signals: Sequence[Signal]) -> None:
        """Called on the event loop; what is short goes out at once, unless something long is still on its way."""
        if self._draining is None and len(signals) <= SLICE and not any(_wide(signal) for signal in signals):
            for signal in signals:
                for _ in self._steps(signal):
                    pass
            return
        for signal in signals:
            self._enqueue(signal)
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(), name="relay")

    def _enqueue(self, signal: Signal) -> None:
        """What is stored nowhere may be missed: dropped where it would pile up, for nothing else slows its sender."""
        owed = self._deliveries(signal)
        if owed and self._passing and self._passing + owed > MOST_PASSING:
            self._metrics.dropped.inc()
            return
        self._passing += owed
        self._queue.append((signal, owed))

    def _deliveries(self, signal: Signal) -> int:
        if not isinstance(signal, Passing):
            return 0
        return len(self._hub) if signal.user_ids is None else len(signal.user_ids)

    async def _drain(self) -> None:
        """A slice of deliveries, a turn of the loop. Order is kept: everything later waits behind what is under way."""
        try:
            done = 0
            while self._queue:
                for served in self._steps(*self._next()):
                    done += served
                    if done >= SLICE:
                        done = 0
                        await asyncio.sleep(0)
        finally:
            self._draining = None

    def _next(self) -> list[Signal]:
        """What is next; of those that are stored nowhere, with all behind it that go to the same users, as long as a
        transport takes them in one write: in a burst the system calls cost more than everything else."""
        taken: list[Signal] = []
        size = 0
        while self._queue and size < TOGETHER:
            signal, owed = self._queue[0]
            if taken and not (isinstance(signal, Passing) and _goes_with(signal, taken[0])):
                break
            taken.append(signal)
            self._queue.popleft()
            self._passing -= owed
            size += len(signal.content) + ENVELOPE if isinstance(signal, Passing) else TOGETHER
        return taken

    def _steps(self, signal: Signal, *more: Signal) -> Iterator[int]:
        """Deliver ``signal`` to some connections, and yield how many they were, and so on. ``more``: see ``_next``."""
        match signal:
            case Arrived(user_id, entry):
                connections = self._hub.of(user_id)
                if connections:
                    frame = frames.notification(entry)
                    for connection in connections:
                        connection.offer(entry.seq, frame)
                        yield 1
                    if entry.created_at != self._observed:  # one of each millisecond: a batch brings a thousand
                        self._observed = entry.created_at
                        self._metrics.delivery.observe(max(0.0, self._clock() - entry.created_at / 1000))
            case Passing(user_ids, _, _, _):
                parts = [frames.passing(one) for one in (signal, *more) if isinstance(one, Passing)]
                frame = frames.together(parts)
                everybody = iter(self._among(user_ids))
                # What is the same for all of them is asked for each slice: the loop turns in between.
                while some := list(itertools.islice(everybody, SLICE)):
                    if not self._fresh():  # nobody waits for these, and a stale node writes no notification
                        return
                    reached = sum([connection.offer_passing(frame) for connection in some])
                    self._metrics.written.inc(reached * len(parts))
                    yield len(some)
            case MarkedRead(user_id, rev, unread, _, _, _):
                frame = frames.read(signal)
                for connection in self._hub.of(user_id):
                    connection.offer_state(rev, unread, frame)
                    yield 1
            case Withdrawn(user_id, rev, unread, _, _):
                frame = frames.withdrawn(signal)
                for connection in self._hub.of(user_id):
                    connection.offer_state(rev, unread, frame)
                    yield 1
            case RevocationsChanged():
                self._revocations_rung()
            case Again(user_ids):
                self.resync(user_ids)

    def _among(self, user_ids: tuple[str, ...] | None) -> Iterable[Attached]:
        if user_ids is None:
            return self._hub
        return (connection for user_id in user_ids for connection in self._hub.of(user_id))

    def resync(self, user_ids: Iterable[str] | None) -> None:
        """Everyone of these is compared with the log, soon; who was told all hears nothing."""
        if user_ids is None:
            self._revocations_rung()
            user_ids = self._hub.users
        self._owed.update((user_id, None) for user_id in user_ids if self._hub.of(user_id))
        if self._owed and self._resyncing is None:
            self._resyncing = asyncio.create_task(self._resync(), name="resync")

    async def _resync(self) -> None:
        """A slice at a time. Who is named again while being looked up is looked up again: the answer may be older."""
        try:
            while self._owed:
                one = list(itertools.islice(self._owed, RECHECK_SLICE))
                for user_id in one:
                    del self._owed[user_id]
                if not await self._compare(one):
                    self._owed.update(dict.fromkeys(one))
                    await asyncio.sleep(random.uniform(0.25, 0.75))  # noqa: S311 - jitter
                await asyncio.sleep(RESYNC_PAUSE)
        except Exception:  # the slow re-check comes by all the same, and the next one who is named begins anew
            log.exception("a resync failed")
        finally:
            self._resyncing = None

    async def _compare(self, user_ids: Sequence[str]) -> bool:
        """Have these users' connections read what they were not told of. False if the database cannot be asked."""
        try:
            states = await self._states.states(user_ids)
        except StoreUnavailable:
            return False
        for user_id, state in states.items():
            for connection in self._hub.of(user_id):
                connection.recheck(state)
        return True

    def connections(self, user_id: str | None, *, after: str | None, limit: int) -> Sequence[ConnectionInfo]:
        found = [one for one in self._hub.connections(user_id) if after is None or one.id > after]
        return heapq.nsmallest(limit, found, key=lambda one: one.id)

    async def recheck(self) -> None:
        """The slow re-check, once: comparing each local user's log with what was told finds a lost last signal."""
        users = self._hub.users
        slices = [users[at : at + RECHECK_SLICE] for at in range(0, len(users), RECHECK_SLICE)]
        for one in slices:
            await self._pause(random.uniform(0.5, 1.0) / len(slices))  # noqa: S311 - jitter
            await self._compare(one)  # if it cannot be asked now, the next round asks again

    async def _pause(self, share: float) -> None:
        """Wait ``share`` of a round. Its length is looked at as it goes: trouble that begins cuts it short."""
        waited = 0.0
        while (left := share * (RECHECK_EVERY_IN_TROUBLE if self._trouble() else RECHECK_EVERY) - waited) > 0:
            step = min(left, 0.5)
            await asyncio.sleep(step)
            waited += step

    async def keep_rechecking(self) -> None:
        """For ever. What a resync still owes goes with it when it is called off."""
        try:
            while True:
                await self._pause(random.uniform(0.1, 0.3))  # noqa: S311 - jitter
                await self.recheck()
        finally:
            if self._resyncing is not None:
                self._resyncing.cancel()


def _goes_with(signal: Passing, first: Signal) -> bool:
    return isinstance(first, Passing) and signal.user_ids == first.user_ids


def _wide(signal: Signal) -> bool:
    return isinstance(signal, Passing) and (signal.user_ids is None or len(signal.user_ids) > SLICE)
