"""N9–N11: one session on two nodes at once; acknowledgements lost, doubled and late; lines that are bad but whole.

A cursor never goes back, whatever becomes of the acknowledgements; and nobody who is merely slow is taken for gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import combinations
from pathlib import Path

import pytest
from facts import Facts, Visit
from faultproxy import DOWN, UP, Links
from faulty import FastNode, Row
from fleets import Fleet, assemble
from history import Acked, Answered, Closed, Fault, History, Refused
from plan import Plan, Site
from rows import Scene, run_row
from servers import Redis

Assemble = Callable[..., Awaitable[Fleet]]


@pytest.fixture
def fleet(launch: Callable[..., FastNode], database: Callable[[], str], links: Links, valkey_server: Redis) -> Assemble:
    return partial(assemble, launch, database, links, valkey_server, count=2)


def together(history: History) -> int:
    """How often two sockets of one session were open at two nodes at once, and both were told something then."""
    facts = Facts(history)
    sessions: dict[str, list[Visit]] = {}
    for visit in facts.visits.values():
        sessions.setdefault(visit.opened.session, []).append(visit)
    return sum(
        _overlap(one, other, facts.end) for visits in sessions.values() for one, other in combinations(visits, 2)
    )


def _overlap(one: Visit, other: Visit, end: int) -> bool:
    start = max(one.opened.at, other.opened.at)
    stop = min(visit.closed.at if visit.closed else end for visit in (one, other))
    return one.opened.node != other.opened.node and all(
        any(start < told.at < stop for told in visit.told) for visit in (one, other)
    )


@pytest.mark.nightly
async def test_N9_a_device_on_two_nodes_at_once_hears_everything_on_both_and_its_cursor_never_goes_back(
    fleet: Assemble, row: Row, tmp_path: Path
) -> None:
    here = await fleet()

    async def kill_each(scene: Scene) -> None:
        for site in here.sites:
            with scene.fault("SIGKILL", dark=[site]):
                site.node.kill()
                await scene.load.more(80)
            await asyncio.to_thread(site.node.start)
            await here.hear()
            await scene.load.more(80)

    plan = Plan(users=6, devices=2, twins=6, victims=1, rate=200, leaves=150)
    scene = await run_row(row, here.sites, during=kill_each, place=tmp_path, plan=plan)
    row.also["together"] = together(scene.history)
    assert together(scene.history) > 1, "no session was at two nodes at once"
    assert here.complaints() == []


@pytest.mark.nightly
async def test_N10_acknowledgements_lost_doubled_and_late_never_move_a_cursor_back(
    fleet: Assemble, row: Row, links: Links, tmp_path: Path
) -> None:
    here = await fleet(frame_rate=1000, frame_burst=1000)
    sites, fronts = here.sites_by(links)

    async def disturb(scene: Scene) -> None:
        for number in range(10):
            with scene.fault("bad lines"):
                for front in fronts:
                    front.latency(80, jitter=80, way=UP)  # acks of two sockets of one session overtake each other
                    front.cut_after(row.rng.randrange(200, 2000), way=UP, times=3)
                await scene.load.passed(0.7)
                if number % 3 == 0:
                    fronts[0].blackhole(way=DOWN)  # acks arrive, and nobody hears that they did
                    await scene.load.passed(0.5)
                for front in fronts:
                    front.heal()
                    front.reset(0.2)
            await scene.load.more(20)

    plan = Plan(users=4, devices=2, twins=4, victims=1, rate=150, leaves=100, nervous=True, patience=2.0)
    scene = await run_row(row, sites, during=disturb, place=tmp_path, plan=plan)
    cuts = sum(front.counts.cuts for front in fronts)
    sent, sure = ({(a.session, a.seq) for a in scene.history.of(Acked) if a.confirmed is c} for c in (False, True))
    row.also |= {"cuts": cuts, "acks": len(sent), "unconfirmed": len(sent - sure)}
    assert cuts > 10, "hardly anything was cut"
    assert sent - sure, "no acknowledgement was lost, nor its answer"
    assert here.complaints() == []


@pytest.mark.nightly
async def test_N11_lines_that_are_slow_in_every_way_time_nobody_out(
    fleet: Assemble, row: Row, links: Links, tmp_path: Path
) -> None:
    here = await fleet(heartbeat=3)
    by_bytes = links.link("byte by byte", here.nodes[0].port)
    late = links.link("late", here.nodes[1].port)
    narrow = links.link("narrow", here.nodes[0].port)
    ways = {"bytes": by_bytes, "late": late, "narrow": narrow}
    nodes = {"bytes": here.nodes[0], "late": here.nodes[1], "narrow": here.nodes[0]}
    sites = [Site(name, nodes[name], way.port) for name, way in ways.items()]

    async def slow_down(scene: Scene) -> None:
        with scene.fault("slow lines"):
            by_bytes.slice(1, pause=0.0)
            late.latency(200, jitter=50)
            narrow.rate(5)
            await scene.load.passed(45.0)
            for way in ways.values():
                way.heal()

    plan = Plan(users=3, devices=2, victims=1, producers=3, rate=10, warm=40, after=40, leaves=10_000, patience=30.0,
                silence=10.0)  # fmt: skip
    scene = await run_row(row, sites, during=slow_down, place=tmp_path, plan=plan)
    start, stop = (one.at for one in scene.history.of(Fault))
    left = [one for one in scene.history.of(Closed) if start < one.at < stop]
    refused = [one for one in scene.history.of(Refused) if start < one.at < stop]
    unknown = [one for one in scene.history.of(Answered) if one.outcome != "ok" and start < one.at < stop]
    assert (left, refused, unknown) == ([], [], []), "somebody slow was taken for gone"
    assert min(way.counts.bytes_down for way in ways.values()) > 5000, "a line was hardly used"
    assert here.complaints() == []
