"""What the database knows of itself: its epoch, and whether its last node stopped cleanly. No settings."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, text, update

from gateway.errors import StoreUnavailable
from gateway.model import new_id
from gateway.store.database import Database, Durability
from gateway.store.locking import in_turn
from gateway.store.tables import meta

EPOCH, RUNNING, PROBE, COMPATIBLE, HISTORY = "epoch", "running", "probe", "compatible", "history"
PROBE_SIZE = 128 << 10
"""Bytes; the body of a request is 64 KiB at most."""


class SqlMeta:
    """``started`` and ``stopped`` mark one run; ``open_store`` calls them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._running = False

    async def epoch(self) -> str:
        """The name of the log; made with the first question."""
        found = await self._database.read(lambda connection: get(connection, EPOCH))
        return found if found is not None else await self._database.write(ensure_epoch)

    async def schema(self) -> str | None:
        """The revision the database is at."""
        statement = text("SELECT version_num FROM alembic_version")
        return await self._database.read(lambda connection: connection.execute(statement).scalar_one_or_none())

    async def misfit(self, head: str) -> str | None:
        """Why a gateway of revision ``head`` cannot work with the database as it is now; None if it can."""

        def work(connection: Connection) -> str | None:
            found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
            oldest = get(connection, COMPATIBLE)
            if found == head or (found is not None and found > head and oldest is not None and oldest <= head):
                return None
            return f"the database has schema {found}, this version needs {head}"

        return await self._database.read(work)

    async def started(self, durability: Durability) -> str:
        """Mark that a node serves this database from now on. The epoch.

        If the last one did not stop cleanly and its commits were not waiting for the disk, what it last answered may be
        gone and numbers would be given twice: the epoch changes. Call it while commits do wait, or the mark goes too.
        """

        def work(connection: Connection) -> str:
            if get(connection, RUNNING) == "relaxed":
                put(connection, EPOCH, new_id())
            put(connection, RUNNING, durability)
            return ensure_epoch(connection)

        if self._running:
            return await self.epoch()
        self._running = True
        return await self._database.write(work)

    async def stopped(self) -> None:
        """Mark that everything answered is in the file."""
        if self._running:
            self._running = False
            statement = delete(meta).where(meta.c.name == RUNNING)
            await self._database.write(lambda connection: connection.execute(statement) and None)

    async def writable(self) -> bool:
        """Whether what is written now reaches the file. Tried only after a failure, with more than a push needs."""
        if not self._database.refuses_writes:
            return True
        try:
            await self._database.prove(lambda connection: _put_in_turn(connection, PROBE, "-" * PROBE_SIZE))
            await self._database.write(lambda connection: put(connection, PROBE, ""))
        except StoreUnavailable:
            return False
        return True


def ensure_epoch(connection: Connection) -> str:
    in_turn(connection, "meta")
    found = get(connection, EPOCH)
    if found is None:
        found = new_id()
        put(connection, EPOCH, found)
    return found


def get(connection: Connection, name: str) -> str | None:
    found: str | None = connection.execute(select(meta.c.value).where(meta.c.name == name)).scalar_one_or_none()
    return found


def _put_in_turn(connection: Connection, name: str, value: str) -> None:
    """Nodes that all try at the same moment must not all find it missing."""
    in_turn(connection, "meta")
    put(connection, name, value)


def put(connection: Connection, name: str, value: str) -> None:
    if not connection.execute(update(meta).where(meta.c.name == name).values(value=value)).rowcount:
        connection.execute(insert(meta).values(name=name, value=value))
