"""API-16: requests that two readers would divide differently are refused, and nothing behind them is read."""

from __future__ import annotations

import contextlib

import pytest
from rawpeer import Raw
from wire import Node

POST = b"POST /inbox/read HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BEHIND = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-Id: smuggled\r\n\r\n"
FRAMING = {
    "CL and TE": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE and CL": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "CL twice": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "the same CL twice": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "CL in a list": POST + b"Content-Length: 2, 2\r\n\r\n{}",
    "CL with a sign": POST + b"Content-Length: +2\r\n\r\n{}",
    "negative CL": POST + b"Content-Length: -2\r\n\r\n{}",
    "CL in hexadecimal": POST + b"Content-Length: 0x2\r\n\r\n{}",
    "CL with a space": POST + b"Content-Length: 1 0\r\n\r\n{}",
    "empty CL": POST + b"Content-Length: \r\n\r\n{}",
    "CL too large for any number": POST + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
    "space before the colon": POST + b"Content-Length : 2\r\n\r\n{}",
    "TE of something else": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "TE identity": POST + b"Transfer-Encoding: identity\r\n\r\n{}",
    "chunked not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a coding that is not undone": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice in a list": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "TE behind a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "quoted TE": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "TE with a parameter": POST + b"Transfer-Encoding: chunked;x=1\r\n\r\n0\r\n\r\n",
    "TE of HTTP/1.0": POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE on a folded line": POST + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded TE": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
}
HEADS = {
    "folded line": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    "folded with a tab": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\r\n\tb\r\n\r\n",
    "space before the first field": b"GET /healthz HTTP/1.1\r\n Host: x\r\n\r\n",
    "bare LF": b"GET /healthz HTTP/1.1\nHost: x\n\n",
    "bare LF after a field": b"GET /healthz HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "bare CR": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\rX-Y: b\r\n\r\n",
    "NUL in a value": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "NUL in a name": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX\0Y: a\r\n\r\n",
    "NUL in the target": b"GET /healthz\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a control character": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\x01b\r\n\r\n",
    "DEL": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\x7fb\r\n\r\n",
    "no name": b"GET /healthz HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n",
    "a name with a space": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX Y: a\r\n\r\n",
    "no colon": b"GET /healthz HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n",
    "a target with a space": b"GET /health z HTTP/1.1\r\nHost: x\r\n\r\n",
    "a version nobody speaks": b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n",
    "an old version": b"GET /healthz\r\n\r\n",
    "a method in lower case": b"get /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2 without TLS": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS where there is none": bytes.fromhex("16030100c4010000c003030000") + b"x" * 187,
}
CHUNKS = {
    "size with a prefix": b"0x2\r\n{}\r\n0\r\n\r\n",
    "size with a sign": b"+2\r\n{}\r\n0\r\n\r\n",
    "negative size": b"-2\r\n{}\r\n0\r\n\r\n",
    "size with a space": b" 2\r\n{}\r\n0\r\n\r\n",
    "size with a space behind": b"2 \r\n{}\r\n0\r\n\r\n",
    "no size": b"\r\n{}\r\n0\r\n\r\n",
    "size too large for any number": b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "size with an underscore": b"0_2\r\n{}\r\n0\r\n\r\n",
    "bare LF after the size": b"2\n{}\r\n0\r\n\r\n",
    "bare CR after the size": b"2\r{}\r\n0\r\n\r\n",
    "bare LF in an extension": b"2;a=\nb\r\n{}\r\n0\r\n\r\n",
    "bare LF after the data": b"2\r\n{}\n0\r\n\r\n",
    "data longer than its size": b"1\r\n{}\r\n0\r\n\r\n",
    "no line end after the data": b"2\r\n{}0\r\n\r\n",
    "NUL in an extension": b"2;a=\0\r\n{}\r\n0\r\n\r\n",
    "folded trailer": b"2\r\n{}\r\n0\r\nX: a\r\n b\r\n\r\n",
    "bare LF at the end": b"2\r\n{}\r\n0\r\n\n",
}


def is_refused(node: Node, request: bytes) -> None:
    """400, and the connection ends: what stands behind is nobody's request."""
    raw = Raw(node.port)
    with contextlib.closing(raw.sock):
        status, problem = raw.send(request + BEHIND).problem()
    assert (status, problem["code"]) == (400, "bad_request")


@pytest.mark.parametrize("request_bytes", [pytest.param(value, id=name) for name, value in FRAMING.items()])
def test_API_16_a_body_of_two_lengths_or_of_none_that_counts(node: Node, request_bytes: bytes) -> None:
    is_refused(node, request_bytes)


@pytest.mark.parametrize("request_bytes", [pytest.param(value, id=name) for name, value in HEADS.items()])
def test_API_16_a_head_that_two_readers_would_read_differently(node: Node, request_bytes: bytes) -> None:
    is_refused(node, request_bytes)


@pytest.mark.parametrize("body", [pytest.param(value, id=name) for name, value in CHUNKS.items()])
def test_API_16_chunks_that_two_readers_would_count_differently(node: Node, body: bytes) -> None:
    is_refused(node, CHUNKED + body)


@pytest.mark.parametrize("lane", [b"/notifications", b"/auth/login"])
def test_API_16_no_lane_reads_on(node: Node, lane: bytes) -> None:
    for request in (FRAMING["CL and TE"], FRAMING["chunked twice"], CHUNKED + CHUNKS["bare LF after the size"]):
        is_refused(node, request.replace(b"/inbox/read", lane))


def test_API_16_what_is_well_formed_is_read_to_its_end_and_no_further(node: Node) -> None:
    """Two requests in one segment are two requests, whichever way the first one says its length."""
    for first in (
        POST + b"Content-Length: 2\r\n\r\n{}",
        CHUNKED + b"2\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"02;extension=1\r\n{}\r\n0\r\nTrailer: x\r\n\r\n",
        POST + b"transfer-encoding: Chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    ):
        raw = Raw(node.port)
        with contextlib.closing(raw.sock):
            status, fields = raw.send(first + BEHIND).response()
            raw.exactly(int(fields["content-length"]))
            assert status == 401
            assert fields["x-request-id"] != "smuggled"
            status, fields = raw.response()
            assert (status, fields["x-request-id"]) == (200, "smuggled")
