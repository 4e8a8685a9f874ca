"""Token buckets that all nodes share through Redis. It can only say no: this node's own buckets are asked first.

So a flood on one node costs Redis nothing, and if Redis is away, slow, or lies, each node lets through what one node
may. While it is silent nobody waits for it: one task looks every second whether it answers again.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from gateway.group import Group
from gateway.limiting.memory import MemoryLimiter
from gateway.limiting.script import SharedBuckets, Take
from gateway.model import Policy
from gateway.redis_link import Unreached

ANSWERED_WITHIN = 0.1
"""Seconds. Who asks waits no longer; a Redis that is slower is not asked."""
CONNECTED_WITHIN = 2.0
LOOK_EVERY = 1.0
"""Seconds between two tries while Redis does not answer."""
COMPLAIN = 10.0
"""Seconds between two complaints in the log."""
TOGETHER = 1000

log = logging.getLogger("gateway.limiting")


class RedisLimiter:
    """Implements ``ports.Limiter``. Raises ValueError for a URL that is none."""

    def __init__(self, url: str, *, secret: bytes, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._here = MemoryLimiter(monotonic)
        self._shared = SharedBuckets(url, secret=secret)
        self._asked: Group[Take, float] = Group(self._ask, limit=TOGETHER, weight=TOGETHER)
        self._sound = False
        """Whether Redis is asked."""
        self._doubted = asyncio.Event()
        self._complained, self._last_complaint = False, -math.inf

    @asynccontextmanager
    async def keep(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._look(), name="shared limits")
        try:
            yield
        finally:
            self._sound = False
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._asked.settled()
            await self._shared.close()

    async def take(self, policy: Policy, key: str, amount: float) -> float:
        wait = self._here.take_here(policy, key, amount)
        if wait or not self._sound:
            return wait
        try:
            async with asyncio.timeout(ANSWERED_WITHIN):
                wait = await self._asked.submit(Take(f"{policy.name}:{key}", amount, policy.rate, policy.burst))
        except TimeoutError:
            self._doubt(f"no answer within {ANSWERED_WITHIN:g} s")
            return 0.0
        except Unreached as error:
            self._doubt(str(error))
            return 0.0
        if wait:
            self._here.give_back(policy, key, amount)
        return wait

    async def _ask(self, takes: list[Take]) -> Sequence[float | BaseException]:
        if not self._sound:  # since these began to wait
            return [0.0] * len(takes)
        return await self._shared.take(takes, within=ANSWERED_WITHIN)

    def _doubt(self, why: str) -> None:
        self._sound = False
        self._doubted.set()
        now = self._monotonic()
        if not self._complained and now - self._last_complaint >= COMPLAIN:
            log.warning("limits: each node counts for itself: %s", why)
            self._complained, self._last_complaint = True, now

    async def _look(self) -> None:
        """Take nothing out of a bucket of our own: whoever may not do that, or cannot now, may not do the rest."""
        nothing = [Take("nothing", 0, 1, 1)]
        while True:
            self._doubted.clear()
            try:
                await self._shared.take(nothing, within=CONNECTED_WITHIN)
                await self._shared.take(nothing, within=ANSWERED_WITHIN)
            except Unreached as error:
                self._doubt(str(error))
            except Exception:  # a bug in here must not end the sharing for the life of the process
                log.exception("limits: the look at Redis failed")
                self._doubt("the look at Redis failed")
            else:
                self._sound = True
                if self._complained:
                    log.info("limits: they are shared again")
                self._complained = False
                await self._doubted.wait()
            await asyncio.sleep(LOOK_EVERY)
