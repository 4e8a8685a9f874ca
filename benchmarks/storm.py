"""S7: all sockets are cut at once, each user misses twenty stored notifications, all come back at once. Judges nothing.

The server has core 0, the load core 1. No backoff and no jitter: every client dials in the same moment, as no client
that keeps to the protocol would. The clock runs from the first dial until the last socket has got its ``hello`` and all
that it missed. Meanwhile ``GET /auth/me`` is asked every 20 ms on a connection that was open before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.bars import GATEWAY, LOOP
from benchmarks.load import Load, Watch
from benchmarks.people import prepare, user_token, write_paths, write_requests
from benchmarks.probing import Prober, share
from benchmarks.record import Record
from benchmarks.servers import Server, copied, gateway, python_peer
from benchmarks.talking import get

MISSED = 20
EVERY = 0.02


@dataclass(frozen=True, slots=True)
class Scale:
    """``sockets``: whole thousands."""

    pairs: int
    sockets: int


FULL = Scale(pairs=5, sockets=5000)
QUICK = Scale(pairs=1, sockets=1000)


@dataclass(frozen=True, slots=True)
class Storm:
    record: Record
    scale: Scale
    directory: Path

    def run(self) -> None:
        home, sockets = self.directory, self.scale.sockets
        (home / "storm").mkdir()
        prepare(home / "storm", users=sockets)
        write_paths(home / "storm-paths", users=sockets)
        write_requests(home / "storm-batch", target="/notifications/batch", users=sockets, each=1000)
        for pair in range(1, self.scale.pairs + 1):
            print(f"  reconnect storm, pair {pair} of {self.scale.pairs}")
            with gateway(copied(home / "storm")) as server:
                self._measure(server, missed=MISSED, probe=get("/auth/me", user_token(0)))
            with python_peer(LOOP, None) as server:  # it has nothing to replay
                self._measure(server, missed=0, probe=get("/readyz", user_token(0)))

    def _measure(self, server: Server, *, missed: int, probe: bytes) -> None:
        sockets, paths, hello = self.scale.sockets, self.directory / "storm-paths", int(server.name == GATEWAY)
        with Load() as load:
            load(f"open {server.port} {paths} {sockets} 64 {hello}")
            load("drop")
            if missed:
                self._push(load, server, sockets * missed // 1000)
            with Watch(server, load) as watch, Prober(server.port, probe, every=EVERY) as prober:
                opened = load(f"open {server.port} {paths} {sockets} {sockets} {hello}")
                heard = load(f"count {sockets * missed} 5")
            self.record.judge(f"S7 {server.name}", watch)
            begin = opened["from"]
            end = max(begin + opened["served_in"], heard["last"] if missed else 0)
            complete = load(f"census {missed}")["complete"]
            if complete != sockets:
                self.record.remark(f"S7, {server.name}: {complete} of {sockets} sockets were complete")
            if prober.refused:
                self.record.remark(f"S7, {server.name}: REST was refused {prober.refused} times")
            self.record.note("storm", server.name, (end - begin) / 1e9)
            self.record.note("storm upgrades, s", server.name, opened["served_in"] / 1e9)
            self.record.note("storm rest", server.name, share(prober.between(begin / 1e9, end / 1e9), 0.99) * 1000)
            load("drop")

    def _push(self, load: Load, server: Server, batches: int) -> None:
        """So many batches, as fast as they are taken; each is a round, or a part of one, through the users."""
        posted = load(f"post {server.port} {self.directory / 'storm-batch'} 4 {batches / 1000} 1000")
        if posted["requests"] != batches or posted["refused"]:
            self.record.remark(f"S7: {posted['refused']} of {batches} batches were refused")
