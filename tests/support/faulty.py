"""What the fault rows share: a gateway to be broken, the record of a row, raw peers. Breaks nothing by itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rawpeer import Raw, head
from wire import Node, called_off

BODY = "x" * 3900


class FastNode(Node):
    """A Node, and what the fault rows ask of one beside: its database, its descriptors, raw peers."""

    def __init__(self, directory: Path, *, prefix: tuple[str, ...] = (), **settings: Any) -> None:
        super().__init__(directory, prefix=prefix, **settings)
        self._peers: list[Raw] = []

    @property
    def database(self) -> Path:
        return Path(str(self.settings["database_url"]).removeprefix("sqlite+aiosqlite:///"))

    def sockets(self) -> int:
        """Open sockets of the process, the listening one included."""
        found = 0
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found += str(entry.readlink()).startswith("socket:")
        return found

    def upgrade(self, token: str, *, receive_buffer: int | None = None) -> Raw:
        """A raw peer that has been accepted on ``/ws`` and has read nothing after the 101."""
        raw = Raw(self.port, receive_buffer=receive_buffer)
        self._peers.append(raw)
        raw.send(head(f"/ws?token={token}"))
        status, _ = raw.response()
        assert status == 101, status
        return raw

    def end(self) -> None:
        """Kill what still runs and let go of every peer, however the test has ended."""
        for raw in self._peers:
            raw.shut()
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def everybody(self) -> list[dict[str, Any]]:
        """Every open connection, as an admin sees it."""
        answer = self.request("GET", "/admin/connections?limit=200", token=self.admin, expect=200)
        return list(answer.json()["items"])

    def complaints(self) -> list[str]:
        """Lines of the log that tell of a bug: a traceback, or anything logged as an error."""
        return [
            line for line in self.log_text().splitlines()
            if "Traceback" in line or '"level": "error"' in line or "never retrieved" in line
        ]  # fmt: skip


@dataclass
class Row:
    """The counts of one row of the fault matrix. ``ok``: answered 2xx. ``dup``: sent again, as at-least-once may."""

    name: str
    rng: random.Random
    seed: int
    attempted: int = 0
    ok: int = 0
    indeterminate: int = 0
    received: int = 0
    dup: int = 0
    lost: int = 0
    faults: int = 0
    also: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = ("attempted", "ok", "indeterminate", "received", "dup", "lost", "faults")
        shown = {name: getattr(self, name) for name in counts} | self.also
        return f"{self.name} seed={self.seed} " + " ".join(f"{name}={value}" for name, value in shown.items())

    def judge(self) -> None:
        """A row in which nothing was acknowledged, or nothing was broken, has shown nothing."""
        assert self.ok > 0, f"vacuous: nothing was acknowledged: {self}"
        assert self.faults > 0, f"vacuous: nothing was broken: {self}"
        assert self.lost == 0, f"lost: {self}"


def flood(node: Node, token: str, user: str, count: int) -> float:
    """Push ``count`` notifications of 4 KB to one user; the longest time one request took, in seconds."""
    slowest = 0.0
    for start in range(0, count, 200):
        items = [{"user_id": user, "title": str(at), "body": BODY} for at in range(start, min(count, start + 200))]
        began = time.monotonic()
        reply = node.request(
            "POST", "/notifications/batch", token=token, json={"notifications": items}, expect=200
        ).json()
        slowest = max(slowest, time.monotonic() - began)
        assert all(result["status"] == 201 for result in reply["results"]), reply["results"][-1]
    return slowest


def examine(database: Path) -> None:
    """integrity_check and foreign_key_check of the database, its log included, and of the numbers in every inbox."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        holes = connection.execute(
            "SELECT user_id, count(*), min(seq), max(seq) FROM inbox GROUP BY user_id HAVING max(seq) != count(*)"
        ).fetchall()
        assert holes == []
        heads = connection.execute(
            "SELECT inboxes.user_id, head, (SELECT count(*) FROM inbox WHERE inbox.user_id = inboxes.user_id) AS stored"
            " FROM inboxes WHERE head != stored"
        ).fetchall()
        assert heads == []


def reset(sock: socket.socket) -> None:
    """Close with an RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    sock.close()


async def all_done(*tasks: asyncio.Task[Any]) -> None:
    """Wait for these; the first failure is raised at once and the others are cancelled."""
    try:
        await asyncio.gather(*tasks)
    finally:
        await called_off(*tasks)
