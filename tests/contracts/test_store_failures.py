"""The port ``Failures``: over SQLite, over PostgreSQL, and over the dictionary that other suites use."""

from __future__ import annotations

import asyncio

import pytest
from kept import KeptFailures

from gateway.ports import Failures
from gateway.store.engine import Store, open_store

NOW = 1_800_000_000_000
STEP, FULL = 90_000, 900_000


@pytest.fixture(params=["sql", "dictionary"])
def failures(request: pytest.FixtureRequest, store: Store) -> Failures:
    return store.failures if request.param == "sql" else KeptFailures()


async def add(failures: Failures, *keys: bytes, now: int = NOW, step: int = STEP) -> None:
    await failures.add([(key, step, FULL) for key in keys], now=now)


async def test_a_key_that_never_failed_is_not_there(failures: Failures) -> None:
    await add(failures, b"a")
    assert await failures.until([b"b"]) == {}
    assert await failures.until([]) == {}


async def test_each_failure_takes_a_step_and_time_gives_it_back(failures: Failures) -> None:
    for _ in range(3):
        await add(failures, b"a", b"b")
    await add(failures, b"a", now=NOW + STEP)
    assert await failures.until([b"a", b"b", b"c"]) == {b"a": NOW + 4 * STEP, b"b": NOW + 3 * STEP}
    await add(failures, b"a", now=NOW + 10 * STEP)  # it had run empty
    assert await failures.until([b"a"]) == {b"a": NOW + 11 * STEP}


async def test_it_never_fills_beyond_what_is_full(failures: Failures) -> None:
    for _ in range(15):
        await add(failures, b"a")
    assert await failures.until([b"a"]) == {b"a": NOW + FULL}


async def test_what_a_clock_that_was_ahead_wrote_begins_anew(failures: Failures) -> None:
    await add(failures, b"a", now=NOW + 3_600_000)
    await add(failures, b"a", now=NOW)
    assert await failures.until([b"a"]) == {b"a": NOW + STEP}


async def test_what_is_added_at_once_is_all_there(failures: Failures) -> None:
    keys = [bytes([number]) for number in range(20)]
    await asyncio.gather(*(add(failures, *order, step=100) for order in [keys, keys[::-1]] * 10))
    assert await failures.until(keys) == dict.fromkeys(keys, NOW + 2000)
    found = await asyncio.gather(*(failures.until([key]) for key in keys))
    assert found == [{key: NOW + 2000} for key in keys]


async def test_what_is_cleared_begins_anew_and_the_rest_stays(failures: Failures) -> None:
    await add(failures, b"a", b"b")
    await failures.clear([b"a", b"never there"])
    assert await failures.until([b"a", b"b"]) == {b"b": NOW + STEP}


async def test_what_has_run_empty_is_purged_in_slices(failures: Failures) -> None:
    await add(failures, b"a", b"b", b"c")
    await add(failures, b"d", now=NOW + 1)
    assert [await failures.purge(now=NOW + STEP, limit=2) for _ in range(3)] == [2, 1, 0]
    assert await failures.until([b"a", b"b", b"c", b"d"]) == {b"d": NOW + 1 + STEP}


async def test_a_second_node_sees_them_and_all_of_both_count(store: Store, url: str) -> None:
    async with open_store(url, tool=True) as other:
        keys = [bytes([number]) for number in range(20)]
        await asyncio.gather(
            *(add(one.failures, *order, step=100) for one in (store, other) for order in [keys, keys[::-1]] * 5)
        )
        assert await other.failures.until(keys) == await store.failures.until(keys) == dict.fromkeys(keys, NOW + 2000)


async def test_they_survive_a_restart(url: str) -> None:
    async with open_store(url) as store:
        await add(store.failures, b"\x00\xff" * 8)
    async with open_store(url) as store:
        assert await store.failures.until([b"\x00\xff" * 8]) == {b"\x00\xff" * 8: NOW + STEP}
