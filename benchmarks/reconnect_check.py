"""The simulation beside the real thing: a gateway is killed and started again, its clients come back. Judges nothing.

The server has core 0, the clients core 1; plain ``ws://`` on loopback, SQLite, one user each. What the simulation
cannot know is measured and handed to it: upgrades a second before, when the port was open again, when the first was
served. Let the port open between two rounds of the clients that wait alike (1, 3, 7, 15 s): at the edge it is chance.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.people import prepare, write_paths
from benchmarks.servers import SIGNING_KEYS, VENV, clean_environment, free_port, pinned
from benchmarks.simulate_reconnect import HEAD, WAYS, Outcome, Scene, Way, row, simulate

PATIENCE = 10.0
PONG = b"\x8a\x80\0\0\0\0"
"""Masked with zeros. That any byte comes is the sign of life."""
WITHIN = 240.0
"""Seconds after which a run is given up."""


@dataclass
class Fleet:
    """All clients. Times are seconds of ``time.monotonic``."""

    port: int
    requests: Sequence[bytes]
    way: Way
    chance: Callable[[], float]
    cut: float = 0.0
    """When the gateway was killed; 0: it was not."""
    last_told: float = 0.0
    """When the last client learned that its socket was gone."""
    served: dict[int, float] = field(default_factory=dict)
    failures: Counter[int] = field(default_factory=Counter)
    attempts: list[float] = field(default_factory=list)
    refused: int = 0
    given_up: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def attempt(self, number: int) -> None:
        """One attempt; how it ends is the client's to say."""
        client = Client(self, number)
        self.attempts.append(time.monotonic())
        try:
            await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", self.port)
        except OSError:
            client.over("refused")

    def serve(self, number: int) -> None:
        self.served[number] = time.monotonic()
        self.failures[number] = 0
        self.arrived.set()

    def try_again(self, number: int) -> None:
        """Wait as the way says, then another attempt."""
        self.served.pop(number, None)
        wait = self.way(self.failures[number], self.chance)
        self.failures[number] += 1
        asyncio.get_running_loop().call_later(wait, self._start, number)

    def _start(self, number: int) -> None:
        task = asyncio.create_task(self.attempt(number))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def all_served(self) -> None:
        while len(self.served) < len(self.requests):
            self.arrived.clear()
            await self.arrived.wait()


class Client(asyncio.Protocol):
    """One attempt: served when ``hello`` has come. What comes later is answered as if it were a ping."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self._fleet, self._number = fleet, number
        self._transport: asyncio.Transport | None = None
        self._head: bytes | None = b""
        self._ended = False
        self._late = asyncio.get_running_loop().call_later(PATIENCE, self.over, "given up")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._ended:
            self._transport.abort()
            return
        self._transport.write(self._fleet.requests[self._number])

    def data_received(self, data: bytes) -> None:
        if self._head is None:
            assert self._transport is not None
            self._transport.write(PONG)
            return
        self._head += data
        # Looked for, not parsed: a ping may come first. A refusal is a close frame, and no hello.
        if b'"type":"hello"' in self._head:
            self._head = None
            self._late.cancel()
            self._fleet.serve(self._number)

    def connection_lost(self, error: Exception | None) -> None:
        self.over("refused" if self._head is not None else "cut")

    def over(self, why: str) -> None:
        if self._ended:
            return
        self._ended = True
        self._late.cancel()
        self._fleet.refused += why == "refused"
        self._fleet.given_up += why == "given up"
        if self._transport is not None:
            self._transport.abort()
        if why == "cut" and not self._fleet.cut:
            raise SystemExit("the gateway closed a socket before it was killed")
        if why == "cut":
            self._fleet.last_told = time.monotonic()
        self._fleet.try_again(self._number)


@dataclass(frozen=True, slots=True)
class Real:
    """What happened, and what the simulation has to be told: the fields are those of ``Scene``."""

    outcome: Outcome
    notice: float
    opens: float
    ready: float
    rate: float


async def come_back(server: Server, requests: Sequence[bytes], way: Way, *, down: float, seed: int) -> Real:
    """Connect all, 64 at a time; kill; start again ``down`` seconds later; wait until all are back."""
    fleet = Fleet(server.port, requests, way, random.Random(seed).random)
    begun = time.monotonic()
    places = asyncio.Semaphore(64)

    async def first(number: int) -> None:
        async with places:
            await fleet.attempt(number)
            while number not in fleet.served:  # noqa: ASYNC110 - an Event for each would be more to read
                await asyncio.sleep(0.001)

    async with asyncio.timeout(WITHIN):
        await asyncio.gather(*(first(number) for number in range(len(requests))))
    rate = len(requests) / (max(fleet.served.values()) - begun)
    fleet.attempts, fleet.refused, fleet.given_up = [], 0, 0
    fleet.cut = time.monotonic()
    server.kill()
    await asyncio.sleep(down)
    server.start()
    async with asyncio.timeout(WITHIN):
        (opened, ready), _ = await asyncio.gather(_up(server.port), fleet.all_served())
    back = sorted(at - fleet.cut for at in fleet.served.values())
    seconds = Counter(int(at - fleet.cut) for at in fleet.attempts)
    return Real(
        Outcome(len(requests), back, len(fleet.attempts), max(seconds.values()), fleet.refused, fleet.given_up),
        notice=fleet.last_told - fleet.cut,
        opens=opened - fleet.cut,
        ready=ready - fleet.cut,
        rate=rate,
    )


async def _up(port: int) -> tuple[float, float]:
    """When the port took a connection, and when a first answer came."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)
            continue
        opened = time.monotonic()
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answer = await reader.readline()
        writer.close()
        if answer:
            return opened, time.monotonic()


class Server:
    """``gateway serve`` on the database in ``directory``, always on the same port."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = clean_environment(
            GATEWAY_PORT=str(self.port),
            GATEWAY_DATABASE_URL=f"sqlite+aiosqlite:///{self._directory}/gateway.db",
            GATEWAY_SIGNING_KEYS=SIGNING_KEYS,
            GATEWAY_ACCESS_TOKEN_TTL="86400",
            GATEWAY_LOG_LEVEL="warning",
        )
        with (self._directory / "gateway.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(VENV / "bin/gateway"), "serve"], env=environment, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, preexec_fn=pinned(0),
            )  # fmt: skip

    def until_listening(self) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise SystemExit("the gateway does not come up:\n" + (self._directory / "gateway.log").read_text()[-3000:])

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@contextmanager
def _server(prepared: Path) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="reconnect-") as directory:
        for file in prepared.iterdir():
            shutil.copy(file, directory)
        server = Server(Path(directory))
        server.start()
        try:
            server.until_listening()
            yield server
        finally:
            server.kill()


def check(*, clients: int, down: float, seed: int) -> None:
    """Every way, once for real and once simulated, line under line."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="reconnect-") as directory:
        home = Path(directory)
        (home / "prepared").mkdir()
        prepare(home / "prepared", users=clients)
        write_paths(home / "paths", users=clients)
        requests = [_request(path) for path in (home / "paths").read_text().split()]
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
        print(HEAD)
        for name, way in WAYS.items():
            with _server(home / "prepared") as server:
                real = uvloop.run(come_back(server, requests, way, down=down, seed=seed))
            print(row(f"{name}: real", real.outcome), flush=True)
            scene = Scene(clients, 1, real.rate, opens=real.opens, ready=real.ready, notice=real.notice)
            print(row(f"{name}: simulated", simulate(scene, way, seed=seed)))
            print(
                f"  told within {real.notice:.2f} s, open after {real.opens:.2f} s, first served after "
                f"{real.ready:.2f} s; {real.rate:.0f} upgrades/s before",
                flush=True,
            )


def _request(path: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()
