"""S11: two nodes against one on the same PostgreSQL and Redis, and a push whose user is on the other node.

*Same total work.* Everything shares the machine's cores, nothing is pinned: nodes, PostgreSQL, Redis and two load
generators, which are the same for one node and for two. A generator holds the sockets of half the users at one node and
posts to one node, to a half of the users that lies across: of two nodes' pushes every second one is for the other node.
No user is written by both: among millions they would seldom meet. Who used the processor is noted per push, because
what does not change with a second node (PostgreSQL, the load) is what bounds the gain on a machine as small as this.

*The other node.* A low rate, by the clock, posted to one node; the sockets are there, or at the other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.backends import Backends
from benchmarks.bars import LOCAL, ONE, REMOTE, SHARERS, TWO
from benchmarks.load import Load, Used
from benchmarks.people import enlist, write_paths, write_requests
from benchmarks.record import Record
from benchmarks.servers import Server

HALVES = (0, 1)
SINGLES, BATCHES = 128, 8
"""Connections that post, both generators together: 64 and 4 a node when there are two, as S4 and S5 have."""


@dataclass(frozen=True, slots=True)
class Scale:
    """``rate``: pushes a second where latency is measured."""

    pairs: int
    users: int
    seconds: float
    rate: int


FULL = Scale(pairs=5, users=2000, seconds=6, rate=200)
QUICK = Scale(pairs=1, users=400, seconds=2, rate=200)


@dataclass(frozen=True, slots=True)
class Several:
    record: Record
    backends: Backends
    scale: Scale
    directory: Path

    def run(self) -> None:
        self._write_files()
        self.backends.prepare("people", lambda connection: enlist(connection, users=self.scale.users))
        for pair in range(1, self.scale.pairs + 1):
            print(f"  one node and two, pair {pair} of {self.scale.pairs}")
            for count in (1, 2) if pair % 2 else (2, 1):
                self._saturate(self._copy(f"pair{pair}x{count}"), count)
        self._across(self._copy("across"))

    def _copy(self, name: str) -> str:
        self.backends.postgres.create(name, template="people")
        return name

    def _file(self, name: str, half: int) -> Path:
        return self.directory / f"{name}{half}"

    def _write_files(self) -> None:
        everybody = range(self.scale.users)
        for half in HALVES:
            at_one_node = [n for n in everybody if n // 2 % 2 == half]
            from_one_sender = [n for n in everybody if n % 2 == half]
            batches = "/notifications/batch"
            write_paths(self._file("sockets", half), users=at_one_node)
            write_requests(self._file("to", half), target="/notifications", users=at_one_node, each=0)
            write_requests(self._file("single", half), target="/notifications", users=from_one_sender, each=0)
            write_requests(self._file("batch", half), target=batches, users=from_one_sender, each=1000)

    def _open(self, load: Load, server: Server, half: int) -> None:
        opened = load(f"open {server.port} {self._file('sockets', half)} {self.scale.users // 2} 64 1")
        if opened["failed"]:
            self.record.remark(f"{server.name}: {opened['failed']} sockets were not opened")

    # -- the same work -------------------------------------------------------------------------------------------------

    def _saturate(self, database: str, count: int) -> None:
        name = TWO if count == 2 else ONE
        with (
            self.backends.nodes(count, database) as nodes,
            Load(core=None) as first,
            Load(core=None) as second,
        ):
            loads, asked = (first, second), (nodes[0], nodes[-1])
            for half in HALVES:
                self._open(loads[half], asked[half], half)
            for kind, connections, each in (("single", SINGLES, 1), ("batch", BATCHES, 1000)):
                self._post(loads, asked, kind, connections, each, seconds=1)
                used = Used(
                    gateway=[node.pid for node in nodes], postgres=[self.backends.postgres.pid],
                    redis=[self.backends.redis.pid], load=[load.pid for load in loads],
                )  # fmt: skip
                with used:
                    amount, rate = self._post(loads, asked, kind, connections, each, seconds=self.scale.seconds)
                self.record.note(f"nodes {kind}", name, rate)
                ours = {who: used[who] for who in SHARERS}
                for who, seconds in ours.items():
                    self.record.note(f"{kind} {who}", name, seconds / amount * 1e6)
                self.record.shared(f"{name} {kind}", (used["everything"] - sum(ours.values())) / used["time"])
            for load in loads:
                load("drop")

    def _post(
        self, loads: Sequence[Load], nodes: Sequence[Server], kind: str, connections: int, each: int, *, seconds: float
    ) -> tuple[int, float]:
        """How many were pushed, and how many a second until the last answer and the last frame."""
        posting = [
            load.begin(f"post {node.port} {self._file(kind, half)} {connections // 2} {seconds} 0")
            for half, load, node in zip(HALVES, loads, nodes, strict=True)
        ]
        posted = [answer() for answer in posting]
        amount = sum(one["requests"] for one in posted) * each
        counting = [load.begin(f"count {amount} 0.5") for load in loads]  # which of them gets how many is left open
        heard = [answer() for answer in counting]
        self._complain(kind, posted, sum(one["frames"] for one in heard), amount)
        last = max(max(one["to"] for one in posted), max(one["last"] for one in heard))
        return amount, amount / ((last - min(one["from"] for one in posted)) / 1e9)

    def _complain(self, kind: str, posted: Sequence[dict[str, Any]], frames: int, amount: int) -> None:
        refused = sum(one["refused"] for one in posted)
        if refused or frames != amount:
            self.record.remark(f"nodes {kind}: {refused} refused, {frames} of {amount} frames came")

    # -- the other node ------------------------------------------------------------------------------------------------

    def _across(self, database: str) -> None:
        scale = self.scale
        with self.backends.nodes(2, database) as nodes, Load() as near, Load() as far:
            for half, load in ((0, near), (1, far)):
                self._open(load, nodes[half], half)
            used = Used(gateway=[node.pid for node in nodes])
            with used:
                near("count 1 3")
            idle = used["gateway"] / used["time"]
            for _ in range(2 * scale.pairs):
                for half, load, name in ((0, near, LOCAL), (1, far, REMOTE)):
                    with used:
                        posted = load(f"post {nodes[0].port} {self._file('to', half)} 8 {scale.seconds} {scale.rate}")
                        heard = load(f"count {posted['requests']} 5")
                    self._complain(name, [posted], heard["frames"], posted["requests"])
                    work = used["gateway"] - idle * used["time"]
                    self.record.note("cpu", name, work / posted["requests"] * 1e6)
                    self.record.note("p50", name, heard["p50"] / 1e6)
                    self.record.note("p99 across", name, heard["p99"] / 1e6)
            for load in (near, far):
                load("drop")
