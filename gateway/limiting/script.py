"""Token buckets in Redis: one script call a bucket, many in one round trip, bounded in time. Decides nothing.

The time is Redis's own, so it does not matter what clocks the nodes have. Each call names one key, so that it may go
to the shards of a cluster; a key ends by itself when its bucket is full again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import redis.asyncio as client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisClusterException, RedisError, ResponseError

log = logging.getLogger("gateway.limiting")

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


class Unreached(Exception):
    """Redis gave no answer that helps. What was asked may have been taken or not."""


class SharedBuckets:
    """Opens nothing by itself: the first question does. ``secret`` tells one gateway from another on the same Redis.

    Raises ValueError for a URL that is none.
    """

    def __init__(self, url: str, *, secret: bytes) -> None:
        self._url = url
        self._options: dict[str, Any] = {"protocol": 2, "socket_timeout": None, "socket_connect_timeout": 2.0}
        self._client: Any = client.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **self._options)
        self._known = False
        """Whether it has said if it belongs to a cluster."""
        self._prefix = f"gw:{hashlib.blake2b(secret, digest_size=4, person=b'limits').hexdigest()}:l:"

    async def take(self, takes: Sequence[Take], *, within: float) -> list[float]:
        """The seconds to wait for each, 0 where it was taken. Raises Unreached, after ``within`` seconds at most."""
        try:
            async with asyncio.timeout(within):
                if not self._known:
                    await self._meet()
                answers = await self._run(takes, "EVALSHA", _SHA)
                if any(isinstance(answer, NoScriptError) for answer in answers):
                    # A server that has just started, or one shard of several: those that have it answered above.
                    lacking = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
                    found = await self._run([takes[at] for at in lacking], "EVAL", SCRIPT)
                    for at, answer in zip(lacking, found, strict=True):
                        answers[at] = answer
        except TimeoutError:
            raise Unreached(f"no answer within {within:g} s") from None
        except (RedisError, RedisClusterException, OSError) as error:
            raise Unreached(str(error) or type(error).__name__) from error
        except RuntimeError as error:  # uvloop's word for a connection that was reset while it was being written to
            raise Unreached(str(error)) from error
        try:
            waits = [float(answer) for answer in answers]
        except (TypeError, ValueError):
            strange = next(answer for answer in answers if not isinstance(answer, bytes))
            raise Unreached(f"not an answer: {strange}") from None
        if not all(0 <= wait <= LONGEST for wait in waits):  # also what is no number
            raise Unreached("not an answer: no time to wait")
        return waits

    async def _run(self, takes: Sequence[Take], word: str, script: str | bytes) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipeline:
            for key, *numbers in takes:
                pipeline.execute_command(word, script, 1, self._prefix + key, *map(repr, numbers))
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    async def _meet(self) -> None:
        try:
            cluster = bool((await self._client.info("cluster")).get("cluster_enabled"))
        except ResponseError as error:  # not allowed to ask: then it is taken for what it mostly is
            log.debug("limits: the server does not say whether it belongs to a cluster: %s", error)
            cluster = False
        if cluster:
            await self._client.aclose()
            self._client = client.RedisCluster.from_url(self._url, **self._options)
        self._known = True

    async def close(self) -> None:
        await self._client.aclose()
