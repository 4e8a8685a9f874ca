"""G2, G4: PostgreSQL stands still, is cut off, refuses to write, is full, or others are in the way. Nothing hangs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from checker import Bounds
from clusters import bugs, by_hand, examine, nothing_left_open, processes, start_nodes, stopped, through
from faultproxy import Links
from faulty import FastNode, Row
from history import SECOND, Answered, Fault, History, Invoked
from plan import Plan, Site
from resources import CONNECTIONS, given_back, held
from rows import Scene, run_row
from servers import Postgres, Redis
from wire import eventually_async

from gateway.store.engine import open_store

pytestmark = pytest.mark.nightly

LONGEST = 16.0
"""Seconds: a request meets at most one group that waits for the server's answer, and then its own: 6 s each, and 3 s to
connect. Nothing takes longer."""
PATIENT = Plan(patience=25.0, settled_within=90.0)
"""Requests wait long enough to see how long the gateway takes."""


def slowest(history: History) -> float:
    """Seconds: the longest that a POST took, whatever its answer. One without any answer is a failure."""
    asked = {(event.op, event.attempt): event.at for event in history.of(Invoked)}
    assert not [event for event in history.of(Answered) if event.status == 0], "a request was never answered"
    return max((event.at - asked[event.op, event.attempt]) / SECOND for event in history.of(Answered))


def answered_meanwhile(history: History, *, status: int) -> int:
    """Answers of this kind to POSTs, from the first fault on until a while after the last."""
    begin = min(event.at for event in history.of(Fault))
    return sum(event.at > begin and event.status == status for event in history.of(Answered))


async def judged(row: Row, scene: Scene, sites: list[Site], own: Postgres, url: str) -> None:
    row.also |= {"slowest_s": round(slowest(scene.history), 1), "503": answered_meanwhile(scene.history, status=503)}
    assert slowest(scene.history) < LONGEST
    await nothing_left_open(own)
    await examine(own, url)
    assert bugs(sites) == []


# -- G2 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [5, 15])
async def test_G2_a_server_of_which_every_process_stands_still_holds_nobody_for_ever(
    launch: Callable[..., FastNode], row: Row, own: Postgres, valkey_server: Redis, tmp_path: Path, seconds: float
) -> None:
    url = await asyncio.to_thread(own.create, "gw")
    sites = await start_nodes(launch, [url, url], valkey_server)

    async def stand_still(scene: Scene) -> None:
        before = await held(sites, own, url)
        with stopped(processes(own)), scene.fault("SIGSTOP of PostgreSQL", dark=sites):
            await scene.load.passed(seconds)
        await given_back(before, row, sites, own, url)

    scene = await run_row(row, sites, during=stand_still, place=tmp_path, plan=PATIENT, bounds=Bounds(ready_within=3.0))
    await judged(row, scene, sites, own, url)


async def test_G2_connections_whose_backends_stand_still_are_given_up_and_replaced(
    launch: Callable[..., FastNode], row: Row, own: Postgres, valkey_server: Redis, tmp_path: Path
) -> None:
    """The server itself goes on and takes new connections. What those that stand still have locked stays locked."""
    url = await asyncio.to_thread(own.create, "gw")
    sites = await start_nodes(launch, [url, url], valkey_server)

    async def stand_still(scene: Scene) -> None:
        before = await held(sites, own, url)
        rows = await own.ask("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'gateway%'")
        with scene.fault("SIGSTOP of backends"), stopped([row["pid"] for row in rows]):
            await scene.load.passed(12.0)
        await given_back(before, row, sites, own, url)

    scene = await run_row(row, sites, during=stand_still, place=tmp_path, plan=PATIENT)
    await judged(row, scene, sites, own, url)


@pytest.mark.parametrize("seconds", [5, 15])
async def test_G2_a_node_that_is_cut_off_from_the_server_is_not_ready_and_the_other_goes_on(
    launch: Callable[..., FastNode], row: Row, own: Postgres, valkey_server: Redis, links: Links, tmp_path: Path,
    seconds: float,
) -> None:  # fmt: skip
    url = await asyncio.to_thread(own.create, "gw")
    between = links.link("pg", own.port)
    sites = await start_nodes(launch, [through(between, url), url], valkey_server)
    other = sites[1].node
    user, token = await asyncio.to_thread(other.user), await asyncio.to_thread(other.client_token)

    async def cut_off(scene: Scene) -> None:
        before = await held(sites, own, url)
        between.blackhole()
        with scene.fault("blackhole to PostgreSQL", dark=sites[:1]):
            await scene.load.passed(seconds)
            await asyncio.to_thread(other.push, token, user_id=user.id)  # it goes on
        between.heal()
        await given_back(before, row, sites, own, url)

    scene = await run_row(row, sites, during=cut_off, place=tmp_path, plan=PATIENT, bounds=Bounds(ready_within=3.0))
    assert between.counts.torn > 0
    await judged(row, scene, sites, own, url)


# -- G4 ---------------------------------------------------------------------------------------------------------------


async def test_G4_a_server_that_became_read_only_is_503_and_the_sockets_stay(
    launch: Callable[..., FastNode], row: Row, own: Postgres, valkey_server: Redis, tmp_path: Path
) -> None:
    url = await asyncio.to_thread(own.create, "gw")
    sites = await start_nodes(launch, [url, url], valkey_server)

    async def read_only(scene: Scene) -> None:
        before = await held(sites, own, url)
        await make(own, "ALTER SYSTEM SET default_transaction_read_only = on", "on")
        with scene.fault("read-only", dark=sites):
            await scene.load.passed(6.0)
            for site in sites:
                page = await asyncio.to_thread(site.node.inbox, scene.load.staying()[0].token)
                assert page["head"] > 0
        await make(own, "ALTER SYSTEM RESET default_transaction_read_only", "off")
        await given_back(before, row, sites, own, url)

    async def make(server: Postgres, statement: str, value: str) -> None:
        """So, for every connection from now on: those that are open are ended."""
        async with by_hand(server, "gw") as stranger:
            await stranger.execute("SET default_transaction_read_only = off")
            await stranger.execute(statement)
            await stranger.execute("SELECT pg_reload_conf()")

        async def heeded() -> bool:
            found = await server.ask("SHOW default_transaction_read_only")
            return found == [{"default_transaction_read_only": value}]

        await eventually_async(heeded, what="the server has read its settings")
        await server.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'gateway%'"
        )

    scene = await run_row(row, sites, during=read_only, place=tmp_path, plan=PATIENT, bounds=Bounds(ready_within=3.0))
    await judged(row, scene, sites, own, url)


@pytest.mark.parametrize("own", [{"max_connections": 40}], indirect=True)
async def test_G4_strangers_who_take_every_connection_make_it_503_until_they_leave(
    launch: Callable[..., FastNode], row: Row, own: Postgres, valkey_server: Redis, tmp_path: Path
) -> None:
    url = await asyncio.to_thread(own.create, "gw")
    sites = await start_nodes(launch, [url, url], valkey_server)

    async def crowd(scene: Scene) -> None:
        before = await held(sites, own, url)
        async with every_connection(own):
            with scene.fault("no connection is free", dark=sites):
                await scene.load.passed(5.0)
        await given_back(before, row, sites, own, url)

    scene = await run_row(row, sites, during=crowd, place=tmp_path, plan=PATIENT, bounds=Bounds(ready_within=3.0))
    await judged(row, scene, sites, own, url)


@contextlib.asynccontextmanager
async def every_connection(server: Postgres) -> AsyncIterator[None]:
    """Held by strangers inside the block; the gateways lose theirs and get none back."""
    taken: list[Any] = []

    async def take_all() -> int:
        """How many could be taken now."""
        before = len(taken)
        with contextlib.suppress(asyncpg.TooManyConnectionsError):
            while True:
                taken.append(await asyncpg.connect(f"postgresql://postgres@127.0.0.1:{server.port}/gw"))
        return len(taken) - before

    try:
        await take_all()
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'gateway%'"
        while await taken[0].fetch(end):
            await take_all()
        yield
    finally:
        for connection in taken:
            connection.terminate()


async def lock_a_table(stranger: Any) -> None:
    """Longer than anybody waits for a lock."""
    async with stranger.transaction():
        await stranger.execute("LOCK TABLE inboxes IN EXCLUSIVE MODE")
        await asyncio.sleep(6.0)


async def slow_statements(stranger: Any) -> None:
    """Longer than a statement may take."""
    await stranger.execute(
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN PERFORM pg_sleep(20); RETURN NEW; END $$;"
        "CREATE TRIGGER dawdle BEFORE INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION dawdle()"
    )
    await asyncio.sleep(7.0)
    for _ in range(200):
        try:  # whoever dawdles has the table
            async with asyncio.timeout(0.5):
                await stranger.execute("DROP FUNCTION dawdle CASCADE")
            return
        except TimeoutError:
            continue
    raise AssertionError("the trigger could not be removed")


async def deadlocks(stranger: Any) -> None:
    """The rows of the inboxes, in the order in which nobody may lock them, again and again."""
    users = [row["user_id"] for row in await stranger.fetch("SELECT user_id FROM inboxes ORDER BY user_id DESC")]
    met, end = 0, asyncio.get_running_loop().time() + 6.0
    while asyncio.get_running_loop().time() < end:
        try:
            async with stranger.transaction():
                for user in users:
                    await stranger.execute("UPDATE inboxes SET rev = rev WHERE user_id = $1", user)
                    await asyncio.sleep(0.003)
        except asyncpg.DeadlockDetectedError:
            met += 1
    found = await stranger.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = 'gw'")
    assert met + found > 0, "nobody was in anybody's way"


@pytest.mark.parametrize("own", [{"options": {"deadlock_timeout": "20ms"}}], indirect=True)
@pytest.mark.parametrize("in_the_way", [lock_a_table, slow_statements, deadlocks])
async def test_G4_strangers_who_are_in_the_way_cost_time_or_503_and_nothing_else(
    launch: Callable[..., FastNode], row: Row, own: Postgres, valkey_server: Redis, tmp_path: Path,
    in_the_way: Callable[[Any], Awaitable[None]],
) -> None:  # fmt: skip
    url = await asyncio.to_thread(own.create, "gw")
    sites = await start_nodes(launch, [url, url], valkey_server)

    async def disturb(scene: Scene) -> None:
        before = await held(sites, own, url)
        async with by_hand(own, "gw") as stranger:
            with scene.fault(in_the_way.__name__):
                await in_the_way(stranger)
        await given_back(before, row, sites, own, url)

    scene = await run_row(row, sites, during=disturb, place=tmp_path, plan=PATIENT)
    await judged(row, scene, sites, own, url)


async def test_I11_a_node_never_has_more_connections_than_it_was_given(
    database: Callable[[], str], postgres: Postgres
) -> None:
    url = await asyncio.to_thread(database)
    async with open_store(url, application="gateway x") as store:
        await asyncio.gather(
            *(store.meta.schema() for _ in range(50)), *(store.meta.epoch() for _ in range(50)),
            *(store.database.write(lambda connection: connection.exec_driver_sql("SELECT pg_sleep(0.1)") and None)
              for _ in range(20)), *(store.revocations.since(0, now=0) for _ in range(5)),
        )  # fmt: skip
        name = url.rpartition("/")[2]
        [found] = await postgres.ask(f"SELECT count(*) AS many FROM pg_stat_activity WHERE datname = '{name}'")
    assert 8 < found["many"] <= CONNECTIONS
