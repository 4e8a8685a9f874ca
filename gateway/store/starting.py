"""Starting the sessions of those who sign in together: what they showed is looked at again, by now. Commits nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, Row, Text, func, insert, select

from gateway.closing import TOKEN_REVOKED
from gateway.errors import BadCredentials, CredentialsChanged, GatewayError, Invalid, UserDisabled
from gateway.model import Actor, Session, SignIn, User
from gateway.store.append import BAD_DATA, is_bad_data
from gateway.store.audit import note_sign_ins
from gateway.store.given import given, packed
from gateway.store.locking import hold_users
from gateway.store.rules import end_sessions, overtaken
from gateway.store.tables import identities, inboxes, sessions, users
from gateway.store.users import USER, user_of

Started = tuple[Session, User] | BaseException

_came = given("came", user_id=Text, now=BigInteger)
_LIVING = (
    select(func.count())
    .where(sessions.c.user_id == users.c.id, sessions.c.ended_at.is_(None), sessions.c.expires_at > _came.c.now)
    .scalar_subquery()
)
_FIND = (
    select(
        *USER,
        users.c.password_hash,
        inboxes.c.acked,
        overtaken(users.c.id, now=_came.c.now).label("overtaken"),
        _LIVING.label("living"),
    )
    .join_from(_came, users, users.c.id == _came.c.user_id)
    .join(inboxes, inboxes.c.user_id == users.c.id)
    .where(users.c.deleted_at.is_(None))
)
_known = given("known", issuer=Text, subject=Text)
# Whoever unlinks one of them now waits for our commit.
_LINKED = (
    select(identities.c.issuer, identities.c.subject, identities.c.user_id)
    .join_from(
        _known,
        identities,
        (identities.c.issuer == _known.c.issuer) & (identities.c.subject == _known.c.subject),
    )
    .with_for_update(of=identities, read=True, key_share=True)
)
_INSERT = insert(sessions)


def start_all(connection: Connection, asked: Sequence[SignIn]) -> list[Started]:
    """For each its session and user, or what it is refused with: see the port.

    Raises one of BAD_DATA if any of them holds a value that cannot be stored (``is_bad_data``); then use
    ``start_each``.
    """
    hold_users(connection, [one.user_id for one in asked])
    results: dict[int, Started] = {}
    pending = list(range(len(asked)))
    while pending:
        # Who signs in twice in one group is settled one after the other: the second counts the first's session.
        wave: dict[str, int] = {}
        for place in pending:
            wave.setdefault(asked[place].user_id, place)
        results |= _start(connection, {place: asked[place] for place in wave.values()})
        pending = [place for place in pending if place not in results]
    return [results[place] for place in range(len(asked))]


def start_each(connection: Connection, asked: Sequence[SignIn]) -> list[Started]:
    """As ``start_all``, one by one: who cannot be stored gets Invalid and leaves nothing behind."""
    order = sorted(range(len(asked)), key=lambda place: asked[place].user_id)  # as they are held when they are together
    results = {place: _start_one(connection, asked[place]) for place in order}
    return [results[place] for place in range(len(asked))]


def _start_one(connection: Connection, one: SignIn) -> Started:
    try:
        with connection.begin_nested():
            return start_all(connection, [one])[0]
    except BAD_DATA as error:
        if not is_bad_data(error):
            raise
        return Invalid("A value in it cannot be stored.")


def _start(connection: Connection, asked: Mapping[int, SignIn]) -> dict[int, Started]:
    """What becomes of those who ``asked``, of whom no two are the same user."""
    came = [(one.user_id, one.now) for one in asked.values()]
    rows = {row.id: row for row in connection.execute(_FIND, {"came": packed(came)})}
    known = {one.identity for one in asked.values() if one.identity is not None}
    linked = (
        {
            (row.issuer, row.subject): row.user_id
            for row in connection.execute(_LINKED, {"known": packed(sorted(known))})
        }
        if known
        else {}
    )
    results: dict[int, Started] = {}
    good: list[tuple[SignIn, Row[*tuple[Any, ...]]]] = []
    for place, one in asked.items():
        row = rows.get(one.user_id)
        if row is None:
            results[place] = BadCredentials()
        elif (refusal := _refusal(one, row, linked)) is not None:
            results[place] = refusal
        else:
            results[place] = _session(one, row), user_of(row[:5])
            good.append((one, row))
    # The first write stands behind the last check: who is refused leaves nothing, and the others go on.
    for one, row in good:
        if row.living >= one.limit:
            _end_surplus(connection, one)
    if good:
        connection.execute(_INSERT, [_values(one, row) for one, row in good])
        note_sign_ins(connection, [one for one, _ in good])
    return results


def _refusal(one: SignIn, row: Row[*tuple[Any, ...]], linked: Mapping[tuple[str, str], str]) -> GatewayError | None:
    # Whether the user is disabled is told only to who has shown, as of now, who they are.
    if one.hashes is not None and row.password_hash not in one.hashes:
        return CredentialsChanged()
    if one.identity is not None and linked.get(one.identity) != one.user_id:
        return CredentialsChanged()
    if row.disabled:
        return UserDisabled()
    return BadCredentials() if row.overtaken else None


def _session(one: SignIn, row: Row[*tuple[Any, ...]]) -> Session:
    return Session(one.id, one.user_id, one.device, one.by.address, one.now, one.now, one.expires_at, row.acked)


def _values(one: SignIn, row: Row[*tuple[Any, ...]]) -> dict[str, object]:
    return {
        "id": one.id,
        "user_id": one.user_id,
        "device": one.device,
        "address": one.by.address,
        "created_at": one.now,
        "refreshed_at": one.now,
        "expires_at": one.expires_at,
        "refresh_hash": one.refresh_hash,
        "generation": 0,
        "rotated_at": one.now,
        "cursor": row.acked,
    }


def _end_surplus(connection: Connection, one: SignIn) -> None:
    """Make room for one more session: those that were refreshed longest ago end."""
    living = (sessions.c.user_id == one.user_id, sessions.c.ended_at.is_(None), sessions.c.expires_at > one.now)
    surplus = (
        select(sessions.c.id)
        .where(*living)
        .order_by(sessions.c.refreshed_at.desc(), sessions.c.id.desc())
        .offset(max(one.limit - 1, 0))
    )
    by = Actor(one.user_id, one.by.address)
    end_sessions(connection, sessions.c.id.in_(surplus), why=TOKEN_REVOKED.reason, by=by, now=one.now, until=one.until)
