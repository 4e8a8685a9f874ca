"""When a call is tried again, and how long it waits before. No I/O: the caller waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.client.errors import Unavailable
from gateway.client.rules import Backoff

AGAIN = frozenset({0, 429, 500, 502, 503, 504})
"""Statuses after which the same request may have another answer; 0 is silence."""
FIRST, MOST = 0.25, 8.0
"""Seconds: the ceiling of the first wait, and of the longest that nobody asked for."""


def may_repeat(status: int, *, unknown: bool, repeatable: bool) -> bool:
    """Whether the same request may be sent again.

    What has no idempotency key, a push with ``ttl`` 0, is not ``repeatable``: then only if nothing can have been passed
    on. A 503 of a gateway comes before that, one of a proxy too; a 502, a 504 and silence may come after.
    """
    return status in AGAIN and (repeatable or not unknown or status == 503)


@dataclass(slots=True)
class Patience:
    """How much one call will still bear. ``until``: on ``clock``; no attempt begins after it."""

    until: float
    attempts: int
    clock: Callable[[], float]
    backoff: Backoff

    @property
    def left(self) -> float:
        """Seconds."""
        return self.until - self.clock()

    def wait(self, *, after: float = 0.0) -> float | None:
        """Seconds to wait before the next attempt, with full jitter; None: give up. ``after``: what was asked for."""
        self.attempts -= 1
        left = self.left - after
        if self.attempts <= 0 or left <= 0:
            return None
        return after + min(self.backoff.next(), left / 2)  # the attempt itself wants some of it too

    def wait_for(self, error: Unavailable, *, repeatable: bool) -> float | None:
        """As ``wait``; None too if ``error`` does not allow another attempt."""
        if not may_repeat(error.status, unknown=error.unknown, repeatable=repeatable):
            return None
        return self.wait(after=error.after)
