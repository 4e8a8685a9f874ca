"""P3, N1 under load: a node that stands still, clients behind a cut line. The promise holds, and all is back soon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from faultproxy import Links
from faulty import FastNode, Row
from plan import Plan, Site
from rows import Scene, run_row
from wire import eventually_async

PAUSE = 5.0


async def test_P3_a_node_that_stood_still_under_load_goes_on_and_tells_nothing_to_who_was_revoked_meanwhile(
    launch: Callable[..., FastNode], row: Row, tmp_path: Path
) -> None:
    node = launch(log_level="info")

    async def stand_still(scene: Scene) -> None:
        victim = scene.unrevoked.pop()
        try:
            await stop_between_writes(node)  # before the fault begins: it answers until it has succeeded
            with scene.fault("SIGSTOP", dark=scene.load.sites):
                await scene.load.passed(PAUSE / 2)
                await scene.load.revoke(victim, by=partial(by_command, node, victim.session))
                await scene.load.passed(PAUSE / 2)
                os.kill(node.pid, signal.SIGCONT)
        finally:
            os.kill(node.pid, signal.SIGCONT)

    await run_row(row, [Site.of("n1", node)], during=stand_still, place=tmp_path)
    assert node.complaints() == []


async def stop_between_writes(node: FastNode) -> None:
    """SIGSTOP, but not while it holds the one lock that writers of SQLite have: nobody could revoke anything then."""
    while True:
        os.kill(node.pid, signal.SIGSTOP)
        # A thread that is still inside the kernel may be about to get the lock.
        await eventually_async(partial(stands_still, node.pid), what="every thread stands still")
        with contextlib.closing(sqlite3.connect(node.database, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                os.kill(node.pid, signal.SIGCONT)
                await asyncio.sleep(0.003)
                continue
            connection.execute("ROLLBACK")
            return


def stands_still(pid: int) -> bool:
    """Whether every thread of a process has stopped: kill() returns before they have (proc_pid_stat(5), state T)."""
    stats = [task.joinpath("stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


async def by_command(node: FastNode, session: str) -> None:
    code, _, err = await asyncio.to_thread(node.command, "revoke", "--session", session)
    assert code == 0, err


async def test_N1_clients_behind_a_cut_line_are_let_go_and_miss_nothing_when_they_come_another_way(
    launch: Callable[..., FastNode], row: Row, links: Links, tmp_path: Path
) -> None:
    node = launch(heartbeat=2, log_level="info")
    cut, whole = links.link("cut", node.port), links.link("whole", node.port)
    sites = [Site.of("cut", node, port=cut.port), Site.of("whole", node, port=whole.port)]

    async def cut_the_line(scene: Scene) -> None:
        load, devices = scene.load, scene.load.staying()
        with scene.fault("blackhole"):
            began = time.monotonic()
            cut.blackhole()
            await load.until(
                lambda: all(device.connected and device.site is sites[1] for device in devices), within=45, what="moved"
            )
            assert len(await asyncio.to_thread(node.everybody)) > len(devices), "nobody was left half-open"

            async def freed() -> bool:
                return len(await asyncio.to_thread(node.everybody)) == len(devices)

            await eventually_async(freed, within=45 - (time.monotonic() - began), what="the half-open ones are let go")
            row.also["freed_s"] = round(time.monotonic() - began, 1)
            cut.heal()

    plan = Plan(patience=2.0, silence=1.0, victims=1, leaves=10_000)
    await run_row(row, sites, during=cut_the_line, place=tmp_path, plan=plan)
    assert cut.counts.torn > 0
    assert node.complaints() == []
