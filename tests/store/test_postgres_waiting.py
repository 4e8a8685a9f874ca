"""PostgreSQL when something takes long or is gone: a turn nobody gives back, millions of rows, a machine, a backend."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from servers import Postgres, short_directory
from stores import signing_in
from wire import eventually_async

from gateway.errors import StoreUnavailable
from gateway.model import Actor, Append, Draft
from gateway.store import locking, maintenance
from gateway.store.engine import Store, open_store
from gateway.store.errors import StoreError
from gateway.store.postgres import connecting

NOW = 1_700_000_000_000


@pytest.fixture
def own() -> Iterator[Postgres]:
    """A server whose settings the test may change."""
    with short_directory("own-pg") as directory:
        server = Postgres(directory).start()
        yield server
        server.stop(how="immediate")


@contextlib.asynccontextmanager
async def by_hand(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        yield connection
    finally:
        await connection.close()


async def user(store: Store, id: str) -> None:
    await store.users.create(id=id, username=id, role="user", password_hash="x", by=Actor("a"), now=NOW)


async def session(store: Store, id: str) -> None:
    await store.sessions.start(signing_in(id, "ann", now=NOW, until=NOW + 10**9))


def push(id: str) -> Append:
    return Append("c~shop", (Draft(id, "ann", '"title":"t"', None, NOW, NOW + 10**9),), ("key", b"same"))


async def test_a_turn_that_is_not_given_back_is_not_waited_for_for_ever(own: Postgres) -> None:
    """As after the machine of a node was lost while that node took a new history over."""
    url = own.create("gw")
    async with open_store(url):
        pass
    async with by_hand(url) as lost:
        transaction = lost.transaction()
        await transaction.start()
        await lost.execute("SELECT pg_advisory_xact_lock($1, $2)", locking._CLASS, locking._TURNS["meta"])
        late = open_store(url)
        with pytest.raises(StoreError, match="lock timeout"):
            await asyncio.wait_for(late.__aenter__(), 20.0)
        await transaction.rollback()
    async with open_store(url):
        pass


async def test_who_is_deleted_while_a_device_acknowledges_is_no_deadlock(own: Postgres) -> None:
    """Inbox before session, here as there. A deadlock would be run again, but costs whoever is in it a second."""
    url = own.create("gw")
    async with open_store(url) as store, by_hand(url) as acknowledging, by_hand(url) as watching:
        await user(store, "ann")
        await session(store, "s1")
        transaction = acknowledging.transaction()
        await transaction.start()
        await acknowledging.execute("SELECT 1 FROM inboxes WHERE user_id = 'ann' FOR NO KEY UPDATE")
        deleting = asyncio.ensure_future(store.users.delete("ann", by=Actor("a"), now=NOW, until=NOW + 10**9))
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

        async def waiting() -> bool:
            return bool(await watching.fetchval(waits))

        await eventually_async(waiting, what="the other one waits")
        await acknowledging.execute("SET lock_timeout = '300ms'")
        await acknowledging.execute("UPDATE sessions SET cursor = 1 WHERE id = 's1'")
        await transaction.commit()
        assert len(await deleting) == 1


async def test_a_new_epoch_may_take_longer_than_a_statement_of_a_node(
    own: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every session ends, and there may be millions."""
    url = own.create("gw")
    async with open_store(url) as store, by_hand(url) as admin:
        await user(store, "ann")
        await session(store, "s1")
        await admin.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2); RETURN NEW; END'"
        )
        await admin.execute("CREATE TRIGGER slow BEFORE UPDATE ON sessions FOR EACH ROW EXECUTE FUNCTION slow()")
        monkeypatch.setattr(connecting, "STATEMENT_MS", 1000)
        before = store.epoch.current
        assert await maintenance.new_epoch(url, now=NOW + 1) != before
        assert (await store.sessions.get("s1")).ended_at == NOW + 1


async def test_the_server_notices_a_machine_that_is_gone(own: Postgres) -> None:
    async with open_store(own.create("gw")) as store:
        for run in (store.database.read, store.database.write, store.database.read_first):
            told = await run(lambda connection: connection.exec_driver_sql("SHOW tcp_keepalives_idle").scalar_one())
            assert told == "30"


async def test_under_relaxed_durability_a_crash_of_one_backend_is_another_history(own: Postgres) -> None:
    """The server does not start again for it, and still forgets what was answered a moment ago."""
    url = own.create("gw")
    async with open_store(url, durability="relaxed") as store:
        await user(store, "ann")
        await store.inbox.append(push("n1"))
        before = store.epoch.current
        started = "SELECT pg_postmaster_start_time() AS at"
        since = await own.ask(started)
        os.kill(backend_of(own.pid), signal.SIGKILL)

        async def again() -> bool:
            with contextlib.suppress(StoreUnavailable):
                return len(await store.inbox.states(["ann"])) <= 1
            return False

        await eventually_async(again, what="it answers again")
        assert await own.ask(started) == since, "it was started again: this is not the crash that is meant"
        assert store.epoch.current != before


def backend_of(server: int) -> int:
    """A process below the server that serves a connection to the database ``gw``."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_text()
                if re.match(r"postgres: postgres gw ", words) and server in ancestors(int(entry.name)):
                    return int(entry.name)
    raise AssertionError("nobody is connected")


def ancestors(pid: int) -> list[int]:
    found: list[int] = []
    while pid > 1:
        pid = int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found
