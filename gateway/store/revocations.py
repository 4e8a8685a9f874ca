"""The port ``Revocations`` over SQL: what administrators revoke, what every node reads. Keeps nothing in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, Select, delete, select, update

from gateway.errors import NotFound
from gateway.model import Actor, Ban, Revocation, Target, new_id
from gateway.store.audit import note, write_noted
from gateway.store.clients import client_rule
from gateway.store.database import Database
from gateway.store.listed import number_of
from gateway.store.locking import hold_user, if_free, in_turn
from gateway.store.rules import (
    add_rules,
    ban_of,
    end_sessions,
    rules_since,
    session_rule,
    signed_out,
    standing_rule,
    target_text,
)
from gateway.store.tables import clients, revocations, sessions, users


class SqlRevocations:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def revoke(
        self,
        target: Target,
        *,
        why: str,
        reason: str | None,
        by: Actor,
        now: int,
        until: int,
        listed: bool = True,
        because: tuple[str, Mapping[str, object]] | None = None,
    ) -> Revocation:
        """What users end of their own without a reason (a logout) is not listed: the list is what administrators did,
        and they may do it twice."""

        def work(connection: Connection) -> Revocation:
            id = new_id(now / 1000)
            own, shown = False, listed
            if target.session is not None:
                owner = _one(connection, select(sessions.c.user_id).where(sessions.c.id == target.session), "session")
                hold_user(connection, owner)
                own = owner == by.id and reason is None
                shown = listed and not own
            elif target.token_id is not None and not shown:
                in_turn(connection, "rules")  # of two that end one token at once, the second finds what the first wrote
            about = {"id": id, "reason": reason, "target": target_text(target) if shown else None}
            if not shown and (found := _standing(connection, target, now=now)) is not None:
                return found
            if target.session is not None:
                connection.execute(
                    update(sessions)
                    .where(sessions.c.id == target.session, sessions.c.ended_at.is_(None))
                    .values(ended_at=now, ended_why=why)
                )
                row = session_rule(target.session, owner, why=why, until=until)
                bans = add_rules(connection, [row | about], by=by, now=now)
            elif target.user_id is not None:
                alive = select(users.c.id).where(users.c.id == target.user_id, users.c.deleted_at.is_(None))
                hold_user(connection, target.user_id)
                _one(connection, alive, "user")
                before = now if target.issued_before is None else target.issued_before
                signed_out(
                    connection,
                    target.user_id,
                    cut=min(before, now),
                    why=why,
                    by=by,
                    now=now,
                    until=until,
                    **about,
                )
                which = (sessions.c.user_id == target.user_id, sessions.c.created_at <= before)
                bans = end_sessions(connection, *which, why=why, by=by, now=now, until=until, parent=id)
            elif target.client_id is not None:
                _one(connection, select(clients.c.client_id).where(clients.c.client_id == target.client_id), "client")
                row = client_rule(connection, target.client_id, now=now, until=until, why=why)
                bans = add_rules(connection, [row | about], by=by, now=now)
            elif target.token_id is not None:
                row = {"kind": "token", "subject": target.token_id, "user_id": None, "cut": None}
                bans = add_rules(connection, [row | {"until": until, "why": why} | about], by=by, now=now)
            else:
                raise ValueError("a revocation needs a target")
            ended = target.session or target.user_id or target.client_id or target.token_id
            note(
                connection,
                "session_ended" if own else "revoked",
                target=ended,
                by=by,
                now=now,
                detail={"revocation": id, "reason": reason, "why": why, **json.loads(target_text(target))},
            )
            if because is not None:
                note(connection, because[0], target=ended, by=by, now=now, detail=because[1])
            return Revocation(id, target, reason, by.id, now, until, bans)

        return await write_noted(self._database, work)

    async def since(self, number: int, *, now: int, limit: int | None = None) -> Sequence[Ban]:
        # A node that is late with these may write nothing: a crowd at the inboxes must not hold them up.
        return await self._database.read_first(lambda connection: rules_since(connection, number, now=now, limit=limit))

    async def list(self, *, now: int, limit: int, cursor: str | None) -> tuple[Sequence[Revocation], str | None]:
        statement = (
            select(revocations)
            .where(revocations.c.target.is_not(None), revocations.c.until > now)
            .order_by(revocations.c.number.desc())
            .limit(limit + 1)
        )
        below = number_of(cursor)
        if below is not None:
            statement = statement.where(revocations.c.number < below)

        def read(connection: Connection) -> tuple[Sequence[Revocation], str | None]:
            rows = connection.execute(statement).all()
            found = [
                Revocation(row.id, Target(**json.loads(row.target)), row.reason, row.actor, row.created_at, row.until)
                for row in rows[:limit]
            ]
            return found, str(rows[limit - 1].number) if len(rows) > limit and found else None

        return await self._database.read(read)

    async def purge(self, *, now: int, limit: int) -> int:
        old = select(revocations.c.number).where(revocations.c.until <= now).limit(limit)
        statement = delete(revocations).where(revocations.c.number.in_(old))

        def work(connection: Connection) -> int:
            return connection.execute(statement).rowcount if if_free(connection, "janitor") else 0

        return await self._database.write(work)


def _standing(connection: Connection, target: Target, *, now: int) -> Revocation | None:
    """What ended this session or token before."""
    kind, subject = ("session", target.session) if target.session is not None else ("token", target.token_id)
    row = None if subject is None else standing_rule(connection, kind, subject, now=now)
    if row is None:
        return None
    bans = (ban_of(row),)
    return Revocation(row.id, target, row.reason, row.actor, row.created_at, row.until, bans, written=False)


def _one(connection: Connection, statement: Select[str], what: str) -> str:
    found: str | None = connection.execute(statement).scalar_one_or_none()
    if found is None:
        raise NotFound(what)
    return found
