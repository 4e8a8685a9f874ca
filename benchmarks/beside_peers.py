"""S1, S2, S4, S5 and S6: one node on SQLite beside the peers, interleaved. Judges nothing.

The server has core 0, the load core 1. Clients do not acknowledge.

    S1  resident memory that one idle, signed-in socket adds to the server (one user each; kernel memory not counted)
    S2  upgrades a second, 64 at a time; for the gateway one is done when ``hello`` has come, for a peer at the 101
    S4  single pushes a second over 64 keep-alive connections, each to a user with an open socket, durable when answered
    S5  notifications a second by batches of 1000 over 4 connections, until the last has reached its socket
    S6  at half the rate of S4: from the moment a push is due to its frame at the client, 99th percentile
"""

from __future__ import annotations

import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bars import COMMIT, EMPTY, GATEWAY, LOOP
from benchmarks.load import Load, Watch
from benchmarks.people import prepare, write_paths, write_requests
from benchmarks.record import BY_THE_CLOCK, Record
from benchmarks.servers import NODE_MISSING, Server, copied, gateway, node_is_missing, node_peer, python_peer


@dataclass(frozen=True, slots=True)
class Scale:
    """``idle``: sockets of S1 and S2. ``users``: those with an open socket in S4 to S6."""

    pairs: int
    idle: int
    users: int
    seconds: float
    settle: float


FULL = Scale(pairs=5, idle=8000, users=1000, seconds=6, settle=3)
QUICK = Scale(pairs=1, idle=1000, users=200, seconds=2, settle=1)


@dataclass(frozen=True, slots=True)
class Pushed:
    """``rate``: notifications a second until the last answer and the last frame. ``p99``: ms from due to frame."""

    rate: float
    p99: float


@dataclass(frozen=True, slots=True)
class BesidePeers:
    record: Record
    scale: Scale
    directory: Path

    # -- sockets that only sit there ---------------------------------------------------------------------------------

    def idle(self, server: Server) -> None:
        paths, hello = self.directory / "paths", int(server.name == GATEWAY)
        with Load() as load:
            load(f"open {server.port} {paths} {min(200, self.scale.idle)} 64 {hello}")  # buys what is bought once
            load("drop")
            load(f"count 1 {self.scale.settle}")
            before = server.resident()
            with Watch(server, load) as watch:
                opened = load(f"open {server.port} {paths} {self.scale.idle} 64 {hello}")
            self.record.judge(f"{server.name} upgrades", watch)
            if opened["failed"]:
                self.record.remark(f"{server.name}: {opened['failed']} of {self.scale.idle} sockets were not opened")
            self.record.note("upgrades", server.name, opened["opened"] / (opened["served_in"] / 1e9))
            lost = load(f"count 1 {self.scale.settle}")["lost_sockets"]
            if lost:
                self.record.remark(f"{server.name}: {lost} idle sockets were closed")
            self.record.note("idle", server.name, (server.resident() - before) / opened["opened"] / 1024)
            load("drop")

    # -- pushes ------------------------------------------------------------------------------------------------------

    def pushes(self, server: Server) -> None:
        paths, hello = self.directory / "paths", int(server.name == GATEWAY)
        seconds = self.scale.seconds
        with Load() as load:
            opened = load(f"open {server.port} {paths} {self.scale.users} 64 {hello}")
            if opened["failed"]:
                self.record.remark(f"{server.name}: {opened['failed']} of {self.scale.users} sockets were not opened")
            self._push(load, server, "single", 64, seconds=1)  # to warm up
            rate = self._push(load, server, "single", 64, seconds=seconds).rate
            self.record.note("single", server.name, rate)
            if server.name == LOOP:
                empty = self._push(load, server, "empty", 64, seconds=seconds, frames=False)
                self.record.note("single", EMPTY, empty.rate)
            else:
                half = self._push(load, server, "single", 64, seconds=seconds, requests_a_second=rate / 2)
                self.record.note("p99", server.name, half.p99)
                self._push(load, server, "batch", 4, seconds=1)
                self.record.note("batch", server.name, self._push(load, server, "batch", 4, seconds=seconds).rate)
            load("drop")

    def _push(
        self,
        load: Load,
        server: Server,
        requests: str,
        connections: int,
        *,
        seconds: float,
        requests_a_second: float = 0,
        frames: bool = True,
    ) -> Pushed:
        each = 1000 if requests == "batch" else 1
        file = self.directory / requests
        with Watch(server, load) as watch:
            posted = load(f"post {server.port} {file} {connections} {seconds} {requests_a_second}")
            wanted = posted["requests"] * each if frames else 0
            heard = load(f"count {wanted} 5")
        self.record.judge(f"{server.name} {requests}{BY_THE_CLOCK if requests_a_second else ''}", watch)
        if posted["refused"] or heard["frames"] != wanted:
            refused, came = posted["refused"], heard["frames"]
            self.record.remark(f"{server.name} {requests}: {refused} refused, {came} of {wanted} frames came")
        last = max(posted["to"], heard["last"]) if frames else posted["to"]
        return Pushed(posted["requests"] * each / ((last - posted["from"]) / 1e9), heard["p99"] / 1e6)

    # -- the run -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        scale, home = self.scale, self.directory
        (home / "prepared").mkdir()
        prepare(home / "prepared", users=max(scale.idle, scale.users))
        write_paths(home / "paths", users=max(scale.idle, scale.users))
        write_requests(home / "single", target="/notifications", users=scale.users, each=0)
        write_requests(home / "empty", target="/empty", users=scale.users, each=0)
        write_requests(home / "batch", target="/notifications/batch", users=scale.users, each=1000)
        with_node = not node_is_missing()
        if not with_node:
            self.record.remark(f"S1, S2: {NODE_MISSING}")
        for pair in range(1, scale.pairs + 1):
            print(f"  pair {pair} of {scale.pairs}")
            for starting in (self._gateway(), python_peer(LOOP, None), *([node_peer()] if with_node else [])):
                with starting as server:
                    self.idle(server)
            for starting in (self._gateway(), self._committing(), python_peer(LOOP, None)):
                with starting as server:
                    self.pushes(server)

    def _gateway(self) -> AbstractContextManager[Server]:
        return gateway(copied(self.directory / "prepared"))

    def _committing(self) -> AbstractContextManager[Server]:
        return python_peer(COMMIT, Path(tempfile.mkdtemp(dir=self.directory)) / "peer.db")
