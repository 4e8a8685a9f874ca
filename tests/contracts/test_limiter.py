"""Token buckets over every adapter: what one node is told, and what two of them let through together."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fakes import Seconds
from servers import Redis, short_directory
from wire import eventually_async

from gateway.limiting import redis
from gateway.limiting.memory import MemoryLimiter
from gateway.limiting.redis import RedisLimiter
from gateway.limits import Buckets
from gateway.model import Policy
from gateway.ports import Limiter

SLOW = Policy("slow", rate=0.001, burst=10)
"""Nothing flows in while a test runs."""
QUICK = Policy("quick", rate=50, burst=5)
SECRETS = itertools.count()


@pytest.fixture(scope="module", params=["memory", "redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[Redis | None]:
    if request.param == "memory":
        yield None
        return
    with short_directory("limits") as directory:
        server = Redis(directory, kind=request.param).start()
        yield server
        server.stop()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stalls for a moment makes Redis no slower here."""
    monkeypatch.setattr(redis, "ANSWERED_WITHIN", 5.0)
    monkeypatch.setattr(redis, "CONNECTED_WITHIN", 10.0)


@pytest.fixture
async def make(patience: None) -> AsyncIterator[Callable[..., Any]]:
    """A node's limiter at ``server``, kept until the end of the test; shared if it can be."""
    async with AsyncExitStack() as stack:

        async def limiter(server: Redis | None, *, secret: bytes, monotonic: Callable[[], float]) -> Limiter:
            if server is None:
                return MemoryLimiter(monotonic)
            made = RedisLimiter(server.url(), secret=secret, monotonic=monotonic)
            await stack.enter_async_context(made.keep())
            await eventually_async(lambda: made._sound, what="it is shared")
            return made

        yield limiter


@pytest.fixture
async def clock() -> Seconds:
    return Seconds(50.0)


@pytest.fixture
async def limiter(server: Redis | None, make: Callable[..., Any], clock: Seconds) -> Limiter:
    made: Limiter = await make(server, secret=b"%d" % next(SECRETS), monotonic=clock)
    return made


async def test_a_burst_is_let_through_and_no_more(limiter: Limiter) -> None:
    assert [await limiter.take(SLOW, "a", 4) for _ in range(2)] == [0, 0]
    wait = await limiter.take(SLOW, "a", 4)
    assert 1900 < wait <= 2000
    assert await limiter.take(SLOW, "a", 2) == 0, "what was refused was not taken"
    assert await limiter.take(SLOW, "a", 1) > 0


async def test_keys_and_policies_have_nothing_to_do_with_each_other(limiter: Limiter) -> None:
    assert await limiter.take(SLOW, "a", 10) == 0
    assert await limiter.take(SLOW, "a", 1) > 0
    assert await limiter.take(SLOW, "b", 10) == 0
    assert await limiter.take(Policy("other", 0.001, 10), "a", 10) == 0


async def test_more_than_the_burst_is_given_to_a_full_bucket_and_paid_for(limiter: Limiter) -> None:
    assert await limiter.take(SLOW, "a", 25) == 0
    assert 15_000 < await limiter.take(SLOW, "a", 1) <= 16_000
    assert 24_000 < await limiter.take(SLOW, "a", 25) <= 25_000, "it would have to be full again"


async def test_what_flows_in_can_be_taken(limiter: Limiter, clock: Seconds) -> None:
    """The clock of the node jumps; that of a server goes by itself, and 50 a second are not long in coming."""
    assert await limiter.take(QUICK, "a", 5) == 0
    assert 0 < await limiter.take(QUICK, "a", 1) <= 0.02
    clock.now += 0.1

    async def again() -> bool:
        return await limiter.take(QUICK, "a", 5) == 0

    await eventually_async(again, what="the bucket is full")


async def test_two_nodes_let_through_together_what_one_may(make: Callable[..., Any], server: Redis | None) -> None:
    """In memory there are no two: the same limiter then stands for both."""
    secret, clock = b"%d" % next(SECRETS), Seconds(50.0)
    one = await make(server, secret=secret, monotonic=clock)
    two = await make(server, secret=secret, monotonic=clock) if server is not None else one
    answers = [await limiter.take(SLOW, "a", 1) for _ in range(10) for limiter in (one, two)]
    assert answers.count(0) == 10
    assert answers[:10] == [0] * 10


async def test_two_gateways_on_one_redis_do_not_meet(make: Callable[..., Any], server: Redis | None) -> None:
    for _ in range(2):
        limiter = await make(server, secret=b"%d" % next(SECRETS), monotonic=Seconds(50.0))
        assert await limiter.take(SLOW, "a", 10) == 0
        assert await limiter.take(SLOW, "a", 1) > 0


async def test_the_arithmetic_is_that_of_the_buckets(limiter: Limiter) -> None:
    """A rate too slow for the server's clock to make a difference."""
    slow, model = Policy("model", 1e-6, 100), Buckets(rate=1e-6, burst=100)
    for amount in (30, 0.5, 60, 20, 9.5, 500, 1, 99, 0):
        wait = await limiter.take(slow, "a", amount)
        assert wait == pytest.approx(model.take("a", amount, at=0), rel=1e-3), amount
