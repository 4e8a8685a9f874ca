"""Heartbeats and deadlines of all connections on one tick a second. Counts ticks, not time; no timer a connection.

A tick is never made up for: when the process was stopped for a minute, every deadline moves by that minute by itself,
and healthy peers are not dropped for the pong they could not bring.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Protocol, TypeVar

from gateway.closing import TOKEN_EXPIRED, UNRESPONSIVE, Close
from gateway.ports import Clock, Transport

ANSWER_WITHIN = 10
"""Ticks after a ping in which something must have come in, or something queued must have been taken."""
JUMPED = 1.5
"""Seconds of wall time between two ticks after which all deadlines are looked at."""
STALLED_FOR = 30
"""Ticks without progress after which a peer that takes nothing is aborted."""
SLICE = 32
"""Connections looked at in one turn of the loop. Each costs a system call or two, and pushes wait meanwhile."""

_Any = TypeVar("_Any")


class Beating(Protocol):
    """A connection, as the pulse sees it."""

    number: int
    sent: int

    @property
    def transport(self) -> Transport: ...

    @property
    def deadline(self) -> int: ...

    def close(self, why: Close) -> None: ...

    def abort(self, why: Close) -> None: ...


class Pulse:
    """``heartbeat``: ticks between two pings of one connection; they are spread over a wheel of that many slots."""

    def __init__(self, *, heartbeat: int, clock: Clock) -> None:
        self._heartbeat, self._clock = heartbeat, clock
        self._wheel: list[set[Beating]] = [set() for _ in range(heartbeat)]
        self._pinged: dict[int, list[tuple[Beating, int, int]]] = {}
        self._expiring: dict[int, set[Beating]] = {}
        self._suspects: dict[Beating, tuple[int, int]] = {}
        self._ticks = 0
        self._looked_at = clock()

    def attach(self, connection: Beating) -> None:
        self._wheel[connection.number % self._heartbeat].add(connection)
        self.moved(connection)

    def detach(self, connection: Beating) -> None:
        self._wheel[connection.number % self._heartbeat].discard(connection)
        self._suspects.pop(connection, None)
        self._expiring.get(connection.deadline, set()).discard(connection)

    def moved(self, connection: Beating) -> None:
        """Its deadline is new. Only one that falls before its slot comes round again is kept by the second.

        Twice the heartbeat: ticks are a second of running time apart, or a little more.
        """
        if connection.deadline <= self._clock() + 2 * self._heartbeat + 2:
            self._expiring.setdefault(connection.deadline, set()).add(connection)

    def suspect(self, connection: Beating) -> None:
        """Its transport takes no more: from now on it is watched for progress every tick."""
        if self._is_here(connection):
            self._suspects.setdefault(connection, (_taken(connection), 0))

    def _is_here(self, connection: Beating) -> bool:
        return connection in self._wheel[connection.number % self._heartbeat]

    def tick(self) -> None:
        """One second of running time has passed."""
        for _ in self.steps():
            pass

    def steps(self) -> Iterator[None]:
        """The same, some connections at a time. Between two steps connections may come, go, and be renewed."""
        self._ticks += 1
        yield from self._expire()
        yield from self._check(self._pinged.pop(self._ticks - ANSWER_WITHIN, []))
        yield from self._watch_suspects()
        slot = self._wheel[self._ticks % self._heartbeat]
        pinged: list[tuple[Beating, int, int]] = []
        if slot:
            self._pinged[self._ticks] = pinged
        for some in _slices(list(slot)):
            for connection in some:
                if connection in slot:
                    # Looked at before the ping: that the peer's kernel takes the ping itself is no sign of life.
                    pinged.append((connection, connection.transport.heard, _taken(connection)))
                    connection.transport.ping()
                    self.moved(connection)
            yield

    def _expire(self) -> Iterator[None]:
        before, self._looked_at = self._looked_at, self._clock()
        if self._looked_at - before > JUMPED:
            # The process was stopped, or the clock was set: a deadline may have passed that was not near yet.
            for connection in [connection for slot in self._wheel for connection in slot]:
                self.moved(connection)
        now = self._looked_at + 0.5  # the tick nearest to the deadline: never a whole second late
        for second in [second for second in self._expiring if second <= now]:
            for some in _slices(list(self._expiring.pop(second))):
                for connection in some:
                    if connection.deadline <= now and self._is_here(connection):  # it may have been renewed
                        connection.close(TOKEN_EXPIRED)
                yield

    def _check(self, pinged: list[tuple[Beating, int, int]]) -> Iterator[None]:
        for some in _slices(pinged):
            for connection, heard, taken in some:
                nothing = connection.transport.heard == heard and _taken(connection) <= taken
                if nothing and self._is_here(connection):
                    connection.abort(UNRESPONSIVE)
            yield

    def _watch_suspects(self) -> Iterator[None]:
        for some in _slices(list(self._suspects)):
            for connection in some:
                if connection in self._suspects:
                    self._watch(connection)
            yield

    def _watch(self, connection: Beating) -> None:
        taken, ticks = self._suspects[connection]
        now_taken = _taken(connection)
        if connection.transport.writable:
            del self._suspects[connection]
        elif now_taken > taken:
            self._suspects[connection] = (now_taken, 0)
        elif ticks + 1 >= STALLED_FOR:
            connection.abort(UNRESPONSIVE)
        else:
            self._suspects[connection] = (taken, ticks + 1)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            for _ in self.steps():
                await asyncio.sleep(0)


def _slices(all: list[_Any]) -> Iterator[list[_Any]]:
    return (all[at : at + SLICE] for at in range(0, len(all), SLICE))


def _taken(connection: Beating) -> int:
    """Bytes of ours that the peer's side has taken so far."""
    return connection.sent - connection.transport.pending()
