"""A copy takes the place of the PostgreSQL server: what it never received is gone, and no old number is believed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from servers import Postgres, short_directory
from sqlalchemy import Connection
from stores import signing_in
from wire import eventually_async

from gateway.errors import StoreUnavailable
from gateway.model import Actor, Append, Draft
from gateway.store.engine import Store, open_store
from gateway.store.postgres.database import PostgresDatabase

NOW = 1_700_000_000_000


class Pair:
    """A server and the copy that may take its port."""

    def __init__(self, root: Path) -> None:
        (root / "first").mkdir()
        (root / "second").mkdir()
        self.first = Postgres(root / "first", options={"wal_level": "replica", "max_wal_senders": "4"}).start()
        self.second = Postgres(root / "second", options={"hot_standby": "on"})

    def copy(self) -> None:
        """The copy has everything that was committed until now, and nothing later."""
        self.first.tool(
            "pg_basebackup", "-h", "127.0.0.1", "-p", str(self.first.port), "-U", "postgres", "-c", "fast",
            "-D", str(self.second.data), "-X", "stream", "--write-recovery-conf",
        )  # fmt: skip

    def fail_over(self) -> None:
        """The first one is gone; the copy answers at its port, as a standby still."""
        self.first.kill()
        self.second.port = self.first.port
        self.second.start()

    def promote(self) -> None:
        self.second.tool("pg_ctl", "promote", "-D", str(self.second.data), "-w")


@pytest.fixture
def pair() -> Iterator[Pair]:
    with short_directory("pair") as directory:
        pair = Pair(directory)
        yield pair
        for server in (pair.first, pair.second):
            server.stop(how="immediate")


async def push(store: Store, id: str) -> int | None:
    draft = Draft(id, "ann", '"title":"t"', None, NOW, NOW + 10**9)
    return (await store.inbox.append(Append("c~shop", (draft,)))).outcomes[0].seq


async def answers(store: Store) -> bool:
    try:
        await store.meta.epoch()
    except StoreUnavailable:
        return False
    return True


async def test_after_a_failover_the_epoch_is_another_on_every_node_and_sessions_stay(pair: Pair) -> None:
    url = pair.first.create("gw")
    async with open_store(url) as node, open_store(url) as other:
        before = node.epoch.current
        changes: list[str] = []
        node.epoch.on_change(lambda: changes.append(node.epoch.current))
        await node.users.create(id="ann", username="ann", role="user", password_hash="x", by=Actor("a"), now=NOW)
        await node.sessions.start(signing_in("s1", "ann", now=NOW, until=NOW + 10**9))
        assert await push(node, "kept") == 1
        await asyncio.to_thread(pair.copy)
        assert await push(node, "lost") == 2
        await asyncio.to_thread(pair.fail_over)
        for store in (node, other):  # a standby answers questions, but from it nothing may be told: it may be behind
            with pytest.raises(StoreUnavailable):
                await push(store, "refused")
            with pytest.raises(StoreUnavailable):
                await store.inbox.page("ann", after=0, now=NOW)
        assert changes == []
        refused = "SELECT count(*) AS left_open FROM pg_stat_activity WHERE application_name LIKE 'gateway%'"

        async def closed() -> bool:
            return bool((await pair.second.ask(refused))[0]["left_open"] <= 2)  # with which each node looks again

        for _ in range(5):
            with pytest.raises(StoreUnavailable):
                await node.inbox.page("ann", after=0, now=NOW)
        await eventually_async(closed, what="the connections that were refused are closed")
        await asyncio.to_thread(pair.promote)

        async def again(store: Store) -> bool:
            try:
                page = await store.inbox.page("ann", after=0, now=NOW)
            except StoreUnavailable:
                return False
            assert store.epoch.current != before, "it was read under the old name"
            return [entry.id for entry in page.entries] == ["kept"]

        for store in (node, other):
            await eventually_async(partial(again, store), what="the copy is used")
        assert changes == [node.epoch.current]
        assert node.epoch.current == other.epoch.current
        assert await push(node, "new") == 2
        assert (await other.sessions.get("s1")).ended_at is None
        async with open_store(url) as late:
            assert late.epoch.current == node.epoch.current


async def test_a_restart_of_the_same_server_changes_no_epoch(pair: Pair) -> None:
    url = pair.first.create("gw")
    async with open_store(url) as node:
        before = node.epoch.current
        pair.first.kill()
        await asyncio.to_thread(pair.first.start)

        await eventually_async(partial(answers, node), what="it answers again")
        assert node.epoch.current == before
    async with open_store(url) as late:
        assert late.epoch.current == before


async def test_under_relaxed_durability_each_start_of_the_server_is_another_history(pair: Pair) -> None:
    url = pair.first.create("gw")
    async with open_store(url, durability="relaxed") as node:
        before = node.epoch.current
        assert await node.database.write(lambda c: c.exec_driver_sql("SHOW synchronous_commit").scalar_one()) == "off"
    async with open_store(url, durability="relaxed") as node:
        assert node.epoch.current == before
        pair.first.kill()
        await asyncio.to_thread(pair.first.start)

        await eventually_async(partial(answers, node), what="it answers again")
        assert node.epoch.current != before


class Named:
    """A lineage that lets everybody in."""

    mark: str | None = "first"

    def look(self, connection: object) -> None:
        pass


async def test_a_connection_from_before_another_history_is_not_used_again(pair: Pair) -> None:
    """The old server may live on, unnoticed, and still answer on what was connected to it."""
    lineage = Named()
    url = pair.first.create("gw")
    database = PostgresDatabase(url, connections=3, waits_for_disk=None, lineage=lineage)
    try:
        for ask in (database.read, database.write, database.read_first):
            lineage.mark = "first"
            before = await ask(backend)
            assert await ask(backend) == before, "connections are kept: or this shows nothing"
            lineage.mark = "second"
            assert await ask(backend) != before
    finally:
        await database.close()


def backend(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
