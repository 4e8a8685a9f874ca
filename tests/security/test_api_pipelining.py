"""API-10, WSH-06: requests that are sent before the answer to the one in front of them has been read."""

from __future__ import annotations

import contextlib
import json
import socket
import time

from rawpeer import Raw, head
from wire import Node

REQUEST = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


def test_API_10_requests_that_wait_for_an_answer_cost_no_memory(node: Node) -> None:
    before = node.resident()
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", node.port))
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                for _ in range(20):
                    sock.send(REQUEST * 1000)
        for _ in range(20):
            node.request("GET", "/healthz")
            time.sleep(0.1)
        assert node.resident() - before < 20 * 2**20


def test_API_10_all_requests_of_a_pipeline_are_answered(node: Node) -> None:
    with socket.create_connection(("127.0.0.1", node.port), timeout=20) as sock:
        sock.sendall(REQUEST * 2999 + REQUEST.replace(b"Host: a\r\n", b"Host: a\r\nConnection: close\r\n"))
        got = b""
        while data := sock.recv(65536):
            got += data
        assert got.count(b"HTTP/1.1 404 ") == 3000


def test_LOG_01_who_hangs_up_in_the_middle_of_a_pipeline_is_no_error(node: Node) -> None:
    for _ in range(3):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", node.port))
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(20):
                sock.send(REQUEST * 1000)
        time.sleep(0.5)
        sock.close()
    time.sleep(0.5)
    assert "Traceback" not in node.log_text()


def test_WSH_06_a_handshake_behind_a_request_without_answer_is_refused(node: Node) -> None:
    token = node.user().token()
    body = json.dumps({"username": "nobody", "password": "x" * 20}).encode()
    login = (
        b"POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    ) + body
    upgrade = head("/ws", f"Authorization: Bearer {token}")
    alone, behind = Raw(node.port).send(upgrade), Raw(node.port).send(login + upgrade)
    assert alone.response()[0] == 101, "by itself it is taken"
    status, problem = behind.problem()
    assert (status, problem["code"]) == (400, "bad_handshake"), "else HTTP is written among the frames"
    for raw in (alone, behind):
        raw.shut()
