"""API-15: which pages of other origins may read an answer, and that they may read all of them, errors too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from rawpeer import Raw, head
from wire import Node, User, running

APP, OTHER = "https://app.example", "http://localhost:5173"
FOREIGN = (
    *("https://evil.test", "null", "https://app.example.evil.test", "https://app.exampl", "http://app.example", ""),
    *("https://app.example:8443", "https://APP.example", "https://sub.app.example", "https://app.example/", "*"),
    *("https://app.example, https://evil.test", f"{APP} {OTHER}", "file://"),
)
READABLE = "Location Idempotency-Replayed Retry-After RateLimit RateLimit-Policy X-Request-Id WWW-Authenticate"
SENDABLE = "Authorization Content-Type Idempotency-Key X-Request-Id Last-Event-ID"
PATHS = ("/auth/login", "/inbox", "/notifications", "/notifications/batch", "/admin/users", "/healthz", "/nothing")


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("listed"), allowed_origins=f"{APP}, {OTHER}", push_rate=1) as node:
        yield node


@pytest.fixture(scope="module")
def open_to_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("open"), allowed_origins="*") as node:
        yield node


@pytest.fixture(scope="module")
def ada(listed: Node) -> User:
    return listed.user()


def cors(answer: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


def preflight(
    node: Node, path: str, origin: str, *, method: str = "POST", asks: str | None = "authorization"
) -> httpx2.Response:
    fields = {"Origin": origin, "Access-Control-Request-Method": method}
    if asks is not None:
        fields["Access-Control-Request-Headers"] = asks
    return node.request("OPTIONS", path, headers=fields)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("origin", [APP, OTHER])
def test_API_15_a_page_of_the_list_is_told_what_it_may_send(listed: Node, path: str, origin: str) -> None:
    """Without a token: a browser sends none with a preflight (Fetch, section 4.8)."""
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        answer = preflight(listed, path, origin, method=method)
        assert (answer.status_code, answer.content) == (204, b"")
        said = cors(answer)
        assert said["access-control-allow-origin"] == origin
        assert method in said["access-control-allow-methods"].split(", ")
        assert said["access-control-allow-headers"].split(", ") == SENDABLE.split()
        assert 0 < int(said["access-control-max-age"]) <= 7200
        assert "access-control-allow-credentials" not in said
        assert answer.headers.get_list("vary") == ["Origin"]


@pytest.mark.parametrize("origin", FOREIGN)
def test_API_15_any_other_page_is_answered_as_a_stranger_and_may_read_nothing(
    listed: Node, node: Node, ada: User, origin: str
) -> None:
    token = ada.token()
    for path in PATHS:
        asked = preflight(listed, path, origin)
        simple = listed.request("GET", path, token=token, headers={"Origin": origin})
        plain = listed.request("GET", path, token=token)
        assert asked.status_code in (404, 405), "as any OPTIONS"
        assert simple.status_code == plain.status_code, "a token is a token: it is the browser that keeps the page out"
        for answer in (asked, simple, plain):
            assert cors(answer) == {}
            assert answer.headers.get_list("vary") == ["Origin"], "or a cache would give one page the answer of another"


def test_API_15_without_a_list_nobody_is_told_anything(node: Node, shop: str) -> None:
    for origin in (APP, "https://evil.test", "null", node.url):
        for path in PATHS:
            for answer in (
                preflight(node, path, origin),
                node.request("GET", path, token=shop, headers={"Origin": origin}),
                node.request("POST", path, token=shop, json={}, headers={"Origin": origin}),
            ):
                assert cors(answer) == {}
                assert "vary" not in answer.headers


def test_API_15_all_pages_may_read_if_the_list_says_so_but_never_with_credentials(open_to_all: Node) -> None:
    for origin in (APP, "https://evil.test", "null"):
        for answer in (
            preflight(open_to_all, "/inbox", origin),
            open_to_all.request("GET", "/inbox", headers={"Origin": origin}),
            open_to_all.request("POST", "/notifications", headers={"Origin": origin}),
        ):
            assert answer.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in answer.headers
            assert "vary" not in answer.headers
    assert cors(open_to_all.request("GET", "/inbox")) == {}


def test_API_15_a_page_of_the_list_can_read_every_answer(listed: Node, ada: User) -> None:
    shop, token = listed.client_token(), ada.token()
    seen = set()
    body = {"user_id": ada.id, "title": "x"}
    key = {"Idempotency-Key": "one"}
    asked: tuple[tuple[str, str, str | None, dict[str, Any]], ...] = (
        ("GET", "/healthz", None, {}), ("GET", "/readyz", None, {}), ("GET", "/inbox", token, {}),
        ("GET", "/.well-known/jwks.json", None, {}), ("GET", "/openapi.json", None, {}),
        ("POST", "/notifications", shop, {"json": body, "headers": key}),
        ("POST", "/notifications", shop, {"json": body, "headers": key}),
        ("POST", "/notifications", shop, {"json": {**body, "title": "y"}, "headers": key}),
        ("POST", "/notifications", shop, {"json": body}), ("POST", "/notifications", shop, {"json": body}),
        ("POST", "/notifications", shop, {"json": body}), ("POST", "/notifications", None, {"json": body}),
        ("POST", "/notifications", token, {"json": body}), ("POST", "/notifications", shop, {"content": b"x" * 70_000}),
        ("POST", "/notifications/batch", shop, {"json": {}}), ("GET", "/nothing", None, {}),
        ("DELETE", "/inbox", token, {}), ("GET", "/inbox", None, {}), ("GET", "/admin/users", token, {}),
        ("POST", "/auth/login", None, {"json": {"username": "x", "password": "y"}}),
        ("POST", "/auth/token", None, {"data": {"grant_type": "x"}}),
        ("GET", "/inbox", token, {"headers": {"Host": "a/b?"}}), ("GET", "/ws", None, {}),
    )  # fmt: skip
    for method, path, who, more in asked:
        headers = {"Origin": APP, **more.pop("headers", {})}
        answer = listed.request(method, path, token=who, headers=headers, **more)
        assert cors(answer) == {
            "access-control-allow-origin": APP,
            "access-control-expose-headers": READABLE.replace(" ", ", "),
        }, path
        assert answer.headers.get_list("vary") == ["Origin"]
        seen.add(answer.status_code)
    assert seen >= {200, 201, 400, 401, 403, 404, 405, 415, 422, 426, 429}


def test_API_15_a_page_can_read_that_the_gateway_failed(listed: Node) -> None:
    user, shop = listed.user(), listed.client_token()
    file = listed.directory / "gateway.db"
    file.rename(listed.directory / "moved")
    try:
        for path, body in (
            ("/notifications", {"user_id": user.id, "title": "x"}),
            ("/auth/login", {"username": user.username, "password": user.password}),
        ):
            answer = listed.request("POST", path, token=shop, json=body, headers={"Origin": APP}, expect=503)
            assert answer.headers["access-control-allow-origin"] == APP
    finally:
        (listed.directory / "moved").rename(file)


def test_API_15_what_only_looks_like_a_preflight_is_none(listed: Node) -> None:
    answer = listed.request("OPTIONS", "/inbox", headers={"Origin": APP}, expect=405)
    assert answer.headers["access-control-allow-origin"] == APP
    answer = listed.request("OPTIONS", "/inbox", headers={"Access-Control-Request-Method": "GET"}, expect=405)
    assert cors(answer) == {}
    answer = listed.request("GET", "/inbox", headers={"Origin": APP, "Access-Control-Request-Method": "GET"})
    assert answer.status_code == 401


def test_API_15_two_origins_are_none_of_the_list(listed: Node) -> None:
    for origins in ((APP, "https://evil.test"), ("https://evil.test", APP), (APP, APP)):
        raw = Raw(listed.port)
        with contextlib.closing(raw.sock):
            lines = "".join(f"Origin: {origin}\r\n" for origin in origins)
            raw.send(f"GET /inbox HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
            status, fields = raw.response()
            assert (status, [name for name in fields if name.startswith("access-control")]) == (401, [])


def test_API_15_a_refused_socket_tells_a_page_nothing(listed: Node) -> None:
    raw = Raw(listed.port).send(head("/ws", "Origin: https://evil.test"))
    with contextlib.closing(raw.sock):
        status, fields = raw.response()
        assert (status, [name for name in fields if name.startswith("access-control")]) == (403, [])
