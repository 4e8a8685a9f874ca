"""One ASGI websocket conversation: ``receive`` and ``send``. Reads no socket; ends once a connection is handed over.

An endpoint that finds the extension ``gateway.connection`` in its scope hands its connection over and returns. Any
other ASGI websocket application works too: then the conversation itself is what the protocol hands messages to.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from http import HTTPStatus
from typing import Protocol as Seam

from starlette.types import ASGIApp, Message, Scope
from starlette.websockets import WebSocketDisconnect
from websockets.frames import Frame, Opcode

from gateway.closing import DRAINING, INTERNAL_ERROR, Close
from gateway.ports import Handled, Transport
from gateway.sockets.wire import problem

EXTENSION = "gateway.connection"
OVERLOADED_EXTENSION = "gateway.overloaded"
"""Tells the application that too many handshakes wait: this one is to be refused, and not looked into."""
_READ_AHEAD = 64 * 1024
"""Bytes of messages an application may leave unread before its peer is no longer read either."""
_PER_MESSAGE = 64
_SWITCHING = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
_NORMAL = Close(1000, "", "backoff")

log = logging.getLogger("gateway.sockets")


class PeerGone(OSError):
    """There is nobody to talk to any more. An OSError, as ASGI asks of ``send`` (spec version 2.4)."""


class Wire(Seam):
    """What a conversation asks of its protocol. Nothing here waits or raises."""

    address: str | None

    @property
    def undecided(self) -> bool:
        """Neither accepted nor refused yet."""

    @property
    def open(self) -> bool: ...
    @property
    def writable(self) -> bool: ...
    def accept(self, answer: bytes, handled: Handled) -> None: ...
    def refuse(self, code: int, reason: str) -> None: ...
    def deny(self, response: bytes) -> None: ...
    def take(self, handled: Handled) -> Transport: ...
    def write(self, *payloads: bytes) -> None: ...
    def end(self, why: Close) -> None: ...
    def read_on(self, go: bool) -> None: ...
    def forget(self) -> None: ...


class Conversation:
    """Between one request and one application, until it is accepted and handed over, refused, or over."""

    __slots__ = (
        "_accept",
        "_asked",
        "_denial",
        "_handed",
        "_incoming",
        "_scope",
        "_unread",
        "_waiters",
        "_wire",
        "task",
    )

    def __init__(self, wire: Wire, accept: str, scope: Scope, *extensions: str) -> None:
        """``accept``: what the 101 says in Sec-WebSocket-Accept. ``scope``: complete but for the extensions, which are
        added; and so are ``extensions``, by name."""
        scope["extensions"] = {"websocket.http.response": {}, EXTENSION: self, **{name: {} for name in extensions}}
        self._scope = scope
        self._wire = wire
        self._accept = accept
        self._incoming: deque[Message] = deque([{"type": "websocket.connect"}])
        self._unread = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._handed: Handled | None = None
        self._denial: tuple[int, list[tuple[str, str]], bytearray] | None = None
        self._asked = False
        self.task: asyncio.Task[None] | None = None

    # -- the application ---------------------------------------------------------------------------------------

    async def run(self, app: ASGIApp) -> None:
        """Run ``app`` once; whatever it does, the peer is told something and nothing is kept afterwards."""
        wire, path = self._wire, self.path
        try:
            await app(self._scope, self.receive, self.send)
        except (PeerGone, WebSocketDisconnect):
            self._settle(_NORMAL)  # the application noticed that the client left
        except asyncio.CancelledError:
            wire.end(DRAINING)
            raise
        except Exception as error:  # the edge of the process: told to the log in full, to the peer not at all
            log.error("the application failed on the socket of %s", path, exc_info=error)
            self._settle(INTERNAL_ERROR)
        else:
            if wire.undecided:
                log.error("the application neither accepted nor refused the socket of %s", path)
            self._settle(_NORMAL)
        finally:
            wire.forget()
            self._scope = {}
            self._handed = self.task = None

    def give_up(self) -> bool:
        """Its time is over. Whether something is still to be said about that."""
        if self.task is not None:
            self.task.cancel()
        return False

    def _settle(self, why: Close) -> None:
        if self._wire.undecided:
            self._wire.deny(problem(500, "internal_error", "The gateway failed.", instance=self.path))
        elif self._handed is None or why is INTERNAL_ERROR:
            self._wire.end(why)

    @property
    def path(self) -> str:
        """Of the request, without its query: what may stand in an answer or a log."""
        path: bytes = self._scope["raw_path"]
        return path.decode("ascii")

    def hand_over(self, connection: Handled) -> Transport:
        """From the accept on, ``connection`` hears what the client says; the endpoint accepts and returns.

        The transport is usable at once, but nothing is written before the accept. Raises PeerGone if the client left
        in the meantime: then ``connection`` hears nothing, ever.
        """
        if self._handed is not None or not self._wire.undecided:
            if self._handed is None and not self._wire.open:
                raise PeerGone("the client left during the handshake")
            raise RuntimeError("a connection can be handed over once, before the accept")
        self._handed = connection
        client = self._scope.get("client")  # a proxy middleware may have put the real one there
        self._wire.address = client[0] if client else None
        return self._wire.take(connection)

    def switching(self, subprotocol: str | None = None, headers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
        """The 101."""
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        if subprotocol is not None:
            fields.append(("Sec-WebSocket-Protocol", subprotocol))
        lines = [_SWITCHING + self._accept, *[f"{name}: {_clean(value)}" for name, value in fields], "\r\n"]
        return "\r\n".join(lines).encode("latin-1")

    # -- ASGI --------------------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        if not self._incoming and self._handed is not None and self._wire.open:
            raise RuntimeError("what the client says goes to the connection that was handed over")
        while not self._incoming:
            await self._change()
        message = self._incoming.popleft()
        if message["type"] == "websocket.receive":
            self._unread -= len(message["text"]) + _PER_MESSAGE
            if not self._incoming:
                self._wire.read_on(True)
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if self._denial is not None:
            self._deny(kind, message)
        elif self._wire.undecided:
            if kind == "websocket.accept":
                answer = self.switching(message.get("subprotocol"), message.get("headers") or ())
                self._wire.accept(answer, self if self._handed is None else self._handed)
            elif kind == "websocket.close":
                self._wire.refuse(message.get("code") or 1000, message.get("reason") or "")
            elif kind == "websocket.http.response.start":
                headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in message.get("headers") or ()]
                self._denial = (message["status"], headers, bytearray())
            else:
                raise RuntimeError(f"Expected websocket.accept, websocket.close or a denial, not {kind!r}.")
            self._asked = True
        elif kind == "websocket.send":
            await self._write(message)
        elif kind == "websocket.close":
            self._wire.end(Close(message.get("code") or 1000, message.get("reason") or "", "backoff"))
        elif self._asked or kind != "websocket.accept":
            raise RuntimeError(f"Unexpected ASGI message {kind!r}.")
        # else: accepted after the peer left or was refused; the connection hears it from lost()

    async def _write(self, message: Message) -> None:
        while self._wire.open and not self._wire.writable:
            await self._change()
        if not self._wire.open:
            raise PeerGone("the socket is closed")
        data, text = message.get("bytes"), message.get("text")
        opcode, payload = (Opcode.BINARY, data) if data is not None else (Opcode.TEXT, (text or "").encode())
        self._wire.write(Frame(opcode, payload).serialize(mask=False))

    def _deny(self, kind: str, message: Message) -> None:
        assert self._denial is not None  # noqa: S101 - the caller looked
        if kind != "websocket.http.response.body":
            raise RuntimeError(f"Expected websocket.http.response.body, not {kind!r}.")
        status, headers, body = self._denial
        body += message.get("body", b"")
        if message.get("more_body"):
            return
        names = {name.lower() for name, _ in headers}
        if "content-length" not in names:
            headers.append(("content-length", str(len(body))))
        if "connection" not in names:
            headers.append(("connection", "close"))
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
        head = f"HTTP/1.1 {status} {phrase}\r\n" + "".join(f"{n}: {_clean(v)}\r\n" for n, v in headers) + "\r\n"
        if self._wire.undecided:
            self._wire.deny(head.encode("latin-1") + bytes(body))

    # -- ports.Handled, for an application that handed nothing over --------------------------------------------

    def received(self, text: str | bytes) -> None:
        self._unread += len(text) + _PER_MESSAGE
        self._put({"type": "websocket.receive", "text": text})
        if self._unread > _READ_AHEAD:
            self._wire.read_on(False)

    def drained(self) -> None:
        self._wake()

    def lost(self, why: Close) -> None:
        self.gone(why.code, "")

    def gone(self, code: int, reason: str) -> None:
        """The peer is away; said once, however often it is called."""
        if not self._incoming or self._incoming[-1]["type"] != "websocket.disconnect":
            self._put({"type": "websocket.disconnect", "code": code, "reason": reason})

    def _put(self, message: Message) -> None:
        self._incoming.append(message)
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _change(self) -> None:
        """Until something happened: a message came, the transport drained, the peer left."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter


def _clean(value: str) -> str:
    """A header value as it may stand in a head. Raises ValueError for what would end the line."""
    if any(ord(character) < 0x20 and character != "\t" for character in value) or "\x7f" in value:
        raise ValueError("a header value holds a control character")
    return value
