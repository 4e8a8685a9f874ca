"""T2: the wall clock of a node jumps an hour ahead and an hour back while it runs. Nothing that is timed notices.

What has a date keeps it; heartbeats, polling and freshness are counted on another clock, which nobody can set.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from clocks import Clock
from faulty import FastNode, Row
from history import Closed, Fault
from plan import Plan, Site
from rows import Scene, run_row

HOUR = 3600


@pytest.fixture
def jumping(tmp_path: Path) -> Iterator[tuple[FastNode, Callable[[int], None]]]:
    """A node, and what sets its clock so many seconds ahead."""
    clock = Clock(tmp_path)
    prefix = ("env", *(f"{name}={value}" for name, value in clock.environment.items()))
    node = FastNode(tmp_path, prefix=prefix, access_token_ttl=86_400, heartbeat=2, log_level="info")
    node.start()  # a process of its own, for its prefix: one that was forked has its C library already
    yield node, clock.set
    node.end()


def shown(node: FastNode) -> float:
    """Seconds the node's clock is ahead of ours, as its answers are dated."""
    return parsedate_to_datetime(node.request("GET", "/healthz").headers["date"]).timestamp() - time.time()


async def test_T2_a_clock_that_jumps_an_hour_and_back_ends_no_connection_and_holds_nothing_up(
    jumping: tuple[FastNode, Callable[[int], None]], row: Row, tmp_path: Path
) -> None:
    node, jump = jumping

    async def set_it(scene: Scene) -> None:
        for ahead in (HOUR, 0):  # further back, and every token would be of the future
            with scene.fault("jump"):
                jump(ahead)
                await scene.load.passed(1.5)  # revocations are read, and everybody has been pinged
                assert abs(await asyncio.to_thread(shown, node) - ahead) < 5, "the clock was not moved"
                if scene.unrevoked:
                    await scene.load.revoke(scene.unrevoked.pop())
                await scene.load.more(60)

    plan = Plan(users=4, devices=2, victims=3, short_lived=0, leaves=10_000)
    scene = await run_row(row, [Site.of("n1", node)], during=set_it, place=tmp_path, plan=plan)
    began = min(one.at for one in scene.history.of(Fault))
    ended = max(one.at for one in scene.history.of(Fault))
    put_out = [
        one for one in scene.history.of(Closed)
        if began < one.at < ended and not one.ours and one.reason != "token_revoked"
    ]  # fmt: skip
    assert put_out == []
    assert node.complaints() == []
