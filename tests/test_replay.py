"""A page on its way to a transport: together, in order, and no more than it takes."""

from __future__ import annotations

from gateway.feed import Feed
from gateway.metrics import Metrics
from gateway.model import Entry, Page, State
from gateway.ports import EncodedFrame
from gateway.replay import TOGETHER, replay


class Wire:
    """Takes ``room`` bytes; what goes over is taken too, and nothing after it."""

    kind, heard = "ws", 0
    address: str | None = None

    def __init__(self, room: int) -> None:
        self.room = room
        self.writes: list[tuple[bytes, ...]] = []

    @property
    def writable(self) -> bool:
        return sum(len(payload) for payloads in self.writes for payload in payloads) < self.room

    def encode(self, frame: EncodedFrame) -> bytes:
        return frame.ws

    def write(self, *payloads: bytes) -> None:
        assert self.writable
        self.writes.append(payloads)

    def send(self, frame: EncodedFrame) -> int:
        raise AssertionError("a page is not sent frame by frame")

    def ping(self) -> None: ...
    def pending(self) -> int:
        return 0

    def close(self, why: object, *, linger: float) -> None: ...
    def abort(self) -> None: ...


def page(*seqs: int, size: int = 100, upto: int = 0) -> Page:
    entries = tuple(Entry(seq, f"n{seq}", '{"title":"' + "x" * size + '"}', 1, 4 * 10**12) for seq in seqs)
    return Page(entries, upto or seqs[-1], State(upto or seqs[-1], 0, 0))


def counted(metrics: Metrics) -> float:
    return next(s.value for m in metrics.written.collect() for s in m.samples if s.name.endswith("_total"))


def test_a_small_page_is_one_write_with_its_gaps() -> None:
    wire, metrics, feed = Wire(10**6), Metrics(), Feed(after=0, rev=0)
    sent = replay(feed.play(page(2, 3, 7, upto=9)), wire, metrics)
    (write,) = wire.writes
    assert [b'"gap"' in payload for payload in write] == [True, False, False, True, False, True]
    assert sent == sum(map(len, write))
    assert (feed.after, counted(metrics)) == (9, 3)


def test_a_large_page_is_written_in_pieces_of_a_bounded_size() -> None:
    wire, feed = Wire(10**9), Feed(after=0, rev=0)
    replay(feed.play(page(*range(1, 21), size=4000)), wire, Metrics())
    sizes = [sum(map(len, payloads)) for payloads in wire.writes]
    assert len(sizes) > 1
    assert all(size < TOGETHER + 5000 for size in sizes)
    assert feed.after == 20


def test_a_transport_that_takes_no_more_is_told_no_more_and_the_feed_knows_where_it_stands() -> None:
    wire, metrics, feed = Wire(20_000), Metrics(), Feed(after=0, rev=0)
    whole = page(*range(1, 21), size=4000)
    replay(feed.play(whole), wire, metrics)
    told = sum(len(payloads) for payloads in wire.writes)
    assert 0 < told < 20
    assert (feed.after, counted(metrics)) == (told, told)
    again = Wire(10**9)
    replay(feed.play(whole), again, metrics)
    assert sum(len(payloads) for payloads in again.writes) == 20 - told


def test_nothing_to_tell_is_nothing_written() -> None:
    wire, feed = Wire(10**6), Feed(after=3, rev=0)
    assert replay(feed.play(page(1, 2, 3)), wire, Metrics()) == 0
    assert wire.writes == []
