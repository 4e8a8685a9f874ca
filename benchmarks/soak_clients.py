"""The sockets of ``make soak``: each checks all it hears, and comes back to where it was. Pushes nothing."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from benchmarks.talking import UPGRADE, take_frames

RENEWED_BEFORE = 40.0
"""Seconds before its token expires that a device sends a fresh one."""
ACK_EVERY = 10
EXAMPLES = 3
GOODBYE = b"\x88\x82\0\0\0\0\x03\xe8"
"""A close frame, 1000."""


BY_US, TOOK_NOTHING, RESET = "by us", "taking nothing", "reset"
LATE, STALE = "refused for late news", "revocations_stale"
MEANT = frozenset({BY_US, TOOK_NOTHING, LATE})
"""Why a connection may end: we did it or asked for it, it was a slow one, or it was not let in (``Told.late``)."""


def masked(opcode: int, payload: bytes) -> bytes:
    """One client frame; the mask is zeros."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes((0x80 | opcode,)) + length + b"\0\0\0\0" + payload


@dataclass
class Told:
    """What all devices together have met. ``wrong``: what contract 1 and 4 rule out, with a few examples of each.

    ``late``: refused because news of revocations was more than a second old (contract 8): the machine, or the gateway's
    event loop, stood still for that long. Allowed, and shown.
    """

    frames: Counter[str] = field(default_factory=Counter)
    closed: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def complain(self, what: str, detail: object) -> None:
        self.wrong[what] += 1
        if self.wrong[what] <= EXAMPLES:
            self.examples.append(f"{what}: {detail}")


@dataclass
class Device:
    """A session of one user, on one connection after the other. ``seq``: everything up to it was told."""

    user: str
    token: Callable[[], tuple[str, float]]
    """A token, and when to send the next one (``time.monotonic``)."""
    port: int
    told: Told
    seq: int = 0
    epoch: str | None = None
    renew_at: float = float("inf")
    leaving: bool = False
    """It is we who end the connection, or who have the gateway end it."""
    slow: bool = False
    """It does not read at times, and the gateway may end it then."""
    stays_away: bool = False
    link: Link | None = None

    async def connect(self) -> None:
        """Until a connection stands. Whether it is served is seen by its frames."""
        while not self.stays_away and self.link is None:
            token, self.renew_at = self.token()
            position = f"&after={self.seq}&epoch={self.epoch}" if self.epoch else ""
            request = f"GET /ws?token={token}{position} HTTP/1.1\r\nHost: 127.0.0.1\r\n{UPGRADE}\r\n".encode()
            try:
                await asyncio.get_running_loop().create_connection(lambda: Link(self, request), "127.0.0.1", self.port)  # noqa: B023 - called at once
            except OSError as error:
                self.told.closed[f"no connection: {error.strerror}"] += 1
                await asyncio.sleep(random.uniform(0.5, 1.5))

    def lost(self, link: Link, why: str) -> None:
        if self.link is not link:
            return
        self.link = None
        if why == "1013 overloaded":
            self.told.late["upgrades"] += 1
            why = BY_US if self.leaving else LATE
        by_gateway = TOOK_NOTHING if self.slow and why == RESET else why
        self.told.closed[BY_US if self.leaving else by_gateway] += 1
        self.leaving = False
        if not self.stays_away:
            loop = asyncio.get_running_loop()
            loop.call_later(random.uniform(0, 2), lambda: loop.create_task(self.connect()))

    def cut(self, *, politely: bool) -> None:
        """End the connection; it comes back by itself."""
        if self.link is not None:
            self.leaving = True
            if politely:
                self.link.transport.write(GOODBYE)
            self.link.transport.close() if politely else self.link.transport.abort()

    def renew(self) -> None:
        if self.link is not None:
            token, self.renew_at = self.token()
            self.link.say({"type": "token", "token": token, "ref": "renewed"})

    def heard(self, frame: dict[str, Any]) -> None:
        """Every number once, in order, or a gap for it."""
        kind = frame["type"]
        self.told.frames[kind if kind != "notification" or frame["seq"] is not None else "ttl 0"] += 1
        if kind == "notification" and frame["seq"] is not None:
            self._covers(frame["seq"], frame["seq"])
        elif kind == "gap":
            self._covers(frame["from"], frame["to"])
        elif kind == "hello":
            begins = (frame["after"], frame["epoch"], frame["reset"])
            if self.epoch is not None and begins != (self.seq, self.epoch, False):
                self.told.complain("hello", frame)
            self.epoch, self.seq = frame["epoch"], frame["after"]
        elif kind == "error" and frame["code"] == STALE:
            self.told.late["tokens"] += 1
            self.renew_at = time.monotonic() + 1
        elif kind == "error":
            self.told.complain("error", frame)

    def _covers(self, first: int, last: int) -> None:
        if first != self.seq + 1:
            self.told.complain("lost" if first > self.seq else "doubled", f"{self.user}: {first} after {self.seq}")
        self.seq = max(self.seq, last)
        if self.link is not None and last % ACK_EVERY == 0:
            self.link.say({"type": "ack", "seq": self.seq})


class Link(asyncio.Protocol):
    """One connection of a device."""

    def __init__(self, device: Device, request: bytes) -> None:
        self._device, self._request = device, request
        self.transport: asyncio.Transport
        self._left = bytearray()
        self._upgraded = False
        self._why = RESET

    def say(self, frame: dict[str, Any]) -> None:
        self.transport.write(masked(1, orjson.dumps(frame)))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._device.link = self
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._left += data
        if not self._upgraded:
            end = self._left.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self._left.startswith(b"HTTP/1.1 101"):
                self._why = f"refused: {bytes(self._left[:12])!r}"
                self.transport.abort()
                return
            del self._left[: end + 4]
            self._upgraded = True
        for opcode, payload in take_frames(self._left):
            if opcode == 1:
                self._device.heard(orjson.loads(payload))
            elif opcode == 9:
                self.transport.write(masked(10, payload))
            elif opcode == 8:
                self._why = f"{int.from_bytes(payload[:2], 'big')} {payload[2:].decode()}"
                self.transport.close()
                return

    def connection_lost(self, error: Exception | None) -> None:
        self._device.lost(self, self._why)


def renew_all(devices: list[Device]) -> None:
    """Of those whose token is near its end."""
    now = time.monotonic()
    for device in devices:
        if device.renew_at <= now:
            device.renew()
