"""The port ``Clients`` over SQL. Secrets come in as hashes; none is ever seen here."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from gateway.closing import TOKEN_REVOKED
from gateway.errors import NotFound
from gateway.model import Actor, Ban, Client
from gateway.store.audit import note, write_noted
from gateway.store.database import Database
from gateway.store.locking import in_turn
from gateway.store.rules import add_rules
from gateway.store.tables import clients, revocations

_CLIENT = (clients.c.client_id, clients.c.name, clients.c.scopes, clients.c.created_at, clients.c.rotated_at)


class SqlClients:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, *, client_id: str, name: str, scopes: frozenset[str], secret_hash: bytes, by: Actor, now: int
    ) -> Client:
        def work(connection: Connection) -> Client:
            connection.execute(
                insert(clients).values(
                    client_id=client_id,
                    name=name,
                    secret_hash=secret_hash,
                    scopes=" ".join(sorted(scopes)),
                    created_at=now,
                )
            )
            detail = {"name": name, "scopes": sorted(scopes)}
            note(connection, "client_created", target=client_id, by=by, now=now, detail=detail)
            return Client(client_id, name, scopes, now)

        return await write_noted(self._database, work)

    async def authenticate(self, client_id: str, *, secret_hash: bytes) -> Client | None:
        statement = select(*_CLIENT, clients.c.secret_hash).where(clients.c.client_id == client_id)

        def read(connection: Connection) -> Client | None:
            row = connection.execute(statement).one_or_none()
            if row is None or not hmac.compare_digest(row.secret_hash, secret_hash):
                return None
            return _client(row)

        return await self._database.read(read)

    async def get(self, client_id: str) -> Client:
        return await self._database.read(lambda connection: _get(connection, client_id))

    async def list(self, *, limit: int, cursor: str | None) -> tuple[Sequence[Client], str | None]:
        statement = select(*_CLIENT).order_by(clients.c.client_id).limit(limit + 1)
        if cursor is not None:
            statement = statement.where(clients.c.client_id > cursor)

        def read(connection: Connection) -> tuple[Sequence[Client], str | None]:
            found = [_client(row) for row in connection.execute(statement)]
            return found[:limit], found[limit - 1].client_id if len(found) > limit else None

        return await self._database.read(read)

    async def rotate(self, client_id: str, *, secret_hash: bytes, by: Actor, now: int) -> Client:
        def work(connection: Connection) -> Client:
            connection.execute(
                update(clients).where(clients.c.client_id == client_id).values(secret_hash=secret_hash, rotated_at=now)
            )
            client = _get(connection, client_id)
            note(connection, "client_rotated", target=client_id, by=by, now=now)
            return client

        return await write_noted(self._database, work)

    async def delete(self, client_id: str, *, by: Actor, now: int, until: int) -> tuple[Ban, ...]:
        def work(connection: Connection) -> tuple[Ban, ...]:
            name = _get(connection, client_id).name
            connection.execute(delete(clients).where(clients.c.client_id == client_id))
            # Whatever it was issued, and is being issued until this is committed: no client gets this id again.
            rule = client_rule(connection, client_id, now=now, until=until) | {"cut": until // 1000}
            bans = add_rules(connection, [rule], by=by, now=now)
            note(connection, "client_deleted", target=client_id, by=by, now=now, detail={"name": name})
            return bans

        return await write_noted(self._database, work)


def client_rule(
    connection: Connection, client_id: str, *, now: int, until: int, why: str = TOKEN_REVOKED.reason
) -> dict[str, Any]:
    """Kills the client's tokens issued up to now: those dated the second after an earlier cut too, as all are that
    were issued since, within its own second."""
    in_turn(connection, "rules")
    earlier = select(func.max(revocations.c.cut)).where(
        revocations.c.subject == client_id, revocations.c.kind == "client"
    )
    return {
        "kind": "client",
        "subject": client_id,
        "user_id": None,
        "cut": max(now // 1000, (connection.execute(earlier).scalar() or 0) + 1),
        "until": until,
        "why": why,
    }


def _get(connection: Connection, client_id: str) -> Client:
    row = connection.execute(select(*_CLIENT).where(clients.c.client_id == client_id)).one_or_none()
    if row is None:
        raise NotFound("client")
    return _client(row)


def _client(row: Row[*tuple[Any, ...]]) -> Client:
    return Client(row.client_id, row.name, frozenset(row.scopes.split()), row.created_at, row.rotated_at)
