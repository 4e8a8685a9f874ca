"""How a node goes away: clients are told when to come back, step by step; the rest is aborted. Stops no server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from gateway import frames
from gateway.closing import DRAINING
from gateway.connection import Connection
from gateway.hub import Hub

STEPS = 20
GOODBYE = 1.0
"""Seconds that the last ones have to answer their close frame."""


class Drain:
    """``grace``: seconds in which all clients are moved. ``monotonic``: seconds."""

    def __init__(self, *, hub: Hub, grace: float, monotonic: Callable[[], float]) -> None:
        self._hub, self._grace, self._monotonic = hub, grace, monotonic
        self.begun = False

    def is_begun(self) -> bool:
        """Whether upgrades are to be refused and readiness denied."""
        return self.begun

    def send_away(self) -> None:
        """The log has another name: what they would be told now has the wrong numbers. They come back and hear it."""
        for connection in [one for one in self._hub if isinstance(one, Connection)]:
            after_ms = random.randrange(100, 5000)  # noqa: S311 - jitter
            connection.say(frames.reconnect(after_ms=after_ms, reason=DRAINING.reason))
            connection.close(DRAINING)
            connection.forget()

    async def __call__(self) -> None:
        """Move every client away. Bounded by the grace; never raises."""
        self.begun = True
        connections = [one for one in self._hub if isinstance(one, Connection)]
        if not connections:
            return
        random.shuffle(connections)
        # Spread over twice the time this takes, so that the nodes that stay are not met by all of them at once.
        spread = int(max(1.0, self._grace) * 2000)
        for at in range(0, len(connections), 200):
            for connection in connections[at : at + 200]:
                after_ms = random.randrange(100, max(101, min(spread, 100 + len(connections) * 2)))  # noqa: S311
                connection.say(frames.reconnect(after_ms=after_ms, reason=DRAINING.reason))
            await asyncio.sleep(0)
        pause = min(0.05, self._grace / 2 / STEPS)
        size = max(1, -(-len(connections) // STEPS))
        for at in range(0, len(connections), size):
            for connection in connections[at : at + size]:
                connection.close(DRAINING)
            await asyncio.sleep(pause)
        end = self._monotonic() + min(GOODBYE, self._grace / 2)
        left = await self._gone(connections, until=end)
        for connection in left:
            connection.abort(DRAINING)
        await self._gone(left, until=end + 1.0)

    async def _gone(self, connections: list[Connection], *, until: float) -> list[Connection]:
        """Wait for them to be lost; those that are not by then."""
        left = [one for one in connections if not one.gone]
        while left and self._monotonic() < until:
            await asyncio.sleep(0.02)
            left = [one for one in left if not one.gone]
        return left
