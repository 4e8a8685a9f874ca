"""The transport of any ASGI server, with a send that takes, waits or fails as told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message

from gateway.closing import DRAINING, TOKEN_REVOKED, UNRESPONSIVE, Close
from gateway.frames import Frame
from gateway.ports import Handled, Transport
from gateway.sockets.queued import HIGH_WATER, LOW_WATER, QueuedTransport


class Server:
    """An ASGI ``send`` that keeps what it is given, and waits while not ``flowing``, as if its peer did not read."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.error: Exception | None = None

    async def send(self, message: Message) -> None:
        await self.flowing.wait()
        if self.error is not None:
            raise self.error
        self.sent.append(message)

    @property
    def texts(self) -> list[str]:
        return [message["text"] for message in self.sent if message["type"] == "websocket.send"]

    @property
    def closes(self) -> list[tuple[int, str]]:
        return [(m["code"], m["reason"]) for m in self.sent if m["type"] == "websocket.close"]


class Listener:
    """A connection that counts."""

    def __init__(self) -> None:
        self.drains = 0

    def received(self, text: str | bytes) -> None: ...

    def drained(self) -> None:
        self.drains += 1

    def lost(self, why: Close) -> None: ...


async def turn() -> None:
    """Let everything that can run, run."""
    loop = asyncio.get_running_loop()
    for _ in range(10):
        passed = loop.create_future()
        loop.call_soon(passed.set_result, None)
        await passed


def start(transport: QueuedTransport) -> tuple[Server, Listener, asyncio.Task[None]]:
    server, listener = Server(), Listener()
    return server, listener, asyncio.create_task(transport.pump(server.send, listener))


async def test_it_is_a_transport_that_writes_json() -> None:
    transport = QueuedTransport(address="192.0.2.1")
    seam: Transport = transport
    assert (seam.kind, seam.address, seam.writable, seam.pending()) == ("ws", "192.0.2.1", True, 0)
    assert seam.encode(Frame(b"{}")) == b"{}"


async def test_what_is_written_is_sent_in_order_and_then_the_close() -> None:
    transport = QueuedTransport(address=None)
    transport.write(b'"before the pump"')
    server, _, pump = start(transport)
    transport.write('"grüße"'.encode())
    await turn()
    transport.write(b'"last"')
    transport.close(TOKEN_REVOKED, linger=5)
    transport.write(b'"after the close"')
    await asyncio.wait_for(pump, 5)
    assert server.texts == ['"before the pump"', '"grüße"', '"last"']
    assert server.closes == [(1008, "token_revoked")]
    assert server.sent[-1]["type"] == "websocket.close"


async def test_the_first_of_two_closings_is_told() -> None:
    transport = QueuedTransport(address=None)
    server, _, pump = start(transport)
    transport.close(TOKEN_REVOKED, linger=5)
    transport.close(DRAINING, linger=5)
    transport.abort()
    await asyncio.wait_for(pump, 5)
    assert server.closes == [(1008, "token_revoked")]


async def test_above_high_water_it_is_not_writable_until_it_has_drained() -> None:
    transport = QueuedTransport(address=None)
    server, listener, pump = start(transport)
    server.flowing.clear()
    for _ in range(HIGH_WATER // 1000):
        transport.write(b"x" * 1000)
        assert transport.writable
    transport.write(b"x" * 1000)
    assert not transport.writable
    await turn()
    assert transport.pending() > HIGH_WATER  # also what the server has not taken yet
    assert listener.drains == 0
    server.flowing.set()
    await turn()
    assert transport.writable
    assert (listener.drains, transport.pending()) == (1, 0)
    transport.abort()
    await pump


async def test_drained_is_said_once_per_crossing_and_below_low_water() -> None:
    transport = QueuedTransport(address=None)
    left: list[int] = []

    class Watcher(Listener):
        def drained(self) -> None:
            left.append(transport.pending())

    server, watcher = Server(), Watcher()
    pump = asyncio.create_task(transport.pump(server.send, watcher))
    for _ in range(2):
        for _ in range(20):
            transport.write(b"x" * 1000)
        await turn()
    assert len(left) == 2
    assert all(size <= LOW_WATER for size in left)
    transport.abort()
    await pump


async def test_an_abort_throws_away_what_was_queued() -> None:
    transport = QueuedTransport(address=None)
    server, _, pump = start(transport)
    server.flowing.clear()
    transport.write(b'"one"')
    transport.write(b'"two"')
    await turn()
    transport.abort()
    assert (transport.pending(), transport.writable) == (0, False)
    server.flowing.set()
    await asyncio.wait_for(pump, 5)
    assert server.texts == ['"one"']  # it was with the server already
    assert server.closes == [(1011, "internal_error")]


async def test_a_server_that_waits_for_its_peer_does_not_hold_up_an_abort() -> None:
    transport = QueuedTransport(address=None)
    server, _, pump = start(transport)
    server.flowing.clear()
    transport.write(b'"stuck"')
    await turn()
    transport.abort()
    await asyncio.wait_for(pump, 5)
    assert server.sent == []


async def test_a_server_that_waits_for_its_peer_does_not_hold_up_a_close_beyond_its_linger() -> None:
    transport = QueuedTransport(address=None)
    server, _, pump = start(transport)
    server.flowing.clear()
    transport.write(b'"stuck"')
    await turn()
    transport.close(TOKEN_REVOKED, linger=60)
    transport.close(TOKEN_REVOKED, linger=0.2)  # the more urgent one counts
    await asyncio.wait_for(pump, 5)
    assert server.sent == []


async def test_a_reason_that_never_travels_is_sent_as_internal_error() -> None:
    transport = QueuedTransport(address=None)
    server, _, pump = start(transport)
    transport.close(UNRESPONSIVE, linger=1)
    await pump
    assert server.closes[0][0] == 1011


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("Cannot call send after a close")])
async def test_a_peer_that_is_gone_ends_the_pump_quietly(error: Exception) -> None:
    transport = QueuedTransport(address=None)
    server, _, pump = start(transport)
    server.error = error
    transport.write(b'"x"')
    await asyncio.wait_for(pump, 5)
    transport.write(b'"y"')
    transport.close(TOKEN_REVOKED, linger=1)
    transport.abort()
    assert (transport.pending(), transport.writable) == (0, False)


async def test_nothing_raises_before_the_pump_runs() -> None:
    transport = QueuedTransport(address=None)
    calls: list[Any] = [transport.ping, transport.abort, lambda: transport.close(DRAINING, linger=0), transport.pending]
    for call in calls:
        call()
    listener: Handled = Listener()
    server = Server()
    await asyncio.wait_for(transport.pump(server.send, listener), 5)
    assert server.closes == [(1011, "internal_error")]
