"""The connections to one SQLite file: one that writes, a few that read. Knows no table.

Work is a plain function of a SQLAlchemy ``Connection``, run in a transaction of its own, on a thread and in one trip to
it: whoever waits is woken once a transaction, not once a statement. A caller who is cancelled leaves neither an open
transaction nor a held lock behind, and cannot split what commits.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import (
    DatabaseError,
    DataError,
    DBAPIError,
    IntegrityError,
    InvalidRequestError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
)

from gateway.errors import StoreUnavailable
from gateway.store.database import Durability, Work
from gateway.store.errors import StoreError
from gateway.store.finishing import Failing, UnderWay, What
from gateway.store.sqlite.connecting import BUSY_MS, engine, reader_pragmas
from gateway.turns import Turns

T = TypeVar("T")

READERS = 4
PATIENCE = 10.0
"""Seconds a write waits for its turn, and a read for its answer. Behind a lock that another process holds, each write
before it waits five."""
WAL_LIMIT = 64 << 20
"""Bytes. Beyond it the writer empties the log; before, SQLite copies pages back in passing."""
_SYNCHRONOUS = {"full": 2, "relaxed": 1}
_CALLERS_FAULT = (IntegrityError, DataError, ProgrammingError, NotSupportedError)
_FAILURES = (DatabaseError, DBAPIError, InvalidRequestError, StoreError, sqlite3.Error)

log = logging.getLogger("gateway.store")


class _Desk:
    """Threads that share an engine. Each keeps its connection as long as its transactions succeed: to borrow one from
    the pool costs more than a transaction of one statement."""

    def __init__(self, name: str, engine: Engine, *, size: int) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(size, thread_name_prefix=f"store-{name}")
        self._kept: dict[int, Connection] = {}  # by thread, which alone touches its own

    async def run(self, work: Work[T]) -> T:
        """``work`` on a connection: one transaction, which ends as it does."""
        return await self.call(lambda: self._transaction(work))

    async def call(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def _transaction(self, work: Work[T]) -> T:
        thread = threading.get_ident()
        connection = self._kept.get(thread)
        if connection is None:
            connection = self._kept[thread] = self._engine.connect()
        try:
            with connection.begin():
                return work(connection)
        except BaseException:
            self._clean_up(connection)
            self._let_go(thread)
            raise

    def _clean_up(self, connection: Connection) -> None:
        # SQLAlchemy leaves a transaction open whose COMMIT has failed, and does not see whether a connection is broken
        # at BEGIN, which goes past it.
        try:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - narrows a type
            driver.rollback()
        except (sqlite3.Error, SQLAlchemyError):
            connection.invalidate()

    def _let_go(self, thread: int) -> None:
        connection = self._kept.pop(thread, None)
        if connection is not None:
            connection.close()

    async def driver(self, use: Callable[[sqlite3.Connection], T]) -> T:
        """``use`` on the driver's own connection, outside a transaction."""
        return await self.call(lambda: self._driver(use))

    def _driver(self, use: Callable[[sqlite3.Connection], T]) -> T:
        self._let_go(threading.get_ident())  # or there would be none to lend
        lent = self._engine.raw_connection()
        try:
            driver = lent.driver_connection
            assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - narrows a type
            return use(driver)
        finally:
            lent.close()

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._threads.shutdown()
        for thread in list(self._kept):
            self._let_go(thread)
        self._engine.dispose()


class SqliteDatabase:
    """Implements ``store.database.Database``."""

    def __init__(self, path: Path, *, readers: int = READERS) -> None:
        self.path = path
        self.patience = PATIENCE
        self._synchronous = _SYNCHRONOUS["full"]
        self._writers = _Desk("writer", engine(path, "BEGIN IMMEDIATE", size=1, pragmas=self._writer_pragmas), size=1)
        self._readers = _Desk("reader", engine(path, "BEGIN", size=readers, pragmas=reader_pragmas), size=readers)
        self._first = _Desk("first", engine(path, "BEGIN", size=1, pragmas=reader_pragmas), size=1)
        self._open = False
        self._writing = Turns(1)
        self._under_way = UnderWay()
        self._file: tuple[int, int] | None = None
        self._wal_tried = 0
        self._failing = Failing()

    def _writer_pragmas(self) -> Mapping[str, str | int]:
        return {
            "journal_mode": "wal",  # can silently not happen, on a network file system for one
            "synchronous": self._synchronous,
            "foreign_keys": 1,
            "busy_timeout": BUSY_MS,
            "mmap_size": 0,
            "wal_autocheckpoint": 4000,
            "secure_delete": 1,  # what was taken back is not to be found in a free page
            "cache_size": -16_384,
            "temp_store": 2,
        }

    async def open(self) -> None:
        """Connect the writer. Raises StoreError if the file cannot be used as it must be."""
        try:
            await self._writers.driver(lambda connection: None)
            stat = os.stat(self.path)
        except (DBAPIError, OSError, sqlite3.Error) as error:
            await self.close()
            raise StoreError(f"{self.path} cannot be opened: {_text(error)}") from None
        except StoreError:
            await self.close()
            raise
        self._file = (stat.st_dev, stat.st_ino)
        self._open = True

    async def set_durability(self, durability: Durability) -> None:
        """From now on a commit waits for the disk (``full``), or may be lost by a power cut (``relaxed``)."""
        async with self._writing.turn(arriving=False):
            self._synchronous = _SYNCHRONOUS[durability]
            await self._pragma(f"synchronous={self._synchronous}")
            if await self._pragma("synchronous") != self._synchronous:
                raise StoreError(f"{self.path}: synchronous cannot be set to {self._synchronous}")

    async def close(self) -> None:
        """Wait for what is under way, empty the log, let go of the file."""
        await self._under_way.finished()
        async with self._writing.turn(arriving=False):
            if self._open:
                self._open = False
                try:
                    await self._writers.driver(_checkpoint)
                except (DBAPIError, sqlite3.Error) as error:  # nothing is lost: the log is read at the next start
                    log.warning("the log of the database could not be emptied: %s", _text(error))
        for desk in (self._readers, self._first, self._writers):
            await desk.close()

    async def write(self, work: Work[T], *, grouped: bool = False) -> T:
        """Run ``work`` in the one writing transaction; returns after the commit. An exception rolls it back."""
        return await self._under_way.run(self._write(work, grouped=grouped))

    async def read(self, work: Work[T]) -> T:
        """Run ``work`` in a reading transaction: all it selects is one snapshot. It cannot write."""
        return await self._read(self._readers, work)

    async def read_first(self, work: Work[T]) -> T:
        """As ``read``, for what everybody else waits for: on a thread of its own, past every other reader."""
        return await self._read(self._first, work)

    @property
    def refuses_writes(self) -> bool:
        """Whether the last write that needed room failed, and none has ``proved`` the contrary since."""
        return "written" in self._failing

    async def prove(self, work: Work[T]) -> T:
        """As ``write``, of something large enough to say that writing works again: on a full disk a transaction that
        changes nothing succeeds too, and one that fits into a page that is left over."""
        return await self._under_way.run(self._write(work, proves=True))

    async def _write(self, work: Work[T], *, grouped: bool = False, proves: bool = False) -> T:
        try:
            async with asyncio.timeout(self.patience):
                await self._writing.take(grouped)
        except TimeoutError:
            raise StoreUnavailable from None
        try:
            if not self._open:
                raise StoreUnavailable
            self._still_there("written")
            try:
                result = await self._writers.run(work)
            except _CALLERS_FAULT:
                raise
            except _FAILURES as error:
                raise self._failing.at("written", _text(error)) from error
            if proves:
                self._failing.no_more("written")
            await self._keep_wal_small()
            return result
        finally:
            self._writing.give_back()

    async def _read(self, desk: _Desk, work: Work[T]) -> T:
        if not self._open:
            raise StoreUnavailable
        self._still_there("read")
        try:
            async with asyncio.timeout(self.patience):
                result = await desk.run(work)
        except TimeoutError:
            raise StoreUnavailable from None
        except _CALLERS_FAULT:
            raise
        except _FAILURES as error:
            raise self._failing.at("read", _text(error)) from error
        self._failing.no_more("read")
        return result

    def _still_there(self, to_be: What) -> None:
        # SQLite goes on happily in a file that was deleted or replaced: what it commits there is found by nobody.
        try:
            stat = os.stat(self.path)
        except OSError as error:
            raise self._failing.at(to_be, _text(error)) from None
        if (stat.st_dev, stat.st_ino) != self._file:
            raise self._failing.at(to_be, "another file lies at the path of the database")

    async def _keep_wal_small(self) -> None:
        try:
            size = os.stat(f"{self.path}-wal").st_size
        except OSError:
            return
        if size < WAL_LIMIT:
            self._wal_tried = 0
        elif size >= self._wal_tried:
            self._wal_tried = size + WAL_LIMIT // 4  # a reader in the way is not waited for at every commit
            try:
                await self._writers.driver(_checkpoint)
            except (DBAPIError, sqlite3.Error) as error:  # what was asked is committed all the same
                log.warning("the log of the database could not be emptied: %s", _text(error))

    async def _pragma(self, text: str) -> object:
        """Outside a transaction, where alone some of them work. The first value answered."""
        if not self._open:
            raise StoreUnavailable

        def ask(connection: sqlite3.Connection) -> object:
            row = connection.execute(f"PRAGMA {text}").fetchone()
            return None if row is None else row[0]

        return await self._writers.driver(ask)


def _checkpoint(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA busy_timeout=100").close()
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    finally:
        connection.execute(f"PRAGMA busy_timeout={BUSY_MS}").close()


def _text(error: BaseException) -> str:
    """What the driver said: without the statement, which is long, and the parameters, which are secret."""
    return str(getattr(error, "orig", None) or error)
