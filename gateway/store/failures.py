"""The port ``Failures`` over SQL: how full what is forgiven of failed sign-ins is. Knows no names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from sqlalchemy import BigInteger, BindParameter, Connection, bindparam, case, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from gateway.group import Group
from gateway.store.database import Database
from gateway.store.locking import has_one_writer, if_free
from gateway.store.tables import failures

_keys: BindParameter[Any] = bindparam("keys", expanding=True)
_FIND = select(failures.c.key, failures.c.until).where(failures.c.key.in_(_keys))
_CLEAR = delete(failures).where(failures.c.key.in_(_keys))

_now, _step, _full = (bindparam(name, type_=BigInteger()) for name in ("now", "step", "full"))
_since = case((failures.c.until.between(_now, _now + 2 * _full), failures.c.until), else_=_now)
_ADDED = {"until": case((_since + _step > _now + _full, _now + _full), else_=_since + _step)}
_VALUES = {"key": bindparam("key"), "until": _now + _step}
_ADD_SQLITE = sqlite.insert(failures).values(_VALUES).on_conflict_do_update(index_elements=["key"], set_=_ADDED)
_ADD_POSTGRESQL = postgresql.insert(failures).values(_VALUES).on_conflict_do_update(index_elements=["key"], set_=_ADDED)


class SqlFailures:
    """What is asked or added at the same time travels together: a flood of failures costs few commits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: Group[Sequence[bytes], Mapping[bytes, int]] = Group(self._find, limit=100)
        self._added: Group[list[dict[str, Any]], None] = Group(self._add, limit=100)

    async def until(self, keys: Sequence[bytes]) -> Mapping[bytes, int]:
        return await self._asked.submit(keys)

    async def add(self, counts: Sequence[tuple[bytes, int, int]], *, now: int) -> None:
        rows = [{"key": key, "now": now, "step": step, "full": full} for key, step, full in counts]
        await self._added.submit(rows)

    async def settled(self) -> None:
        """Return when nothing waits or is on its way."""
        await self._added.settled()

    async def clear(self, keys: Sequence[bytes]) -> None:
        await self._database.write(lambda connection: connection.execute(_CLEAR, {"keys": keys}) and None)

    async def purge(self, *, now: int, limit: int) -> int:
        empty = select(failures.c.key).where(failures.c.until <= now).limit(limit)
        statement = delete(failures).where(failures.c.key.in_(empty), failures.c.until <= now)

        def work(connection: Connection) -> int:
            return connection.execute(statement).rowcount if if_free(connection, "janitor") else 0

        return await self._database.write(work)

    async def _find(self, asked: list[Sequence[bytes]]) -> Sequence[Mapping[bytes, int]]:
        keys = list(set(chain.from_iterable(asked)))

        def work(connection: Connection) -> dict[bytes, int]:
            return {bytes(row.key): row.until for row in connection.execute(_FIND, {"keys": keys})}

        found = await self._database.read(work)
        return [{key: found[key] for key in one if key in found} for one in asked]

    async def _add(self, added: list[list[dict[str, Any]]]) -> Sequence[None]:
        # Always in the same order: two nodes that count the same do not wait for each other in a circle.
        rows = sorted(chain.from_iterable(added), key=lambda row: bytes(row["key"]))

        def work(connection: Connection) -> None:
            connection.execute(_ADD_SQLITE if has_one_writer(connection) else _ADD_POSTGRESQL, rows)

        await self._database.write(work)
        return [None] * len(added)
