"""P1: the process is killed at random moments under load, on one database, and what it answered is held against it.

Nothing answered 2xx is missing afterwards, no ``seq`` has a hole, ``seq`` and ``id`` belong to each other for ever, a
retried key is one notification, and what a device acknowledged stays acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from faulty import FastNode, Row, all_done, examine
from websockets.exceptions import ConnectionClosed, WebSocketException
from wire import Node, Socket, User, called_off, eventually_async

ROUNDS = 20
PRODUCERS = 6


@dataclass
class History:
    """What was ever seen of the inboxes, from whatever side. An id that changes its number, or the reverse, fails."""

    by_seq: dict[tuple[str, int], str] = field(default_factory=dict)
    by_id: dict[str, tuple[str, int]] = field(default_factory=dict)

    def saw(self, user: str, seq: int, id: str) -> None:
        assert self.by_seq.setdefault((user, seq), id) == id, f"{seq} of {user} was {self.by_seq[user, seq]}, is {id}"
        assert self.by_id.setdefault(id, (user, seq)) == (user, seq), f"{id} was {self.by_id[id]}, is {(user, seq)}"


@dataclass(eq=False)
class Attempt:
    """One POST with its key, or keys. ``answer``: (user, id, seq) of each notification, once it is known."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    answer: list[tuple[str, str, int]] | None = None


class Load:
    """Producers that send until they are stopped or the gateway dies, and the list of what they sent."""

    def __init__(self, node: Node, token: str, users: list[User], rng: random.Random) -> None:
        self.node, self.token, self.users, self.rng = node, token, users, rng
        self.attempts: list[Attempt] = []
        self.titles: dict[str, set[str]] = {}
        """Of every title the users it was meant for."""

    def draw(self) -> Attempt:
        number, kind = len(self.attempts), self.rng.choice(("one", "one", "many", "batch"))
        if kind == "one":
            path, body, headers = "/notifications", self._body(f"{number}", 1), {"Idempotency-Key": f"k{number}"}
        elif kind == "many":
            path, body, headers = "/notifications", self._body(f"{number}", 3), {"Idempotency-Key": f"k{number}"}
        else:
            items = [self._body(f"{number}.{at}", 1) | {"idempotency_key": f"k{number}.{at}"} for at in range(5)]
            path, body, headers = "/notifications/batch", {"notifications": items}, {}
        self.attempts.append(Attempt(path, body, headers))
        return self.attempts[-1]

    def _body(self, title: str, users: int) -> dict[str, Any]:
        chosen = [user.id for user in self.rng.sample(self.users, users)]
        self.titles[title] = set(chosen)
        target: dict[str, Any] = {"user_id": chosen[0]} if users == 1 else {"user_ids": chosen}
        return target | {"title": title, "body": f"body of {title} " * self.rng.choice((1, 1, 40))}

    async def send(self, http: httpx2.AsyncClient, attempt: Attempt) -> bool:
        """Whether it was answered; then ``answer`` is set. Raises OSError or HTTPError if it was not."""
        headers = attempt.headers | {"Authorization": f"Bearer {self.token}"}
        reply = await http.post(self.node.url + attempt.path, json=attempt.body, headers=headers)
        if reply.status_code == 503:
            return False
        assert reply.status_code in (200, 201), reply.text
        members = reply.json()
        results = members.get("results", [members | {"status": 201}])
        if any(result["status"] == 503 for result in results):
            return False
        assert all(result["status"] == 201 for result in results), results
        answer = [(result["user_id"], result["id"], result["seq"]) for result in results]
        assert attempt.answer in (None, answer), f"another answer: {attempt.answer}, {answer}"
        attempt.answer = answer
        return True

    async def produce(self) -> None:
        async with httpx2.AsyncClient(timeout=10, trust_env=False) as http:
            while True:
                try:
                    await self.send(http, self.draw())
                except (httpx2.HTTPError, OSError):
                    return  # it died


class Device:
    """A signed-in device that reconnects for ever. It keeps its position, or leaves that to its acknowledgements."""

    def __init__(self, user: User, history: History, *, keeps: bool) -> None:
        self.user, self.history, self.keeps, self.token = user, history, keeps, user.token()
        self.position = self.highest = self.asked = self.confirmed = self.cursor = 0
        self.received = self.dup = self.resumes = 0
        self.epoch: str | None = None

    def reached(self, seq: int) -> bool:
        return self.position >= seq

    async def live(self) -> None:
        while True:
            with contextlib.suppress(OSError, WebSocketException, TimeoutError):
                await self.visit()
            await asyncio.sleep(0.01)

    async def visit(self) -> None:
        kept: dict[str, Any] = {"after": self.position, "epoch": self.epoch} if self.keeps and self.epoch else {}
        socket = Socket(await self.user.node.raw(self.token, **kept))
        try:
            hello = await socket.next("hello")
            assert hello["reset"] is False
            assert self.epoch in (None, hello["epoch"]), "the epoch changed though every commit had reached the disk"
            assert max(self.cursor, self.confirmed) <= hello["cursor"] <= self.asked, "an acknowledgement went back"
            self.cursor, self.epoch = hello["cursor"], hello["epoch"]
            assert hello["after"] == (self.position if kept else self.cursor)
            self.position = hello["after"]
            self.resumes += 1
            while True:
                await self.heard(socket, await socket.receive(within=60))
        except ConnectionClosed:
            return
        finally:
            await socket.close()

    async def heard(self, socket: Socket, frame: dict[str, Any]) -> None:
        if frame["type"] == "ok":
            self.confirmed = max(self.confirmed, int(frame["ref"]))
            return
        assert frame["type"] == "notification", frame
        seq = frame["seq"]
        assert seq == self.position + 1, f"{seq} after {self.position}"
        self.history.saw(self.user.id, seq, frame["id"])
        self.position = seq
        self.received += 1
        self.dup += seq <= self.highest
        self.highest = max(seq, self.highest)
        if not self.keeps:
            self.asked = max(self.asked, seq)
            await socket.send(type="ack", seq=seq, ref=str(seq))


def when_committing(node: FastNode, patience: float) -> None:
    """SIGKILL as soon as the log of the database grows: between the write and the answer, if we are quick."""
    log = f"{node.database}-wal"
    before, end = _size(log), time.monotonic() + patience
    while _size(log) == before and time.monotonic() < end:
        time.sleep(0.0002)
    os.kill(node.pid, signal.SIGKILL)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


async def read_inbox(http: httpx2.AsyncClient, device: Device, history: History, after: int) -> dict[int, Any]:
    """seq → item of everything after ``after``, by the inbox API. The numbers are dense."""
    items: dict[int, Any] = {}
    at: int | None = after
    while at is not None:
        reply = await http.get(
            f"{device.user.node.url}/inbox?after={at}&limit=200", headers={"Authorization": f"Bearer {device.token}"}
        )
        assert reply.status_code == 200, reply.text
        page = reply.json()
        for item in page["items"]:
            history.saw(device.user.id, item["seq"], item["id"])
            items[item["seq"]] = item
        at = page["next"]
    assert sorted(items) == list(range(after + 1, page["head"] + 1)), "a hole in the inbox"
    return items


async def test_P1_API_07_what_was_answered_survives_being_killed_at_any_moment(
    launch: Callable[..., FastNode], row: Row, tmp_path: Path
) -> None:
    node = launch(frame_rate=100_000, frame_burst=100_000, log_level="info")
    users = [node.user() for _ in range(3)]
    load = Load(node, node.client_token(), users, row.rng)
    history = History()
    devices = [Device(user, history, keeps=keeps) for user in users for keeps in (True, False)]
    living = [asyncio.create_task(device.live()) for device in devices]
    known: dict[str, dict[int, Any]] = {user.id: {} for user in users}
    judged = replayed = in_start = 0

    async def one_round(number: int) -> None:
        nonlocal judged, replayed, in_start
        producers = [asyncio.create_task(load.produce()) for _ in range(PRODUCERS)]
        await asyncio.sleep(row.rng.uniform(0.05, 0.4))
        await asyncio.to_thread(when_committing, node, 0.5 if number % 2 else 0)
        node.kill()
        await all_done(*producers)
        row.faults += 1
        copy = tmp_path / f"killed{number}"
        copy.mkdir()
        for file in node.database.parent.glob("gateway.db*"):
            if not file.name.endswith(("-shm", ".lock")):  # the kernel's memory of it died with the process
                shutil.copy(file, copy)
        await asyncio.to_thread(examine, copy / node.database.name)
        if number % 5 == 4:  # and it may die once more while it starts
            node.start(wait=False)
            await asyncio.sleep(row.rng.uniform(0.0, 0.5))
            node.kill()
            in_start += 1
            row.faults += 1
        begin = node.start if number < ROUNDS - 1 else lambda: Node.start(node)  # the last time not forked
        await asyncio.to_thread(begin)
        await asyncio.to_thread(examine, node.database)
        async with httpx2.AsyncClient(timeout=10, trust_env=False) as http:
            for device in devices[::2]:
                mine = known[device.user.id]
                mine.update(await read_inbox(http, device, history, max(mine, default=0)))
            fresh, judged = load.attempts[judged:], len(load.attempts)
            answered = [attempt for attempt in fresh if attempt.answer is not None]
            for attempt in answered:
                for user, id, seq in attempt.answer or ():
                    if known[user].get(seq, {}).get("id") != id:
                        row.lost += 1
            assert row.lost == 0, f"answered and not there: {row}"
            row.attempted, row.ok = row.attempted + len(fresh), row.ok + len(answered)
            for device in devices:
                head = max(known[device.user.id], default=0)
                await eventually_async(partial(device.reached, head), what=f"{device.position} to {head}")
            for attempt in fresh:
                if attempt.answer is None:
                    row.indeterminate += 1
                    before = {item["title"] for inbox in known.values() for item in inbox.values()}
                    assert await load.send(http, attempt)
                    replayed += bool(_titles(attempt) & before)
            for attempt in row.rng.sample(answered, min(3, len(answered))):
                assert await load.send(http, attempt), "a retry is answered as the first time"

    async def rounds() -> None:
        for number in range(ROUNDS):
            await one_round(number)

    await first_failure(asyncio.create_task(rounds()), *living)

    async with httpx2.AsyncClient(timeout=10, trust_env=False) as http:
        for device in devices[::2]:
            known[device.user.id] = await read_inbox(http, device, history, 0)
    stored = [(item["title"], user) for user, inbox in known.items() for item in inbox.values()]
    assert len(stored) == len(set(stored)), "a key was used twice and is two notifications"
    assert set(stored) == {(title, user) for title, meant in load.titles.items() for user in meant}
    for attempt in load.attempts:
        for user, id, seq in attempt.answer or ():
            row.lost += known[user][seq]["id"] != id
    row.received, row.dup = sum(device.received for device in devices), sum(device.dup for device in devices)
    row.also = {
        "notifications": len(stored), "committed_unanswered": replayed, "killed_in_start": in_start,
        "resumes": sum(device.resumes for device in devices), "acked": sum(d.confirmed for d in devices),
    }  # fmt: skip
    row.judge()
    assert row.faults >= ROUNDS
    assert row.indeterminate > 0, f"no request was in flight at any kill: {row}"
    assert all(device.confirmed > 0 for device in devices[1::2])
    assert node.complaints() == []


def _titles(attempt: Attempt) -> set[str]:
    return {item["title"] for item in attempt.body.get("notifications", [attempt.body])}


async def first_failure(work: asyncio.Task[None], *beside: asyncio.Task[None]) -> None:
    """Until ``work`` is done; a device that fails meanwhile fails the row at once."""
    done, _ = await asyncio.wait([work, *beside], return_when=asyncio.FIRST_COMPLETED)
    await called_off(work, *beside)
    for task in done:
        task.result()
