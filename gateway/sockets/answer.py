"""An HTTP answer that is there as a whole is written as a whole, and one without an end is handed over. Others are
uvicorn's: it writes head and body apart, a system call and a segment more for each request, and looks at every field
with two patterns.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from gateway.ports import Handled, Transport
from gateway.sockets.stream import StreamProtocol
from gateway.sockets.wire import STREAM, WireLimits

_NOT_IN_A_HEAD = bytes({*range(0x20), 0x7F} - {*b"\t\r\n"})
"""Octets that no field may hold (RFC 9110 section 5.5). Line ends are counted: one for each line that was meant."""
_UVICORNS = (b"connection", b"transfer-encoding")


class Asked(Protocol):
    """The protocol that has read the request."""

    connections: set[Any]
    limits: WireLimits

    def leave(self) -> asyncio.Transport:
        """HTTP is over here: whoever calls this is the transport's protocol from now on."""


class Answering:
    """``app`` for one request: what it sends is written at once if it can be, else handed to ``cycle``.

    For a GET it is the extension ``gateway.stream`` too: an application that hands a connection over, and then begins
    an answer that goes on, may return.
    """

    __slots__ = ("_app", "_asked", "_cycle", "_head", "_stream")

    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle, asked: Asked | None = None) -> None:
        self._app, self._cycle, self._asked = app, cycle, asked
        self._head: Message | None = None
        self._stream: StreamProtocol | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._asked is None or scope["method"] != "GET":
            await self._app(scope, receive, self._send)
            return
        scope["extensions"] = {STREAM: self}
        try:
            await self._app(scope, receive, self._send)
        finally:
            scope["extensions"] = {}  # it refers to this and back: only the garbage collector would find them

    def hand_over(self, connection: Handled, *, epoch: str, address: str | None) -> Transport:
        """What ``connection`` is to write to, once the answer has begun. Raises ClientDisconnect if the peer left."""
        assert self._asked is not None  # noqa: S101 - else nobody could find this
        if self._cycle.disconnected or self._cycle.transport.is_closing():
            raise ClientDisconnect
        self._stream = StreamProtocol(
            connection, epoch=epoch, address=address, limits=self._asked.limits, connections=self._asked.connections
        )
        return self._stream

    async def _send(self, message: Message) -> None:
        """The head waits for what comes after it. An application that breaks off between the two has sent nothing."""
        cycle: Any = self._cycle
        head, self._head = self._head, None
        if head is None and message["type"] == "http.response.start" and not cycle.response_started:
            self._head = message
            return
        if head is not None and self._stream is not None and message.get("more_body", False):
            self._begin(self._stream, head, message)
            return
        if head is not None:
            answer = self._whole(head, message)
            if answer is not None:
                cycle.response_started = cycle.response_complete = True
                cycle.waiting_for_100_continue = False
                cycle.transport.write(answer)
                cycle.message_event.set()
                cycle.on_response()
                return
            await cycle.send(head)
        await cycle.send(message)

    def _begin(self, stream: StreamProtocol, head: Message, message: Message) -> None:
        """From here on the connection is the stream's, and for uvicorn this request is answered."""
        cycle, asked = self._cycle, self._asked
        fields = [*cycle.default_headers, *head["headers"], (b"connection", b"close")]
        text = _head(head["status"], fields)
        if text is None or asked is None:
            raise ValueError("a field of the head holds a control character")
        cycle.response_started = cycle.response_complete = True
        stream.begin(asked.leave(), text + message["body"], paused=cycle.flow.write_paused)

    def _whole(self, head: Message, message: Message) -> bytes | None:
        """The answer as it goes over the wire; None for all that is not plain."""
        cycle, status = self._cycle, head["status"]
        if cycle.disconnected or not cycle.keep_alive or cycle.flow.write_paused or cycle.scope["method"] == "HEAD":
            return None
        if message["type"] != "http.response.body" or message.get("more_body", False) or status in (204, 304):
            return None
        body: bytes = message.get("body", b"")
        fields = [*cycle.default_headers, *head.get("headers", ())]
        length = None
        for name, value in fields:
            if name == b"content-length":
                length = value
            elif name in _UVICORNS:
                return None
        text = _head(status, fields)
        if text is None or length != b"%d" % len(body):
            return None  # uvicorn says what is wrong with it
        return text + body


def _head(status: int, fields: list[tuple[bytes, bytes]]) -> bytes | None:
    """The head of an answer; None if a field would end its line, or holds what no field may."""
    lines = [STATUS_LINE[status]]
    for name, value in fields:
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"\r\n")
    text = b"".join(lines)
    sane = text.count(b"\n") == text.count(b"\r\n") == text.count(b"\r") == len(fields) + 2
    return text if sane and len(text.translate(None, _NOT_IN_A_HEAD)) == len(text) else None
