"""Accepting from a socket that others accept from too: whoever has more than its share lets them go first."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.sockets.accepting import FRESH, Accepting, Shares


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_share_is_exceeded_above_the_mean_of_those_that_still_say_what_they_have() -> None:
    clock = Clock()
    shares = Shares(3, monotonic=clock)
    first, second, third = (shares.of(number) for number in (1, 2, 3))
    assert not first.exceeded(4), "nobody has said anything: nobody is there"
    first.say(90)
    assert not first.exceeded(90), "it is alone"
    second.say(30)
    third.say(30)
    assert first.exceeded(90)
    assert not first.exceeded(54)
    assert not second.exceeded(30)
    clock.now += FRESH * 0.9
    first.say(90)
    second.say(90)
    assert first.exceeded(90), "the third spoke a moment ago"
    clock.now += FRESH * 0.2
    assert not first.exceeded(90), "the third is dead, or stands still"


def test_a_few_more_are_no_imbalance() -> None:
    shares = Shares(2)
    shares.of(1).say(4)
    shares.of(2).say(0)
    assert not shares.of(1).exceeded(4)


def test_what_a_process_says_its_siblings_see() -> None:
    shares = Shares(2)
    shares.of(1).say(10)
    pid = os.fork()
    if pid == 0:
        shares.of(2).say(110)
        os._exit(0)
    os.waitpid(pid, 0)
    assert shares.mean() == 60


class Peer(asyncio.Protocol):
    def __init__(self, met: list[Peer]) -> None:
        self._met = met

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._met.append(self)


class House:
    """Two who accept from one socket, in one process and one loop."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.shares = Shares(2)
        self.met: tuple[list[Peer], list[Peer]] = ([], [])
        self.more = [0, 0]
        self.accepting: list[Accepting] = []
        self._callers: list[socket.socket] = []
        self._listening: list[socket.socket] = []

    def begin(self, at: int, *, sock: socket.socket | None = None) -> Accepting:
        met = self.met[at]
        # A descriptor for each, as each process has one: a loop watches a descriptor for one reader only.
        self._listening.append(sock or self.sock.dup())
        self.accepting.append(
            Accepting(
                self._listening[-1], share=self.shares.of(at + 1), held=lambda: len(met) + self.more[at],
                protocol=lambda here, peer: Peer(met), loop=asyncio.get_running_loop(),
            )
        )  # fmt: skip
        return self.accepting[-1]

    async def call(self, count: int) -> tuple[int, int]:
        """So many connect; how many each has met when all have been."""
        before = sum(map(len, self.met))
        for _ in range(count):
            caller = socket.socket()
            caller.setblocking(False)
            self._callers.append(caller)
            await asyncio.get_running_loop().sock_connect(caller, self.sock.getsockname())
        await self.until(lambda: sum(map(len, self.met)) == before + count)
        return len(self.met[0]), len(self.met[1])

    async def until(self, condition: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + 10
        while not condition():
            assert loop.time() < end, "too late"
            turn = loop.create_future()
            loop.call_later(0.001, turn.set_result, None)
            await turn

    async def close(self) -> None:
        for one in self.accepting:
            one.close()
        for met in self.met:
            for peer in met:
                peer.transport.close()
        for sock in (*self._callers, *self._listening, self.sock):
            sock.close()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    yield house
    await house.close()


async def test_who_has_more_than_its_share_lets_the_other_go_first(house: House) -> None:
    house.more[0] = 100
    house.begin(0)
    house.begin(1)
    here, there = await house.call(30)
    assert here + there == 30
    assert here <= 5, "it waits for a moment only: the other may be held up for longer, now and then"


async def test_if_the_other_does_not_take_it_who_has_more_does(house: House) -> None:
    house.more[0] = 100
    house.begin(0)
    house.shares.of(2).say(0)  # it is said to be there, and accepts nothing
    assert await house.call(20) == (20, 0)


async def test_nothing_is_accepted_after_the_end_and_the_other_goes_on(house: House) -> None:
    first = house.begin(0)
    house.begin(1)
    first.close()
    first.close()
    assert await house.call(10) == (0, 10)


async def test_an_end_while_it_lets_others_go_first_is_an_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setattr("gateway.sockets.accepting.PATIENCE", 0.1)
    house.more[0] = 100
    first = house.begin(0)
    house.shares.of(2).say(0)
    with socket.create_connection(house.sock.getsockname()):
        noticed = loop.create_future()
        loop.call_later(0.01, noticed.set_result, None)
        await noticed
        first.close()
        past = loop.time() + 0.15
        await house.until(lambda: loop.time() > past)
        assert house.met == ([], [])
        house.begin(1)
        await house.until(lambda: len(house.met[1]) == 1)


async def test_when_no_more_files_may_be_open_it_tries_again_later(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exhausted(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("gateway.sockets.accepting._SHORTAGE_PAUSE", 0.01)
    exhausted = Exhausted(fileno=os.dup(house.sock.fileno()))
    first = house.begin(0, sock=exhausted)
    house.begin(1)
    await house.call(1)
    monkeypatch.setattr(Exhausted, "accept", socket.socket.accept)
    house.accepting[1].close()
    met = await house.call(3)
    assert sum(met) == 4
    assert met[0] >= 3
    first.close()
    assert all("no connection can be accepted for now" in record.message for record in caplog.records)
