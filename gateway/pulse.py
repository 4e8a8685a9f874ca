"""Heartbeats and deadlines of all connections on one tick a second. Counts ticks, not time; no timer a connection.

A tick is never made up for: when the process was stopped for a minute, every deadline moves by that minute by itself,
and healthy peers are not dropped for the pong they could not bring.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from gateway.closing import TOKEN_EXPIRED, UNRESPONSIVE, Close
from gateway.ports import Clock, Transport

ANSWER_WITHIN = 10
"""Ticks after a ping in which something must have come in, or something queued must have been taken."""
JUMPED = 1.5
"""Seconds of wall time between two ticks after which all deadlines are looked at."""
STALLED_FOR = 30
"""Ticks without progress after which a peer that takes nothing is aborted."""


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
        if connection in self._wheel[connection.number % self._heartbeat]:
            self._suspects.setdefault(connection, (_taken(connection), 0))

    def tick(self) -> None:
        """One second of running time has passed."""
        self._ticks += 1
        self._expire()
        self._check(self._pinged.pop(self._ticks - ANSWER_WITHIN, []))
        self._watch_suspects()
        slot = self._wheel[self._ticks % self._heartbeat]
        pinged = []
        for connection in slot:
            # Looked at before the ping: that the peer's kernel takes the ping itself is no sign of life.
            pinged.append((connection, connection.transport.heard, _taken(connection)))
            connection.transport.ping()
            self.moved(connection)
        if pinged:
            self._pinged[self._ticks] = pinged

    def _expire(self) -> None:
        before, self._looked_at = self._looked_at, self._clock()
        if self._looked_at - before > JUMPED:
            # The process was stopped, or the clock was set: a deadline may have passed that was not near yet.
            for connection in [connection for slot in self._wheel for connection in slot]:
                self.moved(connection)
        now = self._looked_at + 0.5  # the tick nearest to the deadline: never a whole second late
        for second in [second for second in self._expiring if second <= now]:
            for connection in self._expiring.pop(second):
                if connection.deadline <= now:  # it may have been renewed
                    connection.close(TOKEN_EXPIRED)

    def _check(self, pinged: list[tuple[Beating, int, int]]) -> None:
        for connection, heard, taken in pinged:
            if connection.transport.heard == heard and _taken(connection) <= taken:
                connection.abort(UNRESPONSIVE)

    def _watch_suspects(self) -> None:
        for connection, (taken, ticks) in list(self._suspects.items()):
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
            self.tick()


def _taken(connection: Beating) -> int:
    """Bytes of ours that the peer's side has taken so far."""
    return connection.sent - connection.transport.pending()
