"""``make bench``: the bars S1, S2, S4, S5 and S6 against the peers, interleaved in one run. Asserts nothing.

Absolute figures drift with the machine and its neighbours; the ratio to a peer in the same pair is what counts. The
server has core 0, the load core 1. Clients do not acknowledge. The figures are medians over the pairs, with the spread.

    S1  resident memory that one idle, signed-in socket adds to the server (one user each; kernel memory not counted)
    S2  upgrades a second, 64 at a time; for the gateway one is done when ``hello`` has come, for a peer at the 101
    S4  single pushes a second over 64 keep-alive connections, each to a user with an open socket, durable when answered
    S5  notifications a second by batches of 1000 over 4 connections, until the last has reached its socket
    S6  at half the rate of S4: from the moment a push is due to its frame at the client, 99th percentile
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.bars import BARS, COMMIT, EMPTY, GATEWAY, LOOP, table
from benchmarks.servers import (
    HERE,
    Load,
    Server,
    Watch,
    gateway,
    node_peer,
    prepare,
    python_peer,
    write_paths,
    write_requests,
)

BY_THE_CLOCK = " by the clock"
"""Sending at a rate, the load generator watches the clock without a pause: its core is always busy then."""
NODE_MODULE = HERE / "node_modules/ws"


@dataclass(frozen=True, slots=True)
class Scale:
    """``idle``: sockets of S1 and S2. ``users``: those with an open socket in S4 to S6."""

    pairs: int
    idle: int
    users: int
    seconds: float
    settle: float


FULL = Scale(pairs=3, idle=8000, users=1000, seconds=6, settle=3)
QUICK = Scale(pairs=1, idle=1000, users=200, seconds=2, settle=1)


@dataclass(frozen=True, slots=True)
class Pushed:
    """``rate``: notifications a second until the last answer and the last frame. ``p99``: ms from due to frame."""

    rate: float
    p99: float


@dataclass
class Bench:
    scale: Scale
    directory: Path
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    disturbed: dict[str, float] = field(default_factory=dict)
    """What was measured → cores that other processes used meanwhile, the most of all pairs."""

    def note(self, measure: str, server: str, figure: float) -> None:
        self.samples.setdefault(measure, {}).setdefault(server, []).append(figure)
        print(f"    {server:<12} {measure:<10} {figure:12,.2f}", flush=True)

    def remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)

    def judge(self, what: str, watch: Watch) -> None:
        """A figure is worth little if the load generator was the bottleneck, or somebody else used the cores."""
        if watch.load > 0.9 and not what.endswith(BY_THE_CLOCK):
            self.remark(f"{what}: the load generator used {watch.load:.0%} of its core, so it may be what was measured")
        if watch.others > 0.15:
            self.disturbed[what] = max(self.disturbed.get(what, 0), watch.others)

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
            self.judge(f"{server.name} upgrades", watch)
            if opened["failed"]:
                self.remark(f"{server.name}: {opened['failed']} of {self.scale.idle} sockets were not opened")
            self.note("upgrades", server.name, opened["opened"] / (opened["served_in"] / 1e9))
            lost = load(f"count 1 {self.scale.settle}")["lost_sockets"]
            if lost:
                self.remark(f"{server.name}: {lost} idle sockets were closed")
            self.note("idle", server.name, (server.resident() - before) / opened["opened"] / 1024)
            load("drop")

    # -- pushes ------------------------------------------------------------------------------------------------------

    def pushes(self, server: Server) -> None:
        paths, hello = self.directory / "paths", int(server.name == GATEWAY)
        seconds = self.scale.seconds
        with Load() as load:
            opened = load(f"open {server.port} {paths} {self.scale.users} 64 {hello}")
            if opened["failed"]:
                self.remark(f"{server.name}: {opened['failed']} of {self.scale.users} sockets were not opened")
            self._push(load, server, "single", 64, seconds=1)  # to warm up
            rate = self._push(load, server, "single", 64, seconds=seconds).rate
            self.note("single", server.name, rate)
            if server.name == LOOP:
                empty = self._push(load, server, "empty", 64, seconds=seconds, frames=False)
                self.note("single", EMPTY, empty.rate)
            else:
                half = self._push(load, server, "single", 64, seconds=seconds, requests_a_second=rate / 2)
                self.note("p99", server.name, half.p99)
                self._push(load, server, "batch", 4, seconds=1)
                self.note("batch", server.name, self._push(load, server, "batch", 4, seconds=seconds).rate)
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
        self.judge(f"{server.name} {requests}{BY_THE_CLOCK if requests_a_second else ''}", watch)
        if posted["refused"] or heard["frames"] != wanted:
            refused, came = posted["refused"], heard["frames"]
            self.remark(f"{server.name} {requests}: {refused} refused, {came} of {wanted} frames came")
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
        with_node = NODE_MODULE.is_dir() and shutil.which("node") is not None
        if not with_node:
            self.remark("node ws is left out: there is no node, or npm could not install ws into benchmarks/")
        for pair in range(1, scale.pairs + 1):
            print(f"  pair {pair} of {scale.pairs}")
            for starting in (self._gateway(), python_peer(LOOP, None), *([node_peer()] if with_node else [])):
                with starting as server:
                    self.idle(server)
            for starting in (self._gateway(), self._committing(), python_peer(LOOP, None)):
                with starting as server:
                    self.pushes(server)

    def _gateway(self) -> AbstractContextManager[Server]:
        """On a fresh copy of the prepared database."""
        home = Path(tempfile.mkdtemp(dir=self.directory))
        for file in (self.directory / "prepared").iterdir():
            shutil.copy(file, home)
        return gateway(home)

    def _committing(self) -> AbstractContextManager[Server]:
        return python_peer(COMMIT, Path(tempfile.mkdtemp(dir=self.directory)) / "peer.db")

    def save(self) -> Path:
        at = datetime.now(UTC)
        path = HERE / "results" / f"{at:%Y-%m-%dT%H%M%SZ}.json"
        path.parent.mkdir(exist_ok=True)
        document: dict[str, Any] = {
            "at": at.isoformat(timespec="seconds"),
            "machine": {"cores": os.cpu_count(), "kind": platform.machine(), "python": platform.python_version()},
            "scale": asdict(self.scale),
            "verdicts": {bar.number: bar.verdict(self.samples) for bar in BARS},
            "samples": self.samples,
            "remarks": self.remarks,
            "disturbed": self.disturbed,
        }
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        return path


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one pair, few sockets, short: to see that it works")
    parser.add_argument("--pairs", type=int, help="how many pairs (default 3)")
    parser.add_argument("--sockets", type=int, help="idle sockets of S1 and S2 (default 8000)")
    given = parser.parse_args()
    scale = QUICK if given.quick else FULL
    scale = Scale(given.pairs or scale.pairs, given.sockets or scale.idle, scale.users, scale.seconds, scale.settle)
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as directory:
        bench = Bench(scale, Path(directory))
        if len(os.sched_getaffinity(0)) < 2:
            bench.remark("there is only one core: server and load share it, and no figure means much")
        bench.run()
    console = Console(width=None if sys.stdout.isatty() else 180, highlight=False)
    console.print(table(bench.samples))
    for remark in bench.remarks:
        console.print(f"  ! {remark}")
    if bench.disturbed:
        what, cores = max(bench.disturbed.items(), key=lambda pair: pair[1])
        console.print(
            f"  ! other processes used the cores too, in {len(bench.disturbed)} measurements, up to {cores:.1f}"
        )
        console.print(f"    cores ({what}): run it again on a quiet machine")
    console.print(f"  {bench.save().relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
