"""An accepted socket on the protocol classes, byte by byte: what is heard, how it ends, what it keeps.

What a peer may not say: ``tests/security/test_wsf_frames.py``, against the gateway itself.
"""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from rawpeer import CLOSE, PING, PONG, TEXT, EchoServer, eventually, frame


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EchoServer]:
    server = EchoServer(tmp_path_factory.mktemp("echo") / "log", close_timeout=1)
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log_text(), server.log_text()


@pytest.fixture
def server(shared: EchoServer) -> Iterator[EchoServer]:
    yield shared
    shared.hang_up()


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


def test_each_of_a_few_pings_is_answered_in_order(server: EchoServer) -> None:
    raw = server.open().send(b"".join(frame(PING, b"%d" % number) for number in range(10)))
    assert [raw.next() for _ in range(10)] == [(PONG, b"%d" % number) for number in range(10)]


def test_pongs_that_nobody_asked_for_are_passed_over(server: EchoServer) -> None:
    raw = server.open().send(frame(PONG, b"x") + frame(TEXT, b"still here"))
    assert raw.text() == "still here"


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
