"""The audit trail stays as it was written, whatever statement the gateway's own account sends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from gateway.errors import Invalid, NotFound
from gateway.model import Actor, AuditRecord
from gateway.store.engine import Store, open_store

if TYPE_CHECKING:
    from tests.contracts.conftest import World

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
NO_ROOM = {
    "sqlite": ("CREATE TRIGGER no_room BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END",),
    "postgresql": (
        "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE check_violation; END $$",
        "CREATE TRIGGER no_room BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION no_room()",
    ),
}
"""From now on no row can be added."""
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


async def test_LOG_04_what_was_noted_of_a_user_survives_the_user(world: World) -> None:
    user = await world.user()
    session = await world.session()
    about = Actor(user.id, "192.0.2.7", "req-7")
    await world.store.audit.record("login_failed", target=user.id, detail={"reason": "password"}, by=about, now=1)
    before = await trail(world.store)
    assert {user.id, session.id} <= {one.target for one in before}
    await world.store.users.delete(user.id, by=world.by, now=world.now, until=world.until)
    with pytest.raises(NotFound):
        await world.store.users.get(user.id)
    after = await trail(world.store)
    assert after[-len(before) :] == before, "not a word of it has changed"
    assert after[0].action == "user_deleted"
    assert (after[0].target, after[0].actor) == (user.id, world.by.id)


async def test_LOG_04_a_change_whose_row_cannot_be_written_is_not_made(world: World, url: str) -> None:
    user = await world.user()
    session = await world.session()
    before = await trail(world.store)
    for statement in NO_ROOM[url.partition("+")[0]]:
        await execute(url, statement)
    changes: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: world.user("bob"),
        world.session,
        lambda: world.store.users.delete(user.id, by=world.by, now=world.now, until=world.until),
    )
    for change in changes:
        with pytest.raises((DBAPIError, Invalid)):
            await change()
    assert await world.store.users.get(user.id) == user
    assert (await world.store.sessions.list(user.id, now=world.now, idle=1000, limit=9, cursor=None))[0] == [session]
    with pytest.raises(NotFound):
        await world.store.users.get("bob")
    assert await trail(world.store) == before
