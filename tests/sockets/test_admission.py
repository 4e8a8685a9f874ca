"""Handshakes in turn: so many at once, a few in a turn of the loop, so many that wait, in order; and no more."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.ports import Handled, Transport
from gateway.sockets.admission import EACH_TURN, Admission
from gateway.sockets.framing import Parsers
from gateway.sockets.handshake import OVERLOADED_EXTENSION, Conversation
from gateway.sockets.protocol import SocketProtocol
from gateway.sockets.upgrade import Asked, Upgrade
from gateway.sockets.wire import WireLimits


class House:
    """An application that decides when it is told to, behind an admission."""

    def __init__(self, *, at_once: int, waiting: int) -> None:
        self.admission = Admission(at_once=at_once, waiting=waiting)
        self.asked: list[str] = []
        self.overloaded: list[str] = []
        self.decide = asyncio.Event()
        self._config: Any = SimpleNamespace(asgi_version="3.0", root_path="", loaded_app=self._app)
        self._state: Any = SimpleNamespace(tasks=set())

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if OVERLOADED_EXTENSION in scope["extensions"]:
            self.overloaded.append(scope["path"])
        else:
            self.asked.append(scope["path"])
            await self.decide.wait()
        await send({"type": "websocket.close", "code": 1008, "reason": "token_invalid"})

    def come(self, *paths: str, key: str = "dGhlIHNhbXBsZSBub25jZQ==") -> list[Peer]:
        peers = []
        for path in paths:
            fields = {
                "host": "a", "upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13",
                "sec-websocket-key": key,
            }  # fmt: skip
            headers = [(name.encode(), value.encode()) for name, value in fields.items()]
            upgrade = Upgrade(self.admission, config=self._config, server_state=self._state, app_state={})
            peers.append(Peer(upgrade))
            upgrade.ask(peers[-1], Asked("GET", path.encode(), headers, False, None, None))
        return peers


class Peer:
    """The wire of one upgrade."""

    address: str | None = None
    open = writable = False

    def __init__(self, upgrade: Upgrade) -> None:
        self.upgrade = upgrade
        self.undecided, self.forgotten = True, False
        self.told: tuple[int, str] | bytes | None = None

    def conversing(self, conversation: Conversation) -> None: ...

    def accept(self, answer: bytes, handled: Handled) -> None: ...

    def refuse(self, code: int, reason: str) -> None:
        self.undecided, self.told = False, (code, reason)

    def deny(self, response: bytes) -> None:
        self.undecided, self.told = False, response

    def take(self, handled: Handled) -> Transport:
        raise AssertionError("nothing is handed over here")

    def write(self, *payloads: bytes) -> None: ...

    def end(self, why: object) -> None: ...

    def read_on(self, go: bool) -> None: ...

    def forget(self) -> None:
        self.forgotten = True


async def settle(turns: int = 20) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)  # noqa: TID251 - lets the loop turn, waits for no time


async def test_so_many_are_under_way_the_next_wait_in_order_and_the_rest_is_refused_at_once() -> None:
    house = House(at_once=2, waiting=3)
    peers = house.come(*(f"/{n}" for n in range(1, 8)))
    await settle()
    assert (house.asked, house.overloaded) == (["/1", "/2"], ["/6", "/7"])
    assert [peer.told for peer in peers] == [None] * 5 + [(1008, "token_invalid")] * 2
    house.decide.set()
    await settle()
    assert house.asked == ["/1", "/2", "/3", "/4", "/5"]
    assert all(peer.told and peer.forgotten for peer in peers)
    house.come("/8")
    await settle()
    assert house.asked[-1] == "/8", "all places are free again"


async def test_a_few_begin_in_each_turn_of_the_loop_however_many_have_come() -> None:
    house = House(at_once=100, waiting=100)
    house.come(*(f"/{n}" for n in range(3 * EACH_TURN + 1)))
    seen = []
    while len(house.asked) < 3 * EACH_TURN + 1:
        before = len(house.asked)
        await settle(1)
        seen.append(len(house.asked) - before)
    assert max(seen) <= EACH_TURN
    house.decide.set()
    await settle()


@pytest.mark.parametrize("how", ["it leaves", "it is closed", "it is no handshake"])
async def test_one_that_comes_to_nothing_while_it_waits_takes_no_place(how: str) -> None:
    house = House(at_once=1, waiting=10)
    house.come("/1")
    (second,) = house.come("/2", key="short" if how == "it is no handshake" else "dGhlIHNhbXBsZSBub25jZQ==")
    house.come("/3")
    if how == "it leaves":
        second.upgrade.gone(1006, "")
    elif how == "it is closed":
        second.undecided = False
    house.decide.set()
    await settle()
    assert house.asked == ["/1", "/3"]
    assert second.forgotten
    if how == "it is no handshake":
        assert isinstance(second.told, bytes)
        assert second.told.startswith(b"HTTP/1.1 400 ")


async def test_one_that_has_waited_for_too_long_is_refused_by_the_application() -> None:
    house = House(at_once=1, waiting=10)
    first, second = house.come("/1", "/2")
    await settle()
    assert not first.upgrade.give_up(), "it does not wait"
    assert second.upgrade.give_up()
    await settle()
    assert (house.asked, house.overloaded) == (["/1"], ["/2"])
    assert second.told == (1008, "token_invalid")
    house.decide.set()
    await settle()
    assert house.asked == ["/1"]


class Line:
    """What a protocol writes to, as far as a refusal goes."""

    def __init__(self) -> None:
        self.written, self.closed = b"", False

    def set_write_buffer_limits(self, high: int) -> None: ...

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("reject", "key", "answer"),
    [
        ("close", "dGhlIHNhbXBsZSBub25jZQ==", [b"HTTP/1.1 101 ", b"\x88\x0a" + (1012).to_bytes(2) + b"draining"]),
        ("http", "dGhlIHNhbXBsZSBub25jZQ==", [b"HTTP/1.1 403 ", b'"instance": "/ws"']),
        ("close", "short", [b"HTTP/1.1 400 "]),
    ],
)
async def test_one_that_waits_when_the_server_stops_is_told_so_in_its_own_language(
    reject: Any, key: str, answer: list[bytes]
) -> None:
    config: Any = SimpleNamespace(asgi_version="3.0", root_path="", loaded_app=None)
    state: Any = SimpleNamespace(tasks=set(), connections=set())
    admission = Admission(at_once=0, waiting=1)
    protocol = SocketProtocol(Parsers(WireLimits(reject=reject)), admission, config, state, {})
    line: Any = Line()
    protocol.connection_made(line)
    headers = [
        (b"host", b"a"), (b"upgrade", b"websocket"), (b"connection", b"upgrade"),
        (b"sec-websocket-version", b"13"), (b"sec-websocket-key", key.encode()),
    ]  # fmt: skip
    protocol.requested(Asked("GET", b"/ws?token=secret", headers, False, None, None))
    assert line.written == b"", "its turn has not come"
    protocol.shutdown()
    assert line.written.startswith(answer[0])
    assert all(part in line.written for part in answer)
    assert b"secret" not in line.written
    protocol.shutdown()  # again, in any state
    protocol.connection_lost(None)
    assert state.connections == set()
    assert admission.enter(Upgrade(admission, config=config, server_state=state, app_state={})), "its place is free"
