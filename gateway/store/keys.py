"""The port ``Keys`` over SQL: where keys lie. Makes and checks none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, delete, insert, select

from gateway.model import Actor, SigningKey, rfc3339
from gateway.store.audit import note, write_noted
from gateway.store.database import Database
from gateway.store.locking import in_turn
from gateway.store.tables import secrets, signing_keys

_OLDEST_FIRST = (signing_keys.c.signs_from, signing_keys.c.kid)
_SIGNING = select(
    signing_keys.c.kid, signing_keys.c.algorithm, signing_keys.c.material, signing_keys.c.signs_from
).order_by(*_OLDEST_FIRST)


class SqlKeys:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def signing(self) -> Sequence[SigningKey]:
        return await self._database.read_first(
            lambda connection: [SigningKey(*row) for row in connection.execute(_SIGNING)]
        )

    async def announced(self) -> Sequence[tuple[str, int]]:
        statement = select(signing_keys.c.kid, signing_keys.c.signs_from).order_by(*_OLDEST_FIRST)
        # To retire a key that leaked is a revocation: a crowd at the inboxes must not hold it up.
        return await self._database.read_first(
            lambda connection: [(row.kid, row.signs_from) for row in connection.execute(statement)]
        )

    async def add_signing(self, key: SigningKey, *, only_if_none: bool = False) -> None:
        def work(connection: Connection) -> None:
            in_turn(connection, "keys")
            if only_if_none and connection.execute(select(signing_keys.c.kid).limit(1)).first() is not None:
                return
            _add(connection, key)

        await self._database.write(work)

    async def rotate(self, key: SigningKey, *, by: Actor, now: int) -> None:
        def work(connection: Connection) -> None:
            in_turn(connection, "keys")
            _add(connection, key)
            detail = {"alg": key.algorithm, "signs_from": rfc3339(key.signs_from)}
            note(connection, "key_added", target=key.kid, by=by, now=now, detail=detail)

        await write_noted(self._database, work)

    async def retire(self, kid: str, *, check: Callable[[Sequence[SigningKey]], None], by: Actor, now: int) -> None:
        def work(connection: Connection) -> None:
            in_turn(connection, "keys")
            keys = [SigningKey(*row) for row in connection.execute(_SIGNING)]
            check(keys)
            gone = next(key for key in keys if key.kid == kid)
            connection.execute(delete(signing_keys).where(signing_keys.c.kid == kid))
            note(connection, "key_retired", target=kid, by=by, now=now, detail={"alg": gone.algorithm})

        await write_noted(self._database, work)

    async def secret(self, name: str, *, generate: Callable[[], bytes]) -> bytes:
        statement = select(secrets.c.value).where(secrets.c.name == name)

        def work(connection: Connection) -> bytes:
            in_turn(connection, "keys")
            found: bytes | None = connection.execute(statement).scalar_one_or_none()
            if found is None:
                found = generate()
                connection.execute(insert(secrets).values(name=name, value=found))
            return found

        found = await self._database.read(lambda connection: connection.execute(statement).scalar_one_or_none())
        return found if found is not None else await self._database.write(work)


def _add(connection: Connection, key: SigningKey) -> None:
    row = {"kid": key.kid, "algorithm": key.algorithm, "material": key.material, "signs_from": key.signs_from}
    connection.execute(insert(signing_keys).values(row))
