"""One WebSocket on one TCP connection, as uvicorn's ``ws=`` class and as ``ports.Transport``. Parses nothing itself.

HANDSHAKE (an ASGI conversation decides) → OPEN (messages go to whoever was handed over) → CLOSING (our close frame is
out) → OVER (what still comes in is thrown away) → GONE. An idle one holds no task, queue, scope or parser. Every close
has a deadline and then resets: ``transport.close()`` alone waits for a peer that does not read, for ever if need be.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.closing import DRAINING, INTERNAL_ERROR, OVERLOADED, PEER_GONE, UNRESPONSIVE, Close
from gateway.ports import EncodedFrame, Handled, Transport
from gateway.sockets import wire
from gateway.sockets.admission import Admission
from gateway.sockets.framing import Goodbye, Parser, Parsers, Ping
from gateway.sockets.handshake import Conversation
from gateway.sockets.upgrade import Asked, Upgrade

_SHUTDOWN_LINGER = 1.0  # seconds: the drain before it has asked politely
_HANDSHAKE, _OPEN, _CLOSING, _OVER, _GONE = range(5)  # no enumeration: each frame asks, and a member is slow to find

log = logging.getLogger("gateway.sockets")


class SocketProtocol(asyncio.Protocol):
    __slots__ = (
        "_connections", "_conversation", "_early", "_handled", "_parser", "_parsers", "_paused", "_state", "_timer",
        "_transport", "_why", "address", "heard",
    )  # fmt: skip

    kind = "ws"

    def __init__(
        self,
        parsers: Parsers,
        admission: Admission,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._parsers = parsers
        self._connections: set[Any] = server_state.connections
        self._transport: asyncio.Transport
        self._state = _HANDSHAKE
        # What will make the conversation when it is the request's turn; then the conversation; then nothing.
        self._conversation: Upgrade | Conversation | None = Upgrade(
            admission, config=config, server_state=server_state, app_state=app_state
        )
        self._handled: Handled | None = None
        self._parser: Parser | None = None
        self._early, self._paused, self.heard = b"", False, 0
        self._timer: asyncio.TimerHandle | None = None
        self._why: Close | None = None
        self.address: str | None = None

    # -- ports.Transport ---------------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        return not self._paused and self._state <= _OPEN

    def write(self, *payloads: bytes) -> None:
        if self._state == _OPEN:
            self._transport.write(payloads[0] if len(payloads) == 1 else b"".join(payloads))

    def encode(self, frame: EncodedFrame) -> bytes:
        return frame.ws

    def send(self, frame: EncodedFrame) -> int:
        if self._paused or self._state != _OPEN:
            return 0
        self._transport.write(payload := frame.ws)
        return len(payload)

    def ping(self) -> None:
        self.write(b"\x89\x00")

    def pending(self) -> int:
        return 0 if self._state == _GONE else wire.queued_bytes(self._transport)

    def close(self, why: Close, *, linger: float) -> None:
        if self._state == _HANDSHAKE:
            self._why = self._why or why
            self.refuse(why.code, why.reason, linger=linger)
        elif self._state == _OPEN:
            self._why = self._why or why
            if not wire.travels(why.code) or linger <= 0:
                self._reset()
                return
            self._transport.write(wire.close_frame(why.code, why.reason))
            self._state = _CLOSING
            self._arm(linger)
        elif self._timer is not None and asyncio.get_running_loop().time() + linger < self._timer.when():
            self._arm(linger)  # closed a second time, and more urgently

    def abort(self) -> None:
        self._why = self._why or UNRESPONSIVE
        self._reset()

    # -- handshake.Wire ----------------------------------------------------------------------------------------

    @property
    def undecided(self) -> bool:
        return self._state == _HANDSHAKE

    @property
    def open(self) -> bool:
        return self._state == _OPEN

    def take(self, handled: Handled) -> Transport:
        self._handled = handled
        return self

    def accept(self, answer: bytes, handled: Handled) -> None:
        if self._state != _HANDSHAKE:
            return
        self._handled = handled
        self._state = _OPEN
        self._disarm()
        if handled is not self._conversation:
            self._conversation = None
        self._transport.write(answer)
        if self._early:  # not now: the endpoint is in the middle of its accept
            asyncio.get_running_loop().call_soon(self._read, self._early)
            self._early = b""

    def refuse(self, code: int, reason: str, *, linger: float | None = None) -> None:
        """A close before the accept. ASGI says 403, whose status a browser cannot read: so the upgrade is answered and
        the close frame follows at once; no data frame is ever sent (contract 4.2)."""
        if self._state != _HANDSHAKE:
            return
        limits, conversation = self._parsers.limits, self._conversation
        conversation = conversation.unasked() if isinstance(conversation, Upgrade) else conversation
        if limits.reject == "close" and wire.travels(code) and conversation is not None:
            self._transport.write(conversation.switching() + wire.close_frame(code, reason))
            self._state = _CLOSING
            self._arm(limits.close_timeout if linger is None else linger)
        else:
            self.deny(wire.denial(reason, "/" if conversation is None else conversation.path))

    def deny(self, response: bytes) -> None:
        if self._state == _HANDSHAKE:
            self._transport.write(response)
            self._finish()

    def end(self, why: Close) -> None:
        self.read_on(True)  # or the peer's answer would not be seen
        self.close(why, linger=self._parsers.limits.close_timeout)

    def read_on(self, go: bool) -> None:
        if self._state == _OPEN:
            (self._transport.resume_reading if go else self._transport.pause_reading)()

    def conversing(self, conversation: Conversation) -> None:
        self._conversation = conversation

    def forget(self) -> None:
        self._conversation = None

    # -- asyncio.Protocol --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._parsers.limits.high_water)
        self._connections.add(self)
        self._arm(self._parsers.limits.handshake_timeout, self._too_slow)

    def requested(self, asked: Asked) -> None:
        """The upgrade request, which ``sockets/http.py`` has read: the first thing after ``connection_made``."""
        if isinstance(self._conversation, Upgrade):
            self._conversation.ask(self, asked)

    def data_received(self, data: bytes) -> None:
        self.heard += len(data)
        if self._state == _HANDSHAKE:
            # Nobody may speak before the 101 (RFC 6455 section 4.1); who does is kept waiting, within bounds.
            self._early += data
            if len(self._early) > self._parsers.limits.max_size:
                self._reset()
        else:
            self._read(data)

    def eof_received(self) -> None:
        if self._state <= _CLOSING:
            self._finish()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._state == _OPEN and self._handled is not None:
            self._tell(self._handled.drained)

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = _GONE
        self._disarm()
        self._connections.discard(self)
        if self._parser is not None:
            self._parser.close()
        if self._conversation is not None:
            self._conversation.gone((self._why or PEER_GONE).code, "")
        self._leave()

    def shutdown(self) -> None:  # uvicorn stops; called in any state, and must not raise: that would stop the stopping
        self.close(DRAINING, linger=_SHUTDOWN_LINGER)

    def _read(self, data: bytes) -> None:
        if self._state > _CLOSING:
            return
        parser = self._parser or self._parsers.take()
        self._parser = None
        for item in parser.read(data):
            if isinstance(item, str):
                if self._state == _OPEN and self._handled is not None:
                    self._tell(self._handled.received, item)
            elif isinstance(item, Ping):
                if self._state == _OPEN and not self._paused:  # a peer that reads no pongs gets no more of them
                    self._transport.write(wire.pong_frame(item.payload))
            elif isinstance(item, Goodbye):
                self._answer(item)
            else:
                self._fail(item)
            if self._state >= _OVER:
                parser.close()  # it may be in the middle of something
                return
        self._parser = self._parsers.give_back(parser)

    def _answer(self, goodbye: Goodbye) -> None:
        """The peer's close frame: echoed unless it is the echo; and the TCP connection ends (RFC 6455, 5.5.1)."""
        if self._state == _OPEN:
            self._transport.write(wire.close_frame(goodbye.code, goodbye.reason))
            if isinstance(self._handled, Conversation):
                self._handled.gone(goodbye.code, goodbye.reason)
        self._finish()

    def _fail(self, why: Close) -> None:
        """The peer broke a rule: it is told which, and nothing it says is heard any more (RFC 6455 section 7.1.7)."""
        if self._state == _OPEN:
            self._why = why
            self._transport.write(wire.close_frame(why.code, why.reason))
        self._leave()
        wire.half_close(self._transport)
        self._arm(self._parsers.limits.close_timeout)

    def _tell(self, method: Callable[..., None], *what: object) -> None:
        try:
            method(*what)
        except Exception:  # a promise broken up there may not take the loop's callback down; the client hears 1011
            log.exception("a connection failed")
            self.end(INTERNAL_ERROR)

    def _finish(self) -> None:
        """Nothing more is said or heard; what is written may still reach the peer, for a while."""
        self._leave()
        self._transport.close()
        self._arm(self._parsers.limits.close_timeout)

    def _leave(self) -> None:
        """Over, and whoever was handed over is told now: the peer may take its time to hang up."""
        self._state = max(self._state, _OVER)
        handled, self._handled = self._handled, None
        if handled is not None:
            self._tell(handled.lost, self._why or PEER_GONE)

    def _reset(self) -> None:
        if self._state != _GONE:
            self._state = _OVER
            self._disarm()
            wire.reset(self._transport)

    def _too_slow(self) -> None:
        """The application did not decide in time; its endpoint is of no use to anybody any more."""
        self._arm(self._parsers.limits.close_timeout, self._too_slow)
        if self._conversation is None or not self._conversation.give_up():
            self.end(OVERLOADED)  # else its refusal is on its way

    def _arm(self, seconds: float, then: Callable[[], None] | None = None) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, seconds), then or self._reset)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None


def socket_protocol(limits: wire.WireLimits) -> type[asyncio.Protocol]:
    """What uvicorn's ``Config(ws=…)`` takes: it only ever calls it, with keywords, so a partial will do."""
    admission = Admission(at_once=limits.upgrades_at_once, waiting=limits.upgrades_waiting)
    return cast("type[asyncio.Protocol]", partial(SocketProtocol, Parsers(limits), admission))
