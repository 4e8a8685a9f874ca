"""Opening a database: lock, check, schema, connections, and one attribute per port. No SQL of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from gateway.errors import StoreUnavailable
from gateway.store import migrate
from gateway.store.audit import SqlAudit
from gateway.store.clients import SqlClients
from gateway.store.database import Database, Durability
from gateway.store.errors import StoreError
from gateway.store.inbox import SqlInbox
from gateway.store.keys import SqlKeys
from gateway.store.lock import check_sound, locked, path_of, prepare
from gateway.store.meta import SqlMeta
from gateway.store.revocations import SqlRevocations
from gateway.store.sessions import SqlSessions
from gateway.store.users import SqlUsers


@dataclass(frozen=True, slots=True)
class Store:
    """Everything that is kept, by port. ``database``: for what speaks SQL itself."""

    database: Database
    inbox: SqlInbox
    users: SqlUsers
    sessions: SqlSessions
    clients: SqlClients
    revocations: SqlRevocations
    keys: SqlKeys
    audit: SqlAudit
    meta: SqlMeta


@asynccontextmanager
async def open_store(
    url: str, *, durability: Durability = "full", tool: bool = False, inbox_max: int = 10_000
) -> AsyncIterator[Store]:
    """Open the database, made and migrated if need be; on the way out, everything that was begun is finished first.

    ``tool``: beside a node that serves the database; takes no lock and marks no run, but finds the schema current or
    brings it there while nobody serves. Raises StoreInUse, StoreCorrupt, or StoreError for anything else that is in
    the way; each says what.
    """
    path = path_of(url)
    with ExitStack() as stack:
        # In the wrong directory a tool would answer from an empty database of its own making.
        if tool and not path.exists():
            raise StoreError(f"there is no database at {path}: gateway serve or gateway migrate makes one")
        if not tool:
            stack.enter_context(locked(path))
        prepare(path)
        if not tool:
            await asyncio.to_thread(check_sound, path)
        await migrate.bring_up(path, have_lock=not tool)
        database = Database(path)
        await database.open()
        inbox = SqlInbox(database, inbox_max=inbox_max)
        meta = SqlMeta(database)
        try:
            if not tool:
                await meta.started(durability)
            await database.set_durability(durability)
            yield Store(
                database=database,
                inbox=inbox,
                users=SqlUsers(database),
                sessions=SqlSessions(database),
                clients=SqlClients(database),
                revocations=SqlRevocations(database),
                keys=SqlKeys(database),
                audit=SqlAudit(database),
                meta=meta,
            )
        finally:
            await inbox.settled()
            with suppress(StoreUnavailable):  # then the next start takes this run for one that was cut off: rightly
                await meta.stopped()
            await database.close()
