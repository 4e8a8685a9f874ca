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

from benchmarks.backends import Backends
from benchmarks.bars import LOCAL, ONE, REMOTE, SHARERS, TWO
from benchmarks.load import Load, Used
from benchmarks.record import Record
from benchmarks.servers import Server, enlist, write_paths, write_requests

HALVES = (0, 1)


@dataclass(frozen=True, slots=True)
class Scale:
    """``rate``: pushes a second where latency is measured."""

    pairs: int
    users: int
    seconds: float
    rate: int


@dataclass(frozen=True, slots=True)
class Several:
    record: Record
    backends: Backends
    scale: Scale
    directory: Path

    def run(self) -> None:
        users = self.scale.users
        self.backends.prepare("people", lambda connection: enlist(connection, users=users))
        for half in HALVES:
            write_paths(self._file("sockets", half), users=users, only=lambda n, half=half: n // 2 % 2 == half)  # type: ignore[misc]
            for name, target, each in (
                ("single", "/notifications", 0),
                ("batch", "/notifications/batch", 1000),
            ):
                write_requests(
                    self._file(name, half), target=target, users=users, each=each,
                    only=lambda n, half=half: n % 2 == half,  # type: ignore[misc]
                )  # fmt: skip
            write_requests(
                self._file("to", half), target="/notifications", users=users, each=0,
                only=lambda n, half=half: n // 2 % 2 == half,  # type: ignore[misc]
            )  # fmt: skip
