"""Token buckets in Redis: one script call a bucket, many in one round trip, bounded in time. Decides nothing.

The time is Redis's own, so it does not matter what clocks the nodes have. Each call names one key, so that it may go
to the shards of a cluster; a key ends by itself when its bucket is full again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError

from gateway.redis_link import Link, Unreached

# The arithmetic of ``limits.Bucket``. A clock that went back (another server took over) gives and costs nothing.
SCRIPT = b"""
local amount, rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = redis.call('TIME')
local at = now[1] + now[2] / 1000000
local level = burst
local kept = redis.call('GET', KEYS[1])
if kept then
  local left, since = string.match(kept, '^(%S+) (%S+)$')
  left, since = tonumber(left), tonumber(since)
  if left and since then level = math.min(burst, left + math.max(0, at - since) * rate) end
end
local needed, wait = math.min(amount, burst), 0
if level >= needed then level = level - amount else wait = (needed - level) / rate end
local full = math.ceil((burst - level) / rate * 1000) + 1000
redis.call('SET', KEYS[1], string.format('%.17g %.17g', level, at), 'PX', string.format('%.0f', full))
return string.format('%.6f', wait)
"""
_SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest()


LONGEST = 86_400.0
"""Seconds. No bucket of ours asks for more: whoever says so is no gateway's script."""


class Take(NamedTuple):
    """``amount`` out of the bucket ``key``: ``rate`` per second, ``burst`` at most."""

    key: str
    amount: float
    rate: float
    burst: float


class SharedBuckets:
    """Opens nothing by itself: the first question does. ``secret`` tells one gateway from another on the same Redis.

    Raises ValueError for a URL that is none.
    """

    def __init__(self, url: str, *, secret: bytes) -> None:
        self._link = Link(url)
        self._prefix = f"gw:{hashlib.blake2b(secret, digest_size=4, person=b'limits').hexdigest()}:l:"

    async def take(self, takes: Sequence[Take], *, within: float) -> list[float]:
        """The seconds to wait for each, 0 where it was taken. Raises Unreached, after ``within`` seconds at most."""
        try:
            async with asyncio.timeout(within):
                answers = await self._run(takes, "EVALSHA", _SHA)
                if any(isinstance(answer, NoScriptError) for answer in answers):
                    # A server that has just started, or one shard of several: those that have it answered above.
                    lacking = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
                    found = await self._run([takes[at] for at in lacking], "EVAL", SCRIPT)
                    for at, answer in zip(lacking, found, strict=True):
                        answers[at] = answer
        except TimeoutError:
            raise Unreached(f"no answer within {within:g} s", late=True) from None
        try:
            waits = [float(answer) for answer in answers]
        except (TypeError, ValueError):
            strange = next(answer for answer in answers if not isinstance(answer, bytes))
            raise Unreached(f"not an answer: {strange}", late=False) from None
        if not all(0 <= wait <= LONGEST for wait in waits):  # also what is no number
            raise Unreached("not an answer: no time to wait", late=False)
        return waits

    async def _run(self, takes: Sequence[Take], word: str, script: str | bytes) -> list[Any]:
        return await self._link.ask(
            [(word, script, 1, self._prefix + key, *map(repr, numbers)) for key, *numbers in takes]
        )

    async def close(self) -> None:
        await self._link.close()
