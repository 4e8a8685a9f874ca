"""AUTH-07: two hundred sign in at once while a thousand sockets receive: what the sockets notice. Judges nothing.

The same pushes come by the clock without anybody at the door, and with two hundred who sign in rightly again and again,
each on a connection of their own; who is told to come back does, when told. Once each push is for all of the thousand
(``ttl: 0``), once for one of them in turn, and durable: then it meets the sign-ins at the database too. The server may
use both cores, as it would where it runs: one hashes, one delivers. The load generator, which is the clock, goes before
it on the second.

Beside it, harsher than is asked: the server has one core for all of it, and those who are told to come back are back
after 0.2 seconds, whatever they were told.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from passlib.hash import argon2

from benchmarks.bars import CALM, FLOODED, GATEWAY
from benchmarks.fanout import CONTENT
from benchmarks.load import Load
from benchmarks.people import post, prepare, sender_token, write_paths, write_requests
from benchmarks.probing import on_load_core
from benchmarks.record import Record
from benchmarks.servers import SERVER_CORE, Server, copied, gateway
from benchmarks.talking import Refused, Wire

PASSWORD = "correct horse battery"
RUDE = 0.2
"""Seconds: sooner than they are told."""


@dataclass(frozen=True, slots=True)
class Scale:
    """``to_one``, ``to_all``: pushes a second."""

    pairs: int
    sockets: int
    visitors: int
    seconds: float
    to_one: int = 500
    to_all: int = 20


FULL = Scale(pairs=5, sockets=1000, visitors=200, seconds=6)
QUICK = Scale(pairs=1, sockets=1000, visitors=200, seconds=3)
TO_ONE, TO_ALL, ONE_CORE = "flood p99", "flood p99, all", "flood p99, one core"


@dataclass(frozen=True, slots=True)
class Flood:
    record: Record
    scale: Scale
    directory: Path

    def run(self) -> None:
        scale, home = self.scale, self.directory
        (home / "flood").mkdir()
        prepare(home / "flood", users=scale.sockets)
        with sqlite3.connect(home / "flood/gateway.db") as connection:
            known = argon2.using(type="ID", memory_cost=19_456, time_cost=2, parallelism=1).hash(PASSWORD)
            connection.execute("UPDATE users SET password_hash = ?", [known])
        connection.close()
        write_paths(home / "flood-paths", users=scale.sockets)
        write_requests(home / "flood-one", target="/notifications", users=scale.sockets, each=0)
        everyone = post("/notifications", {"everyone": True, "ttl": 0, **CONTENT}, sender_token())
        (home / "flood-all").write_bytes(b"%d\n" % len(everyone) + everyone)
        for pair in range(1, scale.pairs + 1):
            print(f"  sign-ins at once, pair {pair} of {scale.pairs}")
            self._measure(TO_ALL, core=None, back=None)
            self.record.note("sign-ins", GATEWAY, self._measure(TO_ONE, core=None, back=None))
            self.record.note("sign-ins, one core", GATEWAY, self._measure(ONE_CORE, core=SERVER_CORE, back=RUDE))

    def _measure(self, what: str, *, core: int | None, back: float | None) -> float:
        """Sign-ins let in a second."""
        scale, home = self.scale, self.directory
        with gateway(copied(home / "flood"), core=core) as server, Load(first=core is None) as load:
            load(f"open {server.port} {home / 'flood-paths'} {scale.sockets} 64 1")
            self._push(what, server, load, seconds=1)  # warms up
            self.record.note(what, CALM, self._push(what, server, load, seconds=scale.seconds))
            with visited(server, scale.visitors, back=back) as let_in:
                time.sleep(0.5)
                before, began = len(let_in), time.monotonic()
                self.record.note(what, FLOODED, self._push(what, server, load, seconds=scale.seconds))
                rate = (len(let_in) - before) / (time.monotonic() - began)
            load("drop")
        return rate

    def _push(self, what: str, server: Server, load: Load, *, seconds: float) -> float:
        """Milliseconds, from due to frame."""
        all_of_them = what == TO_ALL
        file = self.directory / ("flood-all" if all_of_them else "flood-one")
        rate, each = (self.scale.to_all, self.scale.sockets) if all_of_them else (self.scale.to_one, 1)
        posted = load(f"post {server.port} {file} 16 {seconds} {rate}")
        heard = load(f"count {posted['requests'] * each} 5")
        if posted["refused"] or heard["frames"] != posted["requests"] * each:
            refused, came = posted["refused"], heard["frames"]
            self.record.remark(f"AUTH-07: {refused} refused, {came} of {posted['requests'] * each} frames came")
        return float(heard["p99"]) / 1e6


@contextmanager
def visited(server: Server, visitors: int, *, back: float | None) -> Iterator[list[None]]:
    """Inside the block they sign in; the list grows by one for each who was let in. ``back``: seconds after which they
    are back who were refused; None: when they were told."""
    let_in: list[None] = []
    over = threading.Event()

    def visit(number: int) -> None:
        body = json.dumps({"username": f"name of u{number}", "password": PASSWORD}).encode()
        head = "POST /auth/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        with Wire(server.port) as wire:
            while not over.is_set():
                try:
                    wire.ask(request, expect=200)
                    let_in.append(None)
                except Refused as refused:
                    over.wait(refused.retry_after or 1.0 if back is None else back)

    with on_load_core():
        threads = [threading.Thread(target=visit, args=[number], daemon=True) for number in range(visitors)]
        for thread in threads:
            thread.start()
    try:
        yield let_in
    finally:
        over.set()
        for thread in threads:
            thread.join()
