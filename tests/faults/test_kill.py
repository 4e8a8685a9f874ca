"""P1: the process is killed at random moments under load, on one database, and what it answered is held against it.

Nothing answered 2xx is missing afterwards, no ``seq`` has a hole, ``seq`` and ``id`` belong to each other for ever, a
retried key is one notification, what a device acknowledged stays acknowledged, and who was revoked stays out.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from faulty import FastNode, Row, examine
from history import Acked
from plan import Plan, Site
from rows import Scene, run_row

ROUNDS = 20
BUSY = Plan(users=3, devices=2, victims=2, producers=6, rate=500, short_lived=0, taken_back=0)
"""Six at once, so that some are on their way whenever it dies. No inbox loses a row: ``examine`` counts them all."""


def when_committing(node: FastNode, patience: float) -> None:
    """SIGKILL as soon as the log of the database grows: between the write and the answer, if we are quick."""
    log = f"{node.database}-wal"
    before, end = _size(log), time.monotonic() + patience
    while _size(log) == before and time.monotonic() < end:
        time.sleep(0.0002)
    os.kill(node.pid, signal.SIGKILL)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


def copied(node: FastNode, place: Path) -> Path:
    """The database as the dead process left it."""
    place.mkdir()
    for file in node.database.parent.glob("gateway.db*"):
        if not file.name.endswith(("-shm", ".lock")):  # the kernel's memory of it died with the process
            shutil.copy(file, place)
    return place / node.database.name


async def test_P1_API_07_what_was_answered_survives_being_killed_at_any_moment(
    launch: Callable[..., FastNode], row: Row, tmp_path: Path
) -> None:
    node = launch(log_level="info")
    in_start = 0

    async def kill(scene: Scene, number: int) -> None:
        nonlocal in_start
        await scene.load.passed(row.rng.uniform(0.05, 0.4))
        with scene.fault("SIGKILL"):
            await asyncio.to_thread(when_committing, node, 0.5 if number % 2 else 0)
            node.kill()
            await asyncio.to_thread(examine, copied(node, tmp_path / f"killed{number}"))
            if number % 5 == 4:  # and it may die once more while it starts
                node.start(wait=False)
                await scene.load.passed(row.rng.uniform(0.0, 0.5))
                node.kill()
                in_start += 1
            begin = node.start if number < ROUNDS - 1 else node.spawn  # the last time not forked
            await asyncio.to_thread(begin)
            await asyncio.to_thread(examine, node.database)
        await scene.load.more(10)

    async def again_and_again(scene: Scene) -> None:
        for number in range(ROUNDS):
            await kill(scene, number)

    scene = await run_row(row, [Site.of("n1", node)], during=again_and_again, place=tmp_path, plan=BUSY)
    row.also["killed_in_start"] = in_start
    assert row.faults == ROUNDS
    assert row.indeterminate > 0, f"no request was in flight at any kill: {row}"
    confirmed = {event.device for event in scene.history.of(Acked) if event.confirmed}
    assert confirmed >= {device.name for device in scene.load.staying() if not device.habit.keeps}
    assert node.complaints() == []
