"""A thread keeps its connection to the file while its transactions succeed: what a failure leaves behind, and what an
idle one holds up."""

# ruff: noqa: ASYNC240 - a test waits for its files, and nobody waits for a test

from __future__ import annotations

import asyncio
import resource
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from gateway.errors import StoreUnavailable
from gateway.store.engine import Store, open_store
from gateway.store.sqlite import database
from gateway.store.sqlite.database import READERS, SqliteDatabase

PRAGMAS = {
    "journal_mode": "wal",
    "synchronous": 2,
    "foreign_keys": 1,
    "busy_timeout": 5000,
    "mmap_size": 0,
    "wal_autocheckpoint": 4000,
    "secure_delete": 1,
    "query_only": 0,
    "defer_foreign_keys": 0,
}


def file_of(store: Store) -> SqliteDatabase:
    assert isinstance(store.database, SqliteDatabase)
    return store.database


def driver(connection: Connection) -> sqlite3.Connection:
    found = connection.connection.driver_connection
    assert isinstance(found, sqlite3.Connection)
    return found


def note(name: str, text: str = "1") -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO meta VALUES (?, ?)", (name, text))

    return work


def noted(connection: Connection) -> set[str]:
    names = connection.exec_driver_sql("SELECT name FROM meta WHERE name LIKE 'n-%'").scalars()
    return {str(name) for name in names}


async def clean(store: Store, path: Path, *, holds: set[str]) -> None:
    """The next write has a connection as it must be, and commits what it writes and nothing else."""

    def write(connection: Connection) -> dict[str, object]:
        found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in PRAGMAS}
        note("n-next")(connection)
        return found

    assert await store.database.write(write) == PRAGMAS
    assert await store.database.read(noted) == {*holds, "n-next"}
    other = sqlite3.connect(path, isolation_level=None, timeout=0)
    try:
        other.execute("BEGIN IMMEDIATE")  # the lock was let go
        other.execute("ROLLBACK")
    finally:
        other.close()


@contextmanager
def refusing(connection: sqlite3.Connection, *what: str) -> Iterator[None]:
    """SQLite refuses to BEGIN, COMMIT or ROLLBACK."""

    def authorize(action: int, verb: str | None, *_: str | None) -> int:
        return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION and verb in what else sqlite3.SQLITE_OK

    connection.set_authorizer(authorize)
    try:
        yield
    finally:
        with suppress(sqlite3.ProgrammingError):  # it was thrown away
            connection.set_authorizer(None)


async def kept(store: Store) -> sqlite3.Connection:
    """What the writer keeps."""
    return await store.database.write(driver)


async def python_error(store: Store) -> None:
    def work(connection: Connection) -> None:
        note("n-lost")(connection)
        raise KeyError("in the work")

    with pytest.raises(KeyError):
        await store.database.write(work)


async def sql_error(store: Store) -> None:
    def work(connection: Connection) -> None:
        note("n-lost")(connection)
        connection.exec_driver_sql("INSERT INTO nowhere VALUES (1)")

    with pytest.raises(StoreUnavailable):
        await store.database.write(work)


async def a_commit_refused_for_what_it_holds(store: Store) -> None:
    def work(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=1")
        note("n-lost")(connection)
        connection.exec_driver_sql(
            "INSERT INTO sessions (id, user_id, refresh_hash, generation, created_at, refreshed_at, rotated_at,"
            " expires_at, cursor) VALUES ('s', 'nobody', 'x', 0, 1, 1, 1, 1, 0)"
        )

    with pytest.raises(IntegrityError):
        await store.database.write(work)


async def a_commit_that_fails(store: Store) -> None:
    with refusing(await kept(store), "COMMIT"), pytest.raises(StoreUnavailable):
        await store.database.write(note("n-lost"))


async def a_commit_and_its_rollback_that_fail(store: Store) -> None:
    with refusing(await kept(store), "COMMIT", "ROLLBACK"), pytest.raises(StoreUnavailable):
        await store.database.write(note("n-lost"))


async def a_begin_that_fails(store: Store) -> None:
    with refusing(await kept(store), "BEGIN"), pytest.raises(StoreUnavailable):
        await store.database.write(note("n-lost"))


async def a_connection_that_was_closed(store: Store) -> None:
    (await kept(store)).close()
    with pytest.raises(StoreUnavailable):
        await store.database.write(note("n-lost"))


async def a_disk_that_is_full_at_the_commit(store: Store) -> None:
    wal = Path(f"{file_of(store).path}-wal")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size, hard))
    try:
        with pytest.raises(StoreUnavailable):
            await store.database.write(note("n-lost", "x" * 100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FAULTS = [
    python_error,
    sql_error,
    a_commit_refused_for_what_it_holds,
    a_commit_that_fails,
    a_commit_and_its_rollback_that_fail,
    a_begin_that_fails,
    a_connection_that_was_closed,
    a_disk_that_is_full_at_the_commit,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_the_next_write_has_a_clean_connection(
    store: Store, path: Path, fault: Callable[[Store], Awaitable[None]]
) -> None:
    await store.database.write(note("n-before"))
    await fault(store)
    async with asyncio.timeout(5):
        await clean(store, path, holds={"n-before"})


async def test_every_reader_that_was_broken_reads_again(store: Store) -> None:
    together = threading.Barrier(READERS)

    def breaks(connection: Connection) -> None:
        together.wait(10)
        driver(connection).close()  # it cannot commit

    outcomes = await asyncio.gather(*(store.database.read(breaks) for _ in range(READERS)), return_exceptions=True)
    assert all(isinstance(outcome, Exception) for outcome in outcomes)
    for _ in range(4 * READERS):
        async with asyncio.timeout(5):
            assert await store.database.read(noted) == set()


async def test_a_lock_of_another_process_at_the_beginning(store: Store, path: Path) -> None:
    await file_of(store)._pragma("busy_timeout=10")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await store.database.write(note("n-lost"))
    other.execute("ROLLBACK")
    other.close()
    await file_of(store)._pragma("busy_timeout=5000")
    await clean(store, path, holds=set())


async def test_idle_readers_do_not_hold_up_the_log(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WAL_LIMIT", 100_000)
    together = threading.Barrier(READERS)

    def reads(connection: Connection) -> object:
        together.wait(10)  # each on a thread of its own
        return connection.exec_driver_sql("SELECT name FROM meta").fetchone()  # and not to the end

    await asyncio.gather(*(store.database.read(reads) for _ in range(READERS)), store.database.read_first(noted))
    assert len(file_of(store)._readers._kept) == READERS
    sizes = []
    for number in range(100):
        await store.database.write(note(f"n-{number}", "x" * 20_000))
        sizes.append(path.with_name("gateway.db-wal").stat().st_size)
    assert max(sizes) < 200_000, "or a reader pins it"
    assert 0 in sizes


async def test_a_log_that_cannot_be_emptied_costs_the_writer_no_patience(
    store: Store, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.database.write(note("n-before", "x" * 100_000))
    monkeypatch.setattr(database, "WAL_LIMIT", 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    work = note("n-more")

    def full(connection: Connection) -> None:
        work(connection)

    def fills(connection: sqlite3.Connection) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
        try:
            checkpoint(connection)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    checkpoint = database._checkpoint
    monkeypatch.setattr(database, "_checkpoint", fills)
    await store.database.write(full)
    assert "could not be emptied" in caplog.text
    monkeypatch.setattr(database, "WAL_LIMIT", 64 << 20)
    await clean(store, path, holds={"n-before", "n-more"})


async def test_closing_waits_for_a_reader_and_a_writer_in_the_midst(url: str, path: Path) -> None:
    go_on, begun = threading.Event(), threading.Barrier(3)

    def reads(connection: Connection) -> set[str]:
        before = noted(connection)
        begun.wait(10)
        go_on.wait(10)
        return before | noted(connection)

    def writes(connection: Connection) -> None:
        note("n-late")(connection)
        begun.wait(10)
        go_on.wait(10)

    async with open_store(url) as store:
        reading = asyncio.create_task(store.database.read(reads))
        writing = asyncio.create_task(store.database.write(writes))
        await asyncio.to_thread(begun.wait, 10)
        asyncio.get_running_loop().call_later(0.05, go_on.set)
    assert await reading == set()
    await writing
    async with open_store(url) as store:
        assert await store.database.read(noted) == {"n-late"}


async def test_a_cancelled_reader_leaves_its_thread_usable(store: Store) -> None:
    go_on, begun = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def reads(connection: Connection) -> None:
        noted(connection)
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(10)

    reading = asyncio.create_task(store.database.read(reads))
    await begun.wait()
    reading.cancel()
    await asyncio.wait([reading])
    await store.database.write(note("n-meanwhile"))
    go_on.set()
    for _ in range(4 * READERS):  # no snapshot from before the write is kept anywhere
        assert await store.database.read(noted) == {"n-meanwhile"}
