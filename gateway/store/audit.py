"""Who did what: rows that are only ever added. Not a log of requests, and never a place for secrets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, insert, select

from gateway.model import Actor, AuditRecord
from gateway.store.database import Database
from gateway.store.listed import number_of
from gateway.store.tables import audit

_ADD = insert(audit)


def note(
    connection: Connection,
    action: str,
    *,
    target: str | None,
    by: Actor,
    now: int,
    detail: Mapping[str, object] | None = None,
) -> None:
    """One row in the transaction of what it tells of."""
    connection.execute(
        _ADD,
        {
            "at": now,
            "actor": by.id,
            "action": action,
            "target": target,
            "detail": json.dumps(dict(detail or {}), separators=(",", ":")),
            "address": by.address,
            "request_id": by.request_id,
        },
    )


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
