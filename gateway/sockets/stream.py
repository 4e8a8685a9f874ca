"""One stream of events on one TCP connection, as asyncio's protocol and as ``ports.Transport``. Speaks, hears nothing.

WAITING (the endpoint decides) → OPEN → CLOSING (the last event is out) → GONE. Like a socket it holds no task and no
queue, and every close has a deadline and then resets. The body ends with the connection: no length, no chunks, so
a frame is the same bytes for every stream, and HTTP/1.0 can read it.
"""

from __future__ import annotations

import asyncio
import logging
from enum import IntEnum
from typing import Any

from gateway.closing import DRAINING, PEER_GONE, PROTOCOL_ERROR, UNRESPONSIVE, Close
from gateway.ports import EncodedFrame, Handled
from gateway.sockets import wire
from gateway.sockets.wire import WireLimits

_SHUTDOWN_LINGER = 1.0  # seconds: the drain before it has asked politely

log = logging.getLogger("gateway.sockets")


class _State(IntEnum):
    WAITING, OPEN, CLOSING, GONE = range(4)


class StreamProtocol(asyncio.Protocol):
    __slots__ = (
        "_connections", "_epoch", "_handled", "_limits", "_paused", "_said", "_state", "_timer", "_transport", "_why",
        "_written", "address",
    )  # fmt: skip

    kind = "sse"

    def __init__(
        self, handled: Handled, *, epoch: str, address: str | None, limits: WireLimits, connections: set[Any]
    ) -> None:
        self._handled: Handled | None = handled
        self._epoch, self.address = epoch, address
        self._limits, self._connections = limits, connections
        self._transport: asyncio.Transport
        self._state, self._paused = _State.WAITING, False
        self._written = self._said = 0
        self._timer: asyncio.TimerHandle | None = None
        self._why: Close | None = None

    def begin(self, transport: asyncio.Transport, answer: bytes, *, paused: bool) -> None:
        """Accepted: ``answer`` is the head and how the body begins. ``paused``: the transport takes nothing now."""
        self._transport, self._paused, self._state = transport, paused, _State.OPEN
        self._connections.add(self)
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=self._limits.high_water)
        self.write(answer)

    # -- ports.Transport ---------------------------------------------------------------------------------------

    @property
    def heard(self) -> int:
        """Nothing ever comes in. That the peer's side takes what is written, a heartbeat at least, is all the life
        it shows."""
        return self._written - self.pending()

    @property
    def writable(self) -> bool:
        return not self._paused and self._state <= _State.OPEN

    def write(self, *payloads: bytes) -> None:
        if self._state is _State.OPEN:
            payload = payloads[0] if len(payloads) == 1 else b"".join(payloads)
            self._written += len(payload)
            self._transport.write(payload)

    def encode(self, frame: EncodedFrame) -> bytes:
        return frame.sse(self._epoch)

    def send(self, frame: EncodedFrame) -> int:
        if self._paused or self._state is not _State.OPEN:
            return 0
        payload = frame.sse(self._epoch)
        self._written += len(payload)
        self._transport.write(payload)
        return len(payload)

    def ping(self) -> None:
        self.write(wire.HEARTBEAT)

    def pending(self) -> int:
        return wire.queued_bytes(self._transport) if self._state in (_State.OPEN, _State.CLOSING) else 0

    def close(self, why: Close, *, linger: float) -> None:
        if self._state is _State.OPEN:
            self._why = self._why or why
            if not wire.travels(why.code) or linger <= 0:
                self._reset()
                return
            self.write(wire.close_event(why).sse(self._epoch))
            self._state = _State.CLOSING
            wire.half_close(self._transport)
            self._arm(linger)
        elif self._timer is not None and asyncio.get_running_loop().time() + linger < self._timer.when():
            self._arm(linger)  # closed a second time, and more urgently
        # While it waits the endpoint answers: it looks at ``closed_as`` before it accepts.

    def abort(self) -> None:
        self._why = self._why or UNRESPONSIVE
        self._reset()

    # -- asyncio.Protocol --------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """The answer said ``Connection: close``, so nobody may say anything more (RFC 9112 section 9.6)."""
        self._said += len(data)
        if self._said > self._limits.max_size:
            self._why = self._why or PROTOCOL_ERROR
            self._reset()

    def eof_received(self) -> None:
        """The peer left, or it saw the end. What is written may still reach it, for a while; the transport closes."""
        if self._timer is None:  # else it has been closed, and gets no more time by saying so
            self._arm(self._limits.close_timeout)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._state is _State.OPEN and self._handled is not None:
            try:
                self._handled.drained()
            except Exception:  # a promise broken up there may not take the loop's callback down
                log.exception("a connection failed")
                self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = _State.GONE
        self._disarm()
        self._connections.discard(self)
        handled, self._handled = self._handled, None  # it refers to this: only the garbage collector would find them
        if handled is not None:
            handled.lost(self._why or PEER_GONE)

    def shutdown(self) -> None:  # uvicorn stops
        self.close(DRAINING, linger=_SHUTDOWN_LINGER)

    def _reset(self) -> None:
        if self._state in (_State.OPEN, _State.CLOSING):
            self._state = _State.CLOSING
            self._disarm()
            wire.reset(self._transport)

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self._reset)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
