"""Somebody who can read and write the same Redis, and knows no secret: hears every message, and sends what it likes."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress

import hiredis

Message = tuple[bytes, bytes]
"""Channel and payload."""


FORGED = b'["p","forged","\\"title\\":\\"forged\\"",1]'
"""A notification that is written at once to whoever hears of it."""


class Stranger:
    """Made by ``listening_in``. ``heard``: what others sent lately; what it sent itself is not among it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.heard: deque[Message] = deque(maxlen=3000)
        self.sent = 0
        self._mine: set[Message] = set()

    async def listen(self) -> None:
        """For ever."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        parser = hiredis.Reader()
        try:
            writer.write(b"PSUBSCRIBE *\r\n")
            while data := await reader.read(1 << 16):
                parser.feed(data)
                while (reply := parser.gets()) is not False:
                    if reply[0] == b"pmessage" and (reply[2], reply[3]) not in self._mine:
                        self.heard.append((reply[2], reply[3]))
        finally:
            writer.transport.abort()

    async def send(self, messages: Iterable[Message]) -> None:
        """Publish them all; returns when Redis has taken the last."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        parser, waiting = hiredis.Reader(), 0
        try:
            for channel, data in messages:
                self._mine.add((channel, data))
                writer.write(
                    b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(channel), channel, len(data), data)
                )
                await writer.drain()
                waiting += 1
            while waiting:
                parser.feed(await reader.read(1 << 16))
                while (reply := parser.gets()) is not False:
                    assert isinstance(reply, int), reply
                    waiting -= 1
                    self.sent += 1
        finally:
            writer.transport.abort()


@asynccontextmanager
async def listening_in(port: int) -> AsyncIterator[Stranger]:
    stranger = Stranger(port)
    listening = asyncio.create_task(stranger.listen())
    try:
        yield stranger
    finally:
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening


def lies(rng: random.Random, captured: list[Message]) -> Iterator[Message]:
    """What can be made of captured messages without the secret, one or more of each."""
    channels = sorted({channel for channel, _ in captured})
    for channel, data in captured:
        yield rng.choice(channels), data  # on another's channel, mostly
        changed = bytearray(data)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        yield channel, bytes(changed)
        other = rng.choice(captured)[1]
        yield channel, data[:35] + other[35:]  # the head and the code of one, the body of the other
        # As whoever has read the source would: a number that is new, and a body of one's own.
        yield channel, data[:11] + rng.randbytes(8) + data[19:27] + rng.randbytes(16) + FORGED
        yield channel, data[: rng.randrange(len(data))]
        yield channel, rng.randbytes(rng.randrange(200))
    yield channels[0], b""
    yield channels[0], rng.randbytes(1 << 20)
    yield channels[0], b'["a",1,"forged","\\"title\\":\\"forged\\"",1,99999999999999,null]'
