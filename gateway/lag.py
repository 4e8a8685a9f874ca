"""How late the event loop comes to what is due: the time that everybody waits for whoever holds it. Mends nothing.

A short timer is looked at each time it fires. A stall shows without the time that was left until the timer was due, at
most ``EVERY``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from gateway.metrics import Metrics

EVERY = 0.02
"""Seconds. Fifty wakings a second cost a node that does nothing three quarters of a percent of a core."""
SPAN, KEPT = 10.0, 7
"""The worst of the last minute is kept by spans of so many seconds: a scraper that comes by once a minute misses none,
and two that come by do not take it from each other."""


class Lag:
    """``monotonic`` in seconds."""

    def __init__(self, *, metrics: Metrics, monotonic: Callable[[], float]) -> None:
        self._metrics, self._monotonic = metrics, monotonic
        self._spans: deque[tuple[int, float]] = deque(maxlen=KEPT)
        metrics.watch_lag(self.worst)

    def observe(self, seconds: float) -> None:
        """The timer fired so late."""
        self._metrics.loop_lag.observe(seconds)
        span = int(self._monotonic() / SPAN)
        if not self._spans or self._spans[-1][0] != span:
            self._spans.append((span, seconds))
        elif seconds > self._spans[-1][1]:
            self._spans[-1] = (span, seconds)

    def worst(self) -> float:
        """Of the last sixty to seventy seconds. May be asked from another thread."""
        since = int(self._monotonic() / SPAN) - KEPT
        return max((seconds for span, seconds in tuple(self._spans) if span > since), default=0.0)

    async def run(self) -> None:
        while True:
            due = self._monotonic() + EVERY
            await asyncio.sleep(EVERY)
            self.observe(max(0.0, self._monotonic() - due))
