"""Bringing an SQLite file to the schema of this version: alone, and in one transaction. The steps are elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

from gateway.store import migrate
from gateway.store.errors import StoreCorrupt, StoreError, StoreInUse
from gateway.store.sqlite.lock import check_sound, locked

T = TypeVar("T")


async def bring_up(path: Path, *, have_lock: bool) -> bool:
    """Bring the file to ``migrate.head()``; whether there was anything to do.

    The lock is taken only if there is something to do and the caller does not hold it. Raises StoreInUse while a
    gateway serves it, StoreError if it is of a newer version.
    """
    if await _is_current(path):
        return False
    try:
        with nullcontext() if have_lock else locked(path):
            if not have_lock:
                check_sound(path)
            await run(path)
    except StoreInUse as error:
        raise StoreInUse(f"{error}; its schema must be brought to {migrate.head()} first") from None
    return True


async def run(path: Path) -> None:
    """Run every step that is missing in one transaction: a process that is killed half-way leaves what was before."""
    await asyncio.to_thread(_run, path)


def _run(path: Path) -> None:
    engine = migration_engine(path)
    try:
        with engine.begin() as connection:
            migrate.take_steps(connection)
    except DatabaseError as error:
        raise StoreError(f"{path} cannot be migrated: {error.orig}") from error
    finally:
        engine.dispose()


def migration_engine(path: Path) -> Engine:
    """Connections for DDL: it commits and rolls back like everything else, and foreign keys are off.

    A rebuilt table is dropped on the way; with foreign keys on, that would delete the rows of its children. The pragma
    does nothing inside a transaction, so it is set before (``env.py`` checks the keys at the end).
    """
    engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for statement in ("journal_mode=wal", "synchronous=FULL", "foreign_keys=0", "busy_timeout=5000"):
            cursor.execute(f"PRAGMA {statement}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


async def revision_of(path: Path) -> str | None:
    """The revision of the database file; None if it is empty. Raises StoreError for one that is not the gateway's."""
    return await _asked(path, migrate.revision)


async def _is_current(path: Path) -> bool:
    return await _asked(path, lambda connection: migrate.is_current(connection, str(path)))


async def _asked(path: Path, question: Callable[[Connection], T]) -> T:
    return await asyncio.to_thread(_answer, path, question)


def _answer(path: Path, question: Callable[[Connection], T]) -> T:
    engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return question(connection)
    except DatabaseError as error:
        raise StoreCorrupt(f"{path} cannot be read: {error.orig}") from None
    finally:
        engine.dispose()
