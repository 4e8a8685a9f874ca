"""The port ``Identities`` over SQL. What an issuer says was verified before; here it is only who that is."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, Delete, delete, func, insert, select

from gateway.errors import Conflict, NotFound
from gateway.model import Actor, User
from gateway.store.audit import note, write_noted
from gateway.store.database import Database
from gateway.store.locking import in_turn
from gateway.store.tables import identities, users
from gateway.store.users import LIVING, USER, add_user, living_user, user_of

# Who was deleted is disabled, and has no name any more.
_ANYBODY = select(users.c.id, func.coalesce(users.c.username, ""), users.c.role, users.c.disabled, users.c.created_at)


class SqlIdentities:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, issuer: str, subject: str) -> User | None:
        return await self._database.read(lambda connection: _find(connection, issuer, subject))

    async def admit(
        self,
        issuer: str,
        subject: str,
        *,
        id: str,
        usernames: Sequence[str],
        password_hash: str,
        create: bool,
        link: bool,
        by: Actor,
        now: int,
    ) -> User:
        def work(connection: Connection) -> User:
            in_turn(connection, "users")
            found = _find(connection, issuer, subject)
            if found is not None:
                return found
            row = connection.execute(select(*USER, users.c.deleted_at).where(users.c.id == id)).one_or_none()
            if row is not None:
                if row.deleted_at is not None:
                    raise Conflict("id_taken", "The user of this id was deleted: it is not given again.")
                if not link:
                    raise Conflict("id_taken", "A user of this id is there already and may not be linked.")
                if row.role == "admin":
                    raise Conflict("not_linked", "The user of this id is an admin: only the command line links those.")
                user = user_of(row[:-1])
            elif create:
                username = _free(connection, usernames)
                user = add_user(
                    connection, id=id, username=username, role="user", password_hash=password_hash, by=by, now=now
                )
            else:
                raise NotFound("user")
            _link(connection, user.id, issuer, subject, by=by, now=now)
            return user

        return await write_noted(self._database, work)

    async def link(self, user_id: str, issuer: str, subject: str, *, by: Actor, now: int) -> None:
        def work(connection: Connection) -> None:
            in_turn(connection, "users")
            living_user(connection, user_id)
            found = _find(connection, issuer, subject, living=True)
            if found is not None and found.id != user_id:
                raise Conflict("identity_taken", f"They are linked to the user {found.id}: unlink them first.")
            if found is None:
                connection.execute(_unlink(issuer, subject))  # of a user who was deleted
                _link(connection, user_id, issuer, subject, by=by, now=now)

        await write_noted(self._database, work)

    async def unlink(self, issuer: str, subject: str, *, by: Actor, now: int) -> str:
        def work(connection: Connection) -> str:
            in_turn(connection, "users")
            statement = _unlink(issuer, subject).returning(identities.c.user_id)
            user_id: str | None = connection.execute(statement).scalar_one_or_none()
            if user_id is None:
                raise NotFound("identity")
            detail = {"issuer": issuer, "subject": subject}
            note(connection, "identity_unlinked", target=user_id, by=by, now=now, detail=detail)
            return user_id

        return await write_noted(self._database, work)

    async def list(self, user_id: str) -> Sequence[tuple[str, str]]:
        def read(connection: Connection) -> Sequence[tuple[str, str]]:
            if connection.execute(select(users.c.id).where(users.c.id == user_id)).one_or_none() is None:
                raise NotFound("user")
            statement = (
                select(identities.c.issuer, identities.c.subject)
                .where(identities.c.user_id == user_id)
                .order_by(identities.c.issuer, identities.c.subject)
            )
            return [(row.issuer, row.subject) for row in connection.execute(statement)]

        return await self._database.read(read)


def _find(connection: Connection, issuer: str, subject: str, *, living: bool = False) -> User | None:
    statement = (LIVING if living else _ANYBODY).join_from(users, identities, identities.c.user_id == users.c.id)
    row = connection.execute(statement.where(*_are(issuer, subject))).one_or_none()
    return None if row is None else user_of(row)


def _are(issuer: str, subject: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return identities.c.issuer == issuer, identities.c.subject == subject


def _unlink(issuer: str, subject: str) -> Delete:
    return delete(identities).where(*_are(issuer, subject))


def _free(connection: Connection, usernames: Sequence[str]) -> str:
    taken = select(users.c.username).where(users.c.username.in_(usernames))
    names = set(connection.execute(taken).scalars())
    free = next((name for name in usernames if name not in names), None)
    if free is None:
        raise Conflict("username_taken", "A user with this name exists.")
    return free


def _link(connection: Connection, user_id: str, issuer: str, subject: str, *, by: Actor, now: int) -> None:
    connection.execute(insert(identities).values(issuer=issuer, subject=subject, user_id=user_id, created_at=now))
    detail = {"issuer": issuer, "subject": subject}
    note(connection, "identity_linked", target=user_id, by=by, now=now, detail=detail)
