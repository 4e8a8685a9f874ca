"""Who did what: rows that are only ever added. Not a log of requests, and never a place for secrets."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import TypeVar

from sqlalchemy import Connection, insert, select

from gateway.model import Actor, AuditRecord, SignIn
from gateway.store.database import Database, Work
from gateway.store.listed import number_of
from gateway.store.tables import audit

T = TypeVar("T")

_ADD = insert(audit)
_NOTED = "noted"
"""Where a connection keeps what its transaction has noted."""

log = logging.getLogger("gateway.audit")


async def write_noted(database: Database, work: Work[T]) -> T:
    """``database.write(work)``; what ``work`` has noted is logged when it is committed."""
    rows: list[dict[str, object]] = []

    def noting(connection: Connection) -> T:
        rows.clear()  # it may be run again from its beginning
        connection.info[_NOTED] = rows
        try:
            return work(connection)
        finally:
            del connection.info[_NOTED]

    result = await database.write(noting)
    for row in rows:
        log.info("audit", extra=row)
    return result


def note(
    connection: Connection,
    action: str,
    *,
    target: str | None,
    by: Actor,
    now: int,
    detail: Mapping[str, object] | None = None,
) -> None:
    """One row in the transaction of what it tells of, which is run by ``write_noted``."""
    noted = connection.info.get(_NOTED)
    if noted is not None:
        noted.append({"action": action, "target": target, "actor": by.id, "address": by.address})
    connection.execute(_ADD, _row(action, target=target, by=by, now=now, detail=detail or {}))


def note_sign_ins(connection: Connection, sign_ins: Sequence[SignIn]) -> None:
    """A row for each. No line in the log beside it: whoever let them in writes one of its own."""
    rows = [_row(one.action, target=one.target, by=one.by, now=one.now, detail=one.detail) for one in sign_ins]
    connection.execute(_ADD, rows)


def _row(action: str, *, target: str | None, by: Actor, now: int, detail: Mapping[str, object]) -> dict[str, object]:
    return {
        "at": now,
        "actor": by.id,
        "action": action,
        "target": target,
        "detail": json.dumps(dict(detail), separators=(",", ":")),
        "address": by.address,
        "request_id": by.request_id,
    }


class SqlAudit:
    """The port ``Audit``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(
        self, action: str, *, target: str | None, detail: Mapping[str, object], by: Actor, now: int
    ) -> None:
        await self._database.write(
            lambda connection: note(connection, action, target=target, by=by, now=now, detail=detail)
        )

    async def list(self, *, limit: int, cursor: str | None) -> tuple[Sequence[AuditRecord], str | None]:
        below = number_of(cursor)

        def read(connection: Connection) -> tuple[Sequence[AuditRecord], str | None]:
            statement = select(audit).order_by(audit.c.number.desc()).limit(limit + 1)
            if below is not None:
                statement = statement.where(audit.c.number < below)
            rows = connection.execute(statement).all()
            records = [
                AuditRecord(
                    number=row.number,
                    at=row.at,
                    actor=row.actor,
                    action=row.action,
                    target=row.target,
                    detail=json.loads(row.detail),
                    address=row.address,
                    request_id=row.request_id,
                )
                for row in rows[:limit]
            ]
            return records, str(records[-1].number) if len(rows) > limit and records else None

        return await self._database.read(read)
