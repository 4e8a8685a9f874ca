"""Very many sockets that cost little: raw ones, each of which keeps its position and nothing else. No verdicts."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Sequence
from typing import cast

import orjson
from plan import Site
from rawpeer import CLOSE, PING, PONG, TEXT, frame, head

_LINGER = struct.pack("ii", 1, 0)
BACKOFF = 0.5
"""Seconds before the first new try of one that was refused; then twice as long each time."""


class Member(asyncio.Protocol):
    """One client. ``due``: the position it wants to reach; ``arrived`` is done when it has."""

    def __init__(self, token: str, rng: random.Random) -> None:
        self._token, self._rng = token, rng
        self.position, self.epoch = 0, ""
        self.due, self.refused = 0, 0
        self.arrived: asyncio.Future[float]
        self.ended: asyncio.Future[str]
        self.greeted: asyncio.Future[None]
        self.holes: list[str] = []
        self._transport: asyncio.Transport | None = None
        self._data, self._upgraded = b"", False

    async def connect(self, site: Site, *, jitter: float = 0.0) -> None:
        """Until it is let in, however often it is refused. ``jitter``: most seconds before the first try."""
        loop = asyncio.get_running_loop()
        wait, tries = self._rng.uniform(0, jitter), 0
        while True:
            await asyncio.sleep(wait)
            self._data, self._upgraded = b"", False
            self.ended, self.greeted = loop.create_future(), loop.create_future()
            try:
                await loop.create_connection(lambda: self, "127.0.0.1", site.port)
            except OSError:
                self.refused += 1
            else:
                await asyncio.wait((self.greeted, self.ended), return_when=asyncio.FIRST_COMPLETED)
                if self.greeted.done():
                    return
                self.refused += 1
            wait = self._rng.uniform(0, BACKOFF * 2**tries)  # full jitter, as the contract asks of clients
            tries += 1

    def wants(self, due: int) -> asyncio.Future[float]:
        self.due, self.arrived = due, asyncio.get_running_loop().create_future()
        return self.arrived

    def reset(self) -> None:
        """Gone with an RST."""
        if self._transport is not None:
            sock = cast("socket.socket", self._transport.get_extra_info("socket"))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
            self._transport.abort()

    # -- asyncio calls these -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        kept = f"&after={self.position}&epoch={self.epoch}" if self.epoch else ""
        self._transport.write(head(f"/ws?token={self._token}{kept}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self.ended.done():
            self.ended.set_result("gone")

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._upgraded:
            top, found, rest = self._data.partition(b"\r\n\r\n")
            if not found:
                return
            if not top.startswith(b"HTTP/1.1 101"):
                self.reset()
                return
            self._upgraded, self._data = True, rest
        at, data = 0, self._data
        while len(data) - at >= 2:
            size, skip = data[at + 1], 2
            if size == 126:
                if len(data) - at < 4:
                    break
                size, skip = int.from_bytes(data[at + 2 : at + 4], "big"), 4
            if len(data) - at < skip + size:
                break
            self._took(data[at] & 15, data[at + skip : at + skip + size])
            at += skip + size
        self._data = data[at:]

    def _took(self, opcode: int, payload: bytes) -> None:
        if opcode == PING and self._transport is not None:
            self._transport.write(frame(PONG, payload))
        elif opcode == CLOSE and not self.ended.done():
            self.ended.set_result(payload[2:].decode())
        elif opcode == TEXT:
            self._told(orjson.loads(payload))

    def _told(self, said: dict[str, object]) -> None:
        if said["type"] == "hello":
            self.epoch, self.position = str(said["epoch"]), int(str(said["after"]))
            self.greeted.set_result(None)
        elif said["type"] == "notification":
            if said["seq"] != self.position + 1:
                self.holes.append(f"{said['seq']} after {self.position}")
            self.position = int(str(said["seq"]))
            if self.position >= self.due and not self.arrived.done():
                self.arrived.set_result(asyncio.get_running_loop().time())


async def crowd(tokens: Sequence[str], each: int, sites: Sequence[Site], rng: random.Random) -> list[Member]:
    """``each`` sockets for every token, all connected; a few hundred at a time."""
    members = [Member(token, random.Random(rng.random())) for token in tokens for _ in range(each)]
    for member in members:
        member.wants(1 << 60)
    for at in range(0, len(members), 200):
        batch = members[at : at + 200]
        await asyncio.gather(*[member.connect(sites[n % len(sites)]) for n, member in enumerate(batch)])
    return members
