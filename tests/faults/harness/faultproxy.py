"""Links that can be made to fail: a TCP proxy in a thread of its own. Knows no protocol above TCP and judges nothing.

One ``Link`` stands between two parties (client and node, node and PostgreSQL, node and Redis). What it does to what
passes is changed while it runs; a call returns when the change counts. ``UP`` is from who connects to who listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import random
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import TypeVar

T = TypeVar("T")
CHUNK = 65536
BUFFER = 65536
"""Bytes the kernel may hold for either side: a proxy must not be the reader that a slow peer is not."""
MOST_QUEUED = 1 << 20
"""Bytes of one direction that may wait for their delay; beyond it nothing more is read."""
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27  # Linux; Python has no names for them
_LINGER = struct.pack("ii", 1, 0)


class Way(Flag):
    UP = auto()
    DOWN = auto()
    BOTH = UP | DOWN


UP, DOWN, BOTH = Way.UP, Way.DOWN, Way.BOTH


@dataclass(frozen=True, slots=True)
class Manner:
    """How one direction passes bytes on. Seconds and bytes; None: not at all so."""

    delay: float = 0.0
    jitter: float = 0.0
    rate: float | None = None
    piece: int | None = None
    pause: float = 0.0
    shut: bool = False


@dataclass(slots=True)
class Counts:
    connections: int = 0
    refused: int = 0
    resets: int = 0
    cuts: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    torn: int = 0


@dataclass(slots=True)
class _Cut:
    """What ends a connection: so many bytes, or a pattern, in one direction. ``left``: how many connections yet."""

    way: Way
    after: int | bytes
    answered: bool
    left: int


class Links:
    """The thread that all links of a test run in. Leaving the block closes every connection."""

    def __init__(self, *, seed: int = 0) -> None:
        self._seed, self._links = seed, list[Link]()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._thread.start()

    def __enter__(self) -> Links:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def link(self, name: str, to: int, *, host: str = "127.0.0.1") -> Link:
        """A listening link to ``host``:``to``; connect to its ``port``."""
        made = self.call(lambda: Link(name, (host, to), self, random.Random(f"{self._seed}/{name}")))
        self._links.append(made)
        return made

    def call(self, what: Callable[[], T]) -> T:
        """Run ``what`` in the thread of the links; its result when it is done."""

        async def doing() -> T:
            return what()

        return asyncio.run_coroutine_threadsafe(doing(), self._loop).result(10)

    def end(self) -> None:
        async def closing() -> None:
            for link in self._links:
                link.shut()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(closing(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()


@dataclass(eq=False)
class _Pair:
    """One connection through the link. ``torn``: it was in a black hole and can never go on."""

    client: socket.socket
    server: socket.socket | None = None
    torn: bool = False
    cutting: Way | None = None
    over: bool = False
    passed: dict[Way, int] = field(default_factory=lambda: {UP: 0, DOWN: 0})
    tails: dict[Way, bytes] = field(default_factory=lambda: {UP: b"", DOWN: b""})
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def keep(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


class Link:
    """One listening port whose connections lead to another. Made by ``Links.link``; its methods are for the test."""

    def __init__(self, name: str, to: tuple[str, int], links: Links, rng: random.Random) -> None:
        self.name, self._to, self._links, self._rng = name, to, links, rng
        self.counts = Counts()
        self._manners: dict[Way, Manner] = {UP: Manner(), DOWN: Manner()}
        self._changed = asyncio.Event()
        self._refusing = False
        self._blind = Way(0)
        self._cut: _Cut | None = None
        self._pairs: dict[_Pair, None] = {}  # in the order they came, so that a seed chooses the same ones
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        _bound(self._listener)
        self.port: int = self._listener.getsockname()[1]
        self._later: asyncio.TimerHandle | None = None
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    # -- what a test does ----------------------------------------------------------------------------------------

    def heal(self) -> None:
        """As new: everything passes. Connections that were in a black hole are reset."""

        def do() -> None:
            self._manners = {UP: Manner(), DOWN: Manner()}
            self._refusing, self._blind, self._cut = False, Way(0), None
            _unblindfold(self._listener)
            for pair in [pair for pair in self._pairs if pair.torn]:
                self._reset(pair)
            self._turn()

        self._links.call(do)

    def latency(self, milliseconds: float, *, jitter: float = 0.0, way: Way = BOTH) -> None:
        """Everything arrives that much later, ± up to ``jitter`` milliseconds, in order."""
        self._set(Manner(delay=milliseconds / 1000, jitter=jitter / 1000), way)

    def rate(self, kilobytes: float, *, way: Way = BOTH) -> None:
        """``kilobytes`` per second and connection; what is behind is not read, so the sender feels it."""
        self._set(Manner(rate=kilobytes * 1024), way)

    def slice(self, size: int, *, pause: float = 0.5, way: Way = BOTH) -> None:
        """In pieces of ``size`` bytes, one segment each, ``pause`` milliseconds apart."""
        self._set(Manner(piece=size, pause=pause / 1000), way)

    def blackhole(self, *, way: Way = BOTH) -> None:
        """Nothing comes through and nobody is told: no byte, no FIN, no RST. One ``way`` only: a half-open link.

        Not even the kernel takes anything here: what a sender sends stays unacknowledged, and a SYN goes unanswered.
        """

        def do() -> None:
            self._blind |= way
            for pair in self._pairs:
                self._tear(pair)
            if UP in way:
                _blindfold(self._listener)

        self._set(Manner(shut=True), way)
        self._links.call(do)

    def hold(self, *, way: Way = BOTH) -> None:
        """Nothing comes through for now, and all of it afterwards. A little is taken meanwhile, by the kernel here."""
        self._set(Manner(shut=True), way)

    def refuse(self) -> None:
        """New connections are reset at once; those that are open stay."""
        self._links.call(lambda: setattr(self, "_refusing", True))

    def reset(self, share: float = 1.0) -> int:
        """Reset this share of the open connections, at both ends. How many."""

        def do() -> int:
            chosen = self._rng.sample(list(self._pairs), round(len(self._pairs) * share))
            for pair in chosen:
                self._reset(pair)
            return len(chosen)

        return self._links.call(do)

    def cut_after(self, what: int | bytes, *, way: Way = UP, answered: bool = False, times: int = 1) -> None:
        """Reset a connection once ``what`` (bytes from now on, or a pattern) went through; ``times`` connections.

        ``answered``: only when the other side begins to answer, and the answer is thrown away. So what asked for it
        was carried out for certain, and whoever asked does not know.
        """

        def do() -> None:
            self._cut = _Cut(way, what, answered, times)
            for pair in self._pairs:
                pair.passed, pair.tails = {UP: 0, DOWN: 0}, {UP: b"", DOWN: b""}

        self._links.call(do)

    def lead_to(self, port: int, *, host: str = "127.0.0.1") -> None:
        """New connections go there; the old ones stay where they are."""
        self._links.call(lambda: setattr(self, "_to", (host, port)))

    @property
    def open(self) -> int:
        return self._links.call(lambda: len(self._pairs))

    def _set(self, manner: Manner, way: Way) -> None:
        def do() -> None:
            for one in (UP, DOWN):
                if one in way:
                    self._manners[one] = manner
            self._turn()

        self._links.call(do)

    def _turn(self) -> None:
        """Whoever waits looks again."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # -- connections ---------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        """Take whoever waits. Not ``sock_accept``: what it had accepted when its task is cancelled is lost."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # out of descriptors, for a moment
                loop.remove_reader(self._listener)
                self._later = loop.call_later(0.01, loop.add_reader, self._listener, self._accept)
                return
            client.setblocking(False)
            _quick(client)
            if self._refusing:
                self.counts.refused += 1
                _abort(client)
                continue
            self.counts.connections += 1
            pair = _Pair(client)
            self._pairs[pair] = None
            pair.keep(loop.create_task(self._carry(pair)))

    async def _carry(self, pair: _Pair) -> None:
        """Connect on, then both directions until the connection is over."""
        loop = asyncio.get_running_loop()
        while any(manner.shut for manner in self._manners.values()):
            # A handshake takes both ways: the one that listens does not hear of this one.
            if self._blind:
                self._tear(pair)
            await self._changed.wait()
        server = socket.socket()
        server.setblocking(False)
        _bound(server)
        try:
            await loop.sock_connect(server, self._to)
        except OSError:
            _abort(server)
            self._reset(pair)
            return
        except asyncio.CancelledError:
            server.close()
            raise
        _quick(server)
        pair.server = server
        ends = [
            pair.keep(loop.create_task(self._pump(pair, UP, pair.client, server))),
            pair.keep(loop.create_task(self._pump(pair, DOWN, server, pair.client))),
        ]
        await asyncio.wait(ends)
        if not pair.over:
            self._drop(pair)
            pair.client.close()
            server.close()

    async def _pump(self, pair: _Pair, way: Way, source: socket.socket, sink: socket.socket) -> None:
        """One direction, to its end. What has to wait goes through a queue, so that a delay costs no throughput."""
        loop = asyncio.get_running_loop()
        queue: deque[tuple[float, bytes]] = deque()
        writer: asyncio.Task[None] | None = None
        last = 0.0
        try:
            while True:
                while self._manners[way].shut:
                    await self._changed.wait()
                data = await loop.sock_recv(source, CHUNK)
                while self._manners[way].shut:  # it was read before anybody said so
                    await self._changed.wait()
                manner = self._manners[way]
                if data and pair.cutting not in (None, way):
                    self._reset(pair, cut=True)  # the answer, and nobody hears it
                    return
                if not data:
                    break
                if writer is not None and writer.done():
                    writer = None
                if writer is not None or manner.delay or manner.jitter:
                    due = loop.time() + max(0.0, manner.delay + self._rng.uniform(-1, 1) * manner.jitter)
                    last = max(due, last)
                    queue.append((last, data))
                    if writer is None:
                        writer = pair.keep(loop.create_task(self._write_late(pair, way, sink, queue)))
                    if sum(len(piece) for _, piece in queue) > MOST_QUEUED:
                        await asyncio.wait([writer])
                elif not await self._write(pair, way, sink, data):
                    return
            if writer is not None:
                await asyncio.wait([writer])
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            while self._manners[way].shut:  # nor does anybody hear that it left
                await self._changed.wait()
            self._reset(pair)

    async def _write_late(self, pair: _Pair, way: Way, sink: socket.socket, queue: deque[tuple[float, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while queue:
                due, data = queue[0]
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                if not await self._write(pair, way, sink, data):
                    return
                queue.popleft()
            return
        self._reset(pair)

    async def _write(self, pair: _Pair, way: Way, sink: socket.socket, data: bytes) -> bool:
        """Pass ``data`` on in this direction's manner; False if the connection was cut by it."""
        loop, manner = asyncio.get_running_loop(), self._manners[way]
        keep = self._until_cut(pair, way, data)
        whole = data if keep is None else data[:keep]
        size = manner.piece or (max(1, int(manner.rate / 20)) if manner.rate else len(whole) or 1)
        for at in range(0, len(whole), size):
            piece = whole[at : at + size]
            if way is UP:
                self.counts.bytes_up += len(piece)
            else:
                self.counts.bytes_down += len(piece)
            await loop.sock_sendall(sink, piece)
            if manner.rate:
                await asyncio.sleep(len(piece) / manner.rate)
            elif manner.piece:
                await asyncio.sleep(manner.pause)
        if keep is None:
            return True
        if pair.cutting is not None:
            return True  # what answers this is what ends it
        self._reset(pair, cut=True)
        return False

    def _until_cut(self, pair: _Pair, way: Way, data: bytes) -> int | None:
        """How many bytes of ``data`` still go through if this is where the connection is cut, else None."""
        cut = self._cut
        if cut is None or cut.left == 0 or way not in cut.way or pair.cutting is not None:
            return None
        before = pair.passed[way]
        pair.passed[way] += len(data)
        if isinstance(cut.after, int):
            if pair.passed[way] < cut.after:
                return None
            keep = cut.after - before
        else:
            tail = pair.tails[way]
            found = (tail + data).find(cut.after)
            pair.tails[way] = (tail + data)[-(len(cut.after) - 1) :] if len(cut.after) > 1 else b""
            if found < 0:
                return None
            keep = len(data) if cut.answered else found + len(cut.after) - len(tail)
        cut.left -= 1
        if cut.answered:
            pair.cutting = way
        return keep

    def _tear(self, pair: _Pair) -> None:
        self.counts.torn += not pair.torn
        pair.torn = True
        if UP in self._blind:
            _blindfold(pair.client)
        if DOWN in self._blind and pair.server is not None:
            _blindfold(pair.server)

    def _reset(self, pair: _Pair, *, cut: bool = False) -> None:
        if not pair.over:
            self._drop(pair)
            self.counts.resets += 1
            self.counts.cuts += cut
            _abort(pair.client)
            if pair.server is not None:
                _abort(pair.server)

    def _drop(self, pair: _Pair) -> None:
        pair.over = True
        self._pairs.pop(pair, None)
        me = asyncio.current_task()
        for task in list(pair.tasks):
            if task is not me:
                task.cancel()

    def shut(self) -> None:
        """In the thread of the links: no more connections, and the open ones are closed."""
        asyncio.get_running_loop().remove_reader(self._listener)
        if self._later is not None:
            self._later.cancel()
        self._listener.close()
        for pair in list(self._pairs):
            self._reset(pair)


def _blindfold(sock: socket.socket) -> None:
    """Every segment that comes in is dropped before TCP sees it: a filter of one instruction, *return 0 bytes*."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))


def _unblindfold(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it had no filter
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def _bound(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)


def _quick(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _abort(sock: socket.socket) -> None:
    """Close with an RST."""
    loop = asyncio.get_running_loop()
    if sock.fileno() >= 0:  # first: its number may be another's before the loop has noticed
        loop.remove_reader(sock)
        loop.remove_writer(sock)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    sock.close()
