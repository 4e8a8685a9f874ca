"""S10: what a database of many rows costs that one of few does not. One client, one thing at a time, in turns.

Every user has the same amount stored; only how many such users there are differs, and they are asked for at random. So
the ratio holds what grows: deeper indexes, pages that are in no cache of the database. Both databases are served at the
same time, each by its own gateway on core 0; the client has core 1, PostgreSQL any.

    replay  connect, ``hello``, and the last hundred rows
    list    ``GET /inbox``, a page of fifty
    push    one notification, until it is durable
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.backends import Backends
from benchmarks.bars import LARGE, SMALL
from benchmarks.filling import BYTES_A_ROW, EACH, in_postgres, in_sqlite
from benchmarks.load import Used
from benchmarks.people import post, sender_token, user_token
from benchmarks.probing import on_load_core
from benchmarks.record import Record
from benchmarks.servers import Server, in_directory, node
from benchmarks.talking import Refused, Wire, get

KINDS = ("replay", "list", "push")
REPLAYED, LISTED = 100, 50
FEW = 10_000
SETTLE = 5.0
"""Seconds after the start: the janitor has looked round."""


@dataclass(frozen=True, slots=True)
class Scale:
    """``blocks`` pairs of blocks; in each one ``times`` of every kind."""

    rows: int
    blocks: int
    times: int


FULL = Scale(rows=10_000_000, blocks=12, times=100)
QUICK = Scale(rows=200_000, blocks=3, times=50)


@dataclass
class Visited:
    """A gateway and its users: visits of one of them, picked at random. ``heads``: where it is no longer EACH."""

    server: Server
    users: int
    heads: dict[int, int] = field(default_factory=dict)
    chance: random.Random = field(default_factory=lambda: random.Random(11))

    def epoch(self) -> str:
        with Wire(self.server.port) as wire:
            return str(json.loads(wire.ask(get("/inbox", user_token(0)), expect=200))["epoch"])

    def _anybody(self) -> int:
        return self.chance.randrange(self.users)

    def replay(self, epoch: str) -> float:
        """Seconds that it took. Raises Refused, as all of these."""
        user = self._anybody()
        path = f"/ws?token={user_token(user)}&after={self.heads.get(user, EACH) - REPLAYED}&epoch={epoch}"
        began = time.perf_counter()
        with Wire(self.server.port) as wire:
            wire.upgrade(path)
            wire.texts(1 + REPLAYED)
            return time.perf_counter() - began

    def list(self, wire: Wire) -> float:
        request = get(f"/inbox?limit={LISTED}", user_token(self._anybody()))
        began = time.perf_counter()
        wire.ask(request, expect=200)
        return time.perf_counter() - began

    def push(self, wire: Wire) -> float:
        user = self._anybody()
        body = {"user_id": f"u{user}", "title": "Order shipped", "body": "Arrives Friday", "data": {"order": 1234}}
        request = post("/notifications", body, sender_token())
        began = time.perf_counter()
        answer = wire.ask(request, expect=201)
        took = time.perf_counter() - began
        self.heads[user] = json.loads(answer)["seq"]
        return took


def room(directory: Path, *, rows: int) -> str | None:
    """Why ``rows`` cannot be stored there, or None."""
    free, wanted = shutil.disk_usage(directory).free, rows * BYTES_A_ROW
    return f"{wanted >> 30} GB are wanted in {directory}, {free >> 30} are free" if free < wanted else None


def on_sqlite(record: Record, directory: Path, scale: Scale) -> None:
    with ExitStack() as stack:
        visited = []
        for name, rows in ((SMALL, FEW), (LARGE, scale.rows)):
            home = directory / f"{rows} rows"
            home.mkdir()
            stack.callback(shutil.rmtree, home)
            print(f"  storing {rows:,} rows in SQLite", flush=True)
            with _timed(record, "sqlite storing, s", name):
                in_sqlite(home, rows=rows)
            with _timed(record, "sqlite ready, s", name):
                server = stack.enter_context(node(f"gateway-{rows}", in_directory(home)))
            visited.append(Visited(server, rows // EACH))
        _compare(record, "sqlite", *visited, scale=scale, database=())


def on_postgres(record: Record, backends: Backends, scale: Scale) -> None:
    with ExitStack() as stack:
        visited = []
        for name, rows in ((SMALL, FEW), (LARGE, scale.rows)):
            database = f"rows{rows}"
            print(f"  storing {rows:,} rows in PostgreSQL", flush=True)
            stack.callback(backends.postgres.drop, database)
            with _timed(record, "postgres storing, s", name):
                in_postgres(backends, database, rows=rows)
            with _timed(record, "postgres ready, s", name):
                server = stack.enter_context(node(f"gateway-{rows}", backends.postgres.url(database)))
            visited.append(Visited(server, rows // EACH))
        _compare(record, "postgres", *visited, scale=scale, database=(backends.postgres.pid,))


@contextmanager
def _timed(record: Record, measure: str, name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    record.note(measure, name, time.monotonic() - began)


def _compare(
    record: Record, engine: str, small: Visited, large: Visited, *, scale: Scale, database: Sequence[int]
) -> None:
    with on_load_core():
        time.sleep(SETTLE)
        both = [(SMALL, small, small.epoch()), (LARGE, large, large.epoch())]
        for block in range(scale.blocks + 1):
            both.reverse()
            for kind in KINDS:
                for name, visited, epoch in both:
                    used = Used(ours=(visited.server.pid, *database))
                    with used:
                        took = _took(record, visited, kind, epoch, scale.times)
                    if block:  # the first warms up
                        record.note(f"{engine} {kind}", name, statistics.median(took) * 1000)
                        record.note(f"{engine} {kind} cpu", name, used["ours"] / len(took) * 1000)


def _took(record: Record, visited: Visited, kind: str, epoch: str, times: int) -> list[float]:
    """Seconds of each, one after the other. What is refused does not count."""
    took: list[float] = []
    with Wire(visited.server.port) as wire:
        for _ in range(times):
            try:
                if kind == "replay":
                    took.append(visited.replay(epoch))
                else:
                    took.append(visited.list(wire) if kind == "list" else visited.push(wire))
            except Refused as refused:
                record.remark(f"growth: {refused}")
    return took
