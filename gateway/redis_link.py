"""Commands to Redis, many in one round trip, bounded in time. Knows nothing of what they are for.

Every command names one key, so that they may go to the shards of a cluster: a server that says it belongs to one is
spoken to as one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import redis.asyncio as client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError, ResponseError

log = logging.getLogger("gateway.redis")

Command = tuple[str | bytes | int, ...]


class Unreached(Exception):
    """What was sent may have been done or not. ``late``: it may still be done, after what is sent next."""

    def __init__(self, why: str, *, late: bool) -> None:
        super().__init__(why)
        self.late = late


class Link:
    """Opens nothing by itself: the first command does. Connections that broke are made again by the next command.

    Raises ValueError for a URL that is none.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._options: dict[str, Any] = {"protocol": 2, "socket_timeout": None, "socket_connect_timeout": 2.0}
        # One try each: who asks has its own idea of when to try again, and of how long to wait.
        self._client: Any = client.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **self._options)
        self._known = False
        """Whether it has said if it belongs to a cluster."""

    async def send(self, commands: Sequence[Command], *, within: float) -> list[Any]:
        """The answers, in order; an answer that is an error stands among them as an exception.

        Raises Unreached after ``within`` seconds, if the connection cannot be had or broke, or if the very first
        command is refused: then they all are, or the server is not ready.
        """
        try:
            async with asyncio.timeout(within):
                answers = await self.ask(commands)
        except TimeoutError:
            raise Unreached(f"no answer within {within:g} s", late=True) from None
        if answers and isinstance(answers[0], Exception):
            raise Unreached(str(answers[0]), late=False)
        return answers

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """As ``send``, but for as long as it takes, and whatever the answers are."""
        try:
            if not self._known:
                await self._meet()
            async with self._client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                answers: list[Any] = await pipeline.execute(raise_on_error=False)
        except (RedisError, RedisClusterException, OSError) as error:
            # The kernel's time-out is one too: what was written may have arrived.
            raise Unreached(str(error) or type(error).__name__, late=isinstance(error, TimeoutError)) from error
        except RuntimeError as error:  # uvloop's word for a connection that was reset while it was being written to
            raise Unreached(str(error), late=False) from error
        return answers

    async def _meet(self) -> None:
        try:
            cluster = bool((await self._client.info("cluster")).get("cluster_enabled"))
        except ResponseError as error:  # not allowed to ask: then it is taken for what it mostly is
            log.debug("the server does not say whether it belongs to a cluster: %s", error)
            cluster = False
        if cluster:
            await self._client.aclose()
            self._client = client.RedisCluster.from_url(self._url, **self._options)
        self._known = True

    async def close(self) -> None:
        await self._client.aclose()
