"""The audit trail stays as it was written, whatever statement the gateway's own account sends."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from gateway.model import Actor, AuditRecord
from gateway.store.engine import Store, open_store

ANYWHERE = (
    "UPDATE audit SET actor = 'nobody'",
    "UPDATE audit SET detail = '{}' WHERE number = 1",
    "DELETE FROM audit",
    "DELETE FROM audit WHERE number = 1",
    (
        "INSERT INTO audit (number, at, actor, action, detail) VALUES (1, 0, 'nobody', 'nothing', '{}')"
        " ON CONFLICT (number) DO UPDATE SET actor = excluded.actor"
    ),
    "INSERT INTO audit (number, at, actor, action, detail) VALUES (0, 0, 'nobody', 'nothing', '{}')",
    "INSERT INTO audit (number, at, actor, action, detail) VALUES (-5, 0, 'nobody', 'nothing', '{}')",
)
SQLITE = (
    "INSERT OR REPLACE INTO audit (number, at, actor, action, detail) VALUES (1, 0, 'nobody', 'nothing', '{}')",
    "REPLACE INTO audit (number, at, actor, action, detail) VALUES (1, 0, 'nobody', 'nothing', '{}')",
    "UPDATE OR REPLACE audit SET number = 2 WHERE number = 1",
)
POSTGRESQL = ("TRUNCATE audit", "TRUNCATE audit RESTART IDENTITY CASCADE")


async def trail(store: Store) -> Sequence[AuditRecord]:
    return (await store.audit.list(limit=100, cursor=None))[0]


async def execute(url: str, statement: str) -> None:
    """As whoever holds the database could."""
    if url.startswith("sqlite"):
        direct = create_engine(url.replace("+aiosqlite", ""), poolclass=NullPool)
        with direct.begin() as connection:
            connection.execute(text(statement))
        return
    engine = create_async_engine(url)
    try:
        async with engine.begin() as one:
            await one.execute(text(statement))
    finally:
        await engine.dispose()


async def test_LOG_04_no_statement_changes_a_row_of_the_audit_or_takes_one_out(url: str) -> None:
    async with open_store(url) as store:
        for number in range(3):
            by = Actor(f"u{number}", "192.0.2.1", f"req-{number}")
            await store.audit.record("tried", target="x", detail={"number": number}, by=by, now=number)
        before = await trail(store)
    assert [one.actor for one in before] == ["u2", "u1", "u0"]
    for statement in (*ANYWHERE, *(SQLITE if url.startswith("sqlite") else POSTGRESQL)):
        with pytest.raises(DBAPIError, match="rows of the audit stay as they are"):
            await execute(url, statement)
    async with open_store(url) as store:
        assert await trail(store) == before
        await store.audit.record("tried", target=None, detail={}, by=Actor("u3"), now=9)
        assert [one.actor for one in await trail(store)] == ["u3", "u2", "u1", "u0"]
