"""The store when things go wrong: full disks, cancelled callers, other writers, a process that is killed."""

# ruff: noqa: ASYNC220, ASYNC240 - a test waits for its files and processes, and nobody waits for a test

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from gateway.errors import StoreUnavailable
from gateway.model import Actor, Append, Draft
from gateway.store.engine import Store, open_store
from gateway.store.sqlite import database
from gateway.store.sqlite.database import SqliteDatabase

BY = Actor("test")


def file_of(store: Store) -> SqliteDatabase:
    """The database under it, which here is a file."""
    assert isinstance(store.database, SqliteDatabase)
    return store.database


async def add_user(store: Store, id: str) -> None:
    await store.users.create(id=id, username=id, role="user", password_hash="h", by=BY, now=1)


def draft(number: int, text: str = "x", user: str = "ann") -> Draft:
    return Draft(f"n{number}", user, text, None, 1, 10**15)


async def push(store: Store, number: int, text: str = "x") -> int | None:
    return (await store.inbox.append(Append("c~shop", (draft(number, text),)))).outcomes[0].seq


async def test_a_full_disk_refuses_writes_serves_reads_and_heals(store: Store) -> None:
    await add_user(store, "ann")
    assert await push(store, 0) == 1

    async def limit(pages: int) -> None:
        await file_of(store)._pragma(f"max_page_count={pages}")

    await limit(1)  # the least it can be: what the file has now
    stored = 1

    async def fill() -> None:
        nonlocal stored
        for number in range(1, 100):
            stored = await push(store, number, "x" * 8000) or 0

    with pytest.raises(StoreUnavailable):
        await fill()
    page = await store.inbox.page("ann", after=0, now=1)
    assert page.state.head == stored
    assert page.upto == page.entries[-1].seq == stored
    await limit(1_000_000)
    assert await push(store, 1000) == stored + 1


async def test_a_writer_from_outside_that_does_not_let_go_is_a_503(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_user(store, "ann")
    await file_of(store)._pragma("busy_timeout=50")
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            await push(store, 1)
        assert (await store.inbox.page("ann", after=0, now=1)).state.head == 0
        other.execute("ROLLBACK")
    finally:
        other.close()
    assert await push(store, 1) == 1


async def test_cancelled_callers_leave_the_writer_usable(store: Store) -> None:
    await add_user(store, "ann")
    chance = random.Random(3)
    for number in range(150):
        calls: list[Callable[[], Coroutine[Any, Any, object]]] = [
            lambda: store.audit.record("x", target=None, detail={}, by=BY, now=1),
            partial(push, store, number),
            lambda: store.inbox.mark_read("ann", up_to=0, now=1),
            lambda: store.inbox.page("ann", after=0, now=1),
            lambda: store.users.get("ann"),
        ]
        caller = asyncio.ensure_future(calls[number % 5]())
        for _ in range(chance.randint(1, 6)):  # one turn, so that it has begun
            await asyncio.wait([caller], timeout=0)
        caller.cancel()
        await asyncio.wait([caller])
    await store.inbox.settled()
    state = (await store.inbox.states(["ann"]))["ann"]
    page = await store.inbox.page("ann", after=0, now=1)
    assert [entry.seq for entry in page.entries] == list(range(1, state.head + 1))
    assert state.head == 30  # cancelling takes nothing back


async def test_a_cancelled_write_still_commits_whole(store: Store) -> None:
    begun, cancelled = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO meta VALUES ('a', '1')")
        loop.call_soon_threadsafe(begun.set)
        cancelled.wait(10)
        connection.exec_driver_sql("INSERT INTO meta VALUES ('b', '2')")

    caller = asyncio.ensure_future(store.database.write(work))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    cancelled.set()
    found = await store.database.write(
        lambda c: c.exec_driver_sql("SELECT name FROM meta WHERE name IN ('a', 'b') ORDER BY name").scalars().all()
    )
    assert found == ["a", "b"]


async def test_a_group_waits_for_one_write_and_not_for_a_crowd_that_came_before_it(store: Store) -> None:
    order: list[str] = []
    held, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold(connection: Connection) -> None:
        loop.call_soon_threadsafe(held.set)
        go_on.wait(10)

    def noted(name: str) -> Callable[[Connection], None]:
        return lambda connection: order.append(name)

    first = asyncio.ensure_future(store.database.write(hold))
    await held.wait()
    crowd = [asyncio.ensure_future(store.database.write(noted("alone"))) for _ in range(20)]
    await asyncio.wait(crowd, timeout=0)
    group = asyncio.ensure_future(store.database.write(noted("group"), grouped=True))
    await asyncio.wait([group], timeout=0)
    go_on.set()
    await asyncio.gather(first, group, *crowd)
    assert len(order) == 21
    assert order.index("group") <= 1


async def test_closing_waits_for_what_is_under_way(url: str) -> None:
    async with open_store(url) as store:
        await add_user(store, "ann")
        callers = [asyncio.ensure_future(push(store, number)) for number in range(700)]
        await asyncio.wait(callers, timeout=0)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
    async with open_store(url) as store:
        assert (await store.inbox.states(["ann"]))["ann"].head == 700


async def test_an_exception_in_the_work_rolls_back(store: Store) -> None:
    def work(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO meta VALUES ('a', '1')")
        raise KeyError("in the work")

    with pytest.raises(KeyError):
        await store.database.write(work)
    count = "SELECT count(*) FROM meta WHERE name = 'a'"
    assert await store.database.write(lambda c: c.exec_driver_sql(count).scalar_one()) == 0


async def test_the_log_is_emptied_when_it_has_grown(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WAL_LIMIT", 200_000)
    await file_of(store)._pragma("wal_autocheckpoint=0")
    await add_user(store, "ann")
    sizes = []
    for number in range(60):
        await push(store, number, "x" * 8000)
        sizes.append(path.with_name("gateway.db-wal").stat().st_size)
    assert max(sizes) < 400_000
    assert min(sizes) == 0


async def test_a_reader_in_the_way_of_the_log_stops_nobody(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "WAL_LIMIT", 200_000)
    await file_of(store)._pragma("wal_autocheckpoint=0")
    await add_user(store, "ann")
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM inbox").fetchone()
        for number in range(60):
            assert await push(store, number, "x" * 8000) == number + 1
        other.execute("ROLLBACK")
    finally:
        other.close()
    for number in range(60, 80):
        await push(store, number, "x" * 8000)
    assert path.with_name("gateway.db-wal").stat().st_size < 400_000


async def test_what_was_taken_back_is_not_in_the_file(url: str, path: Path) -> None:
    async with open_store(url) as store:
        await add_user(store, "ann")
        for number in range(40):
            await push(store, number, "canary-4711 " * (1 + number * 20))
        for number in range(40):
            await store.inbox.withdraw(f"n{number}", sender=None, now=1)
    assert b"canary-4711" not in path.read_bytes()


VICTIM = """
import asyncio, itertools, os, sys
from gateway.model import Actor, Append, Draft
from gateway.store.engine import open_store

async def main():
    async with open_store(sys.argv[1]) as store:
        numbers = itertools.count()
        start = (await store.inbox.states(["ann"]))["ann"].head

        async def producer():
            while True:
                number = start * 1000000 + next(numbers)
                request = Append(
                    "c~shop", (Draft(f"n{number}", "ann", "x", None, 1, 10**15),), (f"k{number}", b"f")
                )
                stored = (await store.inbox.append(request)).outcomes[0]
                os.write(1, f"{stored.seq} {stored.id}\\n".encode())

        await asyncio.gather(*(producer() for _ in range(16)))

asyncio.run(main())
"""


async def test_nothing_that_was_answered_is_lost_when_the_process_is_killed(url: str, path: Path) -> None:
    async with open_store(url) as store:
        await add_user(store, "ann")
    answered: dict[int, str] = {}
    for amount in (1, 37, 200):
        with subprocess.Popen([sys.executable, "-c", VICTIM, url], stdout=subprocess.PIPE) as victim:
            assert victim.stdout is not None
            answers = [victim.stdout.readline() for _ in range(amount)]
            victim.send_signal(signal.SIGKILL)
            answers += victim.stdout.read().splitlines(keepends=True)
        assert answers[0]
        for line in answers:
            seq, id = line.decode().split()
            answered[int(seq)] = id
    async with open_store(url) as store:
        found: dict[int, str] = {}
        after = 0
        while True:
            page = await store.inbox.page("ann", after=after, now=1)
            found |= {entry.seq: entry.id for entry in page.entries}
            after = page.upto
            if after == page.state.head:
                break
        assert sorted(found) == list(range(1, page.state.head + 1))
        assert answered
        assert answered.items() <= found.items()
        keys = "SELECT count(*) FROM idempotency"
        assert await store.database.write(lambda c: c.exec_driver_sql(keys).scalar_one()) == page.state.head
        assert page.state.unread == page.state.head
    with sqlite3.connect(path) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert plain.execute("PRAGMA foreign_key_check").fetchall() == []
    plain.close()


async def test_a_write_does_not_wait_for_ever_for_its_turn(tmp_path: Path) -> None:
    async with open_store(f"sqlite+aiosqlite:///{tmp_path}/gateway.db") as store:
        file_of(store).patience = 0.05
        let_go = asyncio.Event()

        async def holding() -> None:
            async with file_of(store)._writing.turn(arriving=False):
                await let_go.wait()

        holder = asyncio.create_task(holding())
        try:
            async with asyncio.timeout(5):  # without patience it would wait for ever, and so would this test
                for _ in range(3):
                    with pytest.raises(StoreUnavailable):
                        await add_user(store, "ann")
        finally:
            let_go.set()
            await holder
        await add_user(store, "ann")
        assert (await store.users.get("ann")).id == "ann"
