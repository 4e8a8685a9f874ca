"""The port ``Sessions`` over SQL. Hashes of refresh tokens come in ready-made; no token is ever seen here.

Everything that starts, moves or ends a session goes through the one writer, so it is settled which came first: a
sign-in or refresh that commits after a revocation finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, exists, or_, select, tuple_, update

from gateway.errors import NotFound
from gateway.group import Group
from gateway.model import Session, SignIn, User
from gateway.store import starting
from gateway.store.append import BAD_DATA, is_bad_data
from gateway.store.database import Database
from gateway.store.listed import pair_of
from gateway.store.tables import sessions, users
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
    """Who signs in at the same time is written together: a crowd costs few commits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._starts: Group[SignIn, tuple[Session, User]] = Group(self._start, limit=100)

    async def start(self, sign_in: SignIn) -> tuple[Session, User]:
        """At most ``limit`` sessions of a user live: those that were refreshed longest ago end (``token_revoked``).

        Also raises Invalid for a value that cannot be stored.
        """
        return await self._starts.submit(sign_in)

    async def settled(self) -> None:
        """Return when nothing waits or is on its way."""
        await self._starts.settled()

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

    async def _start(self, asked: Sequence[SignIn]) -> Sequence[tuple[Session, User] | BaseException]:
        try:
            return await self._database.write(lambda connection: starting.start_all(connection, asked), grouped=True)
        except BAD_DATA as error:
            if not is_bad_data(error):
                raise
            return await self._database.write(lambda connection: starting.start_each(connection, asked), grouped=True)

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
