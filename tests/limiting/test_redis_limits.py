"""Limits shared through a Redis that is away, slow, forgets, lies, or is a cluster: never open, and nobody waits."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from buses import Cluster
from fakes import Seconds
from servers import Kind, Redis, short_directory
from wire import eventually_async

from gateway.limiting import redis as limiting
from gateway.limiting.redis import RedisLimiter
from gateway.limiting.script import SharedBuckets, Take
from gateway.model import Policy
from gateway.redis_link import Unreached

TEN = Policy("ten", rate=0.0001, burst=10)
NODES = 2


@pytest.fixture
def redis() -> Iterator[Redis]:
    with short_directory("limits") as directory:
        server = Redis(directory).start()
        yield server
        server.stop()


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis is looked at often; a machine that stalls for a moment makes it no slower but in tests of that."""
    monkeypatch.setattr(limiting, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(limiting, "CONNECTED_WITHIN", 10.0)
    monkeypatch.setattr(limiting, "ANSWERED_WITHIN", 5.0)


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def limiter(url: str, *, shared: bool = True) -> RedisLimiter:
            made = RedisLimiter(url, secret=b"s", monotonic=time.monotonic)
            await stack.enter_async_context(made.keep())
            if shared:
                await eventually_async(lambda: made._sound, what="it is shared")
            return made

        yield limiter


async def let_through(limiter: RedisLimiter, key: str = "a", *, asked: int = 20) -> int:
    return [await limiter.take(TEN, key, 1) for _ in range(asked)].count(0.0)


async def test_without_redis_each_node_lets_through_what_one_may(make: Callable[..., Any], redis: Redis) -> None:
    redis.kill()
    nodes = [await make(redis.url(), shared=False) for _ in range(NODES)]
    assert [await let_through(node) for node in nodes] == [10, 10]


async def test_redis_dies_and_comes_back(
    make: Callable[..., Any], redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = [await make(redis.url()) for _ in range(NODES)]
    assert await let_through(one, asked=6) == 6
    assert await let_through(two) == 4
    redis.kill()
    # What each let through itself is not forgotten with Redis.
    assert await let_through(one) == 4
    assert await let_through(two) == 6
    assert "each node counts for itself" in caplog.text
    redis.start()
    await eventually_async(lambda: one._sound and two._sound, what="it is shared again")
    assert [await let_through(node) for node in (one, two)] == [0, 0], "the new server knows nothing, the nodes do"
    assert await let_through(one, "b", asked=6) == 6
    assert await let_through(two, "b") == 4


async def test_nobody_waits_for_a_redis_that_is_silent(
    make: Callable[..., Any], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await make(redis.url())
    monkeypatch.setattr(limiting, "ANSWERED_WITHIN", 0.1)
    monkeypatch.setattr(limiting, "CONNECTED_WITHIN", 0.5)
    redis.suspend()
    try:
        began = time.monotonic()
        assert await let_through(node, asked=1000) == 10
        took = time.monotonic() - began
        assert not node._sound
        assert took < 2, "one of them waited for a tenth of a second, the others for nothing"
    finally:
        redis.resume()
    monkeypatch.setattr(limiting, "ANSWERED_WITHIN", 5.0)
    await eventually_async(lambda: node._sound, what="it is shared again")


async def test_a_flood_on_one_node_costs_redis_nothing(make: Callable[..., Any], redis: Redis) -> None:
    node = await make(redis.url())
    assert await let_through(node, asked=10) == 10

    def calls() -> int:
        told = redis.command("INFO", "commandstats").decode()
        line = next(line for line in told.splitlines() if line.startswith("cmdstat_evalsha:"))
        return int(line.partition("calls=")[2].partition(",")[0])

    before = calls()
    assert await let_through(node, asked=500) == 0
    assert calls() - before == 0


async def test_a_redis_that_says_yes_to_everything_opens_nothing(make: Callable[..., Any], redis: Redis) -> None:
    node = await make(redis.url())
    through = 0
    for _ in range(20):
        redis.command("FLUSHALL")
        through += await let_through(node, asked=1)
    assert through == 10


async def test_a_server_that_has_forgotten_the_script_is_told_it_again(make: Callable[..., Any], redis: Redis) -> None:
    one, two = [await make(redis.url()) for _ in range(NODES)]
    assert await let_through(one, asked=6) == 6
    redis.command("SCRIPT", "FLUSH")
    assert await let_through(two) == 4
    assert one._sound
    assert two._sound


@pytest.mark.parametrize("rubbish", ["", "x y", "1", "1e999 nan nan", "\x00"])
async def test_a_value_of_somebody_else_counts_as_a_full_bucket(redis: Redis, rubbish: str) -> None:
    buckets = SharedBuckets(redis.url(), secret=b"s")
    redis.command("SET", buckets._prefix + "k", rubbish)
    assert await buckets.take([Take("k", 4, 0.001, 10)], within=5) == [0]
    [wait] = await buckets.take([Take("k", 7, 0.001, 10)], within=5)
    assert 900 < wait <= 1000
    await buckets.close()


async def test_a_key_of_another_kind_is_no_answer_and_the_node_decides(make: Callable[..., Any], redis: Redis) -> None:
    node = await make(redis.url())
    redis.command("LPUSH", node._shared._prefix + "ten:a", "x")
    assert await let_through(node) == 10


async def test_a_server_that_may_not_be_written_is_no_answer(make: Callable[..., Any], redis: Redis) -> None:
    redis.command("REPLICAOF", "127.0.0.1", "1")
    buckets = SharedBuckets(redis.url(), secret=b"s")
    with pytest.raises(Unreached, match="not an answer"):
        await buckets.take([Take("k", 1, 1, 1)], within=5)
    await buckets.close()
    node = await make(redis.url(), shared=False)
    assert await let_through(node) == 10


async def test_a_bucket_that_is_full_again_leaves_nothing_behind(redis: Redis) -> None:
    buckets = SharedBuckets(redis.url(), secret=b"s")
    await buckets.take([Take("k", 5, 2.0, 10)], within=5)
    left = int(redis.command("PTTL", buckets._prefix + "k")[1:].strip())
    assert 2000 < left <= 3500, "the 2.5 s until it is full, and one more"
    await buckets.close()


async def test_a_clock_of_the_server_that_went_back_freezes_nobody(redis: Redis) -> None:
    """Another server took over, whose clock is an hour behind: what is left flows on from now."""
    buckets = SharedBuckets(redis.url(), secret=b"s")
    redis.command("SET", buckets._prefix + "k", f"0 {time.time() + 3600:.6f}")
    (wait,) = await buckets.take([Take("k", 1, 10.0, 10)], within=5)
    assert 0 < wait <= 0.1

    async def flowed() -> bool:
        return await buckets.take([Take("k", 1, 10.0, 10)], within=5) == [0]

    await eventually_async(flowed, what="something flowed in")
    await buckets.close()


async def test_many_at_once_over_the_shards_of_a_cluster(make: Callable[..., Any]) -> None:
    with short_directory("limits") as root:
        cluster = await Cluster(root).start()
        try:
            buckets = SharedBuckets(cluster.servers[0].url(), secret=b"s")
            takes = [Take(f"k{n % 30}", 1, 0.0001, 2) for n in range(90)]
            waits = await buckets.take(takes, within=10)
            assert [wait == 0 for wait in waits] == [True] * 60 + [False] * 30
            await buckets.close()
        finally:
            cluster.stop()


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_what_the_documents_allow_is_enough(make: Callable[..., Any], kind: Kind) -> None:
    documented = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
    rules = documented[documented.index("ACL SETUSER gateway on") :].partition("```")[0].split()[3:]
    allowed = [">p" if rule.startswith(">") else rule for rule in rules]
    with short_directory("limits") as directory:
        server = Redis(directory, kind=kind).start()
        try:
            assert server.command("ACL", "SETUSER", "gateway", *allowed) == b"+OK\r\n"
            node = await make(server.url().replace("redis://", "redis://gateway:p@"))
            assert await let_through(node) == 10
            assert node._sound
        finally:
            server.stop()


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="Redis URL"):
        RedisLimiter("http://x", secret=b"s", monotonic=Seconds())
