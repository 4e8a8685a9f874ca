"""G3: a copy takes the place of PostgreSQL. What was answered is in a synchronous one; no old number counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from checker import Bounds
from clusters import Pair, bugs, by_hand, examine, kill_all, start_nodes, through
from facts import Facts
from faultproxy import Link, Links
from faulty import FastNode, Row
from history import Listed, Opened
from plan import Plan, Site
from rows import Scene, run_row
from servers import Redis, short_directory
from wire import User, claims_of, eventually_async

pytestmark = pytest.mark.nightly

PLAN = Plan(patience=15.0, settled_within=90.0)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with short_directory("pair") as directory:
        pair = Pair(directory)
        yield pair
        pair.end()


async def prepared(
    pair: Pair, links: Links, launch: Callable[..., FastNode], redis: Redis, *, synchronous: bool
) -> tuple[list[Site], Link]:
    """Two nodes that reach the first server through one link, and the copy that follows it."""
    url = await asyncio.to_thread(pair.first.create, "gw")
    between = links.link("pg", pair.first.port)
    sites = await start_nodes(launch, [through(between, url)] * 2, redis)
    await asyncio.to_thread(pair.follow, synchronous=synchronous)
    return sites, between


async def take_over(pair: Pair, between: Link, scene: Scene, sites: list[Site]) -> None:
    """The first server dies; for a while the copy answers, but cannot be written; then it takes the place."""
    with scene.fault("failover", dark=sites):
        kill_all(pair.first)
        between.lead_to(pair.second.port)
        await scene.load.passed(2.0)
    await asyncio.to_thread(pair.promote)


def epochs(scene: Scene) -> list[str]:
    """In the order in which clients were told them."""
    return list(dict.fromkeys(event.epoch for event in scene.history.of(Opened)))


async def test_G3_a_failover_to_a_synchronous_copy_loses_nothing_and_changes_the_epoch(
    launch: Callable[..., FastNode], row: Row, pair: Pair, valkey_server: Redis, links: Links, tmp_path: Path
) -> None:
    sites, between = await prepared(pair, links, launch, valkey_server, synchronous=True)

    async def fail_over(scene: Scene) -> None:
        await take_over(pair, between, scene, sites)
        await eventually_async(lambda: len(epochs(scene)) == 2, within=10, what="somebody hears the new epoch")

    scene = await run_row(row, sites, during=fail_over, place=tmp_path, plan=PLAN, bounds=Bounds(ready_within=0.5))
    assert len(epochs(scene)) == 2
    await examine(pair.second, pair.second.url("gw"))
    assert bugs(sites) == []


async def test_G3_I12_while_the_synchronous_copy_is_away_nothing_is_answered_2xx_and_nothing_is_lost(
    launch: Callable[..., FastNode], row: Row, pair: Pair, valkey_server: Redis, links: Links, tmp_path: Path
) -> None:
    """What is committed on the one server alone counts for nothing yet, however often it is asked for again. Then that
    server dies. I6 is measured: what a timeout freed from its wait can be seen, is sent to whoever is connected, and is
    stored once more by the retry after the failover. Nobody was told 2xx, and the epoch is another."""
    sites, between = await prepared(pair, links, launch, valkey_server, synchronous=True)

    async def cut_then_fail_over(scene: Scene) -> None:
        await asyncio.to_thread(pair.part)
        with scene.fault("the copy is away", dark=sites):
            await scene.load.passed(14.0)
            kill_all(pair.first)
            between.lead_to(pair.second.port)
        await asyncio.to_thread(pair.promote)

    # The first push that waits is given up after 6 s; /readyz then tries for itself.
    scene = await run_row(
        row, sites, during=cut_then_fail_over, place=tmp_path, plan=PLAN, bounds=Bounds(ready_within=8.0),
        measured=("I6",),
    )  # fmt: skip
    assert len(epochs(scene)) == 2
    assert bugs(sites) == []


async def test_G3_a_failover_to_an_asynchronous_copy_loses_what_it_had_not_received_and_revokes_on(
    launch: Callable[..., FastNode], row: Row, pair: Pair, valkey_server: Redis, links: Links, tmp_path: Path
) -> None:
    """The loss is measured. What may not be lost with it: order in the new epoch, and every later revocation."""
    sites, between = await prepared(pair, links, launch, valkey_server, synchronous=False)

    async def fall_behind_and_fail_over(scene: Scene) -> None:
        async with by_hand(pair.first, "gw") as stranger:
            # Numbers are handed out in lots, and the copy knows of a lot: the next one begins a new lot.
            await stranger.execute("SELECT setval(pg_get_serial_sequence('revocations', 'number'), 1000)")
            await asyncio.sleep(0.5)
        await asyncio.to_thread(pair.part)
        await scene.load.more(50)
        lost = await asyncio.to_thread(sites[0].node.user)
        await asyncio.to_thread(lost.token)
        await asyncio.to_thread(sites[0].node.revoke, user_id=lost.id)
        await scene.load.passed(1.0)
        with scene.fault("failover", dark=sites):
            kill_all(pair.first)
            between.lead_to(pair.second.port)
            await scene.load.passed(1.0)
        await asyncio.to_thread(pair.promote)
        for site in sites:
            await asyncio.to_thread(site.node.until_ready)
        for number in range(3):
            await revoked_everywhere(sites, by=sites[number % 2].node)
        await scene.load.revoke(scene.unrevoked.pop())

    scene = await run_row(
        row, sites, during=fall_behind_and_fail_over, place=tmp_path, plan=PLAN,
        bounds=Bounds(ready_within=0.5), measured=("I1", "I6", "I10"),
    )  # fmt: skip
    kept = {item.id for listed in scene.history.of(Listed) for item in listed.items}
    facts = Facts(scene.history)
    gone = [one for one in facts.accepted if one.given.id not in kept and not facts.gone(one, inbox_max=1 << 60)]
    row.also["lost_with_the_server"] = len(gone)
    assert gone, "the copy had everything: this shows nothing"
    assert len(epochs(scene)) == 2
    await examine(pair.second, pair.second.url("gw"))
    assert bugs(sites) == []


async def revoked_everywhere(sites: list[Site], *, by: FastNode) -> None:
    """A session that is revoked now loses its sockets and its requests at every node within the second."""
    user = await asyncio.to_thread(by.user)
    token = await asyncio.to_thread(user.token)
    sockets = [await site.node.open(token) for site in sites]
    await asyncio.to_thread(by.revoke, session=claims_of(token)["sid"])
    for socket in sockets:
        assert await socket.closed(within=1.5) == (1008, "token_revoked")
    for site in sites:
        answer = await asyncio.to_thread(site.node.request, "GET", "/inbox", token=token)
        assert (answer.status_code, answer.json()["code"]) == (401, "token_revoked")


async def test_G3_I12_a_key_does_not_make_durable_what_the_synchronous_copy_has_not_received(
    launch: Callable[..., FastNode], row: Row, pair: Pair, valkey_server: Redis, links: Links
) -> None:
    """It is committed on the one server and nobody waits for the copy any more: the retry finds it, and has to wait."""
    sites, between = await prepared(pair, links, launch, valkey_server, synchronous=True)
    node = sites[0].node
    user, token = await asyncio.to_thread(node.user), await asyncio.to_thread(node.client_token)
    push = partial(
        node.request, "POST", "/notifications", token=token, json={"user_id": user.id, "title": "t"},
        headers={"Idempotency-Key": "k"},
    )  # fmt: skip
    await asyncio.to_thread(pair.part)
    row.faults += 1
    for _ in range(3):
        answer = await asyncio.to_thread(push)
        row.attempted, row.indeterminate = row.attempted + 1, row.indeterminate + 1
        assert answer.status_code == 503, answer.text
    await asyncio.to_thread(restarted, pair)  # so that it is seen even if it was not before
    await eventually_async(partial(knows, pair), what="the server shows what it has")
    answer = await asyncio.to_thread(push)
    assert answer.status_code == 503, answer.text
    await asyncio.to_thread(pair.rejoin)

    async def stored() -> bool:
        row.ok = int((await asyncio.to_thread(push)).status_code == 201)
        return row.ok == 1

    await eventually_async(stored, what="the copy is back")
    await asyncio.to_thread(kill_all, pair.first)
    between.lead_to(pair.second.port)
    await asyncio.to_thread(pair.promote)
    row.faults += 1
    row.also["the_copy_has"] = len(await pair.second.ask("SELECT 1 FROM inbox", database="gw"))

    async def listed() -> bool:
        answer = await asyncio.to_thread(node.request, "GET", "/inbox", token=reader)
        row.received = len(answer.json()["items"]) if answer.status_code == 200 else 0
        return row.received == 1

    reader = await eventually_async(partial(signed_in, user), what="somebody can sign in again")
    await eventually_async(listed, what="it is there")
    row.judge()


async def signed_in(user: User) -> str | None:
    try:
        return await asyncio.to_thread(user.token)
    except AssertionError:
        return None


async def knows(pair: Pair) -> bool:
    return bool(await pair.first.ask("SELECT 1 FROM idempotency", database="gw"))


def restarted(pair: Pair) -> None:
    """A crash: what was written and not waited for is there afterwards."""
    kill_all(pair.first)
    pair.first.start()
