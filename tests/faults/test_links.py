"""What a link does to what passes: each way of failing, seen from both its ends. No gateway runs here."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import struct
import termios
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from faultproxy import DOWN, UP, Link, Links
from wire import eventually_async


class Echo:
    """A server that sends back what it gets and remembers it. ``ends``: how its connections ended."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.pieces = 0
        self.opened = 0
        self.ends: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        try:
            while data := await reader.read(65536):
                self.got += data
                self.pieces += 1
                writer.write(data)
                await writer.drain()
            self.ends.append("end")
        except ConnectionResetError:
            self.ends.append("reset")
        finally:
            writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    async with server:
        yield echo


@pytest.fixture
def link(echo: Echo) -> Iterator[Link]:
    with Links(seed=1) as links:
        yield links.link("echo", echo.port)


class Peer:
    """A client of the link."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def said(self, text: bytes) -> bytes:
        """Send, and read as much back."""
        self.writer.write(text)
        return await self.heard(len(text))

    async def heard(self, count: int) -> bytes:
        async with asyncio.timeout(5):
            return await self.reader.readexactly(count)

    async def silent(self, seconds: float = 0.3) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.reader.read(1)
        except TimeoutError:
            return True
        except ConnectionResetError:
            return False
        return False

    async def reset(self) -> bool:
        """Whether it ends with an RST, and soon."""
        try:
            async with asyncio.timeout(5):
                while await self.reader.read(65536):
                    pass
        except ConnectionResetError:
            return True
        return False


_peers: list[Peer] = []


@pytest.fixture(autouse=True)
async def _hang_up_peers() -> AsyncIterator[None]:
    yield
    while _peers:
        peer = _peers.pop()
        peer.writer.transport.abort()


async def dial(link: Link) -> Peer:
    _peers.append(Peer(*await asyncio.open_connection("127.0.0.1", link.port)))
    return _peers[-1]


async def turned_away(link: Link) -> bool:
    try:
        return await (await dial(link)).reset()
    except ConnectionResetError:  # so soon that it never was connected
        return True


async def test_everything_passes_both_ways_and_is_counted(link: Link, echo: Echo) -> None:
    peer = await dial(link)
    text = bytes(range(256)) * 2000
    assert await peer.said(text) == text
    assert (link.counts.connections, link.counts.bytes_up, link.counts.bytes_down) == (1, len(text), len(text))
    peer.writer.write_eof()
    assert await peer.reader.read() == b""
    await eventually_async(lambda: echo.ends == ["end"] and link.open == 0, what="the end passes too")
    assert link.counts.resets == 0


async def test_latency_delays_each_byte_and_keeps_the_order(link: Link) -> None:
    link.latency(80, jitter=40, way=UP)
    peer = await dial(link)
    began = time.monotonic()
    for number in range(50):
        peer.writer.write(b"%04d" % number)
        await asyncio.sleep(0.002)
    assert await peer.heard(200) == b"".join(b"%04d" % number for number in range(50))
    assert 0.1 < time.monotonic() - began < 2
    link.heal()
    began = time.monotonic()
    await peer.said(b"now")
    assert time.monotonic() - began < 0.08


async def test_a_rate_holds_back_and_loses_nothing(link: Link) -> None:
    link.rate(100, way=DOWN)
    peer = await dial(link)
    text = b"x" * 51_200
    began = time.monotonic()
    assert await peer.said(text) == text
    assert 0.4 < time.monotonic() - began < 3


async def test_slices_arrive_piece_by_piece(link: Link, echo: Echo) -> None:
    link.slice(1, way=UP)
    peer = await dial(link)
    assert await peer.said(b"piece by piece") == b"piece by piece"
    assert echo.pieces > 3


async def test_a_black_hole_tells_nobody_anything_and_ends_in_a_reset(link: Link, echo: Echo) -> None:
    peer, leaving = await dial(link), await dial(link)
    await peer.said(b"before")
    await leaving.said(b"before")
    link.blackhole()
    peer.writer.write(b"lost")
    leaving.writer.transport.abort()
    assert await peer.silent()
    assert bytes(echo.got) == b"beforebefore"
    assert echo.ends == [], "its end must not be heard either"
    assert _unacknowledged(peer) == 4, "not even the kernel of the link takes it"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await dial(link)
    link.heal()
    assert await peer.reset()
    await eventually_async(lambda: sorted(echo.ends) == ["reset", "reset"], what="both are reset")
    assert bytes(echo.got) == b"beforebefore"
    assert link.counts.torn == 2
    assert await (await dial(link)).said(b"after") == b"after"


async def test_half_open_one_way_goes_on_and_the_other_is_silent(link: Link, echo: Echo) -> None:
    peer = await dial(link)
    await peer.said(b"before")
    link.blackhole(way=DOWN)
    peer.writer.write(b"heard there, answered to nobody")
    await eventually_async(lambda: echo.got.endswith(b"nobody"), what="it arrives")
    assert await peer.silent()
    link.heal()
    assert await peer.reset()


async def test_what_was_held_comes_later_and_whole(link: Link, echo: Echo) -> None:
    peer = await dial(link)
    await peer.said(b"before")
    link.hold()
    peer.writer.write(b"later")
    dialled = await dial(link)
    dialled.writer.write(b"a newcomer")
    assert await peer.silent()
    assert bytes(echo.got) == b"before"
    assert echo.opened == 1
    link.heal()
    assert await peer.heard(5) == b"later"
    assert await dialled.heard(10) == b"a newcomer"
    assert link.counts.resets == 0


async def test_a_reset_ends_both_sides_and_only_so_many(link: Link, echo: Echo) -> None:
    peers = [await dial(link) for _ in range(4)]
    for peer in peers:
        await peer.said(b"x")
    assert link.reset(0.5) == 2
    await eventually_async(lambda: echo.ends == ["reset", "reset"], what="the server hears it")
    assert link.open == 2
    alive = 0
    for peer in peers:
        with contextlib.suppress(OSError, EOFError):
            alive += await peer.said(b"y") == b"y"
    assert alive == 2


async def test_refusing_resets_newcomers_and_leaves_the_others(link: Link, echo: Echo) -> None:
    peer = await dial(link)
    await peer.said(b"x")
    link.refuse()
    assert await turned_away(link)
    assert await peer.said(b"y") == b"y"
    assert (echo.opened, link.counts.refused) == (1, 1)
    link.heal()
    assert await (await dial(link)).said(b"z") == b"z"


async def test_a_cut_after_so_many_bytes_lets_exactly_those_through(link: Link, echo: Echo) -> None:
    peer = await dial(link)
    await peer.said(b"before")
    link.cut_after(5)
    peer.writer.write(b"through and lost")
    assert await peer.reset()
    await eventually_async(lambda: echo.ends, what="the server is cut off")
    assert bytes(echo.got) in (b"beforethrou", b"before")  # a reset may overtake what nobody had read yet
    assert (link.counts.cuts, link.counts.bytes_up) == (1, 11)
    assert await (await dial(link)).said(b"more than five") == b"more than five", "once only"


async def test_a_cut_at_a_pattern_carries_it_out_and_loses_the_answer(link: Link, echo: Echo) -> None:
    peer, beside = await dial(link), await dial(link)
    await peer.said(b"before")
    link.cut_after(b"COMMIT", answered=True)
    peer.writer.write(b"xxCOM")
    assert await peer.heard(5) == b"xxCOM"
    peer.writer.write(b"MIT;")
    assert await peer.reset()
    assert bytes(echo.got) == b"beforexxCOMMIT;"
    assert await beside.said(b"COMMIT") == b"COMMIT"
    assert link.counts.cuts == 1


async def test_a_link_to_nobody_resets(link: Link, echo: Echo) -> None:
    with Links() as links:
        nowhere = links.link("nowhere", 1)
        assert await turned_away(nowhere)
        nowhere.lead_to(echo.port)
        assert await (await dial(nowhere)).said(b"x") == b"x"


def _unacknowledged(peer: Peer) -> int:
    """Bytes in the kernel that the other side has not taken (SIOCOUTQ)."""
    sock = peer.writer.get_extra_info("socket")
    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
