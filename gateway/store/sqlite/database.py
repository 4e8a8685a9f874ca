"""The connections to one SQLite file: one that writes, a few that read. Knows no table.

Work is a plain function of a SQLAlchemy ``Connection``, run in a transaction of its own and in a task of its own: a
caller who is cancelled leaves neither an open transaction nor a held lock behind, and cannot split what commits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import (
    DatabaseError,
    DataError,
    DBAPIError,
    IntegrityError,
    InvalidRequestError,
    NotSupportedError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.errors import StoreUnavailable
from gateway.store.database import Durability, Work
from gateway.store.errors import StoreError
from gateway.store.finishing import Failing, UnderWay, What
from gateway.store.sqlite.connecting import BUSY_MS, engine, plain_engine, reader_pragmas

T = TypeVar("T")

READERS = 4
PATIENCE = 10.0
"""Seconds a write waits for its turn. Behind a lock that another process holds, each one before it waits five."""
WAL_LIMIT = 64 << 20
"""Bytes. Beyond it the writer empties the log; before, SQLite copies pages back in passing."""
_SYNCHRONOUS = {"full": 2, "relaxed": 1}
_CALLERS_FAULT = (IntegrityError, DataError, ProgrammingError, NotSupportedError)

log = logging.getLogger("gateway.store")


class SqliteDatabase:
    """Implements ``store.database.Database``."""

    def __init__(self, path: Path, *, readers: int = READERS) -> None:
        self.path = path
        self.patience = PATIENCE
        self._synchronous = _SYNCHRONOUS["full"]
        self._writer_engine = engine(path, "BEGIN IMMEDIATE", size=1, pragmas=self._writer_pragmas)
        self._readers = engine(path, "BEGIN", size=readers, pragmas=reader_pragmas)
        self._first = plain_engine(path)
        self._first_thread = ThreadPoolExecutor(1, thread_name_prefix="store-first")
        self._writer: AsyncConnection | None = None
        self._writing = asyncio.Lock()
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
            self._writer = await self._writer_engine.connect()
            stat = os.stat(self.path)
        except (DBAPIError, OSError, sqlite3.Error) as error:
            await self.close()
            raise StoreError(f"{self.path} cannot be opened: {_text(error)}") from None
        except StoreError:
            await self.close()
            raise
        self._file = (stat.st_dev, stat.st_ino)

    async def set_durability(self, durability: Durability) -> None:
        """From now on a commit waits for the disk (``full``), or may be lost by a power cut (``relaxed``)."""
        async with self._writing:
            self._synchronous = _SYNCHRONOUS[durability]
            await self._pragma(f"synchronous={self._synchronous}")
            if await self._pragma("synchronous") != self._synchronous:
                raise StoreError(f"{self.path}: synchronous cannot be set to {self._synchronous}")

    async def close(self) -> None:
        """Wait for what is under way, empty the log, let go of the file."""
        await self._under_way.finished()
        async with self._writing:
            writer, self._writer = self._writer, None
            if writer is not None:
                try:
                    await self._checkpoint(writer)
                except (DBAPIError, sqlite3.Error) as error:  # nothing is lost: the log is read at the next start
                    log.warning("the log of the database could not be emptied: %s", _text(error))
                await writer.close()
        await self._readers.dispose()
        with contextlib.suppress(RuntimeError):  # closed before
            self._first_thread.submit(self._first.dispose)
        await asyncio.to_thread(self._first_thread.shutdown)
        await self._writer_engine.dispose()

    async def write(self, work: Work[T]) -> T:
        """Run ``work`` in the one writing transaction; returns after the commit. An exception rolls it back."""
        return await self._under_way.run(self._write(work))

    async def read(self, work: Work[T]) -> T:
        """Run ``work`` in a reading transaction: all it selects is one snapshot. It cannot write."""
        return await self._under_way.run(self._read(work))

    async def read_first(self, work: Work[T]) -> T:
        """As ``read``, for what everybody else waits for: on a thread of its own and in one trip to it.

        The way of ``read`` leads past every other reader, and 22 times through the event loop; when that is busy, each
        time costs what all its requests cost.
        """
        if self._writer is None:
            raise StoreUnavailable
        self._still_there("read")

        def run() -> T:
            with self._first.connect() as connection:
                return work(connection)

        try:
            result = await asyncio.get_running_loop().run_in_executor(self._first_thread, run)
        except _CALLERS_FAULT:
            raise
        except (DatabaseError, DBAPIError, InvalidRequestError, StoreError) as error:
            raise self._failing.at("read", _text(error)) from error
        self._failing.no_more("read")
        return result

    @property
    def refuses_writes(self) -> bool:
        """Whether the last write that needed room failed, and none has ``proved`` the contrary since."""
        return "written" in self._failing

    async def prove(self, work: Work[T]) -> T:
        """As ``write``, of something large enough to say that writing works again: on a full disk a transaction that
        changes nothing succeeds too, and one that fits into a page that is left over."""
        return await self._under_way.run(self._write(work, proves=True))

    async def _write(self, work: Work[T], *, proves: bool = False) -> T:
        try:
            async with asyncio.timeout(self.patience):
                await self._writing.acquire()
        except TimeoutError:
            raise StoreUnavailable from None
        try:
            writer = self._writer
            if writer is None:
                raise StoreUnavailable
            self._still_there("written")
            try:
                async with writer.begin():
                    result = await writer.run_sync(work)
            except _CALLERS_FAULT:
                raise
            except (DatabaseError, DBAPIError, InvalidRequestError, StoreError) as error:
                raise self._failing.at("written", _text(error)) from error
            if proves:
                self._failing.no_more("written")
            await self._keep_wal_small(writer)
            return result
        finally:
            self._writing.release()

    async def _read(self, work: Work[T]) -> T:
        if self._writer is None:
            raise StoreUnavailable
        self._still_there("read")
        try:
            async with self._readers.connect() as connection:
                result = await connection.run_sync(work)
        except _CALLERS_FAULT:
            raise
        except (DatabaseError, DBAPIError, InvalidRequestError, PoolTimeout, StoreError) as error:
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

    async def _keep_wal_small(self, writer: AsyncConnection) -> None:
        try:
            size = os.stat(f"{self.path}-wal").st_size
        except OSError:
            return
        if size < WAL_LIMIT:
            self._wal_tried = 0
        elif size >= self._wal_tried:
            self._wal_tried = size + WAL_LIMIT // 4  # a reader in the way is not waited for at every commit
            try:
                await self._checkpoint(writer)
            except (DBAPIError, sqlite3.Error) as error:  # what was asked is committed all the same
                log.warning("the log of the database could not be emptied: %s", _text(error))

    async def _checkpoint(self, writer: AsyncConnection) -> None:
        driver = (await writer.get_raw_connection()).driver_connection
        assert driver is not None  # noqa: S101 - narrows a type; an open connection has one
        for statement in (
            "PRAGMA busy_timeout=100",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            f"PRAGMA busy_timeout={BUSY_MS}",
        ):
            await (await driver.execute(statement)).close()

    async def _pragma(self, text: str) -> object:
        """Outside a transaction, where alone some of them work. The first value answered."""
        if self._writer is None:
            raise StoreUnavailable
        driver = (await self._writer.get_raw_connection()).driver_connection
        assert driver is not None  # noqa: S101 - narrows a type; an open connection has one
        cursor = await driver.execute(f"PRAGMA {text}")
        row = await cursor.fetchone()
        await cursor.close()
        return None if row is None else row[0]


def _text(error: BaseException) -> str:
    """What the driver said: without the statement, which is long, and the parameters, which are secret."""
    return str(getattr(error, "orig", None) or error)
