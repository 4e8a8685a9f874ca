"""``make soak``: thousands of sockets that come and go, under all that a gateway does, for half an hour. Exits with 1
unless memory, descriptors and connections stayed flat and nothing was lost, doubled or answered wrongly.

The server has core 0, the clients core 1; SQLite, every security check on. Every socket is checked: what it hears has
to be dense from ``hello`` on, over all its connections, and in the end reach what was answered to the last push.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from benchmarks import soak_watch
from benchmarks.people import prepare, user_token
from benchmarks.probing import on_load_core
from benchmarks.servers import HERE, Server, gateway
from benchmarks.soak_clients import MEANT, RENEWED_BEFORE, Device, Told
from benchmarks.soak_work import Rates, Work

SOCKETS, SLOW, PEOPLE = 5000, 50, 10
TOKEN_LIFE = 120
"""Seconds: tokens are renewed on the open socket, or the gateway closes it."""
AT_ONCE = 64
SETTLE = 60.0
"""Seconds that everybody has in the end to hear what is still missing."""


def device(number: int, port: int, told: Told) -> Device:
    def token() -> tuple[str, float]:
        # Some are renewed soon after they connect: else all would be in the same second.
        early = random.uniform(0, TOKEN_LIFE / 3)
        return user_token(number, ttl=TOKEN_LIFE), time.monotonic() + TOKEN_LIFE - RENEWED_BEFORE - early

    return Device(f"u{number}", token, port, told)


async def soak(server: Server, *, sockets: int, seconds: float, rates: Rates) -> dict[str, Any]:
    told = Told()
    devices = [device(number, server.port, told) for number in range(sockets)]
    places = asyncio.Semaphore(AT_ONCE)

    async def enter(one: Device) -> None:
        async with places:
            await one.connect()
            while one.epoch is None:  # noqa: ASYNC110 - an Event for each would be more to read
                await asyncio.sleep(0.005)

    async with asyncio.timeout(120):
        await asyncio.gather(*map(enter, devices))
    slow = min(SLOW, sockets // 10)
    for one in devices[:slow]:
        one.slow = True
    work = Work(server.port, devices[slow:], devices[:slow], told, rates, ttl=max(60, int(seconds / 6)))
    await work.enlist(PEOPLE)
    samples = await _watched(server, work, seconds)
    for one in (*devices, *work.signed_in):
        if one.link is not None:
            one.link.transport.resume_reading()
    everybody = [*devices, *work.signed_in]
    behind = await _until_told_all(everybody, work)
    for one in behind[:20]:
        told.complain("incomplete", f"{one.user}: {one.seq} of {work.heads[one.user]}")
    result = {"samples": samples, "work": work.done, "frames": told.frames, "closed": told.closed, "late": told.late}
    for one in everybody:
        one.stays_away = True
        one.cut(politely=False)
    await asyncio.sleep(0.5)
    return result | {"wrong": told.wrong, "examples": told.examples, "incomplete": len(behind)}


async def _watched(server: Server, work: Work, seconds: float) -> list[dict[str, float]]:
    """Let it all go on for that long; a sample every ten seconds, at least six a sixth."""
    began, every, samples = time.monotonic(), min(10.0, seconds / 36), []
    async with AsyncExitStack() as stack:
        for start in work.tasks():
            stack.push_async_callback(_end, asyncio.ensure_future(start()), work.told)
        while (at := time.monotonic() - began) < seconds:
            samples.append(await asyncio.to_thread(soak_watch.sample, server, at))
            if len(samples) % 6 == 1:
                told = "  ".join(f"{name} {value:,.1f}" for name, value in samples[-1].items() if name != "cpu")
                print(f"  {told}", flush=True)
            await asyncio.sleep(max(0.0, every - (time.monotonic() - began - at)))
    return soak_watch.with_cores(samples)


async def _end(task: asyncio.Future[None], told: Told) -> None:
    if task.done() and (error := task.exception()) is not None:
        told.complain("a task of the soak ended", repr(error))
        return
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _until_told_all(everybody: list[Device], work: Work) -> list[Device]:
    """Those who are not told all after SETTLE seconds."""
    end = time.monotonic() + SETTLE
    while behind := [one for one in everybody if one.seq < work.heads[one.user]]:
        if time.monotonic() > end:
            break
        await asyncio.sleep(0.2)
    return behind


def main() -> None:
    parser = argparse.ArgumentParser(prog="make soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--sockets", type=int, default=SOCKETS)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    given = parser.parse_args()
    random.seed(given.seed)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rates, seconds = Rates(), given.minutes * 60
    print(f"  {given.sockets} sockets, {given.minutes:g} minutes, seed {given.seed}")
    home = Path(tempfile.mkdtemp(prefix="gateway-soak-"))
    try:
        (home / "soak").mkdir()
        prepare(home / "soak", users=given.sockets)
        with on_load_core(), gateway(home / "soak") as server:
            found = uvloop.run(soak(server, sockets=given.sockets, seconds=seconds, rates=rates))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    scale = {"sockets": given.sockets, "minutes": given.minutes, "seed": given.seed, "rates": asdict(rates)}
    sys.exit(0 if _report(found, scale, seconds) else 1)


def _report(found: dict[str, Any], scale: dict[str, Any], seconds: float) -> bool:
    """Whether all was well."""
    grown = soak_watch.grown(found["samples"], seconds=seconds)
    strange = {reason: count for reason, count in found["closed"].items() if reason not in MEANT}
    well = not (grown or found["wrong"] or strange or found["incomplete"])
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(soak_watch.table(found["samples"], seconds=seconds))
    for name in ("work", "frames", "closed", "late", "wrong"):
        counted = ", ".join(f"{key} {count:,}" for key, count in sorted(found[name].items()))
        console.print(f"  {name}: {counted or 'nothing'}", markup=False)
    for example in found["examples"]:
        console.print(f"  ! {example}", markup=False)
    verdict = "flat, nothing lost, nothing doubled"
    if not well:
        verdict = "NOT WELL: " + "; ".join(map(str, (*grown, *found["wrong"], *strange)))
    console.print(f"  verdict: {verdict}", markup=False)
    at = datetime.now(UTC)
    path = HERE / "results" / f"soak-{at:%Y-%m-%dT%H%M%SZ}.json"
    path.parent.mkdir(exist_ok=True)
    document = {"at": at.isoformat(timespec="seconds"), "cores": os.cpu_count(), "scale": scale, "well": well}
    path.write_text(json.dumps(document | {"grown": grown} | found, indent=1) + "\n", encoding="utf-8")
    console.print(f"  {path.relative_to(HERE.parent)}")
    return well


if __name__ == "__main__":
    main()
