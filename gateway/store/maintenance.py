"""Backup, restore and a new epoch, for the command line, on whichever database. Copies no file itself.

A PostgreSQL database is copied with the tools that come with it; what they cannot do is the new epoch.
"""

from __future__ import annotations

import os
from pathlib import Path

from gateway.model import Actor
from gateway.store.epochs import SYSTEM, begin_epoch
from gateway.store.errors import StoreError
from gateway.store.postgres.opening import is_postgres, opened, run
from gateway.store.sqlite import copying
from gateway.store.sqlite.lock import path_of


async def backup(url: str, target: str | os.PathLike[str]) -> Path:
    """Copy the database, a running node notwithstanding, to the new file ``target`` (mode 0600). Its path.

    Raises StoreError if there is something at ``target`` already, no database to copy, or it is PostgreSQL.
    """
    if is_postgres(url):
        raise StoreError("a PostgreSQL database is backed up with its own tools: pg_basebackup, or pg_dump")
    return await copying.backup(path_of(url), target)


async def restore(url: str, source: str | os.PathLike[str], *, by: Actor = SYSTEM, now: int) -> str:
    """Put the backup ``source`` in the place of the database, under a new epoch, with every session ended. The epoch.

    Raises StoreInUse while a gateway serves the database, StoreCorrupt or StoreError for a backup that cannot be used,
    or if the database is PostgreSQL.
    """
    if is_postgres(url):
        raise StoreError(
            "a PostgreSQL database is restored with its own tools, while no gateway runs; then: gateway new-epoch"
        )
    return await copying.restore(path_of(url), source, by=by, now=now)


async def new_epoch(url: str, *, by: Actor = SYSTEM, now: int) -> str:
    """After any other restore of the database: a new epoch, every session ended, every token issued so far dead.

    Raises StoreInUse while a gateway serves the SQLite database. On PostgreSQL the nodes that serve it take note
    within the second: their sockets are closed.
    """
    if not is_postgres(url):
        return await copying.new_epoch(path_of(url), by=by, now=now)
    async with opened(url):  # it can be used, and its schema is ours
        pass
    # Every session ends: with millions of them that takes longer than a statement of a node may.
    return await run(url, lambda connection: begin_epoch(connection, why="new_epoch", by=by, now=now))
