"""Opening a database, whichever it is: schema, connections, and one attribute per port. No SQL of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from gateway.epoch import Epoch
from gateway.errors import StoreUnavailable
from gateway.store.audit import SqlAudit
from gateway.store.clients import SqlClients
from gateway.store.database import Database, Durability
from gateway.store.errors import StoreError
from gateway.store.failures import SqlFailures
from gateway.store.identities import SqlIdentities
from gateway.store.inbox import SqlInbox
from gateway.store.keys import SqlKeys
from gateway.store.meta import SqlMeta
from gateway.store.postgres import opening as postgres
from gateway.store.revocations import SqlRevocations
from gateway.store.sessions import SqlSessions
from gateway.store.sqlite import migrating
from gateway.store.sqlite.database import SqliteDatabase
from gateway.store.sqlite.lock import check_sound, locked, path_of, prepare
from gateway.store.tickets import SqlTickets
from gateway.store.users import SqlUsers


@dataclass(frozen=True, slots=True)
class Store:
    """Everything that is kept, by port. ``database``: for what speaks SQL itself."""

    database: Database
    inbox: SqlInbox
    users: SqlUsers
    sessions: SqlSessions
    clients: SqlClients
    failures: SqlFailures
    identities: SqlIdentities
    revocations: SqlRevocations
    keys: SqlKeys
    tickets: SqlTickets
    audit: SqlAudit
    meta: SqlMeta
    epoch: Epoch


@asynccontextmanager
async def open_store(
    url: str,
    *,
    durability: Durability = "full",
    tool: bool = False,
    inbox_max: int = 10_000,
    connections: int = 10,
    application: str = "gateway",
) -> AsyncIterator[Store]:
    """Open the database, made and migrated if need be; on the way out, everything that was begun is finished first.

    ``tool``: beside a node that serves the database. It takes no lock and marks no run, but finds the schema current
    or brings it there (SQLite: while nobody serves). ``connections``, and ``application``, by which the server knows
    this process, are for PostgreSQL. Raises StoreInUse, StoreCorrupt, or StoreError for anything else that is in the
    way; each says what.
    """
    epoch = Epoch()
    if postgres.is_postgres(url):
        opening: AbstractAsyncContextManager[Database] = postgres.opened(
            url, durability=durability, connections=3 if tool else connections, application=application, epoch=epoch
        )
    else:
        opening = _sqlite(url, durability=durability, tool=tool)
    async with opening as database:
        inbox = SqlInbox(database, inbox_max=inbox_max, epoch=epoch)
        failures, tickets, sessions = SqlFailures(database), SqlTickets(database), SqlSessions(database)
        meta = SqlMeta(database)
        try:
            epoch.became(await meta.epoch())
            yield Store(
                database=database,
                inbox=inbox,
                users=SqlUsers(database),
                sessions=sessions,
                clients=SqlClients(database),
                failures=failures,
                identities=SqlIdentities(database),
                revocations=SqlRevocations(database),
                keys=SqlKeys(database),
                tickets=tickets,
                audit=SqlAudit(database),
                meta=meta,
                epoch=epoch,
            )
        finally:
            await inbox.settled()
            await sessions.settled()
            await tickets.settled()
            await failures.settled()


@asynccontextmanager
async def _sqlite(url: str, *, durability: Durability, tool: bool) -> AsyncIterator[Database]:
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
        await migrating.bring_up(path, have_lock=not tool)
        database = SqliteDatabase(path)
        await database.open()
        meta = SqlMeta(database)
        try:
            if not tool:
                await meta.started(durability)
            await database.set_durability(durability)
            yield database
        finally:
            with suppress(StoreUnavailable):  # then the next start takes this run for one that was cut off: rightly
                await meta.stopped()
            await database.close()


async def current(url: str) -> str | None:
    """The schema revision of the database; None if it is empty or not there. Creates nothing. Raises StoreError."""
    if postgres.is_postgres(url):
        return await postgres.current(url)
    path = path_of(url)
    return await migrating.revision_of(path) if path.exists() else None


async def upgrade(url: str) -> bool:
    """Bring the database, made if need be, to ``migrate.head()``; whether there was anything to do.

    Raises StoreInUse while a gateway serves an SQLite database, StoreError if it is of a newer version.
    """
    if postgres.is_postgres(url):
        return await postgres.upgrade(url)
    path = path_of(url)
    prepare(path)
    return await migrating.bring_up(path, have_lock=False)
