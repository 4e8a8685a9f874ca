"""The floor of fan-out in Python, to compare with: a uvloop protocol that answers every upgrade with the same bytes and
writes each posted text, framed once, to all. It parses no frame, checks no token and no key. Not part of the gateway.

``python -m benchmarks.bare_loop PORT``
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: 0000000000000000000000000000\r\n\r\n"
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer(asyncio.Protocol):
    """A request at a time, as the load generator sends them; after an upgrade whatever comes is not looked at."""

    def __init__(self, sockets: set[asyncio.Transport]) -> None:
        self._sockets = sockets
        self._transport: asyncio.Transport
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._transport in self._sockets:
            return
        self._head += data
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        if b"Upgrade: websocket" in head:
            self._transport.write(SWITCHING)
            self._sockets.add(self._transport)
        else:
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            if len(body) < int(length or 0):
                return
            if body:
                self._write_to_all(b"\x81\x7e" + len(body).to_bytes(2, "big") + body)
            self._transport.write(OK)
        self._head = b""

    def _write_to_all(self, frame: bytes) -> None:
        for transport in self._sockets:
            transport.write(frame)

    def connection_lost(self, error: Exception | None) -> None:
        self._sockets.discard(self._transport)


async def main(port: int) -> None:
    sockets: set[asyncio.Transport] = set()
    server = await asyncio.get_running_loop().create_server(lambda: Peer(sockets), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
