"""Bringing a database to the schema of this version, without alembic.ini. The steps themselves are in ``migrations/``.

Alembic takes longer to import than a small database takes to open, so it is loaded only if there is something to do.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, event, inspect, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

import gateway
from gateway.store.errors import StoreCorrupt, StoreError, StoreInUse
from gateway.store.lock import check_sound, locked, path_of, prepare
from gateway.store.meta import ensure_epoch

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0001"
"""The newest revision. A test compares it with what ``migrations/`` says."""


def head() -> str:
    """The revision this version of the gateway works with."""
    return HEAD


async def current(url: str) -> str | None:
    """The revision of the database; None if it is empty or not there. Creates nothing. Raises StoreError."""
    path = path_of(url)
    return await revision_of(path) if path.exists() else None


async def upgrade(url: str) -> bool:
    """Bring the database, made if need be, to ``head()``; whether there was anything to do.

    Raises StoreInUse while a gateway serves it, StoreError if it is of a newer version.
    """
    path = path_of(url)
    prepare(path)
    return await bring_up(path, have_lock=False)


async def bring_up(path: Path, *, have_lock: bool) -> bool:
    """As ``upgrade``. The lock is taken only if there is something to do and the caller does not hold it."""
    found = await revision_of(path)
    if found == HEAD:
        return False
    if found is not None and not known(found):
        raise StoreError(f"{path} has schema {found}, newer than this gateway knows ({HEAD}): use a newer gateway")
    try:
        with nullcontext() if have_lock else locked(path):
            if not have_lock:
                check_sound(path)
            await run(path)
    except StoreInUse as error:
        raise StoreInUse(f"{error}; its schema must be brought from {found} to {HEAD} first") from None
    return True


def known(revision: str) -> bool:
    """Whether this version can bring a database of ``revision`` to the head. Revisions are numbered."""
    return revision.isdigit() and revision <= HEAD


async def run(path: Path) -> None:
    """Run every step that is missing in one transaction: a process that is killed half-way leaves what was before."""
    engine = migration_engine(path)
    try:
        async with engine.connect() as connection, connection.begin():
            await connection.run_sync(_run)
            await connection.run_sync(ensure_epoch)
    except DatabaseError as error:
        raise StoreError(f"{path} cannot be migrated: {error.orig}") from error
    finally:
        await engine.dispose()


def migration_engine(path: Path) -> AsyncEngine:
    """Connections for DDL: it commits and rolls back like everything else, and foreign keys are off.

    A rebuilt table is dropped on the way; with foreign keys on, that would delete the rows of its children. The pragma
    does nothing inside a transaction, so it is set before (``env.py`` checks the keys at the end).
    """
    engine = create_async_engine(URL.create("sqlite+aiosqlite", database=str(path)), poolclass=NullPool)

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for statement in ("journal_mode=wal", "synchronous=FULL", "foreign_keys=0", "busy_timeout=5000"):
            cursor.execute(f"PRAGMA {statement}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def config() -> Config:
    """Alembic's configuration, pointing at the steps: in the package if it is installed, else in the repository."""
    from alembic.config import Config

    package = Path(gateway.__file__).parent
    steps = package / "_migrations"
    made = Config()
    made.set_main_option("script_location", str(steps if steps.is_dir() else package.parent / "migrations"))
    made.set_main_option("path_separator", "os")
    return made


def _run(connection: Connection) -> None:
    from alembic import command

    settings = config()
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")


async def revision_of(path: Path) -> str | None:
    """The revision of the database file; None if it is empty. Raises StoreError for one that is not the gateway's."""
    engine = create_async_engine(URL.create("sqlite+aiosqlite", database=str(path)), poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(_read_revision)
    except DatabaseError as error:
        raise StoreCorrupt(f"{path} cannot be read: {error.orig}") from None
    finally:
        await engine.dispose()


def _read_revision(connection: Connection) -> str | None:
    names = inspect(connection).get_table_names()
    if "alembic_version" not in names:
        if names:
            raise StoreError("the database holds tables of something else: give the gateway one of its own")
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return found
