"""A stream of events on a socket pair: what its peer's silence, its buffers and its end mean. No server, no inbox."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from starlette.types import Receive, Scope, Send

from gateway import frames
from gateway.closing import (
    DRAINING,
    OVERLOADED,
    PEER_GONE,
    PROTOCOL_ERROR,
    TOKEN_REVOKED,
    UNRESPONSIVE,
    Close,
)
from gateway.ports import Handled, Transport
from gateway.pulse import ANSWER_WITHIN, STALLED_FOR, Pulse
from gateway.sockets.admission import Admission
from gateway.sockets.asking import Refused, last_event
from gateway.sockets.events import EventsEndpoint
from gateway.sockets.queued import QueuedStream
from gateway.sockets.stream import StreamProtocol
from gateway.sockets.wire import AGAIN, HEARTBEAT, WireLimits

LIMITS = WireLimits(close_timeout=0.05)


class Connection:
    """What is handed over, as the pulse and the transport see it."""

    number, sent, deadline = 0, 0, 2**40

    def __init__(self) -> None:
        self.transport: Transport
        self.drains, self.ended = 0, asyncio.get_running_loop().create_future()
        self.broken = False

    def received(self, text: str | bytes) -> None:
        raise AssertionError("a stream hears nothing")

    def drained(self) -> None:
        self.drains += 1
        if self.broken:
            raise KeyError

    def lost(self, why: Close) -> None:
        self.ended.set_result(why)

    def close(self, why: Close) -> None:
        self.transport.close(why, linger=5)

    def abort(self, why: Close) -> None:
        self.transport.abort()

    def write(self, payload: bytes) -> None:
        self.sent += len(payload)
        self.transport.write(payload)


class Pair:
    def __init__(self, peer: socket.socket, stream: StreamProtocol, connection: Connection, held: set[Any]) -> None:
        self.peer, self.stream, self.connection, self.held = peer, stream, connection, held

    async def read(self, count: int = 65536) -> bytes:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.peer, count), 5)

    async def everything(self) -> bytes:
        parts = []
        while part := await self.read():
            parts.append(part)
        return b"".join(parts)

    async def ended(self) -> Close:
        why: Close = await asyncio.wait_for(self.connection.ended, 5)
        assert self.held == set()
        assert (self.stream.writable, self.stream.pending()) == (False, 0)
        return why


@contextlib.asynccontextmanager
async def opened(limits: WireLimits = LIMITS) -> AsyncIterator[Pair]:
    """A TCP connection whose one end is a stream that has begun."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as peer:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(listening.getsockname())
        peer.setblocking(False)
        accepted, _ = listening.accept()
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, accepted)
        connection, held = Connection(), set[Any]()
        stream = StreamProtocol(connection, epoch="e", address="192.0.2.1", limits=limits, connections=held)
        connection.transport = stream
        assert (stream.writable, stream.pending(), held) == (True, 0, set())
        stream.write(b"before the head")
        stream.close(TOKEN_REVOKED, linger=1)  # the endpoint answers for it
        stream.abort()
        stream._why = None
        stream.begin(transport, b"head\n", paused=False)
        pair = Pair(peer, stream, connection, held)
        assert await pair.read() == b"head\n"
        assert held == {stream}
        yield pair
        stream.abort()
        if not connection.ended.done():
            await connection.ended


async def turn() -> None:
    """Let what is due run."""
    passed = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(passed.set_result, None)
    await passed


async def fill(pair: Pair) -> None:
    while pair.stream.writable:
        pair.connection.write(b"x" * 4096)
        await turn()


def pulse_of(pair: Pair) -> Pulse:
    pulse = Pulse(heartbeat=1, clock=lambda: 0.0)
    pulse.attach(pair.connection)
    return pulse


async def test_it_writes_events_and_a_heartbeat() -> None:
    async with opened() as pair:
        seam: Transport = pair.stream
        assert (seam.kind, seam.address) == ("sse", "192.0.2.1")
        seam.write(seam.encode(frames.gap(1, 2)), seam.encode(frames.pong(None)))
        seam.ping()
        wanted = (
            b'event: gap\nid: e:2\ndata: {"type":"gap","from":1,"to":2}\n\nevent: pong\ndata: {"type":"pong"}\n\n'
            b'event: heartbeat\ndata: {"type":"heartbeat"}\n\n'
        )
        assert await pair.read() == wanted


async def test_a_peer_that_takes_its_heartbeats_is_alive_though_it_says_nothing() -> None:
    async with opened() as pair:
        pulse = pulse_of(pair)
        for _ in range(3 * ANSWER_WITHIN):
            pulse.tick()
            assert await pair.read() == HEARTBEAT
        assert not pair.connection.ended.done()


async def test_a_peer_that_takes_not_even_its_heartbeat_is_dropped() -> None:
    async with opened() as pair:
        await fill(pair)
        pulse = pulse_of(pair)
        for _ in range(ANSWER_WITHIN):
            pulse.tick()
        assert not pair.connection.ended.done()
        pulse.tick()
        assert await pair.ended() is UNRESPONSIVE


async def test_one_that_takes_something_now_and_then_is_not() -> None:
    async with opened() as pair:
        await fill(pair)
        pulse = pulse_of(pair)
        pulse.suspect(pair.connection)
        for _ in range(2 * STALLED_FOR):
            assert not pair.connection.ended.done()
            before = pair.stream.pending()
            while pair.stream.pending() == before:
                await pair.read()
            pulse.tick()
            await fill(pair)
        assert pair.connection.drains


async def test_the_last_event_is_the_end_of_the_body() -> None:
    async with opened() as pair:
        pair.stream.close(DRAINING, linger=5)
        assert not pair.stream.writable
        pair.stream.write(b"after the close")
        pair.stream.close(TOKEN_REVOKED, linger=5)
        assert await pair.everything() == b'event: close\ndata: {"type":"close","code":1012,"reason":"draining"}\n\n'
        pair.peer.close()
        assert await pair.ended() is DRAINING


@pytest.mark.parametrize("how", ["linger", "a second close", "abort", "no linger", "silently"])
async def test_a_peer_that_stays_is_reset(how: str) -> None:
    async with opened() as pair:
        stream = pair.stream
        await fill(pair)
        why = UNRESPONSIVE if how == "silently" else TOKEN_REVOKED
        stream.close(why, linger={"linger": 0.02, "no linger": 0.0}.get(how, 60))
        if how == "a second close":
            stream.close(why, linger=0.0)
        elif how == "abort":
            stream.abort()
        assert await pair.ended() is why
        with pytest.raises(ConnectionResetError):
            await pair.everything()


async def test_a_peer_that_leaves_by_halves_is_given_no_more_time_to_read() -> None:
    async with opened(WireLimits(close_timeout=60)) as pair:
        await fill(pair)
        pair.stream.close(TOKEN_REVOKED, linger=0.02)
        pair.peer.shutdown(socket.SHUT_WR)
        assert await pair.ended() is TOKEN_REVOKED
        with pytest.raises(ConnectionResetError):
            await pair.everything()


async def test_a_peer_that_leaves_is_gone_also_by_halves() -> None:
    for leave in (socket.socket.close, lambda peer: peer.shutdown(socket.SHUT_WR)):
        async with opened() as pair:
            leave(pair.peer)
            assert await pair.ended() is PEER_GONE


async def test_a_peer_that_talks_all_the_time_is_cut_off() -> None:
    async with opened() as pair:
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                await asyncio.get_running_loop().sock_sendall(pair.peer, b"GET / HTTP/1.1\r\n\r\n" * 100)
        assert await pair.ended() is PROTOCOL_ERROR


async def test_a_connection_that_breaks_its_promise_takes_nobody_down(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as pair:
        pair.connection.broken = True
        await fill(pair)
        with contextlib.suppress(ConnectionResetError):
            while not pair.connection.ended.done():
                await pair.read()
        assert await pair.ended() is UNRESPONSIVE
    assert "a connection failed" in caplog.text


async def test_uvicorn_may_stop_it_at_any_time() -> None:
    async with opened() as pair:
        pair.stream.shutdown()
        pair.stream.shutdown()
        pair.peer.close()
        assert await pair.ended() is DRAINING
        pair.stream.shutdown()


# -- what comes before ---------------------------------------------------------------------------------------------


def test_a_last_event_id_is_an_epoch_and_a_number() -> None:
    assert last_event([(b"last-event-id", b"a:b:7")]) == (7, "a:b")
    assert last_event([(b"last-event-id", b"")]) is None
    assert last_event([]) is None
    for bad in (b"7", b":7", b"e:", b"e:x"):
        with pytest.raises(Refused):
            last_event([(b"last-event-id", bad)])


class Everybody:
    """An entrance that asks nobody and lets nobody in until it is told."""

    def __init__(self) -> None:
        self.asked, self.go = 0, asyncio.Event()
        self.refusals: list[Close] = []
        self.ties = type("Ties", (), {"epoch": type("Epoch", (), {"current": "e"})})

    def is_open_to(self, scope: Scope, **who: object) -> bool:
        return True

    async def admit(self, scope: Scope, **more: object) -> Any:
        self.asked += 1
        await self.go.wait()
        raise Refused(TOKEN_REVOKED)

    def refused(self, why: Close, scope: Scope) -> None:
        self.refusals.append(why)


async def ask(endpoint: EventsEndpoint) -> bytes:
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    await endpoint({"type": "http", "headers": [], "method": "GET"}, cast("Receive", None), cast("Send", send))
    assert said[0]["status"] == 200
    body: bytes = said[1]["body"]
    return body


async def test_too_many_at_once_wait_and_more_than_may_wait_are_told_so() -> None:
    everybody = Everybody()
    limits = WireLimits(upgrades_at_once=2, upgrades_waiting=1, handshake_timeout=60)
    endpoint = EventsEndpoint(cast("Any", everybody), limits)
    asking = [asyncio.create_task(ask(endpoint)) for _ in range(5)]
    while len(everybody.refusals) < 2:
        await turn()
    assert everybody.refusals == [OVERLOADED, OVERLOADED]
    assert everybody.asked == 2
    everybody.go.set()
    bodies = await asyncio.wait_for(asyncio.gather(*asking), 5)
    assert everybody.asked == 3
    assert [b"overloaded" in body for body in bodies] == [False, False, False, True, True]
    assert b"overloaded" not in await ask(endpoint)


async def test_who_waited_too_long_is_told_so_and_takes_nobodys_place() -> None:
    everybody = Everybody()
    limits = WireLimits(upgrades_at_once=1, upgrades_waiting=5, handshake_timeout=0.02)
    endpoint = EventsEndpoint(cast("Any", everybody), limits)
    first, second, left = (asyncio.create_task(ask(endpoint)) for _ in range(3))
    await turn()
    left.cancel()
    assert b"overloaded" in await second
    everybody.go.set()
    assert b"token_revoked" in await first
    assert b"token_revoked" in await ask(endpoint)
    assert everybody.asked == 2
    await asyncio.gather(left, return_exceptions=True)


async def test_under_any_server_it_is_the_body_of_a_response() -> None:
    transport = QueuedStream(address=None, epoch="e")
    assert transport.kind == "sse"
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    transport.write(transport.encode(frames.gap(1, 2)))
    transport.ping()
    transport.close(DRAINING, linger=5)
    await transport.pump(send, cast("Handled", None))
    assert {message["type"] for message in sent} == {"http.response.body"}
    assert [message["more_body"] for message in sent] == [True, True, False]
    assert b"".join(message["body"] for message in sent) == (
        b'event: gap\nid: e:2\ndata: {"type":"gap","from":1,"to":2}\n\n'
        + HEARTBEAT
        + b'event: close\ndata: {"type":"close","code":1012,"reason":"draining"}\n\n'
    )


def test_the_admission_of_streams_is_that_of_sockets() -> None:
    assert isinstance(EventsEndpoint(cast("Any", None), LIMITS)._admission, Admission)
    assert AGAIN.start >= 1000
