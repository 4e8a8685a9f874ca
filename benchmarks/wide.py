"""Wide pushes: how long the event loop stands still for one. Seen from outside, no bar. Judges nothing.

With many connected: ``user_ids`` of a thousand, durable, and ``ttl: 0`` to everyone. ``GET /healthz``, answered from
memory, is asked every five milliseconds on an open connection; the longest wait is the stall as others meet it.
The same without any push stands beside it: the noise of the machine.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bars import DURABLE, EVERYONE, QUIET
from benchmarks.load import Load
from benchmarks.people import MARK, post, prepare, sender_token, user_token, write_paths
from benchmarks.probing import Prober, share
from benchmarks.record import Record
from benchmarks.servers import Server, copied, gateway
from benchmarks.talking import get

WIDTH = 1000
EVERY = 0.005
CONTENT = {"title": "Order shipped", "body": "Arrives Friday", "data": {"at": MARK}}


@dataclass(frozen=True, slots=True)
class Scale:
    """``sockets``: whole thousands. ``pushes``: of each kind in a pair, ``rate`` a second."""

    pairs: int
    sockets: int
    pushes: int
    rate: float


FULL = Scale(pairs=5, sockets=10_000, pushes=10, rate=2)
QUICK = Scale(pairs=1, sockets=2000, pushes=5, rate=2)


@dataclass(frozen=True, slots=True)
class Wide:
    record: Record
    scale: Scale
    directory: Path

    def run(self) -> None:
        scale, home = self.scale, self.directory
        (home / "wide").mkdir()
        prepare(home / "wide", users=scale.sockets)
        write_paths(home / "wide-paths", users=scale.sockets)
        with (home / "wide-durable").open("wb") as out:
            for first in range(0, scale.sockets, WIDTH):
                ids = [f"u{number}" for number in range(first, first + WIDTH)]
                request = post("/notifications", {"user_ids": ids, **CONTENT}, sender_token())
                out.write(b"%d\n" % len(request) + request)
        request = post("/notifications", {"everyone": True, "ttl": 0, **CONTENT}, sender_token())
        (home / "wide-everyone").write_bytes(b"%d\n" % len(request) + request)
        for pair in range(1, scale.pairs + 1):
            print(f"  wide pushes, pair {pair} of {scale.pairs}")
            with gateway(copied(home / "wide")) as server, Load() as load:
                opened = load(f"open {server.port} {home / 'wide-paths'} {scale.sockets} 64 1")
                if opened["failed"]:
                    self.record.remark(f"wide: {opened['failed']} of {scale.sockets} sockets were not opened")
                self._quiet(server, load)
                self._push(server, load, DURABLE, "wide-durable", WIDTH)
                self._push(server, load, EVERYONE, "wide-everyone", opened["opened"])
                load("drop")

    def _prober(self, server: Server) -> Prober:
        return Prober(server.port, get("/healthz", user_token(0)), every=EVERY)

    def _quiet(self, server: Server, load: Load) -> None:
        with self._prober(server) as prober:
            load("count 1 2")
        self._note(QUIET, prober.between(0, time.monotonic()))

    def _push(self, server: Server, load: Load, name: str, file: str, width: int) -> None:
        scale = self.scale
        with self._prober(server) as prober:
            posted = load(f"post {server.port} {self.directory / file} 1 {scale.pushes / scale.rate} {scale.rate}")
            heard = load(f"count {posted['requests'] * width} 3")
        if posted["refused"] or heard["frames"] != posted["requests"] * width:
            wanted = posted["requests"] * width
            self.record.remark(f"wide {name}: {posted['refused']} refused, {heard['frames']} of {wanted} frames came")
        end = max(posted["to"], heard["last"]) / 1e9
        self._note(name, prober.between(posted["from"] / 1e9, end))
        self.record.note("wide last frame", name, heard["max"] / 1e6)

    def _note(self, name: str, found: list[float]) -> None:
        self.record.note("wide stall", name, found[-1] * 1000)
        self.record.note("wide p99", name, share(found, 0.99) * 1000)
