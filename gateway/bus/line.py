"""One connection to a Redis server: commands out, replies in, every wait bounded. Knows no channel and no message.

It never connects again by itself: a subscription that was lost without a word is how hints get lost for good.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import hiredis
from redis.asyncio.connection import SSLConnection, parse_url
from redis.exceptions import RedisError

CONNECT_S = 2.0
"""Seconds for a connection, TLS and the first answers."""
MOST_UNREAD = 16 << 20
"""Bytes a single reply may have: more is nobody's message, and would be kept in memory until it is whole."""
_NOTHING: Final = object()
_PARTS = frozenset({"connection_class", "host", "port", "path", "db", "username", "password"})

Reply = Any


class LineLost(Exception):
    """The connection cannot be had, or is gone. The text is for the operator; no secret is in it."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is and how to sign in there. ``path``: of a Unix socket, instead of host and port."""

    host: str
    port: int
    path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str) -> Server:
        """From a URL as redis-py reads it, with ``ssl_…`` options for ``rediss://``.

        Raises ValueError if it cannot be used: for any other option too, for what would not be heeded here, or would
        break whoever else is given the URL, must not be believed in.
        """
        try:
            given = dict(cast("dict[str, Any]", parse_url(url)))
            if "@" in url.partition("?")[2]:
                raise ValueError
        except ValueError:  # its text may hold a piece of the password, and so may what looks like an option
            raise ValueError(
                "cannot be read: a password or a name with other than letters is percent-encoded"
            ) from None
        tls = None
        secure = url.startswith("rediss://")
        for name in given.keys() - _PARTS:
            if not (secure and name.startswith("ssl_")):
                raise ValueError(f"its option {name} is not known: ssl_… are, with rediss://")
        if secure:
            options = {name: value for name, value in given.items() if name.startswith("ssl_")}
            try:
                tls = SSLConnection(**options).ssl_context.get()
            except (TypeError, ValueError, OSError, RedisError) as error:
                raise ValueError(f"its {' and '.join(options)} cannot be used: {error}") from None
        return cls(
            host=given.get("host", "localhost"), port=given.get("port", 6379), path=given.get("path"),
            username=given.get("username"), password=given.get("password"), tls=tls,
        )  # fmt: skip

    @property
    def address(self) -> str:
        return self.path or f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a server is. ``sharded``: it knows sharded channels. ``slots``: of a cluster (first, last, host, port)."""

    sharded: bool
    slots: tuple[tuple[int, int, str, int], ...] = ()


def command(*words: bytes) -> bytes:
    """A command as it goes over the wire."""
    return cast("bytes", hiredis.pack_command(words))  # type: ignore[arg-type]  # its stub means a tuple of one


def failed(reply: Reply) -> str | None:
    """What the server complained of, if it did."""
    return str(reply) if isinstance(reply, hiredis.ReplyError) else None


class Line(asyncio.Protocol):
    """``call`` until ``listen``; from then on whatever comes goes to the listener, all of one read together."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._unread = 0
        self._transport: asyncio.Transport | None = None
        self._calls: deque[tuple[int, list[Reply], asyncio.Future[list[Reply]]]] = deque()
        self._listener: Callable[[Sequence[Reply]], None] | None = None
        self._why: str | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def why(self) -> str:
        """Why it ended."""
        return self._why or "the connection was closed"

    async def call(self, payload: bytes, *, replies: int, within: float) -> list[Reply]:
        """Send commands, and return as many replies: an error of one is a value.

        Raises LineLost; then the line is gone, and what was asked may have been done or not.
        """
        if self._transport is None or self.closed.done():
            raise LineLost(self.why)
        done: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        self._calls.append((replies, [], done))
        self._transport.write(payload)
        try:
            async with asyncio.timeout(within):
                return await done
        except TimeoutError:
            self.drop("no answer in time")
            raise LineLost(self.why) from None
        except asyncio.CancelledError:
            self.drop("called off")  # its replies would be taken for those of the next call
            raise

    def listen(self, listener: Callable[[Sequence[Reply]], None]) -> None:
        self._listener = listener

    def send(self, payload: bytes) -> None:
        """Commands whose replies go to the listener."""
        if self._transport is not None and not self.closed.done():
            self._transport.write(payload)

    def drop(self, why: str) -> None:
        """Gone at once, whatever is still unsent."""
        if not self.closed.done():
            self._end(why)
        if self._transport is not None:
            self._transport.abort()

    def _end(self, why: str) -> None:
        self._why = why
        self.closed.set_result(None)
        for _, _, done in self._calls:
            if not done.done():
                done.set_exception(LineLost(why))
        self._calls.clear()
        self._listener = None

    # -- asyncio calls these -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self._end(f"the connection was lost{f': {exc}' if exc else ''}")

    def data_received(self, data: bytes) -> None:
        if self.closed.done():
            return
        self._unread += len(data)
        replies = []
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING:
                replies.append(reply)
        except hiredis.ProtocolError:
            self.drop("what came is not the protocol of Redis")
            return
        if replies:
            self._unread = 0
        elif self._unread > MOST_UNREAD:
            self.drop("a reply was too large")
            return
        if self._listener is not None:
            self._listener(replies)
            return
        for reply in replies:
            self._answered(reply)

    def _answered(self, reply: Reply) -> None:
        if not self._calls:
            self.drop("a reply came that nobody asked for")
            return
        wanted, got, done = self._calls[0]
        got.append(reply)
        if len(got) == wanted:
            self._calls.popleft()
            if not done.done():
                done.set_result(got)


async def open_line(server: Server, *, name: str) -> tuple[Line, Greeting]:
    """Connect, sign in, and ask what the server is. ``name`` is what its operator sees. Raises LineLost."""
    line: Line | None = None
    try:
        async with asyncio.timeout(CONNECT_S):
            line = await _connect(server)
            greeting = await _greet(line, server, name)
    except (TimeoutError, OSError, LineLost) as error:
        if line is not None:
            line.drop("not opened")
        why = "no answer in time" if isinstance(error, TimeoutError) else str(error)
        raise LineLost(f"{server.address}: {why}") from None
    except BaseException:  # cancelled on the way: nobody else knows this connection
        if line is not None:
            line.drop("called off")
        raise
    return line, greeting


async def _connect(server: Server) -> Line:
    loop = asyncio.get_running_loop()
    if server.path is not None:
        _, line = await loop.create_unix_connection(Line, server.path)
    else:
        _, line = await loop.create_connection(Line, server.host, server.port, ssl=server.tls)
    return line


async def _greet(line: Line, server: Server, name: str) -> Greeting:
    commands = [
        command(b"CLIENT", b"SETNAME", name.encode()),
        command(b"COMMAND", b"INFO", b"SPUBLISH"),
        command(b"CLUSTER", b"SLOTS"),
    ]
    if server.password is not None:
        user = () if server.username is None else (server.username.encode(),)
        [signed_in] = await line.call(command(b"AUTH", *user, server.password.encode()), replies=1, within=CONNECT_S)
        if why := failed(signed_in):
            raise LineLost(why)
    _, known, slots = replies = await line.call(b"".join(commands), replies=3, within=CONNECT_S)
    for reply in replies:  # a command may be forbidden or unknown; without these two nothing else works either
        if (why := failed(reply)) and why.startswith(("NOAUTH", "LOADING")):
            raise LineLost(why)
    try:
        sharded = not failed(known) and bool(known) and known[0] is not None
        return Greeting(sharded, () if failed(slots) else _slots(slots, server))
    except (TypeError, ValueError, IndexError, AttributeError):
        raise LineLost("an answer that fits no question") from None


def _slots(reply: Reply, server: Server) -> tuple[tuple[int, int, str, int], ...]:
    """The ranges and who has them. An empty host is the one that was asked (it does not know its own address)."""
    return tuple((first, last, (main[0] or b"").decode() or server.host, main[1]) for first, last, main, *_ in reply)
