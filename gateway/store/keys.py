"""The port ``Keys`` over SQL: where keys lie. Makes and checks none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, insert, select

from gateway.model import SigningKey
from gateway.store.database import Database
from gateway.store.locking import in_turn
from gateway.store.tables import secrets, signing_keys


class SqlKeys:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def signing(self) -> Sequence[SigningKey]:
        statement = select(
            signing_keys.c.kid, signing_keys.c.algorithm, signing_keys.c.material, signing_keys.c.signs_from
        ).order_by(signing_keys.c.signs_from, signing_keys.c.kid)
        return await self._database.read(lambda connection: [SigningKey(*row) for row in connection.execute(statement)])

    async def add_signing(self, key: SigningKey, *, only_if_none: bool = False) -> None:
        def work(connection: Connection) -> None:
            in_turn(connection, "keys")
            if only_if_none and connection.execute(select(signing_keys.c.kid).limit(1)).first() is not None:
                return
            connection.execute(
                insert(signing_keys).values(
                    kid=key.kid, algorithm=key.algorithm, material=key.material, signs_from=key.signs_from
                )
            )

        await self._database.write(work)

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
