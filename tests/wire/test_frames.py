"""WSF: what a peer may say on an accepted socket, and how it ends: byte by byte, on the protocol classes."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from rawpeer import BINARY, CLOSE, CONT, PING, PONG, TEXT, EchoServer, Raw, eventually, frame


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


def fails_with(raw: Raw, code: int, reason: str) -> None:
    assert raw.closed() == (code, reason)
    raw.ended(within=2)


def lost(server: EchoServer) -> str:
    """Why the connection just ended, as the application was told."""
    return str(
        eventually(lambda: server.state()["lost"][-1:] and not server.state()["open"]) and server.state()["lost"][-1]
    )


def test_a_text_is_heard_and_answered(server: EchoServer) -> None:
    raw = server.open()
    raw.send(frame(TEXT, "grüß dich".encode()))
    assert raw.text() == "grüß dich"
    raw.send(frame(TEXT))
    assert raw.text() == ""


def test_a_frame_that_arrives_byte_by_byte_is_one_frame(server: EchoServer) -> None:
    one, other = server.open(), server.open()
    message = frame(TEXT, b"x" * 130)
    for at in range(len(message)):
        one.send(message[at : at + 1])
        if at % 20 == 1:  # its half-read frame is nobody else's
            other.send(frame(TEXT, b"meanwhile"))
            assert other.text() == "meanwhile"
    assert one.text() == "x" * 130


def test_many_frames_in_one_read_are_all_heard_in_order(server: EchoServer) -> None:
    raw = server.open()
    raw.send(b"".join(frame(TEXT, b"%d" % number) for number in range(2000)))
    assert [raw.text() for _ in range(2000)] == [str(number) for number in range(2000)]


def test_wsf_01_an_unmasked_frame_is_a_protocol_error(server: EchoServer) -> None:
    raw = server.open().send(frame(TEXT, b"hello", mask=False))
    fails_with(raw, 1002, "protocol_error")
    raw.shut()
    assert lost(server) == "protocol_error"


@pytest.mark.parametrize(
    "bad",
    [frame(TEXT, b"x", rsv=4), frame(TEXT, b"x", rsv=1), frame(3, b"x"), frame(11, b"x")],
    ids=["rsv1", "rsv3", "3", "b"],
)
def test_wsf_02_reserved_bits_and_opcodes_are_refused(server: EchoServer, bad: bytes) -> None:
    fails_with(server.open().send(bad), 1002, "protocol_error")


@pytest.mark.parametrize("bad", [frame(PING, b"x" * 126), frame(PING, b"x", fin=False)], ids=["126", "fragmented"])
def test_wsf_03_a_ping_too_long_or_in_pieces_is_refused(server: EchoServer, bad: bytes) -> None:
    fails_with(server.open().send(bad), 1002, "protocol_error")


def test_wsf_03_a_ping_between_fragments_is_answered_and_the_message_completes(server: EchoServer) -> None:
    raw = server.open()
    raw.send(frame(TEXT, b"one ", fin=False))
    raw.send(frame(PING, b"p" * 125))
    assert raw.next() == (PONG, b"p" * 125)
    raw.send(frame(CONT, b"two ", fin=False) + frame(PING, b"q") + frame(CONT, b"three"))
    assert sorted([raw.next(), raw.next()]) == [(TEXT, b"one two three"), (PONG, b"q")]


def test_each_of_a_few_pings_is_answered_in_order(server: EchoServer) -> None:
    raw = server.open().send(b"".join(frame(PING, b"%d" % number) for number in range(10)))
    assert [raw.next() for _ in range(10)] == [(PONG, b"%d" % number) for number in range(10)]


def test_wsf_04_a_continuation_of_nothing_is_refused(server: EchoServer) -> None:
    fails_with(server.open().send(frame(CONT, b"x")), 1002, "protocol_error")


def test_wsf_04_a_new_text_inside_a_message_is_refused(server: EchoServer) -> None:
    fails_with(server.open().send(frame(TEXT, b"x", fin=False) + frame(TEXT, b"y")), 1002, "protocol_error")


@pytest.mark.parametrize(
    "bad",
    [
        frame(TEXT, b"\xff"),
        frame(TEXT, b"\xed\xa0\x80"),
        frame(TEXT, b"\xc3"),
        frame(TEXT, b"\xc3", fin=False) + frame(CONT, b"("),
    ],
    ids=["byte", "surrogate", "cut", "split"],
)
def test_wsf_05_invalid_utf_8_is_refused(server: EchoServer, bad: bytes) -> None:
    fails_with(server.open().send(bad), 1007, "invalid_text")


def test_wsf_05_a_character_split_over_fragments_is_whole_again(server: EchoServer) -> None:
    raw = server.open().send(frame(TEXT, b"\xc3", fin=False) + frame(CONT, b"\xbc"))
    assert raw.text() == "ü"


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_wsf_06_a_close_code_that_may_not_be_sent_is_refused(server: EchoServer, code: int) -> None:
    fails_with(server.open().send(frame(CLOSE, struct.pack("!H", code))), 1002, "protocol_error")


def test_wsf_06_a_close_of_one_byte_is_refused(server: EchoServer) -> None:
    fails_with(server.open().send(frame(CLOSE, b"x")), 1002, "protocol_error")


def test_wsf_06_a_close_reason_that_is_no_utf_8_is_refused(server: EchoServer) -> None:
    fails_with(server.open().send(frame(CLOSE, struct.pack("!H", 1000) + b"\xff")), 1007, "invalid_text")


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1012, 3000, 4999])
def test_wsf_06_a_close_is_echoed(server: EchoServer, code: int) -> None:
    raw = server.open().send(frame(CLOSE, struct.pack("!H", code) + "adieu ü".encode()))
    fails_with(raw, code, "adieu ü")


def test_wsf_06_an_empty_close_is_answered_by_an_empty_one(server: EchoServer) -> None:
    fails_with(server.open().send(frame(CLOSE)), 1005, "")


@pytest.mark.parametrize("length", [16 * 1024 + 1, 20_000_000, 2**63])
def test_wsf_07_too_big_is_refused_before_it_is_read(server: EchoServer, length: int) -> None:
    fails_with(server.open().send(frame(TEXT, length=length)[:10]), 1009, "message_too_big")


def test_wsf_07_the_refusal_arrives_though_the_client_is_still_sending(server: EchoServer) -> None:
    raw = server.open().send(frame(TEXT, b"x" * 3_000_000, length=20_000_000))
    assert raw.closed() == (1009, "message_too_big")


def test_wsf_07_fragments_count_together(server: EchoServer) -> None:
    raw = server.open().send(frame(TEXT, b"x" * 10_000, fin=False) + frame(CONT, b"x" * 10_000))
    fails_with(raw, 1009, "message_too_big")


def test_wsf_07_what_is_just_within_the_limit_is_heard(server: EchoServer) -> None:
    raw = server.open().send(frame(TEXT, b"x" * 16 * 1024))
    assert raw.text() == "x" * 16 * 1024


def test_wsf_08_a_length_that_could_be_shorter_is_accepted(server: EchoServer) -> None:
    assert server.open().send(frame(TEXT, b"hello", length=5)).text() == "hello"


def test_wsf_09_a_message_in_64_fragments_is_heard(server: EchoServer) -> None:
    raw = server.open().send(frame(TEXT, b"x", fin=False) + frame(CONT, b"x", fin=False) * 62 + frame(CONT, b"x"))
    assert raw.text() == "x" * 64


def test_wsf_09_a_million_empty_fragments_cost_nothing(server: EchoServer) -> None:
    before = server.resident()
    raw = server.open().send(frame(TEXT, fin=False))
    began = time.monotonic()
    raw.send(frame(CONT, fin=False) * 1_000_000)
    assert raw.closed() == (1009, "message_too_big")
    assert time.monotonic() - began < 5
    assert server.resident() - before < 1_000_000


def test_wsf_10_a_flood_of_pings_ends_and_costs_nothing(server: EchoServer) -> None:
    before = server.resident()
    raw = server.open()
    raw.send(frame(PING, b"x" * 125) * 20_000)  # nothing is read meanwhile
    while (answer := raw.next())[0] == PONG:
        pass
    assert answer == (CLOSE, struct.pack("!H", 1008) + b"rate_limited")
    assert server.resident() - before < 1_000_000


def test_wsf_10_pongs_that_nobody_reads_do_not_pile_up(server: EchoServer) -> None:
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


def test_pongs_that_nobody_asked_for_are_passed_over(server: EchoServer) -> None:
    raw = server.open().send(frame(PONG, b"x") + frame(TEXT, b"still here"))
    assert raw.text() == "still here"


def test_wsf_12_a_binary_frame_is_refused(server: EchoServer) -> None:
    fails_with(server.open().send(frame(BINARY, b"x")), 1003, "binary_frame")
    fails_with(server.open().send(frame(BINARY, b"x", fin=False)), 1003, "binary_frame")


def test_wsf_14_a_connection_that_raises_ends_with_1011_and_no_word_of_why(server: EchoServer) -> None:
    raw = server.open("/echo?token=canary").send(frame(TEXT, b"raise"))
    assert raw.closed() == (1011, "internal_error")
    raw.send(frame(CLOSE, struct.pack("!H", 1011)))
    raw.ended(within=2)


def test_wsf_14_an_application_that_raises_after_the_accept_too(server: EchoServer) -> None:
    raw = server.open("/raise-after?token=canary")
    assert raw.closed() == (1011, "internal_error")
    raw.send(frame(CLOSE, struct.pack("!H", 1011)))
    raw.ended(within=2)
    assert lost(server) == "internal_error"
    assert "canary" not in server.log_text()


def test_wsf_15_a_client_that_closes_is_answered_and_freed(server: EchoServer) -> None:
    before = server.sockets()
    raw = server.open().send(frame(CLOSE, struct.pack("!H", 1000)) + frame(TEXT, b"after the close"))
    assert raw.closed() == (1000, "")
    raw.shut()
    eventually(lambda: server.sockets() <= before, within=1)
    assert lost(server) == "peer_gone"
    assert "after the close" not in server.state()["heard"]


def test_wsf_15_a_client_that_closes_and_never_reads_is_freed_in_the_end(server: EchoServer) -> None:
    before = server.sockets()
    raw = server.open(receive_buffer=4096).send(frame(TEXT, b"fill"))
    eventually(lambda: server.state()["writable"] == [False])
    raw.send(frame(CLOSE, struct.pack("!H", 1000)))
    eventually(lambda: server.sockets() <= before, within=3)


def test_wsf_16_a_peer_that_never_reads_can_be_aborted(server: EchoServer) -> None:
    before = server.sockets()
    raw = server.open(receive_buffer=4096).send(frame(TEXT, b"fill"))
    eventually(lambda: server.state()["writable"] == [False])
    assert server.state()["pending"] > 16 * 1024
    server.get("/abort")
    eventually(lambda: server.sockets() <= before, within=1, what="fd gone")
    assert lost(server) == "unresponsive"
    assert not raw.reads_to_the_end()


def test_wsf_16_a_close_that_a_peer_does_not_read_resets_it(server: EchoServer) -> None:
    before = server.sockets()
    server.open(receive_buffer=4096).send(frame(TEXT, b"fill"))
    eventually(lambda: server.state()["writable"] == [False])
    server.get("/close?linger=0.3")
    eventually(lambda: server.sockets() <= before, within=2, what="fd gone")
    assert lost(server) == "token_revoked"


def test_a_close_that_is_not_answered_is_reset_after_its_linger(server: EchoServer) -> None:
    raw = server.open()
    server.get("/close?linger=0.3")
    assert raw.closed() == (1008, "token_revoked")
    began = time.monotonic()
    raw.ended(within=2)
    assert 0.1 < time.monotonic() - began < 1.5


def test_a_close_that_is_answered_ends_at_once(server: EchoServer) -> None:
    raw = server.open()
    server.get("/close?linger=5")
    assert raw.closed() == (1008, "token_revoked")
    raw.send(frame(CLOSE, struct.pack("!H", 1008)))
    raw.ended(within=1)
    assert lost(server) == "token_revoked"


def test_of_two_closings_the_first_is_told_and_the_more_urgent_one_counts(server: EchoServer) -> None:
    raw = server.open().send(frame(TEXT, b"close twice"))
    assert raw.closed() == (1008, "token_revoked")
    raw.ended(within=2)  # 0.2 s, not 5; and nothing was written after the close


def test_nothing_is_heard_after_we_have_closed(server: EchoServer) -> None:
    raw = server.open().send(frame(TEXT, b"close") + frame(TEXT, b"too late") + frame(TEXT, b"much too late"))
    assert raw.closed() == (1008, "token_revoked")
    raw.send(frame(TEXT, b"later still") + frame(CLOSE, struct.pack("!H", 1008)))
    raw.ended(within=1)
    assert server.state()["heard"][-1] == "close"


def test_both_may_close_at_the_same_time(server: EchoServer) -> None:
    raw = server.open().send(frame(TEXT, b"close") + frame(CLOSE, struct.pack("!H", 1001)))
    assert raw.closed() == (1008, "token_revoked")  # the peer's close is then the answer to ours
    raw.ended(within=1)


def test_a_peer_that_hangs_up_without_a_word_is_gone(server: EchoServer) -> None:
    before = server.sockets()
    server.open().shut()
    eventually(lambda: server.sockets() <= before, within=1)
    assert lost(server) == "peer_gone"


def test_a_half_closed_peer_is_gone(server: EchoServer) -> None:
    raw = server.open()
    raw.sock.shutdown(1)
    raw.ended(within=1)
    assert lost(server) == "peer_gone"


def test_a_peer_that_takes_what_was_queued_makes_the_transport_writable_again(server: EchoServer) -> None:
    raw = server.open(receive_buffer=4096).send(frame(TEXT, b"fill"))
    eventually(lambda: server.state()["writable"] == [False])
    drained = server.state()["drained"]
    while server.state()["writable"] == [False]:
        raw.text()
    assert server.state()["drained"] == drained + 1
    assert server.state()["pending"] < 400_000


def test_a_stalled_peer_costs_a_bounded_amount_of_kernel_memory(server: EchoServer) -> None:
    server.open(receive_buffer=4096).send(frame(TEXT, b"fill"))
    eventually(lambda: server.state()["writable"] == [False])
    assert server.state()["pending"] < 128 * 1024


def test_our_ping_is_an_empty_ping(server: EchoServer) -> None:
    raw = server.open()
    server.get("/ping")
    assert raw.next() == (PING, b"")


def test_an_idle_connection_keeps_no_task_no_parser_and_nothing_of_its_request(server: EchoServer) -> None:
    idle = server.get("/state?gc=1")
    for _ in range(5):
        server.open().send(frame(TEXT, b"x")).text()
    state = server.state()  # the collector has nothing to do: it all went by itself
    assert state["open"] == 5
    assert len(state["tasks"]) == len(idle["tasks"])
    kept = Counter(state["kept"])
    assert (kept["BoundedHttp"], kept["SocketProtocol"]) == (1, 5)  # the one that asks, and the five
    assert kept["Parser"] == Counter(idle["kept"])["Parser"] or kept["Parser"] == 1  # they share what was there
    assert set(kept) == {"BoundedHttp", "SocketProtocol", "Parser", "_Core", "ServerProtocol"}
    assert kept["ServerProtocol"] == 1  # the one whose rules all handshakes are checked by


def test_a_connection_that_is_over_leaves_nothing_for_the_garbage_collector(server: EchoServer) -> None:
    server.get("/state?gc=1")
    half = server.open().send(frame(TEXT, b"half")[:3])
    whole = server.open().send(frame(CLOSE))
    whole.ended_after_close()
    broken = server.open().send(frame(3))
    broken.ended_after_close()
    eventually(lambda: server.state()["bytes"][:1] > [0])
    half.shut()
    eventually(lambda: server.state()["open"] == 0)
    kept = Counter(server.state()["kept"])
    assert set(kept) <= {"BoundedHttp", "Parser", "_Core", "ServerProtocol"}
    assert kept["ServerProtocol"] == 1  # the one whose rules all handshakes are checked by
    assert kept["BoundedHttp"] == 1
    assert kept["_Core"] == kept["Parser"]  # none without an owner


@pytest.mark.parametrize("text", ["", "hello", "ü" * 5000])
def test_any_asgi_application_can_answer(server: EchoServer, text: str) -> None:
    raw = server.open("/plain").send(frame(TEXT, text.encode()))
    assert raw.text() == text


def test_any_asgi_application_hears_the_peers_close(server: EchoServer) -> None:
    raw = server.open("/plain").send(frame(CLOSE, struct.pack("!H", 4242) + b"so long"))
    assert raw.closed() == (4242, "so long")
    raw.ended(within=1)
    eventually(lambda: server.state()["lost"][-1] == "4242 so long")


def test_any_asgi_application_can_close(server: EchoServer) -> None:
    raw = server.open("/plain").send(frame(TEXT, b"close"))
    assert raw.closed() == (4001, "as asked")
    raw.send(frame(CLOSE, struct.pack("!H", 4001)))
    raw.ended(within=1)
