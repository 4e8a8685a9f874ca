"""Token buckets of this process alone. What other nodes let through is not known here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.limits import Buckets
from gateway.model import Policy


class MemoryLimiter:
    """Implements ``ports.Limiter``."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._buckets: dict[Policy, Buckets] = {}

    @asynccontextmanager
    async def keep(self) -> AsyncIterator[None]:
        yield

    async def take(self, policy: Policy, key: str, amount: float) -> float:
        return self.take_here(policy, key, amount)

    def take_here(self, policy: Policy, key: str, amount: float) -> float:
        buckets = self._buckets.get(policy)
        if buckets is None:
            buckets = self._buckets[policy] = Buckets(rate=policy.rate, burst=policy.burst)
        return buckets.take(key, amount, at=self._monotonic())

    def give_back(self, policy: Policy, key: str, amount: float) -> None:
        """What ``take_here`` gave was not used after all."""
        self._buckets[policy].give_back(key, amount)
