"""Who goes first when several processes write: row locks and turns. SQLite has one writer: there nothing is to do.

Locks are taken in this order, so that nobody waits in a circle: the turn of what concerns everybody, the user's row,
the rows of ``inboxes`` by user id, whatever belongs to them (sessions, entries), last the turn ``rules``. PostgreSQL
breaks a circle that is left by failing one side, and the work is run again.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, Text, bindparam, func, select

from gateway.store.given import given, packed
from gateway.store.tables import inboxes, users

_TURNS = {"meta": 1, "keys": 2, "users": 3, "rules": 4, "janitor": 5, "migration": 6}
_CLASS = 0x67617465
"""The first of the two numbers of every advisory lock of the gateway ("gate")."""

_owners = given("owners", user_id=Text)
_HOLD_INBOXES = (
    select(inboxes.c.user_id)
    .join_from(_owners, inboxes, inboxes.c.user_id == _owners.c.user_id)
    .order_by(inboxes.c.user_id)
    .with_for_update(of=inboxes, key_share=True)
)
_HOLD_USERS = (
    select(users.c.id)
    .join_from(_owners, users, users.c.id == _owners.c.user_id)
    .order_by(users.c.id)
    .with_for_update(of=users, key_share=True)
)
_HOLD_USER = select(users.c.id).where(users.c.id == bindparam("owner", type_=Text())).with_for_update(key_share=True)


def has_one_writer(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"


def hold_inboxes(connection: Connection, user_ids: Iterable[str]) -> bool:
    """Until the commit nobody else changes these inboxes. Whether somebody could have until now: read again, then.

    A statement of its own: what is selected beside a lock may be older than what the lock waited for.
    """
    if has_one_writer(connection):
        return False
    connection.execute(_HOLD_INBOXES, {"owners": packed([(user_id,) for user_id in sorted(set(user_ids))])}).all()
    return True


def hold_user(connection: Connection, user_id: str) -> None:
    """Until the commit nobody else signs this user in or out, disables or deletes them."""
    if not has_one_writer(connection):
        connection.execute(_HOLD_USER, {"owner": user_id}).all()


def hold_users(connection: Connection, user_ids: Iterable[str]) -> None:
    """As ``hold_user`` for each, always in the same order."""
    if not has_one_writer(connection):
        connection.execute(_HOLD_USERS, {"owners": packed([(user_id,) for user_id in sorted(set(user_ids))])}).all()


def in_turn(connection: Connection, what: str) -> None:
    """Until the commit nobody else has this turn; whoever waits for it sees what was committed before."""
    if not has_one_writer(connection):
        connection.execute(select(func.pg_advisory_xact_lock(_CLASS, _TURNS[what]))).all()


def if_free(connection: Connection, what: str) -> bool:
    """As ``in_turn``, without waiting: whether it was free."""
    if has_one_writer(connection):
        return True
    return bool(connection.execute(select(func.pg_try_advisory_xact_lock(_CLASS, _TURNS[what]))).scalar_one())
