"""WSF-01 … WSF-12, WSF-15: what a peer may say on an open ``/ws``, byte by byte, and what it hears when it may not."""

from __future__ import annotations

import contextlib
import json
import struct
import time
from collections.abc import Iterator

import pytest
from peers import Gate, Peer
from rawpeer import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame
from wire import Node, eventually, running

LIMIT = 16 * 1024
HEARD = b'{"type": "ping", "ref": "r"}'
ANSWER = {"type": "pong", "ref": "r"}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    # Every test is one who breaks a rule; none of them may make it fail inside, or the end of ``running`` tells.
    with running(tmp_path_factory.mktemp("node"), log_level="info", connections_per_user=100) as node:
        yield node
        assert '"level": "error"' not in node.log_text()


@pytest.fixture(scope="module")
def shared(node: Node) -> Gate:
    return Gate(node)


@pytest.fixture
def gate(shared: Gate) -> Iterator[Gate]:
    yield shared
    shared.hang_up()


def padded(size: int) -> bytes:
    """A frame of the protocol of exactly so many bytes."""
    return HEARD[:-1] + b" " * (size - len(HEARD)) + b"}"


def answers(peer: Peer) -> None:
    assert json.loads(peer.text()) == ANSWER


def test_WSF_01_an_unmasked_frame_is_a_protocol_error(gate: Gate) -> None:
    before = gate.node.open_files()
    peer = gate.open()
    peer.send(frame(TEXT, HEARD, mask=False))
    peer.fails_with(1002, "protocol_error")
    peer.shut()
    eventually(lambda: gate.node.open_files() <= before, what="the descriptor is back")


@pytest.mark.parametrize("bits", [1, 2, 4, 7])
@pytest.mark.parametrize("opcode", [TEXT, PING, CLOSE])
def test_WSF_02_a_reserved_bit_is_a_protocol_error(gate: Gate, opcode: int, bits: int) -> None:
    gate.open().send(frame(opcode, b"", rsv=bits)).fails_with(1002, "protocol_error")


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF])
def test_WSF_02_a_reserved_opcode_is_a_protocol_error(gate: Gate, opcode: int) -> None:
    gate.open().send(frame(opcode, b"x")).fails_with(1002, "protocol_error")


@pytest.mark.parametrize("opcode", [PING, PONG], ids=["ping", "pong"])
def test_WSF_03_a_control_frame_too_long_or_in_pieces_is_a_protocol_error(gate: Gate, opcode: int) -> None:
    for bad in (frame(opcode, b"x" * 126), frame(opcode, b"x", fin=False)):
        gate.open().send(bad).fails_with(1002, "protocol_error")


def test_WSF_03_a_ping_between_fragments_is_answered_and_the_message_completes(gate: Gate) -> None:
    peer = gate.open()
    peer.send(frame(TEXT, HEARD[:5], fin=False))
    peer.send(frame(PING, b"p" * 125))
    assert peer.next() == (PONG, b"p" * 125)
    peer.send(frame(CONT, HEARD[5:9], fin=False) + frame(PING, b"q") + frame(CONT, HEARD[9:]))
    assert peer.next() == (PONG, b"q"), "it came before the end of the message"
    answers(peer)


def test_WSF_04_a_continuation_of_nothing_is_a_protocol_error(gate: Gate) -> None:
    gate.open().send(frame(CONT, HEARD)).fails_with(1002, "protocol_error")
    gate.open().send(frame(CONT, HEARD, fin=False)).fails_with(1002, "protocol_error")
    peer = gate.open().send(frame(TEXT, HEARD[:5], fin=False) + frame(CONT, HEARD[5:]))
    answers(peer)
    peer.send(frame(CONT, b"x")).fails_with(1002, "protocol_error")


def test_WSF_04_a_new_message_inside_one_is_a_protocol_error(gate: Gate) -> None:
    for fin in (True, False):
        peer = gate.open().send(frame(TEXT, HEARD[:5], fin=False) + frame(TEXT, HEARD, fin=fin))
        peer.fails_with(1002, "protocol_error")


@pytest.mark.parametrize(
    "bad",
    [
        frame(TEXT, b"\xff"),
        frame(TEXT, b"\xed\xa0\x80"),
        frame(TEXT, b"\xc0\x80"),
        frame(TEXT, b"\xf4\x90\x80\x80"),
        frame(TEXT, b"\xc3"),
        frame(TEXT, b"\xc3", fin=False) + frame(CONT, b"("),
        frame(TEXT, b"ok", fin=False) + frame(CONT, b"", fin=False) + frame(CONT, b"\xe2\x82"),
    ],
    ids=["byte", "surrogate", "overlong", "beyond", "cut", "split", "cut at the end"],
)
def test_WSF_05_invalid_utf_8_is_refused(gate: Gate, bad: bytes) -> None:
    gate.open().send(bad).fails_with(1007, "invalid_text")


def test_WSF_05_a_character_split_over_fragments_is_whole_again(gate: Gate) -> None:
    text = '{"type": "ping", "ref": "ü"}'.encode()
    at = text.index(b"\xc3") + 1
    peer = gate.open().send(frame(TEXT, text[:at], fin=False) + frame(CONT, text[at:]))
    assert json.loads(peer.text()) == {"type": "pong", "ref": "ü"}


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_WSF_06_a_close_code_that_may_not_be_sent_is_a_protocol_error(gate: Gate, code: int) -> None:
    gate.open().send(frame(CLOSE, struct.pack("!H", code))).fails_with(1002, "protocol_error")


def test_WSF_06_a_close_of_one_byte_or_too_many_is_a_protocol_error(gate: Gate) -> None:
    gate.open().send(frame(CLOSE, b"x")).fails_with(1002, "protocol_error")
    gate.open().send(frame(CLOSE, struct.pack("!H", 1000) + b"x" * 124)).fails_with(1002, "protocol_error")


def test_WSF_06_a_close_reason_that_is_no_utf_8_is_1007(gate: Gate) -> None:
    gate.open().send(frame(CLOSE, struct.pack("!H", 1000) + b"\xff")).fails_with(1007, "invalid_text")


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
def test_WSF_06_a_close_is_echoed(gate: Gate, code: int) -> None:
    gate.open().send(frame(CLOSE, struct.pack("!H", code) + "adieu ü".encode())).fails_with(code, "adieu ü")


def test_WSF_06_an_empty_close_is_answered_by_an_empty_one(gate: Gate) -> None:
    gate.open().send(frame(CLOSE)).fails_with(1005, "")


@pytest.mark.parametrize("length", [LIMIT + 1, 20_000_000, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
def test_WSF_07_too_big_is_refused_before_it_is_read(gate: Gate, length: int) -> None:
    """Only the head is ever sent: an answer shows that nobody waits for the rest."""
    gate.open().send(frame(TEXT, length=length)[:10]).fails_with(1009, "message_too_big")


def test_WSF_07_the_refusal_arrives_though_the_client_is_still_sending(gate: Gate) -> None:
    before = gate.node.resident()
    peer = gate.open().send(frame(TEXT, b"x" * 3_000_000, length=20_000_000))
    assert peer.closed() == (1009, "message_too_big")
    assert gate.node.resident() - before < 2_000_000


def test_WSF_07_fragments_count_together(gate: Gate) -> None:
    peer = gate.open().send(frame(TEXT, b"x" * 10_000, fin=False) + frame(CONT, b"x" * 10_000))
    peer.fails_with(1009, "message_too_big")


def test_WSF_07_what_is_just_within_the_limit_is_heard(gate: Gate) -> None:
    peer = gate.open().send(frame(TEXT, padded(LIMIT)))
    answers(peer)
    whole = padded(LIMIT)
    peer.send(frame(TEXT, whole[:10_000], fin=False) + frame(CONT, whole[10_000:]))
    answers(peer)


def test_WSF_08_a_length_in_more_bytes_than_it_needs_is_taken_as_is_documented(gate: Gate) -> None:
    """RFC 6455 section 5.2 asks senders for the shortest form; who reads it leniently reads nothing else than is meant.
    A length that could be read in two ways there is not: docs/protocol.md says so."""
    peer = gate.open().send(frame(TEXT, HEARD, length=len(HEARD)))
    answers(peer)
    key = b"\x01\x02\x03\x04"
    masked = bytes(byte ^ key[at % 4] for at, byte in enumerate(HEARD))
    peer.send(bytes([0x81, 0x80 | 126]) + struct.pack("!H", len(HEARD)) + key + masked)
    answers(peer)


def test_WSF_09_a_message_in_64_fragments_is_heard_and_one_in_65_is_not(gate: Gate) -> None:
    pieces = [bytes([byte]) for byte in padded(64)]
    first, last = frame(TEXT, pieces[0], fin=False), frame(CONT, pieces[-1])
    between = b"".join(frame(CONT, piece, fin=False) for piece in pieces[1:-1])
    peer = gate.open().send(first + between + last)
    answers(peer)
    peer.send(first + frame(CONT, fin=False) + between + last).fails_with(1009, "message_too_big")


def test_WSF_09_a_million_empty_fragments_are_cut_off_and_cost_nothing(gate: Gate) -> None:
    peer = gate.open()
    before, began = gate.node.resident(), time.monotonic()
    peer.send(frame(TEXT, fin=False))
    peer.send(frame(CONT, fin=False) * 1_000_000)
    assert peer.closed() == (1009, "message_too_big")
    assert time.monotonic() - began < 5
    assert gate.node.resident() - before < 1_000_000, "memory is flat"


def test_WSF_10_a_flood_of_pings_ends_and_costs_nothing(gate: Gate) -> None:
    peer = gate.open()
    before = gate.node.resident()
    peer.send(frame(PING, b"x" * 125) * 20_000)  # nothing is read meanwhile
    assert peer.to_the_close() == (1008, "rate_limited")
    assert gate.node.resident() - before < 1_000_000
    peer.ended(within=2)


def test_WSF_10_who_reads_no_pongs_costs_no_memory(gate: Gate) -> None:
    _, peer = gate.stalled()
    before = gate.node.resident()
    peer.sock.settimeout(0.5)
    with contextlib.suppress(TimeoutError):  # in the end nobody reads it any more either
        for _ in range(400):
            peer.send(frame(PING, b"x" * 125) * 50)
    gate.node.request("GET", "/healthz", expect=200)
    assert gate.node.resident() - before < 1_000_000


def test_WSF_11_what_is_no_frame_of_the_protocol_gets_an_error_and_the_socket_stays(gate: Gate) -> None:
    peer = gate.open()
    for text, code in (
        (b"", "invalid_json"), (b"hello", "invalid_json"), (b'{"type": "ping"', "invalid_json"),
        (b'{"type": NaN}', "invalid_json"), (b"\0", "invalid_json"), (b'"\\ud800"', "invalid_json"),
        (b"[]", "invalid_frame"), (b"[{}]", "invalid_frame"), (b"null", "invalid_frame"), (b"1e999", "invalid_json"),
        (b"{}", "invalid_frame"), (b'{"type": 1}', "invalid_frame"), (b'{"type": ["ack"]}', "invalid_frame"),
        (b'{"type": "shout"}', "unknown_type"), (b'{"type": "ack"}', "invalid_frame"),
        (b'{"type": "ack", "seq": 1e3}', "invalid_frame"), (b'{"type": "ack", "seq": -1}', "invalid_frame"),
        (b'{"type": "ack", "seq": 9007199254740992}', "invalid_frame"),
        (b'{"type": "ack", "seq": true}', "invalid_frame"),
        (b'{"type": "read", "ids": []}', "invalid_frame"), (b'{"type": "read", "ids": [1]}', "invalid_frame"),
        (b'{"type": "token", "token": {}}', "invalid_frame"), (b'{"type": "ping", "ref": []}', "invalid_frame"),
        (b"[" * 10_000, "invalid_json"), (b"[" * 8_000 + b"]" * 8_000, ""),
        (b'{"a":' * 2_500 + b"1" + b"}" * 2_500, ""),
    ):  # fmt: skip
        answer = json.loads(peer.send(frame(TEXT, text)).text())
        assert answer["type"] == "error", (text[:40], answer)
        assert answer["code"] in ({code} if code else {"invalid_json", "invalid_frame"}), (text[:40], answer)
    peer.is_heard()


def test_WSF_11_who_says_too_much_is_closed_and_nobody_else_is(gate: Gate) -> None:
    """100 000 a minute, however they come: within the burst all is heard, then it is over."""
    beside = gate.open()
    for text in (HEARD, b"nonsense", b"[]", b'{"type": "ack", "seq": 0}'):
        peer = gate.open().send(frame(TEXT, text) * 2000)
        assert peer.to_the_close() == (1008, "rate_limited")
    beside.is_heard()


def test_WSF_12_a_binary_frame_is_refused(gate: Gate) -> None:
    gate.open().send(frame(BINARY, HEARD)).fails_with(1003, "binary_frame")
    gate.open().send(frame(BINARY, b"x", fin=False)).fails_with(1003, "binary_frame")
    gate.open().send(frame(BINARY)).fails_with(1003, "binary_frame")


def test_WSF_15_a_client_that_closes_is_answered_told_nothing_more_and_freed(gate: Gate) -> None:
    before = gate.node.open_files()
    peer = gate.open()
    said = frame(CLOSE, struct.pack("!H", 1000)) + frame(TEXT, HEARD)
    peer.send(said)
    assert peer.closed() == (1000, "")
    gate.node.push(gate.node.admin, user_id=gate.user.id, ttl=0, expect=202)
    peer.ended(within=1)
    peer.shut()
    eventually(lambda: gate.node.open_files() <= before, within=1, what="the descriptor is back")
    assert gate.node.connections(gate.user) == []


def test_WSF_15_a_client_that_closes_and_never_reads_is_freed_in_the_end(gate: Gate) -> None:
    before = gate.node.open_files()
    other, peer = gate.stalled()
    peer.send(frame(CLOSE, struct.pack("!H", 1000)))
    eventually(
        lambda: gate.node.connections(other.user) == [], within=1, what="no notification is written to it any more"
    )
    eventually(lambda: gate.node.open_files() <= before, within=8, what="the descriptor is back")
