"""A client in Python that waits for one thing at a time: requests, sockets, pages. For latencies, not for load."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n"
)
PATIENCE = 20.0
"""Seconds after which whatever is waited for is given up."""


class Refused(Exception):
    """The gateway said no: as a rule because it is too busy. ``retry_after``: seconds, if it said so."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Wire:
    """One TCP connection to a node and the bytes of it that nobody has taken yet."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.left = bytearray()

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def more(self) -> None:
        """Wait for bytes. Raises ConnectionError at the end of the stream."""
        got = self.sock.recv(1 << 18)
        if not got:
            raise ConnectionError("the gateway closed the connection")
        self.left += got

    # -- HTTP ----------------------------------------------------------------------------------------------------------

    def ask(self, request: bytes, *, expect: int) -> bytes:
        """Send a request, wait for its answer: the body. Raises Refused."""
        self.sock.sendall(request)
        while (body := self.answer(expect=expect)) is None:
            self.more()
        return body

    def answer(self, *, expect: int) -> bytes | None:
        """The body of the next answer, or None as long as it has not come whole."""
        end = self.left.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(self.left[:end]).lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        if len(self.left) < end + 4 + length:
            return None
        body = bytes(self.left[end + 4 : end + 4 + length])
        del self.left[: end + 4 + length]
        if int(head.split(b" ", 2)[1]) != expect:
            later = head.partition(b"\r\nretry-after:")[2].partition(b"\r\n")[0].strip()
            message = f"not {expect}: {body.decode(errors='replace')}"
            raise Refused(message, retry_after=float(later) if later.isdigit() else None)
        return body

    # -- WebSocket -----------------------------------------------------------------------------------------------------

    def upgrade(self, path: str) -> None:
        """Returns at the 101; what followed it is left."""
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{UPGRADE}\r\n".encode())
        while (end := self.left.find(b"\r\n\r\n")) < 0:
            self.more()
        if not self.left.startswith(b"HTTP/1.1 101"):
            raise SystemExit(f"no upgrade: {bytes(self.left)!r}")
        del self.left[: end + 4]

    def frames(self) -> list[tuple[int, bytes]]:
        """(opcode, payload) of every frame that has come whole."""
        return take_frames(self.left)

    def texts(self, amount: int) -> list[bytes]:
        """Wait for so many text frames. A ping may come between: nobody here stays so long that it must be answered.

        Raises Refused when the gateway closes instead.
        """
        came: list[bytes] = []
        while True:
            for opcode, payload in self.frames():
                if opcode not in (1, 9):
                    raise Refused(f"a frame of kind {opcode} came: {payload!r}")
                if opcode == 1:
                    came.append(payload)
            if len(came) >= amount:
                return came
            self.more()


def take_frames(left: bytearray) -> list[tuple[int, bytes]]:
    """(opcode, payload) of every unmasked frame that is whole in ``left``, which they leave."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while len(left) >= at + 2:
        size, start = left[at + 1], at + 2
        if size >= 126:
            start += 2 if size == 126 else 8
            if len(left) < start:
                break
            size = int.from_bytes(left[at + 2 : start], "big")
        if len(left) < start + size:
            break
        found.append((left[at] & 15, bytes(left[start : start + size])))
        at = start + size
    del left[:at]
    return found


def get(path: str, token: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def until_closed(
    asking: tuple[str, Wire], request: bytes, groups: Mapping[str, Sequence[Wire]], *, expect: int, reason: bytes
) -> dict[str, float]:
    """Send ``request`` and wait for its answer and for a close frame with ``reason`` on every socket.

    Seconds from sending to the answer, and to the last close frame of each group, by their names.
    """
    with selectors.DefaultSelector() as selector:
        for name, wires in groups.items():
            for wire in wires:
                selector.register(wire.sock, selectors.EVENT_READ, (name, wire))
        selector.register(asking[1].sock, selectors.EVENT_READ, asking)
        waiting = {name: len(wires) for name, wires in groups.items()} | {asking[0]: 1}
        seconds: dict[str, float] = {}
        began = time.perf_counter()
        asking[1].sock.sendall(request)
        while any(waiting.values()):
            ready = selector.select(PATIENCE)
            if not ready:
                raise SystemExit(f"still waiting for {waiting}")
            for key, _ in ready:
                name, wire = key.data
                wire.more()
                if wire is asking[1]:
                    ended = wire.answer(expect=expect) is not None
                else:
                    ended = any(opcode == 8 and reason in payload for opcode, payload in wire.frames())
                if ended:
                    waiting[name] -= 1
                    seconds[name] = time.perf_counter() - began
                    selector.unregister(wire.sock)
        return seconds
