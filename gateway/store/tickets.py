"""The port ``UsedTickets`` over SQL: which tickets were used. Sees their ids alone, and makes none."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import BigInteger, Connection, Text, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from gateway.group import Group
from gateway.store.database import Database
from gateway.store.given import given, packed
from gateway.store.locking import has_one_writer, if_free
from gateway.store.tables import used_tickets

_asked = given("asked", id=Text, expires_at=BigInteger)
# Always in the same order: two nodes that are shown the same tickets do not wait for each other in a circle.
_ROWS = (["id", "expires_at"], select(_asked.c.id, _asked.c.expires_at).order_by(_asked.c.id))
_USE_SQLITE = sqlite.insert(used_tickets).from_select(*_ROWS).on_conflict_do_nothing().returning(used_tickets.c.id)
_USE_POSTGRESQL = (
    postgresql.insert(used_tickets).from_select(*_ROWS).on_conflict_do_nothing().returning(used_tickets.c.id)
)


class SqlTickets:
    """Those that are shown at the same time are written together."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._uses: Group[tuple[str, int], bool] = Group(self._use)

    async def use(self, id: str, *, until: int) -> bool:
        return await self._uses.submit((id, until))

    async def settled(self) -> None:
        """Return when nothing waits or is on its way."""
        await self._uses.settled()

    async def purge(self, *, now: int, limit: int) -> int:
        old = select(used_tickets.c.id).where(used_tickets.c.expires_at <= now).limit(limit)
        statement = delete(used_tickets).where(used_tickets.c.id.in_(old))

        def work(connection: Connection) -> int:
            return connection.execute(statement).rowcount if if_free(connection, "janitor") else 0

        return await self._database.write(work)

    async def _use(self, asked: list[tuple[str, int]]) -> Sequence[bool]:
        # One that comes twice in a group is used by the first of them; of those that a database was asked for twice
        # (``work`` may be run again) nothing was kept.
        rows = packed(list(dict(reversed(asked)).items()))

        def work(connection: Connection) -> set[str]:
            statement = _USE_SQLITE if has_one_writer(connection) else _USE_POSTGRESQL
            return set(connection.execute(statement, {"asked": rows}).scalars())

        first = await self._database.write(work)
        results = []
        for id, _ in asked:
            results.append(id in first)
            first.discard(id)
        return results
