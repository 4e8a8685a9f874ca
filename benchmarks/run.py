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
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.servers import (
    HERE,
    Load,
    Server,
    cpu_seconds,
    gateway,
    node_peer,
    prepare,
    python_peer,
    write_paths,
    write_requests,
)

GATEWAY, LOOP, COMMIT, NODE = "gateway", "looping", "committing", "node ws"
EMPTY = "empty route"
NODE_MODULE = HERE / "node_modules/ws"


@dataclass(frozen=True, slots=True)
class Scale:
    pairs: int
    idle: int
    """Sockets of S1 and S2."""
    users: int
    """Users with an open socket in S4 to S6."""
    seconds: float
    settle: float


FULL = Scale(pairs=3, idle=8000, users=1000, seconds=6, settle=3)
QUICK = Scale(pairs=1, idle=1000, users=200, seconds=2, settle=1)


@dataclass(frozen=True, slots=True)
class Bar:
    """``measure`` of the gateway against ``bound``: times the peer's, or as it stands if there is no peer."""

    number: str
    what: str
    measure: str
    peer: str | None
    unit: str
    bound: float
    stretch: float
    at_most: bool = False
    relative: bool = False

    def kept(self, figure: float, bound: float) -> bool:
        return figure <= bound if self.at_most else figure >= bound


BARS = (
    Bar("S1", "idle memory per socket", "idle", LOOP, "KB", 8, 5, at_most=True),
    Bar("S2", "upgrades", "upgrades", LOOP, "/s", 2.5, 4, relative=True),
    Bar("S4", "durable single pushes", "single", COMMIT, "/s", 5, float("inf"), relative=True),
    Bar("S5", "durable, by batches of 1000", "batch", COMMIT, "/s", 15_000, 30_000),
    Bar("S6", "push to frame, p99", "p99", COMMIT, "ms", 15, 5, at_most=True),
)


@dataclass
class Bench:
    scale: Scale
    directory: Path
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """measure → server → one figure per pair."""
    remarks: list[str] = field(default_factory=list)

    def note(self, measure: str, server: str, figure: float) -> None:
        self.samples.setdefault(measure, {}).setdefault(server, []).append(figure)
        print(f"    {server:<12} {measure:<12} {figure:,.2f}", flush=True)

    def remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)

    # -- sockets that only sit there ---------------------------------------------------------------------------------

    def idle(self, server: Server) -> None:
        hello = int(server.name == GATEWAY)
        paths = self.directory / "paths"
        with Load() as load:
            load(f"open {server.port} {paths} {min(200, self.scale.idle)} 64 {hello}")  # buys what is bought once
            load("drop")
            load(f"count 1 {self.scale.settle}")
            before, busy = server.resident(), cpu_seconds(load.pid)
            opened = load(f"open {server.port} {paths} {self.scale.idle} 64 {hello}")
            busy = cpu_seconds(load.pid) - busy
            if opened["opened"] < self.scale.idle:
                self.remark(f"{server.name}: {opened['failed']} of {self.scale.idle} sockets were not opened")
            seconds = opened["served_in"] / 1e9
            self._judge_load(f"{server.name} upgrades", busy / seconds)
            self.note("upgrades", server.name, opened["opened"] / seconds)
            lost = load(f"count 1 {self.scale.settle}")["lost_sockets"]
            if lost:
                self.remark(f"{server.name}: {lost} idle sockets were closed")
            self.note("idle", server.name, (server.resident() - before) / opened["opened"] / 1024)
            load("drop")

    # -- pushes ------------------------------------------------------------------------------------------------------

    def pushes(self, server: Server) -> None:
        with Load() as load:
            opened = load(
                f"open {server.port} {self.directory / 'paths'} {self.scale.users} 64 {int(server.name == GATEWAY)}"
            )
            if opened["opened"] < self.scale.users:
                self.remark(f"{server.name}: {opened['failed']} of {self.scale.users} sockets were not opened")
            self._push(load, server, "single", 64, seconds=1)
            rate, _ = self._push(load, server, "single", 64)
            self.note("single", server.name, rate)
            if server.name == LOOP:
                self.note("single", EMPTY, self._push(load, server, "empty", 64, frames=False)[0])
            else:
                _, slowest = self._push(load, server, "single", 64, rate=rate / 2)
                self.note("p99", server.name, slowest)
                self._push(load, server, "batch", 4, seconds=1)
                self.note("batch", server.name, self._push(load, server, "batch", 4)[0])
            load("drop")

    def _push(
        self,
        load: Load,
        server: Server,
        requests: str,
        connections: int,
        *,
        seconds: float | None = None,
        rate: float = 0,
        frames: bool = True,
    ) -> tuple[float, float]:
        """(notifications a second until the last answer and the last frame, p99 in ms from due to frame)."""
        each = 1000 if requests == "batch" else 1
        busy = cpu_seconds(load.pid)
        file = self.directory / requests
        posted = load(f"post {server.port} {file} {connections} {seconds or self.scale.seconds} {rate}")
        wanted = posted["requests"] * each if frames else 0
        heard = load(f"count {wanted} 5")
        if posted["refused"] or (frames and heard["frames"] != wanted):
            self.remark(
                f"{server.name}, {requests}: {posted['refused']} refused, {heard['frames']} of {wanted} frames came"
            )
        took = (max(posted["to"], heard["last"] if frames else 0) - posted["from"]) / 1e9
        if not rate and seconds is None:
            self._judge_load(f"{server.name} {requests}", (cpu_seconds(load.pid) - busy) / took)
        return posted["requests"] * each / took, heard["p99"] / 1e6

    def _judge_load(self, what: str, share: float) -> None:
        if share > 0.9:
            self.remark(f"{what}: the load generator used {share:.0%} of its core, so it may be what was measured")

    # -- the run -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        scale, home = self.scale, self.directory
        (home / "prepared").mkdir()
        prepare(home / "prepared", users=max(scale.idle, scale.users))
        write_paths(home / "paths", users=max(scale.idle, scale.users))
        write_requests(home / "single", target="/notifications", users=scale.users, each=0)
        write_requests(home / "empty", target="/empty", users=scale.users, each=0)
        write_requests(home / "batch", target="/notifications/batch", users=scale.users, each=1000)
        for pair in range(1, scale.pairs + 1):
            print(f"  pair {pair} of {scale.pairs}")
            with_sockets: list[AbstractContextManager[Server]] = [self._gateway(), python_peer(LOOP, None)]
            if NODE_MODULE.is_dir() and shutil.which("node"):
                with_sockets.append(node_peer())
            else:
                self.remark("node ws is not installed (npm install --prefix benchmarks ws): left out")
            for starting in with_sockets:
                with starting as server:
                    self.idle(server)
            for make in (self._gateway, self._committing, lambda: python_peer(LOOP, None)):
                with make() as server:
                    self.pushes(server)

    def _gateway(self) -> AbstractContextManager[Server]:
        """On a fresh copy of the prepared database."""
        home = Path(tempfile.mkdtemp(dir=self.directory))
        for file in (self.directory / "prepared").iterdir():
            shutil.copy(file, home)
        return gateway(home)

    def _committing(self) -> AbstractContextManager[Server]:
        return python_peer(COMMIT, Path(tempfile.mkdtemp(dir=self.directory)) / "peer.db")

    # -- what came of it ---------------------------------------------------------------------------------------------

    def figures(self, measure: str, server: str) -> list[float]:
        return self.samples.get(measure, {}).get(server, [])

    def ratios(self, measure: str, peer: str) -> list[float]:
        pairs = zip(self.figures(measure, GATEWAY), self.figures(measure, peer), strict=False)
        return [ours / theirs for ours, theirs in pairs if theirs]

    def table(self) -> Table:
        table = Table(title="gateway against its peers: medians (lowest – highest of the pairs)")
        for column in ("bar", "what", "gateway", "peer", "ratio", "asked", "stretch", ""):
            table.add_column(column, justify="right" if column in {"gateway", "peer", "ratio"} else "left")
        for bar in BARS:
            ours, theirs = self.figures(bar.measure, GATEWAY), self.figures(bar.measure, bar.peer or "")
            ratios = self.ratios(bar.measure, bar.peer or "")
            judged = ratios if bar.relative else ours
            sign = "≤" if bar.at_most else "≥"
            unit = "×" if bar.relative else f" {bar.unit}"
            asked = [
                f"{sign} {bound:g}{unit}" if bound != float("inf") else EMPTY for bound in (bar.bound, bar.stretch)
            ]
            verdict = "missed" if not judged or not bar.kept(statistics.median(judged), bar.bound) else "kept"
            table.add_row(
                *(bar.number, bar.what, _spread(ours, bar.unit), f"{bar.peer} {_spread(theirs, bar.unit)}"),
                *(_spread(ratios, "×"), *asked, verdict),
            )
        for measure, server, what in (
            ("idle", NODE, "S1 beside: KB, no token check"),
            ("upgrades", NODE, "S2 beside: no token check"),
            ("single", LOOP, "S4 beside: stores nothing"),
            ("single", EMPTY, "S4 beside: does nothing"),
        ):
            ours = self.figures(measure, GATEWAY)
            table.add_row("", what, _spread(ours), f"{server} {_spread(self.figures(measure, server))}", "", "", "", "")
        return table

    def save(self) -> Path:
        at = datetime.now(UTC)
        path = HERE / "results" / f"{at:%Y-%m-%dT%H%M%SZ}.json"
        path.parent.mkdir(exist_ok=True)
        machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        document: dict[str, Any] = {"at": at.isoformat(timespec="seconds"), "machine": machine}
        document |= {"scale": asdict(self.scale), "samples": self.samples, "remarks": self.remarks}
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        return path


def _spread(figures: list[float], unit: str = "") -> str:
    if not figures:
        return "–"
    show: Callable[[float], str] = lambda figure: f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.2f}"  # noqa: E731
    middle = show(statistics.median(figures)) + (unit if unit in {"×", "/s"} else f" {unit}" if unit else "")
    return middle if len(figures) == 1 else f"{middle} ({show(min(figures))} – {show(max(figures))})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one pair, few sockets, short: to see that it works")
    parser.add_argument("--pairs", type=int, help="how many pairs (default 3)")
    parser.add_argument("--sockets", type=int, help="idle sockets of S1 and S2 (default 8000)")
    given = parser.parse_args()
    scale = QUICK if given.quick else FULL
    scale = Scale(given.pairs or scale.pairs, given.sockets or scale.idle, scale.users, scale.seconds, scale.settle)
    if len(os.sched_getaffinity(0)) < 2:
        print("only one core: server and load share it, and no bar means much", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as directory:
        bench = Bench(scale, Path(directory))
        bench.run()
    console = Console(width=max(160, Console().width) if not sys.stdout.isatty() else None)
    console.print(bench.table())
    for remark in bench.remarks:
        console.print(f"  ! {remark}")
    print(f"  {bench.save().relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
