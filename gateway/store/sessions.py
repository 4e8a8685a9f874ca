"""The port ``Sessions`` over SQL. Hashes of refresh tokens come in ready-made; no token is ever seen here.

Everything that starts, moves or ends a session goes through the one writer, so it is settled which came first: a
sign-in or refresh that commits after a revocation finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, exists, insert, or_, select, tuple_, update

from gateway.closing import TOKEN_REVOKED
from gateway.errors import BadCredentials, NotFound, UserDisabled
from gateway.model import Actor, Session, User
from gateway.store.database import Database
from gateway.store.listed import pair_of
from gateway.store.locking import hold_user
from gateway.store.rules import end_sessions, is_signed_out
from gateway.store.tables import inboxes, sessions, users
from gateway.store.users import USER

SESSION = tuple(
    sessions.c[name]
    for name in (
        "id",
        "user_id",
        "device",
        "address",
        "created_at",
        "refreshed_at",
        "expires_at",
        "cursor",
        "ended_at",
        "ended_why",
    )
)


class SqlSessions:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def start(
        self,
        *,
        id: str,
        user_id: str,
        device: str | None,
        address: str | None,
        refresh_hash: bytes,
        now: int,
        expires_at: int,
        limit: int,
        until: int,
    ) -> Session:
        """At most ``limit`` sessions of a user live: those that were refreshed longest ago end (``token_revoked``).

        Also raises BadCredentials if the user was signed out everywhere since ``now``, while the sign-in was on its
        way: ``now`` is the time at which it began.
        """

        def work(connection: Connection) -> Session:
            hold_user(connection, user_id)
            row = connection.execute(
                select(users.c.disabled, inboxes.c.acked)
                .join_from(users, inboxes, inboxes.c.user_id == users.c.id)
                .where(users.c.id == user_id, users.c.deleted_at.is_(None))
            ).one_or_none()
            if row is None:
                raise BadCredentials
            if row.disabled:
                raise UserDisabled
            if is_signed_out(connection, user_id, now=now):
                raise BadCredentials
            living = (sessions.c.user_id == user_id, sessions.c.ended_at.is_(None), sessions.c.expires_at > now)
            surplus = (
                select(sessions.c.id)
                .where(*living)
                .order_by(sessions.c.refreshed_at.desc(), sessions.c.id.desc())
                .offset(max(limit - 1, 0))
            )
            end_sessions(
                connection,
                sessions.c.id.in_(surplus),
                why=TOKEN_REVOKED.reason,
                by=Actor(user_id, address),
                now=now,
                until=until,
            )
            session = Session(id, user_id, device, address, now, now, expires_at, row.acked)
            connection.execute(
                insert(sessions).values(
                    id=id,
                    user_id=user_id,
                    device=device,
                    address=address,
                    created_at=now,
                    refreshed_at=now,
                    expires_at=expires_at,
                    refresh_hash=refresh_hash,
                    generation=0,
                    rotated_at=now,
                    cursor=row.acked,
                )
            )
            return session

        return await self._database.write(work)

    async def rotate(
        self, id: str, *, presented: bytes, generation: int, successor: bytes, now: int, idle: int
    ) -> tuple[Session, User] | None:
        swap = (
            update(sessions)
            .where(
                sessions.c.id == id,
                sessions.c.refresh_hash == presented,
                sessions.c.generation == generation,
                *_lives(now, idle),
                exists().where(users.c.id == sessions.c.user_id, *_may()),
            )
            .values(refresh_hash=successor, generation=generation + 1, refreshed_at=now, rotated_at=now)
            .returning(*SESSION)
        )

        def work(connection: Connection) -> tuple[Session, User] | None:
            row = connection.execute(swap).one_or_none()
            if row is None:
                return None
            user = connection.execute(select(*USER).where(users.c.id == row.user_id)).one()
            return Session(*row), User(*user)

        return await self._database.write(work)

    async def refreshable(self, id: str, *, now: int, idle: int) -> tuple[Session, User, bytes, int, int] | None:
        statement = (
            select(*SESSION, *USER, sessions.c.refresh_hash, sessions.c.generation, sessions.c.rotated_at)
            .join_from(sessions, users, users.c.id == sessions.c.user_id)
            .where(sessions.c.id == id, *_lives(now, idle), *_may())
        )

        def read(connection: Connection) -> tuple[Session, User, bytes, int, int] | None:
            row = connection.execute(statement).one_or_none()
            if row is None:
                return None
            split = len(SESSION)
            return (Session(*row[:split]), User(*row[split : split + len(USER)]), *row[-3:])

        return await self._database.read(read)

    async def get(self, id: str) -> Session:
        def read(connection: Connection) -> Session:
            row = connection.execute(select(*SESSION).where(sessions.c.id == id)).one_or_none()
            if row is None:
                raise NotFound("session")
            return Session(*row)

        return await self._database.read(read)

    async def list(
        self, user_id: str | None, *, now: int, idle: int, limit: int, cursor: str | None
    ) -> tuple[Sequence[Session], str | None]:
        statement = (
            select(*SESSION)
            .where(*_lives(now, idle))
            .order_by(sessions.c.created_at.desc(), sessions.c.id.desc())
            .limit(limit + 1)
        )
        if user_id is not None:
            statement = statement.where(sessions.c.user_id == user_id)
        below = pair_of(cursor)
        if below is not None:
            statement = statement.where(tuple_(sessions.c.created_at, sessions.c.id) < below)

        def read(connection: Connection) -> tuple[Sequence[Session], str | None]:
            found = [Session(*row) for row in connection.execute(statement)]
            last = found[limit - 1] if len(found) > limit else None
            return found[:limit], None if last is None else f"{last.created_at}.{last.id}"

        return await self._database.read(read)

    async def purge(self, *, before: int, idle: int, limit: int) -> int:
        last = before - idle
        # The time of its beginning says nothing more; but there is an index on it, as on the other two.
        idled = and_(sessions.c.created_at < last, sessions.c.refreshed_at < last)
        over = or_(sessions.c.ended_at < before, sessions.c.expires_at < before, idled)
        old = select(sessions.c.id).where(over).limit(limit)
        # Looked for by a reader: it walks over all that began long ago, and whoever writes would wait for it.
        ids = await self._database.read(lambda connection: connection.execute(old).scalars().all())
        if not ids:
            return 0
        statement = delete(sessions).where(sessions.c.id.in_(ids))
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)


def _lives(now: int, idle: int) -> tuple[Any, ...]:
    return sessions.c.ended_at.is_(None), sessions.c.expires_at > now, sessions.c.refreshed_at > now - idle


def _may() -> tuple[Any, ...]:
    return users.c.deleted_at.is_(None), users.c.disabled.is_(False)
