"""What goes on during ``make soak``: who pushes, who leaves and comes back, who is revoked. Judges nothing."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from benchmarks.people import admin_token, raw_post, sender_token
from benchmarks.soak_clients import STALE, Device, Told, renew_all
from benchmarks.talking import get

CONTENT = {"title": "Order shipped", "body": "Arrives Friday", "data": {"order": 1234}}
FILLER = {"title": "filler", "body": "x" * 4000, "ttl": 0}
NOT_READING = (12.0, 12.0, 12.0, 45.0)
"""Seconds that a slow reader does not read, in turn: it catches up, or was ended for taking nothing for 30 s."""
READING = 8.0
PASSWORD = "correct horse battery staple"  # of nobody


class Asker:
    """One keep-alive connection; one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body. Raises ConnectionError, asyncio.IncompleteReadError."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)
        try:
            self._writer.write(request)
            head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            body = await self._reader.readexactly(int(length or 0))
        except (ConnectionError, asyncio.IncompleteReadError):
            self.close()
            raise
        if b"\r\nconnection: close" in head:
            self.close()
        return int(head.split(b" ", 2)[1]), body

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None


@dataclass(frozen=True, slots=True)
class Rates:
    """A second. ``batch``: how many notifications one has. ``churn``: connections cut, each comes back."""

    singles: float = 200
    batches: float = 2
    batch: int = 200
    to_a_thousand: float = 0.1
    to_everyone: float = 0.5
    fillers: float = 10
    churn: float = 50
    sign_ins: float = 0.5
    reads: float = 5


@dataclass
class Work:
    """``heads``: user → the highest ``seq`` that was answered. ``slow``: those besides ``devices`` that read badly."""

    port: int
    devices: Sequence[Device]
    slow: Sequence[Device]
    told: Told
    rates: Rates
    ttl: int
    heads: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    signed_in: list[Device] = field(default_factory=list)

    def tasks(self) -> list[Callable[[], Awaitable[None]]]:
        rates = self.rates
        return [
            *[lambda: self._by_the_clock(rates.singles / 4, self._single) for _ in range(4)],
            lambda: self._by_the_clock(rates.batches, self._batch),
            lambda: self._by_the_clock(rates.to_a_thousand, self._to_a_thousand),
            lambda: self._by_the_clock(rates.to_everyone, self._to_everyone),
            lambda: self._by_the_clock(rates.fillers, self._filler),
            lambda: self._by_the_clock(rates.churn, self._cut),
            lambda: self._by_the_clock(rates.reads, self._read),
            lambda: self._by_the_clock(rates.sign_ins, self._sign_in),
            lambda: self._by_the_clock(2, self._renew),
            *[lambda one=one: self._stop_and_go(one) for one in self.slow],
        ]

    async def _by_the_clock(self, rate: float, what: Callable[[Asker], Awaitable[None]]) -> None:
        """For ever. What could not be done is counted, and the next time is the next."""
        asker = Asker(self.port)
        due = time.monotonic() + random.random() / rate
        try:
            while True:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                due = max(due + 1 / rate, time.monotonic() - 1)  # who cannot keep up does less
                try:
                    await what(asker)
                except (ConnectionError, asyncio.IncompleteReadError) as error:
                    self.told.complain("an answer was lost", f"{what.__name__}: {error!r}")
        finally:
            asker.close()

    async def _post(self, asker: Asker, target: str, body: dict[str, Any], token: str, expect: int) -> Any:
        return await self._ask(asker, raw_post(target, orjson.dumps(body), token), expect)

    async def _ask(self, asker: Asker, request: bytes, expect: int) -> Any:
        """What is answered, or None and a complaint."""
        status, answer = await asker.ask(request)
        if status == expect:
            return orjson.loads(answer)
        if status == 503 and STALE.encode() in answer:
            self.told.late["requests"] += 1
        else:
            self.told.complain(f"answered {status}", answer[:300])
        return None

    def _stored(self, results: Sequence[dict[str, Any]]) -> None:
        for one in results:
            if one.get("seq"):
                self.heads[one["user_id"]] = max(self.heads[one["user_id"]], one["seq"])
            else:
                self.told.complain("not stored", one)
        self.done["stored"] += len(results)

    def _somebody(self) -> str:
        return random.choice(self.devices).user

    # -- pushes --------------------------------------------------------------------------------------------------------

    async def _single(self, asker: Asker) -> None:
        body = {"user_id": self._somebody(), "ttl": self.ttl, **CONTENT}
        if answer := await self._post(asker, "/notifications", body, sender_token(), 201):
            self._stored([answer])

    async def _batch(self, asker: Asker) -> None:
        items = [{"user_id": self._somebody(), "ttl": self.ttl, **CONTENT} for _ in range(self.rates.batch)]
        answer = await self._post(asker, "/notifications/batch", {"notifications": items}, sender_token(), 200)
        self._stored(answer["results"] if answer else ())

    async def _to_a_thousand(self, asker: Asker) -> None:
        users = list({device.user for device in random.sample(self.devices, min(1000, len(self.devices)))})
        body = {"user_ids": users, "ttl": self.ttl, **CONTENT}
        answer = await self._post(asker, "/notifications", body, sender_token(), 200)
        self._stored(answer["results"] if answer else ())

    async def _to_everyone(self, asker: Asker) -> None:
        await self._post(asker, "/notifications", {"everyone": True, "ttl": 0, **CONTENT}, sender_token(), 202)

    async def _filler(self, asker: Asker) -> None:
        if self.slow:
            body = {"user_ids": [device.user for device in self.slow], **FILLER}
            await self._post(asker, "/notifications", body, sender_token(), 202)

    # -- coming and going ----------------------------------------------------------------------------------------------

    async def _cut(self, asker: Asker) -> None:
        random.choice(self.devices).cut(politely=random.random() < 0.5)
        self.done["cut"] += 1

    async def _renew(self, asker: Asker) -> None:
        renew_all([*self.devices, *self.slow])

    async def _read(self, asker: Asker) -> None:
        await self._ask(asker, get("/inbox?limit=20", random.choice(self.devices).token()[0]), 200)

    async def _stop_and_go(self, device: Device) -> None:
        await asyncio.sleep(random.uniform(0, READING))
        for pause in itertools.cycle(NOT_READING):
            if (link := device.link) is not None:
                link.transport.pause_reading()
                await asyncio.sleep(pause)
                if not link.transport.is_closing():
                    link.transport.resume_reading()
                self.done["stalled"] += 1
            await asyncio.sleep(READING)

    # -- signing in ----------------------------------------------------------------------------------------------------

    async def enlist(self, amount: int) -> None:
        """People with a password; they are revoked and sign in again, in turn."""
        asker = Asker(self.port)
        for number in range(amount):
            body = {"username": f"person{number}", "id": f"p{number}", "password": PASSWORD}
            await self._post(asker, "/admin/users", body, admin_token(), 201)
            await self._enter(asker, Device(f"p{number}", lambda: ("", 0.0), self.port, self.told))
        asker.close()

    async def _enter(self, asker: Asker, device: Device) -> None:
        body = {"username": f"person{device.user[1:]}", "password": PASSWORD}
        while (answer := await self._post(asker, "/auth/login", body, "", 200)) is None:  # noqa: ASYNC110 - it asks
            await asyncio.sleep(1)
        token = answer["access_token"]
        device.token = lambda: (token, float("inf"))
        device.stays_away = device.leaving = False
        self.signed_in.append(device)
        await device.connect()

    async def _sign_in(self, asker: Asker) -> None:
        """Revoke the session that has stood longest, see its socket go, and sign in again."""
        if not self.signed_in:
            return
        device = self.signed_in.pop(0)
        identity = await self._ask(asker, get("/auth/me", device.token()[0]), 200)
        if identity is None:
            self.signed_in.append(device)
            return
        device.stays_away = device.leaving = True
        body = {"session": identity["session"], "reason": "soak"}
        while await self._post(asker, "/admin/revocations", body, admin_token(), 201) is None:  # noqa: ASYNC110 - it asks
            await asyncio.sleep(1)
        end = time.monotonic() + 1.0
        while device.link is not None and time.monotonic() < end:  # noqa: ASYNC110 - an Event for each would be more to read
            await asyncio.sleep(0.02)
        if device.link is not None:
            self.told.complain("revoked and still open", device.user)
            device.cut(politely=False)
            await asyncio.sleep(0.1)
        self.done["revoked"] += 1
        await self._enter(asker, device)
