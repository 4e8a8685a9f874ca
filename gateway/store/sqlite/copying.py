"""Copying an SQLite file: backup, restore, a new epoch. Not for a serving node: it would hold what these replace."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path

from gateway.model import Actor
from gateway.store.epochs import SYSTEM, begin_epoch
from gateway.store.errors import StoreCorrupt, StoreError
from gateway.store.migrate import head, known
from gateway.store.sqlite.database import SqliteDatabase
from gateway.store.sqlite.lock import locked
from gateway.store.sqlite.migrating import bring_up, revision_of


async def backup(path: Path, target: str | os.PathLike[str]) -> Path:
    """Copy the database, a running node notwithstanding, to the new file ``target`` (mode 0600). Its path.

    Raises StoreError if there is something at ``target`` already, or no database to copy.
    """
    return await asyncio.to_thread(_backup, path, Path(target))


async def restore(path: Path, source: str | os.PathLike[str], *, by: Actor = SYSTEM, now: int) -> str:
    """Put the backup ``source`` in the place of the database, under a new epoch, with every session ended. The epoch.

    Nothing is touched before the backup has been checked and prepared beside it; then one rename decides. Raises
    StoreInUse while a gateway serves the database, StoreCorrupt or StoreError for a backup that cannot be used.
    """
    origin = Path(source)
    with locked(path):
        prepared = path.with_name(path.name + ".restoring")
        try:
            await asyncio.to_thread(_copy_checked, origin, prepared)
            revision = await revision_of(prepared)
            if revision is None or not known(revision):
                raise StoreError(
                    f"{origin} is not a backup of a gateway database"
                    if revision is None
                    else f"{origin} has schema {revision}, newer than this gateway knows ({head()})"
                )
            await bring_up(prepared, have_lock=True)
            epoch = await _change_epoch(prepared, why="restored", by=by, now=now)
            await asyncio.to_thread(_put_in_place, prepared, path)
        finally:
            for leftover in _files(prepared):
                leftover.unlink(missing_ok=True)
    return epoch


async def new_epoch(path: Path, *, by: Actor = SYSTEM, now: int) -> str:
    """As ``maintenance.new_epoch``."""
    if not path.is_file():  # noqa: ASYNC240 - a tool: nobody else waits
        raise StoreError(f"there is no database at {path}")
    with locked(path):
        await bring_up(path, have_lock=True)
        return await _change_epoch(path, why="new_epoch", by=by, now=now)


async def _change_epoch(path: Path, *, why: str, by: Actor, now: int) -> str:
    database = SqliteDatabase(path)
    await database.open()
    try:
        return await database.write(lambda connection: begin_epoch(connection, why=why, by=by, now=now))
    finally:
        await database.close()


def _backup(path: Path, target: Path) -> Path:
    target = target.absolute()
    if not path.is_file():
        raise StoreError(f"there is no database at {path}")
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise StoreError(f"{target} exists already: a backup overwrites nothing") from None
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror}") from None
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None)
        try:
            connection.execute("PRAGMA busy_timeout=5000")
            connection.execute("VACUUM INTO ?", (str(target),))
        finally:
            connection.close()
        _sync(target)
        _sync(target.parent)
    except (sqlite3.Error, OSError) as error:
        target.unlink(missing_ok=True)
        raise StoreError(f"the backup failed: {error}") from None
    return target


def _copy_checked(source: Path, prepared: Path) -> None:
    """A copy of its own, through SQLite: a backup that lies there with a log of its own is read whole."""
    source = source.absolute()
    if not source.is_file():
        raise StoreError(f"there is no backup at {source}")
    for leftover in _files(prepared):
        leftover.unlink(missing_ok=True)
    try:
        os.close(os.open(prepared, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        origin = sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)
        copy = sqlite3.connect(prepared, isolation_level=None)
        try:
            origin.backup(copy)
            findings = [row[0] for row in copy.execute("PRAGMA integrity_check(3)")]
            orphans = copy.execute("PRAGMA foreign_key_check").fetchall()
        finally:
            copy.close()
            origin.close()
    except (sqlite3.Error, OSError) as error:
        raise StoreCorrupt(f"{source} cannot be used: {error}") from None
    if findings != ["ok"] or orphans:
        raise StoreCorrupt(f"{source} is damaged: {'; '.join(findings)}, {len(orphans)} broken references")


def _put_in_place(prepared: Path, path: Path) -> None:
    _sync(prepared)
    if path.exists():
        # The old log must not be read into the new file. Emptied first, so that until the rename the old database
        # is whole; one that is too broken for that has nothing to lose.
        try:
            old = sqlite3.connect(path, isolation_level=None)
            try:
                old.execute("PRAGMA busy_timeout=5000")
                old.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                old.close()
        except sqlite3.Error:
            pass
    for log in _files(path)[1:]:
        log.unlink(missing_ok=True)
    os.replace(prepared, path)
    _sync(path.parent)


def _files(path: Path) -> list[Path]:
    return [path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
