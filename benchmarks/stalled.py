"""S13: readers that stop reading among sockets that go on: what the others notice, what each costs. Judges nothing.

The server has core 0, the load core 1. First all read. The same pushes come by the clock, one of eleven for somebody
who will stall, and the latency is that of the others alone. Then a part stops reading for ever, and pushes of 4 KB
stream at them, stored nowhere, until the gateway writes nothing more to them; and the same is measured again. That is
over before the gateway ends them: it does when one has taken nothing for half a minute. Memory is what the server's
process and the kernel for its sockets grew by meanwhile, through the number of the stalled.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import kernel
from benchmarks.bars import GATEWAY, READING, STALLED
from benchmarks.load import Load, Watch
from benchmarks.people import gauges, post, prepare, sender_token, write_paths, write_requests
from benchmarks.record import BY_THE_CLOCK, Record
from benchmarks.servers import Server, copied, gateway

OTHERS_FOR_ONE = 10
"""Pushes to those that read, for one to those that stall."""
FILLS, FILLS_A_SECOND = 120, 60
"""Pushes of 4 KB to each of those that stall: 480 KB, well over what two kernels buffer for one socket."""
WIDEST = 1000
SETTLE = 1.0


@dataclass(frozen=True, slots=True)
class Scale:
    """``stalled``: of the ``sockets``. ``rate``: pushes a second while it is measured."""

    pairs: int
    sockets: int
    stalled: int
    seconds: float
    rate: int


FULL = Scale(pairs=5, sockets=5000, stalled=1000, seconds=6, rate=2000)
QUICK = Scale(pairs=1, sockets=1000, stalled=200, seconds=2, rate=1000)


@dataclass(frozen=True, slots=True)
class Stalled:
    record: Record
    scale: Scale
    directory: Path

    def run(self) -> None:
        scale, home = self.scale, self.directory
        if kernel.is_missing():
            self.record.remark("S13: there is no ss (iproute2): the kernel's memory is not known")
            return
        (home / "stalled").mkdir()
        prepare(home / "stalled", users=scale.sockets)
        reading, stalling = range(scale.stalled, scale.sockets), range(scale.stalled)
        write_paths(home / "reading-paths", users=reading)
        write_paths(home / "stalling-paths", users=stalling)
        meant = [
            number % scale.stalled if number % (OTHERS_FOR_ONE + 1) == 0 else scale.stalled + number % len(reading)
            for number in range((OTHERS_FOR_ONE + 1) * 1000)
        ]
        write_requests(home / "mixed", target="/notifications", users=meant, each=0)
        filler = {"title": "filler", "body": "x" * 4000, "ttl": 0}
        widest = [f"u{number}" for number in stalling][:WIDEST]
        request = post("/notifications", {"user_ids": widest, **filler}, sender_token())
        (home / "filler").write_bytes(b"%d\n" % len(request) + request)
        for pair in range(1, scale.pairs + 1):
            print(f"  stalled readers, pair {pair} of {scale.pairs}")
            with gateway(copied(home / "stalled")) as server, Load() as load, Load() as idle:
                self._measure(server, load, idle)

    def _measure(self, server: Server, load: Load, idle: Load) -> None:
        scale, home = self.scale, self.directory
        load(f"open {server.port} {home / 'reading-paths'} {scale.sockets - scale.stalled} 64 1")
        idle(f"open {server.port} {home / 'stalling-paths'} {scale.stalled} 64 1")
        self._fill(server, load)
        self._push(server, load, seconds=1)  # warms up
        self.record.note("stalled p99", READING, self._push(server, load, seconds=scale.seconds))
        time.sleep(SETTLE)
        process, sockets = server.resident(), kernel.bytes_of(server.port)
        idle("stall")
        self._fill(server, load)
        time.sleep(SETTLE)
        grown = server.resident() - process, kernel.bytes_of(server.port) - sockets
        self.record.note("stalled p99", STALLED, self._push(server, load, seconds=scale.seconds))
        ended = scale.sockets - int(gauges(server)["gateway_connections"])
        if ended:
            self.record.remark(f"S13: {ended} sockets were ended before the measure was")
        self.record.note("stalled memory", GATEWAY, sum(grown) / scale.stalled / 1024)
        self.record.note("stalled memory, process", GATEWAY, grown[0] / scale.stalled / 1024)
        self.record.note("stalled memory, kernel", GATEWAY, grown[1] / scale.stalled / 1024)
        load("drop")

    def _fill(self, server: Server, load: Load) -> None:
        seconds = FILLS / FILLS_A_SECOND
        posted = load(f"post {server.port} {self.directory / 'filler'} 1 {seconds} {FILLS_A_SECOND}")
        if posted["refused"]:
            self.record.remark(f"S13: {posted['refused']} of {FILLS} pushes that fill were refused")

    def _push(self, server: Server, load: Load, *, seconds: float) -> float:
        """Milliseconds, the 99th percentile of those that read."""
        with Watch(server, load) as watch:
            posted = load(f"post {server.port} {self.directory / 'mixed'} 64 {seconds} {self.scale.rate}")
            heard = load(f"count {posted['requests']} 1")  # all that come: those of the others are not for it
        self.record.judge(f"S13{BY_THE_CLOCK}", watch)
        wanted = posted["requests"] * OTHERS_FOR_ONE / (OTHERS_FOR_ONE + 1)
        if posted["refused"] or abs(heard["frames"] - wanted) > 2 * OTHERS_FOR_ONE:
            self.record.remark(f"S13: {posted['refused']} refused, {heard['frames']} of {wanted:.0f} frames came")
        return float(heard["p99"]) / 1e6
