"""R1–R7: Redis dies, stalls, throws its clients out, forgets, refuses, is told lies. It costs time, and nothing else.

Every row runs a workload on several nodes that each reach Redis over a link of their own, and judges its history.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from facts import Facts
from faultproxy import Links
from faulty import FastNode, Row
from fleets import Fleet, assemble, metric, said
from freeport import free_port
from plainhttp import Caller
from plan import Plan
from rows import Scene, percentile, run_row
from servers import Redis, short_directory
from stranger import lies, listening_in
from timing import answered_in, before_faults, delivered_in, of_faults
from wire import called_off, eventually_async

Assemble = Callable[..., Awaitable[Fleet]]

LOAD = Plan(users=4, devices=3, producers=4, rate=200, warm=200, after=100, leaves=600)
"""Devices mostly stay where they are: so it is hints that tell them, and not their coming back."""
LATE = 8.0
"""Seconds in which what was pushed arrives without any hint: two rounds of the re-check in trouble, or so."""
UNAWARE = 30.0
"""The same at a node that knows of no trouble: its slow re-check comes round in up to 26 seconds."""
HINTED = 2.0
"""Seconds that what travels by hint never takes. The slow re-check takes longer, so this tells the two apart."""


@contextmanager
def serving(kind: str) -> Iterator[Redis]:
    """One that the row may break."""
    with short_directory(f"fault-{kind}") as root:
        server = Redis(root, kind=cast("Any", kind)).start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def fleet(
    launch: Callable[..., FastNode], database: Callable[[], str], links: Links
) -> Callable[..., Awaitable[Fleet]]:
    return partial(assemble, launch, database, links)


class Quiet:
    """A user to whom nothing is said for long: no later signal tells of one that was lost. Connected at ``at``."""

    def __init__(self, at: FastNode) -> None:
        self.at = at
        self._user = at.user()
        self._device, self._token = self._user.token(), at.client_token()

    async def listens(self, by: FastNode) -> None:
        """Connect, and hear once from ``by`` as it usually is."""
        self._socket = await self.at.open(self._device)
        await self.told(by, within=HINTED)

    async def told(self, by: FastNode, *, within: float) -> float:
        """Seconds from a push at ``by`` to its arrival."""
        began = asyncio.get_running_loop().time()
        pushed = await asyncio.to_thread(by.push, self._token, user_id=self._user.id)
        frame = await self._socket.next("notification", within=within)
        assert frame["id"] == pushed["id"]
        return asyncio.get_running_loop().time() - began


async def still_told(scene: Scene) -> None:
    """While the fault lasts: what has been answered by now is with every prompt device soon."""
    due = dict(scene.load.heads)
    await scene.load.until(lambda: not scene.load.behind(due, prompt=True), within=LATE, what="told without hints")


def judge_times(scene: Scene) -> None:
    """Pushes were answered about as soon during the faults as before."""
    facts = Facts(scene.history)
    spans = of_faults(facts)
    calm, hurt = answered_in(facts, before_faults(facts)), answered_in(facts, *spans)
    scene.row.also["post_p90_s"] = f"{percentile(calm, 0.9):.2f}→{percentile(hurt, 0.9):.2f}"
    scene.row.also["late_s"] = round(max(delivered_in(facts, *spans)), 2)
    assert len(hurt) > 10, f"vacuous: only {len(hurt)} pushes during the faults"
    # Not the slowest: those waited for this machine's two processors.
    assert percentile(hurt, 0.9) <= percentile(calm, 0.9) + 0.5, "pushes waited for Redis"


async def hints_are_back(scene: Scene, fleet: Fleet) -> None:
    """All nodes say so, and what is pushed now comes sooner than any re-check."""
    await fleet.hear()
    began = scene.history.now
    await scene.load.more(60)
    due = dict(scene.load.heads)
    await scene.load.until(lambda: not scene.load.behind(due, prompt=True), within=LATE, what="told")
    facts = Facts(scene.history)
    slowest = max(delivered_in(facts, (began, scene.history.now)))
    assert slowest < HINTED, f"{slowest:.2f} s: that was no hint"


# -- R1: killed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "gone", "times"),
    [("valkey", 0.2, 3), pytest.param("redis", 30.0, 1, marks=pytest.mark.nightly)],
    ids=["for an instant", "for half a minute"],
)
async def test_R1_redis_is_killed_and_everything_arrives_all_the_same(
    fleet: Assemble, row: Row, tmp_path: Path, kind: str, gone: float, times: int
) -> None:
    with serving(kind) as redis:
        here = await fleet(redis)
        sites, quiet = here.sites, await asyncio.to_thread(Quiet, here.nodes[0])

        async def kill(scene: Scene) -> None:
            await quiet.listens(here.nodes[1])
            for _ in range(times):
                with scene.fault("SIGKILL Redis", deaf=sites):
                    redis.kill()
                    await here.deaf()
                    if scene.unrevoked:
                        await scene.load.revoke(scene.unrevoked.pop())
                    await scene.load.passed(gone)
                    if gone > LATE:
                        row.also["quiet_s"] = round(await quiet.told(here.nodes[1], within=LATE), 1)
                        await still_told(scene)
                    await asyncio.to_thread(redis.start)
                await hints_are_back(scene, here)

        scene = await run_row(row, sites, during=kill, place=tmp_path, plan=LOAD)
        judge_times(scene)
        assert here.complaints() == []


# -- R2, R7: silent, for all or for one --------------------------------------------------------------------------------


@pytest.mark.nightly
@pytest.mark.parametrize("how", ["stopped", "cut off"])
async def test_R2_redis_is_silent_and_nobody_waits_for_it(fleet: Assemble, row: Row, tmp_path: Path, how: str) -> None:
    with serving("valkey") as redis:
        here = await fleet(redis)
        sites, quiet = here.sites, await asyncio.to_thread(Quiet, here.nodes[0])

        async def silence(scene: Scene) -> None:
            await quiet.listens(here.nodes[1])
            with scene.fault(f"Redis {how}", deaf=sites):
                began = asyncio.get_running_loop().time()
                if how == "stopped":
                    redis.suspend()
                for way in here.ways if how == "cut off" else ():
                    way.blackhole()
                await here.deaf(within=8.0)
                row.also["noticed_s"] = round(asyncio.get_running_loop().time() - began, 1)
                await scene.load.revoke(scene.unrevoked.pop())
                row.also["quiet_s"] = round(await quiet.told(here.nodes[1], within=LATE), 1)
                await still_told(scene)
                await scene.load.passed(max(0.0, began + 12 - asyncio.get_running_loop().time()))
                if how == "stopped":
                    redis.resume()
                for way in here.ways:
                    way.heal()
            await hints_are_back(scene, here)

        judge_times(await run_row(row, sites, during=silence, place=tmp_path, plan=LOAD))
        assert here.complaints() == []


@pytest.mark.nightly
async def test_R7_one_node_that_cannot_reach_redis_goes_on_and_agrees_with_the_others(
    fleet: Assemble, row: Row, tmp_path: Path
) -> None:
    with serving("redis") as redis:
        here = await fleet(redis)
        sites = here.sites
        inside, outside = [await asyncio.to_thread(Quiet, node) for node in here.nodes[:2]]

        async def cut_off(scene: Scene) -> None:
            await inside.listens(here.nodes[1])
            await outside.listens(here.nodes[0])
            with scene.fault("cut off from Redis", deaf=sites[:1]):
                here.ways[0].blackhole()
                await said(here.nodes[0], "degraded", within=8.0)
                await scene.load.revoke(scene.unrevoked.pop(), site=sites[0])
                await scene.load.revoke(scene.unrevoked.pop(), site=sites[1])
                await still_told(scene)
                row.also["to_it_s"] = round(await inside.told(here.nodes[1], within=LATE), 1)
                row.also["by_it_s"] = round(await outside.told(here.nodes[0], within=UNAWARE), 1)
                await still_told(scene)
                here.ways[0].heal()
            await hints_are_back(scene, here)

        plan = Plan(users=4, devices=3, victims=3, rate=200, warm=200, after=100, leaves=600)
        judge_times(await run_row(row, sites, during=cut_off, place=tmp_path, plan=plan))
        assert here.complaints() == []


# -- R3, R5: it throws its clients out ---------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["pubsub", "normal"])
async def test_R3_clients_thrown_out_of_redis_every_second_miss_nothing(
    fleet: Assemble, row: Row, tmp_path: Path, which: str
) -> None:
    with serving("valkey" if which == "pubsub" else "redis") as redis:
        here = await fleet(redis)
        quiet = await asyncio.to_thread(Quiet, here.nodes[0])

        async def throw_out(scene: Scene) -> None:
            slowest = 0.0
            await quiet.listens(here.nodes[1])
            with scene.fault(f"CLIENT KILL TYPE {which}"):
                for _ in range(6):
                    answer = redis.command("CLIENT", "KILL", "TYPE", which, "SKIPME", "yes")
                    row.faults += int(answer[1:])
                    # Its hint is lost, and no later one tells: whoever is subscribed again has to look.
                    slowest = max(slowest, await quiet.told(here.nodes[1], within=2 * HINTED))
                    await scene.load.passed(1.0)
                row.also["quiet_s"] = round(slowest, 2)
                await scene.load.revoke(scene.unrevoked.pop())
            await hints_are_back(scene, here)

        scene = await run_row(row, here.sites, during=throw_out, place=tmp_path, plan=LOAD)
        judge_times(scene)
        assert row.faults > 6
        assert here.complaints() == []


FLOOD_MB = 60


@pytest.mark.nightly
async def test_R5_a_node_that_stood_still_while_its_buffer_in_redis_overflowed_looks_again(
    fleet: Assemble, row: Row, tmp_path: Path
) -> None:
    with serving("redis") as redis:  # which by default throws out a listener that is 32 MB behind
        here = await fleet(redis)
        stopped, other = here.nodes[0], here.nodes[1]
        bystander = await asyncio.to_thread(stopped.user)
        socket = await stopped.open(await asyncio.to_thread(bystander.token))
        token = await asyncio.to_thread(other.client_token)
        passing = [{"user_id": bystander.id, "ttl": 0, "body": "x" * 4000} for _ in range(400)]

        async def overflow(scene: Scene) -> None:
            with scene.fault("SIGSTOP", dark=here.sites[:1]):
                os.kill(stopped.pid, signal.SIGSTOP)
                try:
                    for _ in range(FLOOD_MB * 1_000_000 // (4000 * 400)):
                        await asyncio.to_thread(other.batch, token, *passing)
                    await eventually_async(lambda: "output buffer limits" in redis.log.read_text(), what="thrown out")
                    await scene.load.revoke(scene.unrevoked.pop(), site=here.sites[1])
                finally:
                    os.kill(stopped.pid, signal.SIGCONT)
            await hints_are_back(scene, here)

        plan = Plan(users=4, devices=3, producers=16, rate=200, warm=200, after=100, leaves=600, patience=15.0)
        await run_row(row, here.sites, during=overflow, place=tmp_path, plan=plan)
        await socket.close()
        row.also["resyncs"] = await asyncio.to_thread(metric, stopped, "gateway_bus_resyncs_total")
        assert here.complaints() == []


# -- R4: it forgets, refuses, or is another ----------------------------------------------------------------------------


async def watched(here: Fleet, user: str, seen: set[bool | None]) -> None:
    """For ever: whether this user is online, as a node says to which nobody of theirs is connected."""
    node = here.nodes[1]
    caller = Caller(node.port)
    try:
        while True:
            reply = await caller.ask("GET", f"/admin/presence?user_id={user}", token=node.admin)
            seen.add(reply.json()["items"][0]["online"])
            await asyncio.sleep(0.03)
    finally:
        caller.close()


async def until_watched(here: Fleet, user: str) -> None:
    """Until every node knows that this user is online."""
    for node in here.nodes:

        async def known(node: FastNode = node) -> bool:
            path = f"/admin/presence?user_id={user}"
            reply = await asyncio.to_thread(node.request, "GET", path, token=here.nodes[1].admin)
            return bool(reply.json()["items"][0]["online"] is True)

        await eventually_async(known, within=10.0, what="online is known")


async def test_R4_a_redis_that_is_emptied_again_and_again_forgets_nobody_who_is_online(
    fleet: Assemble, row: Row, tmp_path: Path
) -> None:
    with serving("valkey") as redis:
        here = await fleet(redis)
        user = await asyncio.to_thread(here.nodes[0].user)
        socket = await here.nodes[0].open(await asyncio.to_thread(user.token))
        await asyncio.to_thread(lambda: here.nodes[1].admin)
        seen: set[bool | None] = set()

        async def empty(scene: Scene) -> None:
            await until_watched(here, user.id)
            watching = asyncio.create_task(watched(here, user.id, seen))
            try:
                for _ in range(4):
                    with scene.fault("FLUSHALL"):
                        assert redis.command("FLUSHALL") == b"+OK\r\n"
                        await scene.load.passed(0.5)
                await until_watched(here, user.id)
            finally:
                await called_off(watching)
            await hints_are_back(scene, here)

        await run_row(row, here.sites, during=empty, place=tmp_path, plan=LOAD)
        assert True in seen
        assert False not in seen, "somebody who is connected was said to be offline"
        await socket.close()
        assert here.complaints() == []


@pytest.mark.nightly
async def test_R4_a_redis_that_is_out_of_memory_carries_hints_all_the_same(
    fleet: Assemble, row: Row, tmp_path: Path
) -> None:
    with serving("redis") as redis:
        here = await fleet(redis)

        async def fill(scene: Scene) -> None:
            with scene.fault("out of memory"):
                redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
                redis.command("CONFIG", "SET", "maxmemory", "1mb")
                assert b"OOM" in redis.command("SET", "k", "v")
                await scene.load.revoke(scene.unrevoked.pop())
                await scene.load.more(200)
                await still_told(scene)
                await scene.load.passed(5.0)
                redis.command("CONFIG", "SET", "maxmemory", "0")
            await hints_are_back(scene, here)

        judge_times(await run_row(row, here.sites, during=fill, place=tmp_path, plan=LOAD))
        assert here.complaints() == []


@pytest.mark.nightly
async def test_R4_a_redis_that_became_a_replica_is_noticed_and_taken_again_when_it_is_none(
    fleet: Assemble, row: Row, tmp_path: Path
) -> None:
    with serving("redis") as redis:
        here = await fleet(redis)

        async def demote(scene: Scene) -> None:
            with scene.fault("READONLY", deaf=here.sites):
                redis.command("REPLICAOF", "127.0.0.1", str(free_port()))
                await here.deaf()
                await scene.load.revoke(scene.unrevoked.pop())
                await still_told(scene)
                redis.command("REPLICAOF", "NO", "ONE")
            await hints_are_back(scene, here)

        judge_times(await run_row(row, here.sites, during=demote, place=tmp_path, plan=LOAD))
        assert here.complaints() == []


@pytest.mark.nightly
@pytest.mark.parametrize("how", ["dies", "steps down"])
async def test_R4_another_server_takes_over_from_redis(fleet: Assemble, row: Row, tmp_path: Path, how: str) -> None:
    with serving("valkey") as first, serving("valkey") as second:
        here = await fleet(first)
        second.command("REPLICAOF", "127.0.0.1", str(first.port))
        await eventually_async(
            lambda: b"master_link_status:up" in second.command("INFO", "replication"), what="replica"
        )

        async def fail_over(scene: Scene) -> None:
            with scene.fault("failover"):
                if how == "dies":
                    first.kill()
                await scene.load.passed(2.0)
                second.command("REPLICAOF", "NO", "ONE")
                for way in here.ways:
                    way.lead_to(second.port)  # as a name that is given to another address: who is connected stays
                if how == "steps down":
                    first.command("REPLICAOF", "127.0.0.1", str(second.port))
                await scene.load.revoke(scene.unrevoked.pop())
                await scene.load.more(100)
            await hints_are_back(scene, here)

        judge_times(await run_row(row, here.sites, during=fail_over, place=tmp_path, plan=LOAD))
        assert here.complaints() == []


# -- R6: it is told lies -----------------------------------------------------------------------------------------------


async def test_R6_what_a_stranger_publishes_reaches_nobody_and_is_counted(
    fleet: Assemble, row: Row, tmp_path: Path
) -> None:
    with serving("redis") as redis:  # plain channels: everybody who may connect hears them all
        here = await fleet(redis, heartbeat=5)
        passed_on = await asyncio.to_thread(here.nodes[1].user)
        socket = await here.nodes[1].open(await asyncio.to_thread(passed_on.token))
        token = await asyncio.to_thread(here.nodes[0].client_token)

        async def lie(scene: Scene) -> None:
            async with listening_in(redis.port) as stranger:
                await asyncio.to_thread(here.nodes[0].push, token, user_id=passed_on.id, ttl=0, expect=202)
                assert (await socket.next("notification"))["seq"] is None
                await scene.load.more(100)
                with scene.fault("lies"):
                    for _ in range(5):
                        truth = list(stranger.heard)
                        await stranger.send(lies(row.rng, row.rng.sample(truth, min(100, len(truth)))))
                        await stranger.send(truth)  # all of it once more
                        await scene.load.more(20)
                    await scene.load.revoke(scene.unrevoked.pop())
                    # A node that has just begun has seen none of it: for it alone, old truth is news.
                    here.nodes[2].kill()
                    await asyncio.to_thread(here.nodes[2].start)
                    await here.hear()
                    await stranger.send(list(stranger.heard))
                    await scene.load.more(50)
                row.faults += stranger.sent
            await hints_are_back(scene, here)

        await run_row(row, here.sites, during=lie, place=tmp_path, plan=LOAD)
        await socket.quiet()  # and what was stored nowhere did not come again
        await socket.close()
        for node in here.nodes:
            for reason in ("forged", "garbage", "replayed") if node is not here.nodes[2] else ("replayed",):
                counted = await asyncio.to_thread(
                    metric, node, f'gateway_bus_messages_dropped_total{{reason="{reason}"}}'
                )
                row.also[f"{reason}@{node.settings['node']}"] = int(counted)
                assert counted > 0, f"{reason} is not counted at {node.settings['node']}"
        assert here.complaints() == []
