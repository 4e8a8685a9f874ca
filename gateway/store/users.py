"""The port ``Users`` over SQL. Hashes are opaque text here: nothing is verified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Text, delete, func, insert, or_, select, update

from gateway.closing import TOKEN_REVOKED, USER_DISABLED
from gateway.errors import BadCredentials, Conflict, NotFound
from gateway.group import Group
from gateway.model import Actor, Ban, Role, User
from gateway.store import leaving
from gateway.store.audit import note, write_noted
from gateway.store.database import Database
from gateway.store.given import given, packed
from gateway.store.locking import hold_inboxes, hold_user, in_turn
from gateway.store.rules import end_user
from gateway.store.tables import inbox, inboxes, users

USER = (users.c.id, users.c.username, users.c.role, users.c.disabled, users.c.created_at)
LIVING = select(*USER).where(users.c.deleted_at.is_(None))


_asked = given("asked", username=Text)
_CREDENTIALS = (
    select(_asked.c.place, *USER, users.c.password_hash)
    .join_from(_asked, users, users.c.username == _asked.c.username)
    .where(users.c.deleted_at.is_(None))
)


class SqlUsers:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._signing_in: Group[str, tuple[User, str] | None] = Group(self._credentials, limit=100)

    async def create(self, *, id: str, username: str, role: Role, password_hash: str, by: Actor, now: int) -> User:
        def work(connection: Connection) -> User:
            in_turn(connection, "users")
            if connection.execute(select(users.c.id).where(users.c.id == id)).one_or_none() is not None:
                raise Conflict("id_taken", "A user with this id exists, or did.")
            if connection.execute(select(users.c.id).where(users.c.username == username)).one_or_none() is not None:
                raise Conflict("username_taken", "A user with this name exists.")
            return add_user(
                connection, id=id, username=username, role=role, password_hash=password_hash, by=by, now=now
            )

        return await write_noted(self._database, work)

    async def get(self, id: str) -> User:
        return await self._database.read(lambda connection: living_user(connection, id))

    async def credentials(self, username: str) -> tuple[User, str] | None:
        if "\0" in username or any("\ud800" <= character <= "\udfff" for character in username):
            return None  # nobody is called so, and PostgreSQL would refuse all who are asked for with it
        return await self._signing_in.submit(username)

    async def _credentials(self, usernames: list[str]) -> Sequence[tuple[User, str] | None]:
        """Together, and one read after the other: a crowd that signs in would have every reader, and the pushes
        between them."""

        def read(connection: Connection) -> dict[int, tuple[User, str]]:
            rows = connection.execute(_CREDENTIALS, {"asked": packed([name] for name in usernames)})
            return {row[0]: (user_of(row[1:6]), row.password_hash) for row in rows}

        found = await self._database.read(read)
        return [found.get(place) for place in range(len(usernames))]

    async def password_hash(self, id: str) -> str:
        def read(connection: Connection) -> str:
            statement = select(users.c.password_hash).where(users.c.id == id, users.c.deleted_at.is_(None))
            found: str | None = connection.execute(statement).scalar_one_or_none()
            if found is None:
                raise NotFound("user")
            return found

        return await self._database.read(read)

    async def rehash(self, id: str, *, old: str, new: str) -> None:
        statement = update(users).where(users.c.id == id, users.c.password_hash == old).values(password_hash=new)
        await self._database.write(lambda connection: connection.execute(statement) and None)

    async def list(self, *, query: str | None, limit: int, cursor: str | None) -> tuple[Sequence[User], str | None]:
        statement = LIVING.order_by(users.c.id).limit(limit + 1)
        if query:
            # `unicode_lower`: the database's own lower() knows ASCII only.
            statement = statement.where(
                or_(
                    func.unicode_lower(users.c.id).contains(query.lower(), autoescape=True),
                    func.unicode_lower(users.c.username).contains(query.lower(), autoescape=True),
                )
            )
        if cursor is not None:
            statement = statement.where(users.c.id > cursor)

        def read(connection: Connection) -> tuple[Sequence[User], str | None]:
            found = [user_of(row) for row in connection.execute(statement)]
            return found[:limit], found[limit - 1].id if len(found) > limit else None

        return await self._database.read(read)

    async def update(
        self, id: str, *, role: Role | None, disabled: bool | None, by: Actor, now: int, until: int
    ) -> tuple[User, tuple[Ban, ...]]:
        def work(connection: Connection) -> tuple[User, tuple[Ban, ...]]:
            in_turn(connection, "users")
            hold_user(connection, id)
            before = living_user(connection, id)
            after = User(
                id,
                before.username,
                before.role if role is None else role,
                before.disabled if disabled is None else disabled,
                before.created_at,
            )
            if after == before:
                return before, ()
            if after.role != "admin" or after.disabled:
                _not_the_last_admin(connection, before)
            connection.execute(update(users).where(users.c.id == id).values(role=after.role, disabled=after.disabled))
            bans: tuple[Ban, ...] = ()
            if after.disabled and not before.disabled:
                bans = end_user(connection, id, why=USER_DISABLED.reason, by=by, now=now, until=until)
            elif after.role != before.role:
                bans = end_user(connection, id, why=TOKEN_REVOKED.reason, by=by, now=now, until=until)
            detail: dict[str, Any] = {"role": after.role, "disabled": after.disabled, "sessions_ended": len(bans)}
            note(connection, "user_updated", target=id, by=by, now=now, detail=detail)
            return after, bans

        return await write_noted(self._database, work)

    async def set_password(
        self,
        id: str,
        *,
        password_hash: str,
        keep_session: str | None,
        by: Actor,
        now: int,
        until: int,
        replaces: str | None = None,
    ) -> tuple[Ban, ...]:
        def work(connection: Connection) -> tuple[Ban, ...]:
            hold_user(connection, id)
            living_user(connection, id)
            statement = update(users).where(users.c.id == id)
            if replaces is not None:
                statement = statement.where(users.c.password_hash == replaces)
            if not connection.execute(statement.values(password_hash=password_hash)).rowcount:
                raise BadCredentials
            bans = end_user(connection, id, why=TOKEN_REVOKED.reason, by=by, now=now, until=until, keep=keep_session)
            note(connection, "password_set", target=id, by=by, now=now, detail={"sessions_ended": len(bans)})
            return bans

        return await write_noted(self._database, work)

    async def delete(self, id: str, *, by: Actor, now: int, until: int) -> tuple[Ban, ...]:
        def work(connection: Connection) -> tuple[Ban, ...]:
            in_turn(connection, "users")
            hold_user(connection, id)
            user = living_user(connection, id)
            _not_the_last_admin(connection, user)
            username = user.username
            hold_inboxes(connection, [id])  # before the sessions: whoever acknowledges holds them in this order
            ids = connection.execute(select(inbox.c.id).where(inbox.c.user_id == id)).scalars().all()
            leaving.leave(connection, ids, way="trimmed", now=now)
            connection.execute(delete(inboxes).where(inboxes.c.user_id == id))
            bans = end_user(connection, id, why=TOKEN_REVOKED.reason, by=by, now=now, until=until)
            connection.execute(
                update(users)
                .where(users.c.id == id)
                .values(username=None, password_hash="", disabled=True, deleted_at=now)
            )
            note(connection, "user_deleted", target=id, by=by, now=now, detail={"username": username})
            return bans

        return await write_noted(self._database, work)


def user_of(row: Row[*tuple[Any, ...]] | tuple[Any, ...]) -> User:
    return User(*row)


def add_user(
    connection: Connection, *, id: str, username: str, role: Role, password_hash: str, by: Actor, now: int
) -> User:
    """A user with an empty inbox, in a transaction that has the turn ``users`` and knows that id and name are free."""
    connection.execute(
        insert(users).values(
            id=id, username=username, password_hash=password_hash, role=role, disabled=False, created_at=now
        )
    )
    connection.execute(insert(inboxes).values(user_id=id, head=0, rev=0, unread=0, stored=0, acked=0))
    note(connection, "user_created", target=id, by=by, now=now, detail={"username": username, "role": role})
    return User(id, username, role, False, now)


def living_user(connection: Connection, id: str) -> User:
    """Raises NotFound("user"), also if they were deleted."""
    row = connection.execute(LIVING.where(users.c.id == id)).one_or_none()
    if row is None:
        raise NotFound("user")
    return user_of(row)


def _not_the_last_admin(connection: Connection, user: User) -> None:
    """In the transaction that takes an admin away: two who demote each other at once must not both succeed."""
    if user.role != "admin" or user.disabled:
        return
    others = LIVING.where(users.c.role == "admin", users.c.disabled.is_(False), users.c.id != user.id).limit(1)
    if connection.execute(others).first() is None:
        raise Conflict("last_admin", "This is the last admin: make another one first.")
