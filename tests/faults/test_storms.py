"""N3, N4: very many clients go at once, or come back at once. Nothing is left of those; these miss nothing.

What everybody else does meanwhile over HTTP is answered all the while.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from crowds import Member, crowd
from faultproxy import Links
from faulty import FastNode, Row
from fleets import Fleet, assemble
from plainhttp import Caller, Unanswered
from plan import Plan
from rows import Scene, percentile, run_row
from servers import Redis
from wire import User, called_off, eventually_async

Assemble = Callable[..., Awaitable[Fleet]]


@pytest.fixture
def fleet(launch: Callable[..., FastNode], database: Callable[[], str], links: Links, valkey_server: Redis) -> Assemble:
    return partial(assemble, launch, database, links, valkey_server, count=2, log_level="warning")


async def people(node: FastNode, count: int) -> tuple[list[User], list[str]]:
    """Users, and a token of each."""
    users = await asyncio.gather(*[asyncio.to_thread(node.user) for _ in range(count)])
    return list(users), list(await asyncio.gather(*[asyncio.to_thread(user.token) for user in users]))


def dismiss(members: list[Member]) -> None:
    for member in members:
        member.reset()


@pytest.mark.nightly
async def test_N3_a_thousand_resets_in_a_second_leave_nothing_behind_and_disturb_nobody(
    fleet: Assemble, row: Row, tmp_path: Path
) -> None:
    here = await fleet(connections_per_user=50)
    _, tokens = await people(here.nodes[0], 25)
    await asyncio.to_thread(lambda: here.nodes[1].admin)

    async def storm(scene: Scene) -> None:
        for _ in range(2):
            idle = [node.sockets() for node in here.nodes]
            members = await crowd(tokens, 40, here.sites, row.rng)
            with scene.fault("a thousand resets"):
                began = time.monotonic()
                dismiss(members)
                row.also["seconds"] = round(time.monotonic() - began, 2)
                row.faults += len(members)
                await scene.load.more(50)
            # The devices of the load come and go; a thousand that were left would be seen.
            await eventually_async(partial(nothing_left, here, idle), what="the descriptors are back")

    await run_row(row, here.sites, during=storm, place=tmp_path, plan=Plan(users=4, devices=3, rate=100))
    assert here.complaints() == []
    written = sum(len(node.log_text().splitlines()) for node in here.nodes)
    assert written < 50, f"{written} lines about it"


def nothing_left(here: Fleet, idle: list[int]) -> bool:
    return all(node.sockets() <= was + 20 for node, was in zip(here.nodes, idle, strict=True))


class Beside:
    """Somebody who reads and pushes over HTTP meanwhile. ``statuses``: what he was answered; ``slowest``: seconds."""

    def __init__(self, here: Fleet, user: User, device: str, shop: str) -> None:
        self._here, self._user, self._device, self._shop = here, user, device, shop
        self.statuses: Counter[int] = Counter()
        self.slowest = 0.0

    async def live(self) -> None:
        callers = [Caller(site.port, patience=15.0) for site in self._here.sites]
        try:
            while True:
                for caller in callers:
                    await self._one(caller, "GET", "/inbox", self._device, None)
                    body = {"user_id": self._user.id, "title": "beside"}
                    await self._one(caller, "POST", "/notifications", self._shop, body)
                await asyncio.sleep(0.05)
        finally:
            for caller in callers:
                caller.close()

    async def _one(self, caller: Caller, method: str, path: str, token: str, body: object) -> None:
        began = time.monotonic()
        try:
            self.statuses[(await caller.ask(method, path, token=token, body=body)).status] += 1
        except Unanswered:
            self.statuses[0] += 1
        self.slowest = max(self.slowest, time.monotonic() - began)


MISSED = 50
RECOVERED = 60.0


@pytest.mark.nightly
@pytest.mark.parametrize("size", [2000, 5000])
async def test_N4_thousands_who_come_back_at_once_have_what_they_missed_within_a_minute(
    fleet: Assemble, row: Row, size: int
) -> None:
    here = await fleet()
    first = here.nodes[0]
    shop = await asyncio.to_thread(first.client_token)
    bystander = await asyncio.to_thread(first.user)
    device = await asyncio.to_thread(bystander.token)
    users, tokens = await people(first, size // 20)
    members = await crowd(tokens, 20, here.sites, row.rng)
    beside = Beside(here, bystander, device, shop)
    being_beside = asyncio.create_task(beside.live())
    try:
        head = 0
        for jitter in (0.0, 10.0):
            dismiss(members)
            row.faults += len(members)
            await eventually_async(lambda: all(member.ended.done() for member in members), what="all gone")
            for _ in range(MISSED // 10):
                body = {"user_ids": [user.id for user in users], "title": "missed"}
                for _ in range(10):
                    reply = await asyncio.to_thread(
                        first.request, "POST", "/notifications", token=shop, json=body, expect=200
                    )
                    row.attempted += len(users)
                    row.ok += sum(result["status"] == 201 for result in reply.json()["results"])
            head += MISSED
            began = asyncio.get_running_loop().time()
            arrived = [member.wants(head) for member in members]
            coming = [
                asyncio.create_task(member.connect(here.sites[n % 2], jitter=jitter))
                for n, member in enumerate(members)
            ]
            async with asyncio.timeout(RECOVERED * 2):
                await asyncio.gather(*coming)
                times = [at - began for at in await asyncio.gather(*arrived)]
            row.received += MISSED * len(members)
            row.also[f"p99_s_jitter_{jitter:g}"] = round(percentile(times), 1)
            row.also[f"refused_jitter_{jitter:g}"] = sum(member.refused for member in members)
            assert percentile(times) <= RECOVERED
    finally:
        await called_off(being_beside)
        dismiss(members)
    assert [member.holes for member in members if member.holes] == []
    row.also |= {"beside": dict(beside.statuses), "slowest_beside_s": round(beside.slowest, 1)}
    # 503: news of revocations were a second late. With five thousand handshakes on this machine's two processors that
    # happens, and the gateway then says so; never otherwise, and never another failure.
    assert beside.statuses.keys() <= {200, 201, 503}, beside.statuses
    assert beside.statuses[503] <= (beside.statuses.total() // 100 if size > 2000 else 0), beside.statuses
    row.judge()
    assert here.complaints() == []
