"""An HTTP answer that is there as a whole is written as a whole. What comes in pieces, or is the last, is uvicorn's.

uvicorn writes head and body apart, a system call and a segment more for each request, and looks at every field with
two patterns.
"""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_NOT_IN_A_HEAD = bytes({*range(0x20), 0x7F} - {*b"\t\r\n"})
"""Octets that no field may hold (RFC 9110 section 5.5). Line ends are counted: one for each line that was meant."""
_UVICORNS = (b"connection", b"transfer-encoding")


class Answering:
    """``app`` for one request: what it sends is written at once if it can be, else handed to ``cycle``."""

    __slots__ = ("_app", "_cycle", "_head")

    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle) -> None:
        self._app, self._cycle = app, cycle
        self._head: Message | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, self._send)

    async def _send(self, message: Message) -> None:
        """The head waits for what comes after it. An application that breaks off between the two has sent nothing."""
        cycle: Any = self._cycle
        head, self._head = self._head, None
        if head is None and message["type"] == "http.response.start" and not cycle.response_started:
            self._head = message
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
        lines = [STATUS_LINE[status]]
        for name, value in fields:
            if name == b"content-length":
                length = value
            elif name in _UVICORNS:
                return None
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n")
        text = b"".join(lines)
        ends = len(fields) + 2
        sane = text.count(b"\n") == text.count(b"\r\n") == text.count(b"\r") == ends
        if length != b"%d" % len(body) or not sane or len(text.translate(None, _NOT_IN_A_HEAD)) != len(text):
            return None  # uvicorn says what is wrong with it
        return text + body
