"""S10 on PostgreSQL: the migrating process, or the server, is killed half-way. All is as before, and then goes on."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from alembic import command
from clusters import by_hand, examine, kill_all, named
from servers import Postgres
from sqlalchemy import Connection
from stores import people

from gateway.model import Actor, Append, Draft
from gateway.store import migrate
from gateway.store.engine import current, open_store, upgrade
from gateway.store.postgres import opening

NOW = 1_700_000_000_000

STANDS_STILL = """
import asyncio, sys, time
from sqlalchemy import event
from sqlalchemy.engine import Engine
from gateway.store.engine import upgrade

@event.listens_for(Engine, "after_cursor_execute")
def stand_still(connection, cursor, statement, parameters, context, many):
    if sys.argv[2] in statement:
        print("half-way", flush=True)
        time.sleep(60)

asyncio.run(upgrade(sys.argv[1]))
"""


def begin(url: str, until: str) -> subprocess.Popen[str]:
    """A process that migrates and stands still after the statement that holds ``until``."""
    migrating = subprocess.Popen(
        [sys.executable, "-c", STANDS_STILL, url, until], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert migrating.stdout is not None
    assert migrating.stdout.readline() == "half-way\n", migrating.communicate()[1]
    return migrating


def the_process(migrating: subprocess.Popen[str], server: Postgres) -> None:
    migrating.kill()
    migrating.communicate(timeout=10)
    assert migrating.returncode == -signal.SIGKILL


def the_server(migrating: subprocess.Popen[str], server: Postgres) -> None:
    kill_all(server)
    migrating.kill()
    migrating.communicate(timeout=10)
    server.start()


async def contents(server: Postgres, url: str) -> dict[str, int]:
    """How many rows each table has."""
    async with by_hand(server, named(url)) as stranger:
        tables = await stranger.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {name: await stranger.fetchval(f'SELECT count(*) FROM "{name}"') for (name,) in tables}


async def one_version_behind(server: Postgres) -> str:
    """A database of the first version, with something in it."""
    url = await asyncio.to_thread(server.create, "gw")
    await upgrade(url)
    async with open_store(url) as store:
        for name in ("ann", "bob"):
            await store.users.create(id=name, username=name, role="user", password_hash="x", by=Actor("a"), now=NOW)
            drafts = [Draft(f"{name}{n}", name, '"title":"t"', None, NOW, NOW + 10**9) for n in range(500)]
            await store.inbox.append_all([Append("c~shop", (draft,), (draft.id, b"f")) for draft in drafts])

    def back(connection: Connection) -> None:
        settings = migrate.config()
        settings.attributes["connection"] = connection
        command.downgrade(settings, "0001")

    await opening.run(url, back)
    assert await current(url) == "0001"
    return url


@pytest.mark.parametrize("killed", [the_process, pytest.param(the_server, marks=pytest.mark.nightly)])
async def test_S10_a_first_migration_that_is_killed_half_way_leaves_nothing_and_is_done_again(
    own: Postgres, killed: Callable[[Any, Postgres], None]
) -> None:
    url = await asyncio.to_thread(own.create, "gw")
    migrating = await asyncio.to_thread(begin, url, "CREATE TABLE sessions")
    await asyncio.to_thread(killed, migrating, own)
    assert await contents(own, url) == {}
    assert await current(url) is None
    assert await upgrade(url) is True
    async with open_store(url) as store:
        assert await people(store) == 0


@pytest.mark.nightly
@pytest.mark.parametrize("killed", [the_process, the_server])
@pytest.mark.parametrize("step", ["ix_sessions_expires_at", "fillfactor = 80", "FUNCTION unicode_lower"])
async def test_S10_a_step_that_is_killed_half_way_keeps_every_row_and_is_done_again(
    own: Postgres, killed: Callable[[Any, Postgres], None], step: str
) -> None:
    url = await one_version_behind(own)
    before = await contents(own, url)
    assert before["inbox"] == before["idempotency"] == 1000
    migrating = await asyncio.to_thread(begin, url, step)
    await asyncio.to_thread(killed, migrating, own)
    assert await current(url) == "0001"
    assert await contents(own, url) == before
    # Another node starts: what the dead one held does not keep it waiting.
    async with asyncio.timeout(10):
        assert await upgrade(url) is True
    assert await current(url) == migrate.head()
    assert await contents(own, url) == before
    async with open_store(url) as store:
        page = await store.inbox.page("bob", after=400, now=NOW)
        assert page.upto == 500
    await examine(own, url, whole=True)
