"""G1, G5, G6 and P1 on PostgreSQL: the server dies, answers to COMMIT are lost, commits are late, a node is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from checker import Bounds
from clusters import bugs, by_hand, examine, kill_all, named, nothing_left_open, start_nodes, through
from faultproxy import Link, Links
from faulty import FastNode, Row
from history import SECOND, Answered, Fault, Gapped, History, Invoked, Probed, Received, SignedIn
from plan import Plan, Site
from resources import given_back, held
from rows import Scene, run_row
from servers import Postgres, Redis
from wire import User, eventually_async

nightly = pytest.mark.nightly
FRESH_FOR = 1.0
"""Seconds a node may go on without news of revocations."""


# -- G1: the server is gone -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "outage", [2, pytest.param(10, marks=nightly), pytest.param(60, marks=nightly)], ids=lambda seconds: f"{seconds}s"
)
async def test_G1_I12_a_killed_server_is_503_at_once_silence_when_stale_and_forgotten_when_it_is_back(
    launch: Callable[..., FastNode], row: Row, own: Postgres, valkey_server: Redis, tmp_path: Path, outage: float
) -> None:
    url = await asyncio.to_thread(own.create, "gw")
    sites = await start_nodes(launch, [url, url], valkey_server)
    pids = [site.node.pid for site in sites]

    async def kill_it(scene: Scene) -> None:
        before = await held(sites, own, url)
        with scene.fault("SIGKILL of PostgreSQL", dark=sites):
            kill_all(own)
            end = asyncio.get_running_loop().time() + outage
            await scene.load.passed(FRESH_FOR + 0.2)
            for site in sites:
                await says_that_it_cannot(site, scene)
            await scene.load.passed(max(0.0, end - asyncio.get_running_loop().time()))
        await asyncio.to_thread(own.start)
        await given_back(before, row, sites, own, url)

    plan = Plan(patience=15.0, settled_within=120.0, rate=150 if outage < 60 else 60)
    bounds = Bounds(ready_within=0.5)  # it is refused, which takes no time
    scene = await run_row(row, sites, during=kill_it, place=tmp_path, plan=plan, bounds=bounds)
    row.also["slowest_503_s"] = round(slowest_answer(scene.history), 2)
    assert slowest_answer(scene.history) < 3.0
    assert told_while_stale(scene.history) == []
    refused = [probe for probe in scene.history.of(Probed) if probe.status == 503]
    assert {probe.node for probe in refused} == {site.name for site in sites}
    assert [site.node.pid for site in sites] == pids
    assert all(site.node.process is not None and site.node.process.poll() is None for site in sites)
    await nothing_left_open(own)
    await examine(own, url)
    assert bugs(sites) == []


async def says_that_it_cannot(site: Site, scene: Scene) -> None:
    """To whoever asks a node whose news of revocations is stale."""
    node, token = site.node, scene.load.staying()[0].token
    ready, bearer = await asyncio.gather(
        asyncio.to_thread(node.request, "GET", "/readyz"),
        asyncio.to_thread(node.request, "GET", "/inbox", token=token),
    )
    assert ready.status_code == 503
    assert "revocations are stale" in ready.json()["reasons"]
    assert (bearer.status_code, bearer.json()["code"]) == (503, "revocations_stale")
    assert await node.refusal(token) == (1013, "overloaded")


def slowest_answer(history: History) -> float:
    """Seconds: the longest that anybody waited for the answer to a POST."""
    asked = {(event.op, event.attempt): event.at for event in history.of(Invoked)}
    answers = [event for event in history.of(Answered) if event.status]
    return max((event.at - asked[event.op, event.attempt]) / SECOND for event in answers)


def told_while_stale(history: History, *, slack: float = 0.5) -> list[Received | Gapped]:
    """What reached a socket when every node knew nothing of revocations any more. ``slack``: our own reader's. Of
    devices that read at once: the others still read what was written to them long before."""
    begin, end = (event.at for event in history.of(Fault))
    stale = begin + round((FRESH_FOR + slack) * SECOND)
    told: list[Received | Gapped] = [*history.of(Received), *history.of(Gapped)]
    prompt = {one.device for one in history.of(SignedIn) if one.prompt}
    return [event for event in told if stale < event.at < end and event.device in prompt]


# -- G5: nobody knows whether it was committed ------------------------------------------------------------------------


CUTS = 20


def _was_cut(link: Link, before: int) -> bool:
    return link.counts.cuts > before


@pytest.mark.parametrize("answered", [False, True], ids=["before the server sees it", "after it was done"])
async def test_G5_I6_a_lost_commit_is_503_and_the_key_makes_it_exactly_one(
    launch: Callable[..., FastNode], row: Row, database: Callable[[], str], postgres: Postgres, valkey_server: Redis,
    links: Links, tmp_path: Path, answered: bool,
) -> None:  # fmt: skip
    url = await asyncio.to_thread(database)
    between = [links.link(f"pg{number}", postgres.port) for number in range(2)]
    sites = await start_nodes(launch, [through(link, url) for link in between], valkey_server)

    async def cut(scene: Scene) -> None:
        for number in range(CUTS):
            link = between[number % 2]
            before = link.counts.cuts
            with scene.fault("cut at COMMIT"):
                link.cut_after(b"COMMIT;", answered=answered)  # the statement: "READ COMMITTED" has the word too
                await scene.load.until(partial(_was_cut, link, before), within=10, what="the cut")
            await scene.load.passed(row.rng.uniform(0.0, 0.05))
        for link in between:
            link.heal()

    plan = Plan(producers=6, warm=100, after=100, short_lived=0, taken_back=0)
    scene = await run_row(row, sites, during=cut, place=tmp_path, plan=plan)
    kept, anew = settled_later(scene.history)
    row.also |= {"was_kept": kept, "was_not": anew}
    assert (kept if answered else anew) > 0, f"no push was on its way at any cut: {row}"
    assert answered or not kept, "the server cannot have seen these"
    await nothing_left_open(postgres)
    await examine(postgres, url, whole=True)
    assert bugs(sites) == []


def settled_later(history: History) -> tuple[int, int]:
    """Of the pushes whose first answer was 503: how many the retry found stored, and how many it stored."""
    unknown, settled = set[str](), set[str]()
    kept = anew = 0
    for event in history.of(Answered):
        if event.outcome == "ok" and event.op not in settled:
            settled.add(event.op)
            kept += event.op in unknown and event.replayed
            anew += event.op in unknown and not event.replayed
        elif event.status == 503:
            unknown.add(event.op)
    return kept, anew


# -- G6: a commit that comes later than the next one's beginning ------------------------------------------------------

LATE = """
CREATE FUNCTION commit_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.content LIKE '%stand still%' THEN PERFORM pg_advisory_xact_lock_shared(42);
  ELSIF random() < 0.02 THEN PERFORM pg_sleep(random() * 0.2); END IF;
  RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER commit_late AFTER INSERT ON inbox DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION commit_late();
"""
"""Everything is written, its number given, and COMMIT takes its time."""


async def test_G6_I3_a_reader_never_skips_a_number_whose_commit_is_late(
    launch: Callable[..., FastNode], row: Row, database: Callable[[], str], postgres: Postgres, valkey_server: Redis,
    tmp_path: Path,
) -> None:  # fmt: skip
    url = await asyncio.to_thread(database)
    sites = await start_nodes(launch, [url, url], valkey_server)

    async def late(scene: Scene) -> None:
        async with by_hand(postgres, named(url)) as stranger:
            await stranger.execute(LATE)
            for _ in range(3):
                with scene.fault("commits out of order"):
                    await forced_out_of_order(sites[0].node, sites[1].node, stranger)
            with scene.fault("late commits"):
                await scene.load.more(150)
            await stranger.execute("DROP FUNCTION commit_late CASCADE")

    await run_row(row, sites, during=late, place=tmp_path, plan=Plan(leaves=20, warm=80, after=80))
    await examine(postgres, url)
    assert bugs(sites) == []


async def forced_out_of_order(one: FastNode, other: FastNode, stranger: Any) -> None:
    """The first push has its number and stands still in its commit; the second is asked for; then both may go on."""
    user: User = await asyncio.to_thread(one.user)
    token, reader = await asyncio.to_thread(one.client_token), await asyncio.to_thread(user.token)
    sockets = [await node.open(reader) for node in (one, other)]

    def push(node: FastNode, title: str) -> asyncio.Future[dict[str, Any]]:
        return asyncio.ensure_future(asyncio.to_thread(node.push, token, user_id=user.id, title=title))

    async with standing_still(stranger) as until:
        first = push(one, "stand still")
        await until("advisory")
        second = push(other, "go on")
        await until("transactionid")
        for node in (one, other):
            page = await asyncio.to_thread(node.inbox, reader, after=0)
            assert (page["items"], page["head"]) == ([], 0)
    assert [answer["seq"] for answer in await asyncio.gather(first, second)] == [1, 2]
    for socket in sockets:
        assert [frame["title"] for frame in await socket.notifications(2)] == ["stand still", "go on"]
        await socket.close()


@contextlib.asynccontextmanager
async def standing_still(stranger: Any) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """Inside the block a commit of what says so stands still. The call waits until somebody waits for such a lock."""

    async def until(what: str) -> None:
        asked = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            f" AND wait_event = '{what}'"
        )

        async def somebody_waits() -> bool:
            return bool(await stranger.fetchval(asked))

        await eventually_async(somebody_waits, within=3, what=f"somebody waits for {what}")

    await stranger.execute("SELECT pg_advisory_lock(42)")
    try:
        yield until
    finally:
        await stranger.execute("SELECT pg_advisory_unlock(42)")


async def test_G5_I10_what_was_stored_though_503_was_said_arrives_with_the_retry(
    launch: Callable[..., FastNode], row: Row, database: Callable[[], str], postgres: Postgres, valkey_server: Redis,
    links: Links,
) -> None:  # fmt: skip
    """Nobody else pushes to this user: no later push makes its devices look."""
    url = await asyncio.to_thread(database)
    between = links.link("pg", postgres.port)
    sites = await start_nodes(launch, [through(between, url), url], valkey_server)
    one, other = (site.node for site in sites)
    user, token = await asyncio.to_thread(one.user), await asyncio.to_thread(one.client_token)
    access = await asyncio.to_thread(user.token)
    sockets = [await one.open(access), await other.open(access)]
    async with by_hand(postgres, named(url)) as stranger:
        await stranger.execute(LATE)
        for number in range(3):
            push = partial(
                one.request, "POST", "/notifications", token=token, json={"user_id": user.id, "title": "stand still"},
                headers={"Idempotency-Key": str(number)},
            )  # fmt: skip
            row.attempted, row.faults = row.attempted + 1, row.faults + 1
            async with standing_still(stranger) as until:
                first = asyncio.ensure_future(asyncio.to_thread(push))
                await until("advisory")
                between.reset()  # its server hears of that when it has committed
                assert (await first).status_code == 503
                row.indeterminate += 1

            async def stored(number: int = number) -> bool:
                found = await postgres.ask("SELECT 1 FROM inbox", database=named(url))
                return len(found) == number + 1

            await eventually_async(stored, what="it is committed")

            async def answered(push: Callable[[], httpx2.Response] = push) -> httpx2.Response | None:
                again = await asyncio.to_thread(push)
                return None if again.status_code == 503 else again  # every connection was reset, the poll's too

            again = await eventually_async(answered, what="the retry is answered")
            assert (again.status_code, again.headers.get("idempotency-replayed")) == (201, "true")
            row.ok += 1
            for socket in sockets:
                assert (await socket.next("notification", within=5.0))["id"] == again.json()["id"]
                row.received += 1
    row.judge()


# -- P1: a node is killed, its database is not its own ----------------------------------------------------------------


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=nightly)])
async def test_P1_I14_one_of_two_nodes_is_killed_at_any_moment_and_the_other_goes_on(
    launch: Callable[..., FastNode], row: Row, database: Callable[[], str], postgres: Postgres, valkey_server: Redis,
    tmp_path: Path, rounds: int,
) -> None:  # fmt: skip
    url = await asyncio.to_thread(database)
    sites = await start_nodes(launch, [url, url], valkey_server)

    async def kill(scene: Scene) -> None:
        before = await held(sites, postgres, url)
        for number in range(rounds):
            victim = sites[number % 2]
            await scene.load.passed(row.rng.uniform(0.05, 0.5))
            with scene.fault("SIGKILL", dark=[victim]):
                os.kill(victim.node.pid, signal.SIGKILL)
                victim.node.kill()
                await scene.load.more(30)
            await asyncio.to_thread(victim.node.start)
            await scene.load.more(20)
        await given_back(before, row, sites, postgres, url)

    plan = Plan(users=3, devices=2, producers=6, rate=300, short_lived=0, taken_back=0)
    await run_row(row, sites, during=kill, place=tmp_path, plan=plan)
    assert row.faults == rounds
    assert row.indeterminate > 0, f"no request was in flight at any kill: {row}"
    await nothing_left_open(postgres)
    await examine(postgres, url, whole=True)
    assert bugs(sites) == []
