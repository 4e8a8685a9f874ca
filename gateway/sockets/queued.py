"""The Transports of any ASGI server: an outbox that a coroutine sends. No socket of its own, so its limits are softer.

Plain servers and TestClient go this way. What the server buffers below ``send`` is not seen here, and ``abort`` can
only stop waiting for it: the application returns and leaves the rest to the server.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any

from starlette.types import Message, Send

from gateway.closing import INTERNAL_ERROR, PEER_GONE, Close
from gateway.connection import Connection
from gateway.ports import EncodedFrame, Handled
from gateway.sockets.wire import HEARTBEAT, close_event, travels

HIGH_WATER = 16 * 1024
LOW_WATER = HIGH_WATER // 4
PARTING = 0.1
"""Seconds that an aborted transport still gives its server to take a close: one that waits for the peer would not."""


class QueuedTransport:
    """Implements ``ports.Transport``. Whoever reads the socket counts what it hears in ``heard``."""

    __slots__ = ("_closing", "_cut", "_full", "_outbox", "_sender", "_size", "_wake", "address", "heard")

    kind = "ws"

    def __init__(self, *, address: str | None) -> None:
        self.address = address
        self.heard = 0
        self._outbox: deque[bytes] = deque()
        self._size = 0
        self._full = False
        self._closing: Close | None = None
        self._cut: asyncio.TimerHandle | None = None
        self._sender: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @property
    def writable(self) -> bool:
        return not self._full and self._closing is None

    def write(self, *payloads: bytes) -> None:
        if self._closing is None:
            self._outbox.extend(payloads)
            self._size += sum(map(len, payloads))
            self._full = self._full or self._size > HIGH_WATER
            self._wake.set()

    def encode(self, frame: EncodedFrame) -> bytes:
        return frame.json

    def send(self, frame: EncodedFrame) -> int:
        if not self.writable:
            return 0
        payloads = [self.encode(part) for part in frame.parts]
        self.write(*payloads)
        return sum(map(len, payloads))

    def ping(self) -> None:
        """An ASGI application cannot send one. Its server has a heartbeat of its own, so silence here says nothing."""
        self.heard += 1

    def pending(self) -> int:
        return self._size

    def close(self, why: Close, *, linger: float) -> None:
        if self._closing is None:
            self._closing = why
        self._cut_after(linger)
        self._wake.set()

    def abort(self) -> None:
        self._closing = self._closing or INTERNAL_ERROR
        self._outbox.clear()
        self._size = 0
        self._cut_after(PARTING)
        self._wake.set()

    async def pump(self, send: Send, connection: Handled) -> None:
        """Send what is written until closed or aborted, then the close, and return. Called once, after the accept.

        Also returns when the peer is gone, or has not let the close through within its linger.
        """
        self._sender = asyncio.create_task(self._send(send, connection), name="outbox")
        try:
            await asyncio.wait([self._sender])
        finally:
            self._sender.cancel()
            self._closing = self._closing or INTERNAL_ERROR
            self._outbox.clear()
            self._size = 0
            if self._cut is not None:
                self._cut.cancel()

    async def _send(self, send: Send, connection: Handled) -> None:
        try:
            while True:
                while self._outbox:
                    payload = self._outbox.popleft()
                    await send(self._message(payload))
                    self._size -= len(payload) if self._size else 0  # an abort in between has emptied it
                    if self._full and self._size <= LOW_WATER:
                        self._full = False
                        if self._closing is None:
                            connection.drained()
                if self._closing is not None:
                    await send(self._goodbye(self._closing))
                    return
                self._wake.clear()
                await self._wake.wait()
        except Exception:  # noqa: S110 - whatever a server raises when its peer has left: there is nobody to tell
            pass

    def _message(self, payload: bytes) -> Message:
        return {"type": "websocket.send", "text": payload.decode()}

    def _goodbye(self, why: Close) -> Message:
        code = why.code if travels(why.code) else INTERNAL_ERROR.code
        return {"type": "websocket.close", "code": code, "reason": why.reason}

    def _cut_after(self, seconds: float) -> None:
        """Stop waiting for a server that waits for its peer. The earliest deadline counts."""
        loop = asyncio.get_running_loop()
        if self._cut is None or loop.time() + seconds < self._cut.when():
            if self._cut is not None:
                self._cut.cancel()
            self._cut = loop.call_later(max(seconds, PARTING), self._cut_off)

    def _cut_off(self) -> None:
        if self._sender is not None:
            self._sender.cancel()


class QueuedStream(QueuedTransport):
    """The same for a stream of events of the log ``epoch``, which is the body of a response that has been begun."""

    __slots__ = ("_epoch",)

    kind = "sse"

    def __init__(self, *, address: str | None, epoch: str) -> None:
        super().__init__(address=address)
        self._epoch = epoch

    def encode(self, frame: EncodedFrame) -> bytes:
        return frame.sse(self._epoch)

    def ping(self) -> None:
        super().ping()
        self.write(HEARTBEAT)

    def _message(self, payload: bytes) -> Message:
        return {"type": "http.response.body", "body": payload, "more_body": True}

    def _goodbye(self, why: Close) -> Message:
        last = close_event(why).sse(self._epoch) if travels(why.code) else b""
        return {"type": "http.response.body", "body": last, "more_body": False}


async def carry(
    queued: QueuedTransport, send: Send, connection: Connection, reading: Coroutine[Any, Any, None]
) -> None:
    """Where nobody takes the connection over: ``reading``, which ends when the peer is gone, beside the sender."""
    pump = asyncio.create_task(queued.pump(send, connection), name="socket-sender")
    reader = asyncio.create_task(reading, name="socket-reader")
    try:
        await asyncio.wait((pump, reader), return_when=asyncio.FIRST_COMPLETED)
    finally:
        connection.lost(connection.closed_as or PEER_GONE)  # first: whoever cancels this may do so again below
        for task in (pump, reader):
            task.cancel()
        # Not gather: it would make this cancellation look like one of theirs, and anyio tells its own by the text.
        await asyncio.wait((pump, reader))
        for task in (pump, reader):
            if not task.cancelled():
                task.exception()  # of a server whose peer has left: there is nobody to tell
