"""Opening a database: what is asserted of the connections, who may have it, and what is refused in clear words."""

# ruff: noqa: ASYNC220, ASYNC240 - a test waits for its files and processes, and nobody waits for a test

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import Connection
from stores import people

from gateway.errors import StoreUnavailable
from gateway.model import Actor
from gateway.store.database import Work
from gateway.store.engine import Store, open_store
from gateway.store.errors import StoreCorrupt, StoreError, StoreInUse
from gateway.store.sqlite import database

BY = Actor("test")


def pragma(name: str) -> Work[object]:
    return lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


async def add_user(store: Store, id: str) -> None:
    await store.users.create(id=id, username=id, role="user", password_hash="h", by=BY, now=1)


async def test_the_writer_waits_for_the_disk_and_checks_foreign_keys(store: Store) -> None:
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000, "mmap_size": 0}
    for name, value in expected.items():
        assert await store.database.write(pragma(name)) == value, name


async def test_relaxed_durability_does_not_wait(url: str) -> None:
    async with open_store(url, durability="relaxed") as store:
        assert await store.database.write(pragma("synchronous")) == 1


async def test_a_reader_cannot_write(store: Store) -> None:
    assert await store.database.read(pragma("query_only")) == 1
    with pytest.raises(StoreUnavailable):
        await store.database.read(lambda connection: connection.exec_driver_sql("DELETE FROM users") and None)


async def test_a_reading_transaction_is_one_snapshot(store: Store) -> None:
    began, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def count(connection: Connection) -> int:
        return int(connection.exec_driver_sql("SELECT count(*) FROM users").scalar_one())

    def twice(connection: Connection) -> tuple[int, int]:
        first = count(connection)
        loop.call_soon_threadsafe(began.set)
        go_on.wait(10)
        return first, count(connection)

    reading = asyncio.ensure_future(store.database.read(twice))
    await began.wait()
    await add_user(store, "ann")
    go_on.set()
    assert await reading == (0, 0)
    assert await store.database.read(count) == 1


async def test_news_of_revocations_wait_for_no_crowd_of_readers_and_hardly_for_a_busy_loop(store: Store) -> None:
    go_on = threading.Event()
    loop, turns = asyncio.get_running_loop(), 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        if not go_on.is_set():
            loop.call_later(0.005, turn)

    crowd = [asyncio.create_task(store.database.read(lambda _: go_on.wait(10))) for _ in range(2 * database.READERS)]
    await store.database.read_first(pragma("query_only"))  # connected
    turn()
    before = turns
    async with asyncio.timeout(5):
        assert await store.revocations.since(0, now=1) == []
    assert turns - before < 10
    with pytest.raises(StoreUnavailable):
        await store.database.read_first(lambda connection: connection.exec_driver_sql("DELETE FROM users") and None)
    go_on.set()
    await asyncio.gather(*crowd)


async def test_a_setting_the_file_system_does_not_take_stops_the_start(
    url: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(url):
        pass
    monkeypatch.setattr(database, "_SYNCHRONOUS", {"full": 7, "relaxed": 1})
    with pytest.raises(StoreError, match=r"synchronous is .* where it must be 7"):
        async with open_store(url):
            raise AssertionError("opened")


async def test_directory_and_files_are_the_owners_alone(url: str, path: Path) -> None:
    before = os.umask(0)
    try:
        async with open_store(url) as store:
            await add_user(store, "ann")
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert set(modes) == {"gateway.db", "gateway.db-wal", "gateway.db-shm", "gateway.db.lock"}
    assert set(modes.values()) == {0o600}


async def test_closing_leaves_one_file_and_no_log(url: str, path: Path) -> None:
    async with open_store(url) as store:
        await add_user(store, "ann")
    assert {file.name for file in path.parent.iterdir()} == {"gateway.db", "gateway.db.lock"}


async def test_a_second_gateway_is_refused_and_a_tool_is_not(url: str, store: Store) -> None:
    with pytest.raises(StoreInUse, match=rf"another gateway is using .*gateway\.db \(process {os.getpid()}\)"):
        async with open_store(url):
            raise AssertionError("opened")
    async with open_store(url, tool=True) as tool:
        await add_user(tool, "ann")
    assert (await store.users.get("ann")).username == "ann"


async def test_the_lock_of_a_killed_gateway_is_free(url: str, path: Path) -> None:
    code = f"""
import asyncio, sys
from gateway.store.engine import open_store
async def main():
    async with open_store({url!r}):
        print("open", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(StoreInUse):
            async with open_store(url):
                raise AssertionError("opened")
        other.kill()
        other.wait()
    async with open_store(url) as store:
        assert await people(store) == 0


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql+aiomysql://localhost/x", "mysql.aiomysql are not supported"),
        ("sqlite+aiosqlite:///:memory:", "must be a file"),
        ("sqlite+aiosqlite://", "must be a file"),
        ("nonsense", "cannot be read"),
        ("sqlite+aiosqlite:////proc/nowhere/gateway.db", "cannot be opened"),
    ],
)
async def test_what_is_no_file_is_refused(url: str, says: str) -> None:
    with pytest.raises(StoreError, match=says):
        async with open_store(url):
            raise AssertionError("opened")


async def test_a_file_that_is_no_database_is_refused(url: str, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(StoreCorrupt, match="is not an SQLite database"):
        async with open_store(url):
            raise AssertionError("opened")
    assert path.read_bytes().startswith(b"something else")


async def test_a_database_of_something_else_is_refused(url: str, path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE cats (name)")
    other.close()
    with pytest.raises(StoreError, match="tables of something else"):
        async with open_store(url):
            raise AssertionError("opened")


async def test_a_damaged_database_is_refused(url: str, path: Path) -> None:
    async with open_store(url) as store:
        for number in range(300):
            await add_user(store, f"user-{number}")
    with path.open("r+b") as file:
        for page in range(4, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xa5" * 200)
    with pytest.raises(StoreCorrupt, match=r"damaged .*gateway restore"):
        async with open_store(url):
            raise AssertionError("opened")


async def test_a_database_that_was_deleted_or_replaced_answers_nothing(url: str, path: Path, store: Store) -> None:
    await add_user(store, "ann")
    aside = path.rename(path.with_name("aside"))
    with pytest.raises(StoreUnavailable):
        await store.users.get("ann")
    with pytest.raises(StoreUnavailable):
        await add_user(store, "bob")
    path.write_bytes(aside.read_bytes())
    with pytest.raises(StoreUnavailable):
        await add_user(store, "bob")
    aside.rename(path)
    await add_user(store, "bob")
    assert await people(store) == 2


async def test_a_closed_store_says_so(url: str) -> None:
    async with open_store(url) as store:
        pass
    with pytest.raises(StoreUnavailable):
        await store.meta.epoch()
    with pytest.raises(StoreUnavailable):
        await add_user(store, "ann")
