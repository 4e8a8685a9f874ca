"""The metrics of all workers in one answer, whichever of them is asked. Counts nothing itself; one process needs none.

Every worker tells what it counts on a UNIX socket of its own, in a directory that only the gateway's user may enter.
Who is scraped asks all of them, itself included: of a worker that is being replaced, the successor answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

from gateway.metrics import EXPOSITION

WAIT = 0.5
"""Seconds all siblings together have to answer."""

_END = b"# EOF\n"
_LARGEST = 16 << 20
_UP = "gateway_worker_up"


@dataclass(frozen=True, slots=True)
class Crew:
    """Which worker this is (from 1), of how many, and where they all tell what they count.

    ``port``: the listening socket of GATEWAY_METRICS_PORT, which the workers share.
    """

    number: int
    count: int
    directory: Path
    port: socket.socket | None = None

    @asynccontextmanager
    async def answering(self, own: Callable[[], bytes]) -> AsyncIterator[None]:
        """Inside the block the siblings are told what ``own`` returns, the text of this worker's metrics."""

        async def told(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(WAIT):
                    writer.write(own() + _END)
                    await writer.drain()
            writer.close()

        place = self.directory / str(self.number)
        fresh = place.with_suffix(f".{os.getpid()}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.bind(str(fresh))
            sock.listen(16)
            fresh.replace(place)
            server = await asyncio.start_unix_server(told, sock=sock)
            try:
                async with self._on_port():
                    yield
            finally:
                server.close()

    async def exposition(self) -> bytes:
        """What a scrape is answered with: every worker's series, each with its number, and which of them answered."""
        return await asyncio.to_thread(self.gather)

    def gather(self) -> bytes:
        """``exposition`` for a thread: it blocks for up to WAIT seconds."""
        return merged({number: self._asked(asked, until) for number, asked, until in self._ask_all()})

    def _ask_all(self) -> list[tuple[int, socket.socket, float]]:
        """Connected to all before the first is read: they answer at the same time."""
        until = time.monotonic() + WAIT
        return [(number, self._connected(number), until) for number in range(1, self.count + 1)]

    def _connected(self, number: int) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(WAIT)
        with contextlib.suppress(OSError):  # it is dead; nothing will be read from it
            sock.connect(str(self.directory / str(number)))
        return sock

    @staticmethod
    def _asked(sock: socket.socket, until: float) -> bytes | None:
        """The whole text of one worker; None if it is not there, or not in time."""
        text = b""
        with sock, contextlib.suppress(OSError):
            while len(text) < _LARGEST:
                sock.settimeout(max(0.001, until - time.monotonic()))
                if not (part := sock.recv(1 << 18)):
                    break
                text += part
        return text.removesuffix(_END) if text.endswith(_END) else None

    @asynccontextmanager
    async def _on_port(self) -> AsyncIterator[None]:
        """The port is answered by threads: also while the loop of this worker is busy."""
        if self.port is None:
            yield
            return
        server = _Port(self.port, self.gather)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics")
        thread.start()
        try:
            yield
        finally:
            await asyncio.to_thread(server.shutdown)
            thread.join()
            server.server_close()


class _Port(ThreadingHTTPServer):
    """On a listening socket that is there already, and that others listen on too: it must not block."""

    def __init__(self, sock: socket.socket, gather: Callable[[], bytes]) -> None:
        super().__init__(sock.getsockname(), _Scrape, bind_and_activate=False)
        self.socket.close()
        self.socket, self.gather = sock, gather


class _Scrape(BaseHTTPRequestHandler):
    """Whatever is asked for, these are the metrics."""

    timeout = 5.0

    def do_GET(self) -> None:
        body = cast("_Port", self.server).gather()
        self.send_response(200)
        self.send_header("Content-Type", EXPOSITION)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Not a word about each scrape."""


def merged(texts: Mapping[int, bytes | None]) -> bytes:
    """Several expositions as one: a family is described once, and each of its series says whose it is."""
    families: dict[str, list[str]] = {
        _UP: [f"# HELP {_UP} Whether the worker answers.", f"# TYPE {_UP} gauge"]
        + [f'{_UP}{{worker="{number}"}} {int(text is not None)}' for number, text in texts.items()]
    }
    for number, text in texts.items():
        told: list[str] = []
        known = False
        for line in (text or b"").decode().splitlines():
            if line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
                known = name in families
                told = families.setdefault(name, [])
            if not line.startswith("#"):
                told.append(_labelled(line, number))
            elif not known:
                told.append(line)
    return "".join(line + "\n" for lines in families.values() for line in lines).encode()


def _labelled(line: str, number: int) -> str:
    """No name of a metric has a brace or a space in it: the first one ends it."""
    if "{" in line:
        name, _, rest = line.partition("{")
        return f'{name}{{worker="{number}",{rest}'
    name, _, value = line.partition(" ")
    return f'{name}{{worker="{number}"}} {value}'
