"""Request heads and upgrade requests, byte by byte against the gateway's protocol classes; also API-16.

What an upgrade of ``/ws`` has to be: ``tests/security/test_wsh_handshake.py``.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rawpeer import CLOSE, TEXT, EchoServer, Raw, eventually, frame, head


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EchoServer]:
    server = EchoServer(
        tmp_path_factory.mktemp("echo") / "log", head_timeout=1, body_timeout=1, body_rate=10, handshake_timeout=1
    )
    yield server
    assert server.stop() == 0
    assert "canary" not in server.log_text()


@pytest.fixture
def server(shared: EchoServer) -> Iterator[EchoServer]:
    yield shared
    shared.hang_up()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., EchoServer]]:
    servers: list[EchoServer] = []

    def begin(**limits: object) -> EchoServer:
        servers.append(EchoServer(tmp_path / f"log{len(servers)}", **limits))
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


def refused(raw: Raw, status: int, code: str) -> None:
    began = time.monotonic()
    answered, problem = raw.problem()
    assert (answered, problem["code"]) == (status, code)
    assert time.monotonic() - began < 1


# -- how it is refused ------------------------------------------------------------------------------------------------


def test_a_close_before_accept_is_an_answered_upgrade_and_a_close(server: EchoServer) -> None:
    raw = server.dial().send(head("/refuse?token=canary"))
    status, fields = raw.response()
    assert (status, fields["sec-websocket-accept"]) == (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    assert raw.closed() == (1008, "token_invalid")
    raw.send(frame(CLOSE, struct.pack("!H", 1008)))
    raw.ended(within=1)


def test_a_close_before_accept_can_be_a_plain_403(start: Callable[..., EchoServer]) -> None:
    server = start(reject="http")
    refused(server.dial().send(head("/refuse?token=canary")), 403, "token_invalid")
    refused(server.dial().send(head("/revoked")), 403, "token_revoked")
    eventually(lambda: server.state()["lost"] == ["token_revoked"])


def test_who_broke_a_rule_is_off_the_books_at_once_though_it_does_not_hang_up(
    start: Callable[..., EchoServer],
) -> None:
    server = start(close_timeout=30)
    raw = server.open().send(frame(3))
    eventually(lambda: server.state()["open"] == 0, within=2)
    raw.shut()


def test_a_refused_client_that_does_not_answer_is_reset(start: Callable[..., EchoServer]) -> None:
    server = start(close_timeout=0.3)
    before = server.sockets()
    raw = server.dial().send(head("/refuse"))
    assert raw.response()[0] == 101
    eventually(lambda: server.sockets() <= before, within=2)


def test_a_connection_revoked_between_hand_over_and_accept_is_told_so_and_nothing_else(server: EchoServer) -> None:
    raw = server.dial().send(head("/revoked"))
    assert raw.response()[0] == 101
    assert raw.closed() == (1008, "token_revoked")
    raw.send(frame(CLOSE, struct.pack("!H", 1008)))
    raw.ended(within=1)
    eventually(lambda: server.state()["lost"][-1] == "token_revoked")


def test_an_application_can_force_an_http_answer_in_every_mode(server: EchoServer) -> None:
    raw = server.dial().send(head("/deny"))
    status, fields = raw.response()
    assert (status, fields["x-why"], fields["content-length"]) == (403, "origin", "7")
    assert raw.exactly(7) == b"not you"
    raw.ended(within=1)


def test_an_application_that_raises_before_accept_is_a_500_and_one_log_line(server: EchoServer) -> None:
    refused(server.dial().send(head("/raise-before?token=canary")), 500, "internal_error")
    lines = [line for line in server.log_text().splitlines() if "/raise-before" in line]
    assert len(lines) == 1
    refused(server.dial().send(head("/return")), 500, "internal_error")


def test_an_application_that_never_decides_is_overloaded(server: EchoServer) -> None:
    raw = server.dial().send(head("/never"))
    assert raw.response()[0] == 101
    assert raw.closed() == (1013, "overloaded")
    raw.send(frame(CLOSE, struct.pack("!H", 1013)))
    raw.ended(within=1)
    assert "websocket" not in server.state()["tasks"]


def test_a_client_that_leaves_during_the_handshake_leaves_nothing_behind(server: EchoServer) -> None:
    before = server.state()
    raw = server.dial().send(head("/late"))
    raw.shut()
    eventually(lambda: len(server.state()["tasks"]) == len(before["tasks"]))
    assert server.state()["open"] == 0
    assert server.state()["lost"] == before["lost"]


def test_a_client_that_speaks_before_the_answer_is_heard_after_it(server: EchoServer) -> None:
    raw = server.dial().send(head("/late") + frame(TEXT, b"first") + frame(TEXT, b"second")[:3])
    raw.send(frame(TEXT, b"second")[3:])
    assert raw.response()[0] == 101
    assert (raw.text(), raw.text()) == ("first", "second")


# -- WSH --------------------------------------------------------------------------------------------------------------


def test_nothing_is_written_before_the_101(server: EchoServer) -> None:
    raw = server.open()  # its application writes before it accepts
    raw.send(frame(TEXT, b"first"))
    assert raw.text() == "first"


def test_the_scope_is_complete(server: EchoServer) -> None:
    raw = server.dial().send(
        head("/scope?a=1&b=%20", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https", "X-Latin: \xfc")
    )
    assert raw.response()[0] == 101
    scope = json.loads(raw.text())
    assert scope["path"] == "'/scope'"
    assert scope["raw_path"] == "b'/scope'"
    assert scope["query_string"] == "b'a=1&b=%20'"
    assert scope["http_version"] == "'1.1'"
    assert scope["scheme"] == "'wss'"  # as the proxy says, which is trusted here
    assert scope["client"].startswith("('203.0.113.9'")
    assert scope["server"] == f"('127.0.0.1', {server.port})"
    assert "(b'x-latin', b'\\xfc')" in scope["headers"]
    assert scope["root_path"] == "''"


def test_the_address_is_the_one_a_trusted_proxy_tells(server: EchoServer) -> None:
    raw = server.open("/echo", "X-Forwarded-For: 203.0.113.9")
    assert server.state()["addresses"] == ["203.0.113.9"]
    raw.shut()


# -- plain HTTP -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Folded: one\r\n two\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Nul: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["te-cl", "obs-fold", "bare-lf", "nul", "no-host", "two-hosts", "tls", "not-ascii"],
)
def test_api_16_a_request_that_could_be_read_in_two_ways_is_a_400(server: EchoServer, request_bytes: bytes) -> None:
    refused(server.dial().send(request_bytes), 400, "bad_request")


def test_a_head_that_arrives_byte_by_byte_is_taken_if_it_is_quick(server: EchoServer) -> None:
    raw = server.dial()
    for byte in head("/echo"):
        raw.send(bytes([byte]))
    assert raw.response()[0] == 101


def test_n5_a_head_that_does_not_come_is_not_waited_for(server: EchoServer) -> None:
    raw = server.dial()
    began = time.monotonic()
    raw.send(b"GET / HTTP/1.1\r\n")
    for _ in range(12):  # a little every now and then does not help
        raw.send(b"X: y\r\n")
        time.sleep(0.1)
    status, problem = raw.problem()
    assert (status, problem["code"]) == (408, "request_timeout")
    assert time.monotonic() - began < 3


def test_n5_a_connection_that_says_nothing_is_closed(server: EchoServer) -> None:
    raw = server.dial()
    raw.ended(within=3)


def test_n5_who_was_refused_is_awaited_no_more(server: EchoServer) -> None:
    raw = server.dial().send(b"nonsense\r\n\r\n")
    refused(raw, 400, "bad_request")
    raw.sock.close()
    server.dial().ended(within=3)  # its deadline came after that of the one refused
    assert "Exception in callback" not in server.log_text()


def test_n5_a_body_that_does_not_come_is_not_waited_for(server: EchoServer) -> None:
    raw = server.dial().send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly this")
    status, problem = raw.problem()
    assert (status, problem["code"]) == (408, "request_timeout")


def test_a_trailer_that_never_ends_is_refused_and_costs_nothing(server: EchoServer) -> None:
    before = server.resident()
    raw = server.dial().send(
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Endless: "
    )
    for _ in range(200):
        raw.send(b"x" * 100_000)
    refused(raw, 431, "headers_too_large")
    assert server.resident() - before < 2_000_000


def test_a_body_in_tiny_chunks_is_taken(server: EchoServer) -> None:
    raw = server.dial().send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    raw.send(b"1\r\nx\r\n" * 50_000 + b"0\r\nX-Trailer: y\r\n\r\n")
    status, fields = raw.response()
    assert (status, raw.exactly(int(fields["content-length"]))) == (200, b"50000")


def test_a_slow_body_that_makes_progress_is_taken(server: EchoServer) -> None:
    raw = server.dial().send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
    for _ in range(10):
        raw.send(b"x")
        time.sleep(0.15)
    assert raw.response()[0] == 200


def test_requests_follow_each_other_on_one_connection(server: EchoServer) -> None:
    raw = server.dial()
    body = b"x" * 200_000
    ask = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    raw.send(ask + ask + ask)
    for _ in range(3):
        status, fields = raw.response()
        assert (status, raw.exactly(int(fields["content-length"]))) == (200, b"200000")
    time.sleep(1.5)  # longer than a head may take: between requests nothing is awaited
    raw.send(ask)
    assert raw.response()[0] == 200


@pytest.mark.parametrize("protocol", ["h2c", "TLS/1.0", "websocket, h2c"])
def test_an_upgrade_to_another_protocol_is_answered_as_the_plain_request_it_is(
    server: EchoServer, protocol: str
) -> None:
    """With its body, and one after the other: so every POST of Java's HttpClient begins."""
    fields = f"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAEAAEAA\r\n"
    raw = server.dial()
    for framing, body, length in (
        ("Content-Length: 5", b"hello", b"5"),
        ("Content-Length: 100000", b"x" * 100_000, b"100000"),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", b"5"),
        ("X: no body", b"", b"0"),
    ):
        raw.send(f"POST /x HTTP/1.1\r\n{fields}{framing}\r\n\r\n".encode() + body)
        status, answered = raw.response()
        assert (status, raw.exactly(int(answered["content-length"]))) == (200, length)
    ask = f"GET /x HTTP/1.1\r\n{fields}\r\n".encode()
    raw.send(ask + ask)
    for _ in range(2):
        status, answered = raw.response()
        assert (status, raw.exactly(int(answered["content-length"]))) == (200, b"0")


# -- the end ----------------------------------------------------------------------------------------------------------


def test_a_server_that_is_told_to_stop_drains_first_and_ends_well(start: Callable[..., EchoServer]) -> None:
    server = start()
    raw, stalled = server.open(), server.open(receive_buffer=4096)
    stalled.send(frame(TEXT, b"fill"))
    eventually(lambda: False in server.state()["writable"])
    began = time.monotonic()
    server.process.terminate()
    assert raw.closed() == (1012, "draining")
    raw.send(frame(CLOSE, struct.pack("!H", 1012)))
    raw.ended()
    assert server.stop() == 0
    assert time.monotonic() - began < 8
    assert "Traceback" not in server.log_text()
