"""The frame parser alone: what a client said, and when a parser is nobody's."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rawpeer import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame

from gateway import closing
from gateway.sockets.framing import Goodbye, Incoming, Parser, Parsers, Ping
from gateway.sockets.wire import WireLimits

LIMITS = WireLimits(max_size=1000, max_fragments=4, max_control=50)


def heard(*chunks: bytes) -> list[Incoming]:
    parser = Parser(LIMITS)
    return [item for chunk in chunks for item in parser.read(chunk)]


def test_texts_pings_and_the_goodbye_come_in_order() -> None:
    said = frame(TEXT, b"one") + frame(PING, b"p") + frame(PONG, b"q") + frame(CLOSE, struct.pack("!H", 1001) + b"bye")
    assert heard(said) == ["one", Ping(b"p"), Goodbye(1001, "bye")]


def test_a_goodbye_without_a_code_is_1005() -> None:
    assert heard(frame(CLOSE)) == [Goodbye(1005, "")]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (frame(BINARY, b"x"), closing.BINARY_FRAME),
        (frame(TEXT, b"\xff"), closing.INVALID_TEXT),
        (frame(TEXT, b"x" * 1001), closing.MESSAGE_TOO_BIG),
        (frame(TEXT, b"x", fin=False) + frame(CONT, b"x", fin=False) * 4, closing.MESSAGE_TOO_BIG),
        (frame(TEXT, b"x", mask=False), closing.PROTOCOL_ERROR),
        (frame(PING) * 51, closing.RATE_LIMITED),
        (frame(PONG) * 51, closing.RATE_LIMITED),
    ],
)
def test_a_broken_rule_is_its_entry_in_the_close_table_and_the_last_thing_said(said: bytes, why: closing.Close) -> None:
    assert heard(said + frame(TEXT, b"after"))[-1] == why


def test_of_many_pings_at_once_the_latest_is_answered() -> None:
    pings = heard(b"".join(frame(PING, b"%d" % number) for number in range(50)))
    assert len(pings) == 16
    assert pings[-1] == Ping(b"49")


@given(st.lists(st.text(max_size=200), max_size=8), st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_however_the_bytes_are_cut_the_same_is_heard(texts: list[str], cuts: list[int]) -> None:
    data = b"".join(frame(TEXT, text.encode()) for text in texts)
    chunks, at = [], 0
    while data:
        size = cuts[at % len(cuts)]
        chunks.append(data[:size])
        data, at = data[size:], at + 1
    assert heard(*chunks) == texts


@given(st.binary(max_size=300))
def test_whatever_the_bytes_nothing_is_raised_and_nothing_follows_the_end(data: bytes) -> None:
    items = heard(data)
    for item in items[:-1]:
        assert isinstance(item, str | Ping)
    assert not any(item is closing.INTERNAL_ERROR for item in items)


def test_a_parser_between_two_messages_serves_the_next_connection() -> None:
    parsers = Parsers(LIMITS)
    parser = parsers.take()
    assert list(parser.read(frame(TEXT, b"x"))) == ["x"]
    assert parsers.give_back(parser) is None
    assert parsers.take() is parser


@pytest.mark.parametrize("size", range(1, 9))
def test_a_parser_in_the_middle_of_a_frame_stays_with_its_connection(size: int) -> None:
    parsers = Parsers(LIMITS)
    parser = parsers.take()
    assert list(parser.read(frame(TEXT, b"xyz")[:size])) == []
    assert parsers.give_back(parser) is parser
    assert parsers.take() is not parser


@pytest.mark.parametrize(
    "said",
    [frame(TEXT, b"x", fin=False), frame(CLOSE), frame(3), frame(TEXT, b"x" * 2000)],
)
def test_a_parser_that_met_an_end_or_a_fragment_serves_nobody_else(said: bytes) -> None:
    parsers = Parsers(LIMITS)
    parser = parsers.take()
    list(parser.read(said))
    assert parsers.give_back(parser) is parser
