"""API-10: a body has a deadline for each piece and one in all, which moves with what came. Its size is told elsewhere.

Against the server classes of the gateway in a process of their own, whose deadlines are a second long.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from rawpeer import EchoServer, Raw

TIMEOUT, RATE = 1.0, 4000
"""Seconds, and bytes a second: a body of N bytes may take 1 + N / 4000."""
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EchoServer]:
    server = EchoServer(tmp_path_factory.mktemp("slow") / "log", body_timeout=TIMEOUT, body_rate=RATE)
    yield server
    assert server.stop() == 0
    assert "Exception" not in server.log_text()


def begin(server: EchoServer, framing: str) -> Raw:
    return server.dial().send(f"POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())


def drip(raw: Raw, piece: bytes, *, every: float, within: float) -> float:
    """Seconds until the server says anything."""
    began = time.monotonic()
    raw.sock.settimeout(every)
    while time.monotonic() - began < within:
        raw.send(piece)
        try:
            raw.more()
        except TimeoutError:
            continue
        break
    raw.sock.settimeout(10)
    return time.monotonic() - began


@pytest.mark.parametrize(("framing", "piece"), [("Content-Length: 1000", b"x"), (CHUNKED, b"1\r\nx\r\n")])
def test_API_10_a_byte_now_and_then_does_not_hold_on_to_a_connection(
    server: EchoServer, framing: str, piece: bytes
) -> None:
    raw = begin(server, framing)
    took = drip(raw, piece, every=0.2, within=8)
    status, problem = raw.problem()
    assert (status, problem["code"]) == (408, "request_timeout")
    assert TIMEOUT * 0.9 < took < 4


def test_API_10_nor_does_a_large_one_that_comes_too_slowly(server: EchoServer) -> None:
    raw = begin(server, "Content-Length: 2000000")
    took = drip(raw, b"x" * 400, every=0.2, within=12)  # 2000 bytes a second: half of what it takes
    assert raw.problem()[0] == 408
    assert TIMEOUT * 1.5 < took < 6, "what came gave it more time"


def test_API_10_a_large_body_on_a_slow_line_is_taken(server: EchoServer) -> None:
    raw = begin(server, "Content-Length: 16000")
    began = time.monotonic()
    for _ in range(16):
        raw.send(b"x" * 1000)
        time.sleep(0.15)
    assert raw.response()[0] == 200
    assert time.monotonic() - began > 2 * TIMEOUT


def test_API_10_a_body_that_waits_for_another_requests_answer_is_not_late(server: EchoServer) -> None:
    """Pipelined: its time begins when it is read, 1.5 seconds later."""
    raw = server.dial().send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    raw.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nxx")
    assert raw.response()[0] == 200
    assert raw.exactly(1) == b"0"
    time.sleep(0.3)
    assert raw.send(b"xx").response()[0] == 200
