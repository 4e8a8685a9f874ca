"""API-18: every answer tells a browser to trust it no further than it must, whoever wrote it. CORS is next door."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from rawpeer import Raw, head
from wire import ADMIN_PASSWORD, Node, User, running

HARDENING = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
NO_PAGE = {"content-security-policy": "default-src 'none'; frame-ancestors 'none'"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
HSTS = "strict-transport-security"


@pytest.fixture(scope="module")
def behind_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """As behind a proxy that ends TLS, which these tests play."""
    with running(
        tmp_path_factory.mktemp("tls"),
        require_tls="true",
        forwarded_allow_ips="127.0.0.1",
        allowed_hosts="push.example",
    ) as node:
        yield node


@pytest.fixture(scope="module")
def ada(node: Node) -> User:
    return node.user()


def test_API_18_every_answer_is_hardened(node: Node, shop: str, ada: User) -> None:
    token, body = ada.token(), {"user_id": ada.id, "title": "x"}
    for method, path, who, more in (
        ("GET", "/openapi.json", None, {}), ("GET", "/healthz", None, {}), ("HEAD", "/healthz", None, {}),
        ("GET", "/readyz", None, {}), ("GET", "/metrics", node.admin, {}), ("GET", "/inbox", token, {}),
        ("POST", "/notifications", shop, {"json": body}), ("POST", "/notifications", shop, {"json": {}}),
        ("POST", "/notifications", None, {"json": body}), ("POST", "/notifications", shop, {"json": body | {"ttl": 0}}),
        ("POST", "/notifications", shop, {"content": b"x" * 70_000, "headers": {"Content-Type": "application/json"}}),
        ("POST", "/notifications/batch", shop, {"json": {"notifications": [body]}}),
        ("GET", "/notifications/none", shop, {}), ("GET", "/nothing", None, {}), ("DELETE", "/inbox", token, {}),
        ("OPTIONS", "/inbox", None, {}), ("GET", "/inbox", None, {"headers": {"Host": "a/b?"}}),
        ("POST", "/auth/token", None, {"content": b"grant_type=x", "headers": FORM}),
        ("GET", "/.well-known/jwks.json", None, {}), ("POST", "/auth/logout", ada.token(), {}),
        ("GET", "/ws", None, {}),
    ):  # fmt: skip
        answer = node.request(method, path, token=who, **more)
        for name, value in (HARDENING | NO_PAGE).items():
            assert answer.headers.get_list(name) == [value], path
        assert answer.headers.get_list("cache-control") == ["public, max-age=300" if "jwks" in path else "no-store"]
        assert len(answer.headers["x-request-id"]) >= 1
        assert "server" not in answer.headers
        assert "x-powered-by" not in answer.headers
        assert HSTS not in answer.headers, "nobody said that there is nothing but TLS"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (head("/ws", "Sec-WebSocket-Version: 8"), 400),
        (head("/ws", "Origin: https://evil.test"), 403),
        (head("/ws", "Host: a/b?"), 400),
        (head("/nothing"), 404),
    ],
)
def test_API_18_so_are_those_that_no_route_writes(node: Node, request_bytes: bytes, status: int) -> None:
    raw = Raw(node.port).send(request_bytes)
    with contextlib.closing(raw.sock):
        answered, fields = raw.response()
    assert answered == status
    for name, value in (HARDENING | NO_PAGE).items():
        assert fields[name] == value


def test_API_18_so_is_a_refused_socket_that_is_told_by_a_status(start: Callable[..., Node]) -> None:
    node = start(ws_reject="http")
    raw = Raw(node.port).send(head("/ws?token=x"))
    with contextlib.closing(raw.sock):
        status, fields = raw.response()
    assert status == 403
    assert (HARDENING | NO_PAGE).items() <= fields.items()


def test_API_18_whoever_came_over_tls_is_told_to_come_by_nothing_else(behind_tls: Node) -> None:
    """RFC 6797 section 7.2: never over plain HTTP, and only where the operator says that there is nothing else."""
    name = {"Host": "push.example"}
    secure = name | {"X-Forwarded-Proto": "https"}
    sign_in = {"username": "admin", "password": ADMIN_PASSWORD}
    for method, path, more, status in (
        ("GET", "/inbox", {}, 401),
        ("GET", "/healthz", {}, 200),
        ("POST", "/auth/login", {"json": sign_in}, 200),
        ("POST", "/notifications", {"json": {}}, 401),
    ):
        answer = behind_tls.request(method, path, headers=secure, expect=status, **more)
        assert answer.headers[HSTS] == "max-age=31536000"
        assert HSTS not in behind_tls.request(method, path, headers=name, **more).headers
    assert behind_tls.request("GET", "/inbox", headers=name).json()["code"] == "tls_required"
