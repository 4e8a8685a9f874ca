"""Ending sessions and writing the rules that every node reads. One transaction with whatever made it necessary.

A rule stands in ``revocations`` under a number that only grows. What an administrator asked for is listed (``target``
is set); what follows from a new password, a disabled or deleted user, a lost role or a logout is not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Exists, Row, exists, insert, select, update

from gateway.model import Actor, Ban, Target, new_id
from gateway.store.locking import hold_user, in_turn
from gateway.store.tables import revocations, sessions

RULES = ("session", "token", "client", "all")

_ADD = insert(revocations).returning(revocations.c.number, sort_by_parameter_order=True)
_BAN = (
    revocations.c.number,
    revocations.c.kind,
    revocations.c.subject,
    revocations.c.user_id,
    revocations.c.cut,
    revocations.c.until,
    revocations.c.why,
)

BAN_LIFE = 25 * 3600 * 1000
"""Milliseconds. Longer than any access token can live (a day at most): for an epoch, whoever gives it."""

SIGN_IN_TAKES = 60_000
"""Milliseconds a sign-in may last between reading the clock and its session. Bounds how long a clock that was set back
can keep anybody out."""


def add_rules(connection: Connection, rows: Sequence[dict[str, Any]], *, by: Actor, now: int) -> tuple[Ban, ...]:
    """Write these rows (``kind subject user_id cut until why``, maybe ``id parent reason target``) as bans."""
    if not rows:
        return ()
    full = [
        {"id": new_id(now / 1000), "parent": None, "reason": None, "target": None, **row}
        | {"actor": by.id, "created_at": now}
        for row in rows
    ]
    # Whoever reads a number has read every lower one: the next number is given when this one is committed.
    in_turn(connection, "rules")
    numbers = connection.execute(_ADD, full).scalars().all()
    return tuple(
        Ban(number, row["kind"], row["subject"], row["user_id"], row["cut"], row["until"], row["why"])
        for number, row in zip(numbers, full, strict=True)
    )


def end_sessions(
    connection: Connection,
    *which: ColumnElement[bool],
    why: str,
    by: Actor,
    now: int,
    until: int,
    parent: str | None = None,
) -> tuple[Ban, ...]:
    """End the living sessions that ``which`` selects, and ban each one's tokens."""
    ended = connection.execute(
        update(sessions)
        .where(sessions.c.ended_at.is_(None), *which)
        .values(ended_at=now, ended_why=why)
        .returning(sessions.c.id, sessions.c.user_id)
    ).all()
    rows = [session_rule(row.id, row.user_id, why=why, until=until) | {"parent": parent} for row in ended]
    return add_rules(connection, rows, by=by, now=now)


def end_user(
    connection: Connection, user_id: str, *, why: str, by: Actor, now: int, until: int, keep: str | None = None
) -> tuple[Ban, ...]:
    """End every session of the user but ``keep``, and every sign-in that is half-way."""
    hold_user(connection, user_id)
    signed_out(connection, user_id, cut=now, why=why, by=by, now=now, until=until)
    which = [sessions.c.user_id == user_id]
    if keep is not None:
        which.append(sessions.c.id != keep)
    return end_sessions(connection, *which, why=why, by=by, now=now, until=until)


def signed_out(
    connection: Connection,
    user_id: str,
    *,
    cut: int,
    why: str,
    by: Actor,
    now: int,
    until: int,
    id: str | None = None,
    reason: str | None = None,
    target: str | None = None,
) -> None:
    """Note that the sign-ins of the user up to ``cut`` (ms) do not count. Not a rule for tokens."""
    row = {"kind": "user", "subject": user_id, "user_id": user_id, "cut": cut, "until": until, "why": why}
    more = {"id": id or new_id(now / 1000), "reason": reason, "target": target}
    add_rules(connection, [row | more], by=by, now=now)


def overtaken(user_id: ColumnElement[str], *, now: ColumnElement[int]) -> Exists:
    """Whether a sign-in that read the clock at ``now`` was overtaken: say, by a new password while the old one was
    being verified."""
    return exists().where(
        revocations.c.kind == "user",
        revocations.c.subject == user_id,
        revocations.c.cut > now,
        revocations.c.cut <= now + SIGN_IN_TAKES,
    )


def standing_rule(connection: Connection, kind: str, subject: str, *, now: int) -> Row[*tuple[Any, ...]] | None:
    """The row of ``revocations`` that ends this session or token already."""
    mine = (revocations.c.kind == kind, revocations.c.subject == subject, revocations.c.until > now)
    return connection.execute(select(revocations).where(*mine).order_by(revocations.c.number).limit(1)).one_or_none()


def ban_of(row: Row[*tuple[Any, ...]]) -> Ban:
    """The ban that a whole row of ``revocations`` is."""
    return Ban(row.number, row.kind, row.subject, row.user_id, row.cut, row.until, row.why)


def session_rule(session: str, user_id: str, *, why: str, until: int) -> dict[str, Any]:
    return {"kind": "session", "subject": session, "user_id": user_id, "cut": None, "until": until, "why": why}


def rules_since(connection: Connection, number: int, *, now: int, limit: int | None = None) -> list[Ban]:
    rows = connection.execute(
        select(*_BAN)
        .where(revocations.c.number > number, revocations.c.until > now, revocations.c.kind.in_(RULES))
        .order_by(revocations.c.number)
        .limit(limit)
    )
    return [Ban(*row) for row in rows]


def target_text(target: Target) -> str:
    members = {
        "session": target.session,
        "user_id": target.user_id,
        "token_id": target.token_id,
        "client_id": target.client_id,
        "issued_before": target.issued_before,
    }
    return json.dumps({name: value for name, value in members.items() if value is not None}, separators=(",", ":"))
