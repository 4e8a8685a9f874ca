"""T2: the wall clock of a node jumps an hour ahead and an hour back while it runs. Nothing that is timed notices.

What has a date keeps it; heartbeats, polling and freshness are counted on another clock, which nobody can set.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from faulty import FastNode, Row
from forks import Forks
from history import Closed, Fault
from plan import Plan, Site
from rows import Scene, run_row
from wire import Node

HOUR = 3600

SHIM = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *ahead;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("CLOCK_FILE"), O_RDONLY);
    ahead = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int result = syscall(SYS_clock_gettime, clock, at);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += *ahead;
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


@pytest.fixture
def jumping(tmp_path: Path, forks: Forks) -> Iterator[tuple[FastNode, Callable[[int], None]]]:
    """A node, and what sets its clock so many seconds ahead."""
    unable = pytest.fail if os.environ.get("CI") else pytest.skip
    compiler = shutil.which("cc")
    if compiler is None:
        unable("there is no C compiler: nothing else moves the clock of one process")
    source, shim, clock = (tmp_path / name for name in ("shim.c", "shim.so", "clock"))
    source.write_text(SHIM)
    clock.write_bytes(struct.pack("q", 0))
    subprocess.run([str(compiler), "-shared", "-fPIC", "-O1", "-o", str(shim), str(source)], check=True)

    def jump(ahead: int) -> None:
        with clock.open("r+b", buffering=0) as file:
            file.write(struct.pack("q", ahead))

    prefix = ("env", f"LD_PRELOAD={shim}", f"CLOCK_FILE={clock}")
    node = FastNode(tmp_path, forks, prefix=prefix, access_token_ttl=86_400, heartbeat=2, log_level="info")
    Node.start(node)  # a process of its own: one that was forked has its C library already
    yield node, jump
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
