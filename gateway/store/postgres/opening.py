"""Opening a PostgreSQL database: can it be used, is its schema right, is its history the known one. Keeps no pool.

There is no lock: any number of gateways serve one database.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.epoch import Epoch
from gateway.store import migrate
from gateway.store.database import Durability
from gateway.store.errors import StoreError
from gateway.store.locking import in_turn
from gateway.store.postgres import failing
from gateway.store.postgres.connecting import engine, url_of, where
from gateway.store.postgres.database import FAILURES, PostgresDatabase, durable
from gateway.store.postgres.history import History

OLDEST_SERVER = 130_000
T = TypeVar("T")

MIGRATION_WAITS = "30s"
"""For the turn and for each lock: behind it queue all who want the same table."""

log = logging.getLogger("gateway.store")


def is_postgres(url: str) -> bool:
    return url.startswith("postgresql+asyncpg://")


async def upgrade(url: str) -> bool:
    """Bring the database to ``migrate.head()``; whether there was anything to do. Raises StoreError.

    Nodes that start at the same moment take turns, and the second finds it done.
    """
    plain = _plain(url)
    try:
        async with plain.connect() as connection:
            return await connection.run_sync(lambda one: _upgraded(one, where(url)))
    except FAILURES as error:
        raise _cannot(url, "migrated", error) from error
    finally:
        await plain.dispose()


async def run(url: str, steps: Callable[[Connection], T]) -> T:
    """Run ``steps`` in one transaction, in the turn of migrations, however long they take. Raises StoreError."""
    plain = _plain(url)
    try:
        async with plain.connect() as connection, connection.begin():
            await connection.run_sync(lambda one: in_turn(one, "migration"))
            return await connection.run_sync(steps)
    except FAILURES as error:
        raise _cannot(url, "changed", error) from error
    finally:
        await plain.dispose()


async def current(url: str) -> str | None:
    """The revision of the database; None if it is empty. Raises StoreError."""
    plain = _plain(url)
    try:
        async with plain.connect() as connection:
            return await connection.run_sync(migrate.revision)
    except FAILURES as error:
        raise _cannot(url, "read", error) from error
    finally:
        await plain.dispose()


@asynccontextmanager
async def opened(
    url: str,
    *,
    durability: Durability = "full",
    connections: int = 3,
    application: str = "gateway",
    epoch: Epoch | None = None,
) -> AsyncIterator[PostgresDatabase]:
    """The database, its schema brought up to date. ``epoch`` is kept true when its history changes.

    Raises StoreError if it cannot be reached or used.
    """
    await upgrade(url)
    known = History(durability)
    plain = _plain(url, limits=True)  # a turn that nobody gives back must not be waited for: all others wait for this
    adopting: set[asyncio.Task[None]] = set()

    async def adopt() -> None:
        async with plain.connect() as connection, connection.begin():
            mark, name = await connection.run_sync(known.adopt)
        known.mark = mark
        if epoch is not None:
            epoch.became(name)

    async def adopt_again() -> None:
        try:
            await adopt()
            log.warning("the database has another history (a failover, or a crash under relaxed durability)")
        except FAILURES as error:
            log.warning("the history of the database cannot be taken over yet: %s", failing.text(error))
        finally:
            await plain.dispose()

    def moved() -> None:
        if not adopting:
            task = asyncio.create_task(adopt_again(), name="history")
            adopting.add(task)
            task.add_done_callback(adopting.discard)

    try:
        try:
            await adopt()
            waits = durable(durability, server=await _checked(plain))
            await plain.dispose()  # it would keep a connection beyond those that were allowed
        except FAILURES as error:
            raise _cannot(url, "opened", error) from error
        database = PostgresDatabase(
            url, connections=connections, waits_for_disk=waits, application=application, lineage=known,
            on_moved=moved,
        )  # fmt: skip
        try:
            yield database
        finally:
            await database.close()
    finally:
        for task in adopting:
            task.cancel()
        await plain.dispose()


def _plain(url: str, *, limits: bool = False) -> AsyncEngine:
    """One connection at a time, for what is done once."""
    return engine(url_of(url), size=1, isolation="READ COMMITTED", application="gateway", patience=30.0, limits=limits)


def _upgraded(connection: Connection, what: str) -> bool:
    if migrate.is_current(connection, what):
        return False
    connection.rollback()
    with connection.begin():
        connection.execute(text(f"SET LOCAL lock_timeout = '{MIGRATION_WAITS}'"))
        in_turn(connection, "migration")
        if migrate.is_current(connection, what):
            return False
        migrate.take_steps(connection)
    return True


async def _checked(plain: AsyncEngine) -> str:
    """Refuse what is too old, warn of what breaks the promise. The server's ``synchronous_commit``."""
    async with plain.connect() as connection:
        asked = ("server_version_num", "fsync", "full_page_writes", "synchronous_commit", "server_encoding")
        found = {name: str((await connection.execute(text(f"SHOW {name}"))).scalar_one()) for name in asked}
    if int(found["server_version_num"]) < OLDEST_SERVER:
        raise StoreError(f"PostgreSQL {OLDEST_SERVER // 10000} or later is needed")
    if found["server_encoding"] != "UTF8":
        raise StoreError(f"the database must be encoded in UTF8, not {found['server_encoding']}")
    if found["fsync"] != "on" or found["full_page_writes"] != "on":
        log.warning("PostgreSQL runs with fsync or full_page_writes off: what is answered may be lost by a power cut")
    return found["synchronous_commit"]


def _cannot(url: str, what: str, error: BaseException) -> StoreError:
    if isinstance(error, StoreError):
        return error
    return StoreError(f"GATEWAY_DATABASE_URL: PostgreSQL at {where(url)} cannot be {what}: {failing.text(error)}")
