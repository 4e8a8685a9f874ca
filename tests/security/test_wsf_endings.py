"""WSF-10, WSF-13, WSF-14, WSF-16: how the gateway ends a socket by itself: at a shutdown, at a failure, after silence.

The last two also on the protocol classes alone, in a process whose application fails, fills and aborts when told to.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from logged import logged
from peers import Gate
from rawpeer import CLOSE, PING, TEXT, EchoServer, frame
from wire import Node, eventually, eventually_async

GRACE = 3
HEARTBEAT, ANSWER = 2, 10
"""Seconds between two pings, and in which a sign of life has to follow one (contract section 4)."""
WITHIN = HEARTBEAT + ANSWER + 1
"""Seconds, by the gateway's own log, until whoever says nothing is gone."""


def instant(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["time"])


# -- the gateway -----------------------------------------------------------------------------------------------------


async def test_WSF_13_a_drain_says_when_to_come_back_closes_with_1012_and_is_bounded(
    start: Callable[..., Node],
) -> None:
    node = start(drain_grace=GRACE, log_level="info")
    healthy = [await node.open(user.token()) for user in [node.user() for _ in range(5)]]
    gate = Gate(node)
    gate.stalled()
    began = time.monotonic()
    assert node.process is not None
    node.process.send_signal(signal.SIGTERM)
    hints = []
    for socket in healthy:
        frames, close = await socket.until_closed()
        assert close == (1012, "draining")
        (told,) = frames
        assert (told["type"], told["reason"]) == ("reconnect", "draining")
        hints.append(told["after_ms"])
    assert all(hint > 0 for hint in hints)
    assert len(set(hints)) > 1, "they would all come back at once"
    assert node.stop() == 0
    assert time.monotonic() - began < GRACE + 2, "the stalled reader held it up"
    gate.shut()
    assert "Traceback" not in node.log_text()


@pytest.mark.parametrize("frame", [{"type": "ack", "seq": 1}, {"type": "read", "up_to": 1}], ids=["ack", "read"])
async def test_WSF_14_a_failure_inside_is_1011_and_no_word_of_what_it_was(
    start: Callable[..., Node], frame: dict[str, object]
) -> None:
    node = start(log_level="info")
    user, other = node.user(), node.user()
    node.push(node.admin, user_id=user.id)
    device, beside = await node.open(user.token()), await node.open(other.token())
    await device.notifications(1)
    file = node.directory / "gateway.db"
    with contextlib.closing(sqlite3.connect(file, timeout=10)) as store, store:
        for table in ("sessions", "inbox", "inboxes"):
            store.execute(
                f"CREATE TRIGGER broken_{table} BEFORE UPDATE ON {table} BEGIN SELECT RAISE(ABORT, 'canary'); END"
            )
    await device.send(**frame, ref="r")
    frames, close = await device.until_closed()
    assert close == (1011, "internal_error")
    assert "canary" not in json.dumps(frames)
    assert "canary" in node.log_text(), "it is told to the operator"
    await beside.quiet()


async def test_WSF_16_who_never_answers_a_ping_is_freed_also_with_a_full_write_buffer(
    start: Callable[..., Node],
) -> None:
    node = start(heartbeat=HEARTBEAT, log_level="info")
    gate = Gate(node)
    before = node.open_files()
    gate.open()  # its kernel takes what comes, and nobody answers: half open, as behind a cut line
    other, _ = gate.stalled()
    full = datetime.now(UTC)
    for one in (gate, other):
        await eventually_async(lambda one=one: node.connections(one.user) == [], within=30, what="it is dropped")  # type: ignore[misc]
    began = instant(logged(node, "socket open", user=gate.user.id))
    assert ANSWER - 1 <= (instant(logged(node, "socket closed", user=gate.user.id)) - began).total_seconds() <= WITHIN
    assert (instant(logged(node, "socket closed", user=other.user.id)) - full).total_seconds() <= WITHIN
    await eventually_async(lambda: node.open_files() <= before, within=2, what="the descriptors are back")
    gate.hang_up()
    assert node.stop() == 0


# -- the protocol classes, told to fail ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EchoServer]:
    server = EchoServer(tmp_path_factory.mktemp("echo") / "log", close_timeout=1)
    yield server
    assert server.stop() == 0
    assert server.log_text().count("Traceback") <= 2, server.log_text()  # the two that a test asks for


@pytest.fixture
def server(shared: EchoServer) -> Iterator[EchoServer]:
    yield shared
    shared.hang_up()


def lost(server: EchoServer) -> str:
    """Why the connection just ended, as the application was told."""
    eventually(lambda: server.state()["lost"] and not server.state()["open"])
    return str(server.state()["lost"][-1])


def test_WSF_10_pongs_that_nobody_reads_do_not_pile_up(server: EchoServer) -> None:
    before = server.resident()
    raw = server.open(receive_buffer=4096)
    raw.send(frame(TEXT, b"fill"))
    eventually(lambda: server.state()["writable"] == [False])
    held, heard, end = server.state()["pending"], server.state()["bytes"][0], time.monotonic() + 15
    for _ in range(40):  # a hundred at a time: more than 256 in one read would be a flood, and the end
        raw.send(frame(PING, b"x" * 125) * 100)
        heard += 100 * 131
        while server.state()["bytes"][0] < heard:
            assert time.monotonic() < end
    assert server.state()["pending"] <= held
    assert server.resident() - before < 1_000_000


def test_WSF_14_a_connection_that_raises_ends_with_1011_and_no_word_of_why(server: EchoServer) -> None:
    raw = server.open("/echo?token=canary").send(frame(TEXT, b"raise"))
    assert raw.closed() == (1011, "internal_error")
    raw.send(frame(CLOSE, struct.pack("!H", 1011)))
    raw.ended(within=2)


def test_WSF_14_an_application_that_raises_after_the_accept_too(server: EchoServer) -> None:
    raw = server.open("/raise-after?token=canary")
    assert raw.closed() == (1011, "internal_error")
    raw.send(frame(CLOSE, struct.pack("!H", 1011)))
    raw.ended(within=2)
    assert lost(server) == "internal_error"
    assert "canary" not in server.log_text()


def test_WSF_16_a_peer_that_never_reads_can_be_aborted(server: EchoServer) -> None:
    before = server.sockets()
    raw = server.open(receive_buffer=4096).send(frame(TEXT, b"fill"))
    eventually(lambda: server.state()["writable"] == [False])
    assert server.state()["pending"] > 16 * 1024
    server.get("/abort")
    eventually(lambda: server.sockets() <= before, within=1, what="fd gone")
    assert lost(server) == "unresponsive"
    assert not raw.reads_to_the_end()


def test_WSF_16_a_close_that_a_peer_does_not_read_resets_it(server: EchoServer) -> None:
    before = server.sockets()
    server.open(receive_buffer=4096).send(frame(TEXT, b"fill"))
    eventually(lambda: server.state()["writable"] == [False])
    server.get("/close?linger=0.3")
    eventually(lambda: server.sockets() <= before, within=2, what="fd gone")
    assert lost(server) == "token_revoked"
