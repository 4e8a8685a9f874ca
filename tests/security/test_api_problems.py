"""API-01: how HTTP is answered, whatever is wrong with what is asked. No bodies here, and no pushes."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from hostile import gives_nothing_away, is_problem
from rawpeer import Raw, head
from wire import Node, User

JSON = {"Content-Type": "application/json"}
HARDENING = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


@pytest.fixture(scope="module")
def ada(node: Node) -> User:
    return node.user()


@pytest.fixture(scope="module")
def token(ada: User) -> str:
    return ada.token()


# -- API-01 -------------------------------------------------------------------------------------------------------

NEW = {"username": "new", "password": "long enough for it"}
BAD_KEY = {"Idempotency-Key": "x" * 256}
WRONG: list[tuple[int, str, str, str, dict[str, Any]]] = [
    (400, "idempotency_key_invalid", "POST", "/notifications", {"as_": "shop", "json": {}, "headers": BAD_KEY}),
    (401, "token_missing", "GET", "/inbox", {}),
    (401, "token_invalid", "GET", "/inbox", {"headers": {"Authorization": "Bearer eyJ.eyJ.eyJ"}}),
    (401, "bad_credentials", "POST", "/auth/login", {"json": {"username": "x", "password": "y"}}),
    (401, "bad_credentials", "POST", "/auth/refresh", {"json": {"refresh_token": "x"}}),
    (403, "insufficient_scope", "GET", "/admin/users", {"as_": "ada"}),
    (403, "insufficient_scope", "POST", "/notifications", {"as_": "ada", "json": {}}),
    (403, "insufficient_scope", "GET", "/inbox", {"as_": "shop"}),
    (404, "not_found", "GET", "/nothing/here", {}),
    (426, "upgrade_required", "GET", "/ws", {}),
    (404, "not_found", "GET", "/inbox/", {"as_": "ada"}),
    (404, "not_found", "GET", "/%0d%0aX-Evil:1/..%2f", {}),
    (404, "unknown_user", "POST", "/notifications", {"as_": "shop", "json": {"user_id": "nobody", "title": "x"}}),
    (404, "unknown_user", "GET", "/admin/users/nobody", {"as_": "admin"}),
    (404, "unknown_notification", "GET", "/notifications/nothing", {"as_": "shop"}),
    (404, "unknown_notification", "DELETE", "/inbox/'; DROP TABLE inbox --", {"as_": "ada"}),
    (404, "unknown_client", "DELETE", "/admin/clients/c~none", {"as_": "admin"}),
    (405, "method_not_allowed", "DELETE", "/inbox", {"as_": "ada"}),
    (405, "method_not_allowed", "PUT", "/notifications", {"as_": "shop", "json": {}}),
    (405, "method_not_allowed", "POST", "/healthz", {}),
    (409, "username_taken", "POST", "/admin/users", {"as_": "admin", "json": {**NEW, "username": "admin"}}),
    (409, "epoch_mismatch", "POST", "/inbox/ack", {"as_": "ada", "json": {"seq": 0, "epoch": "other"}}),
    (413, "payload_too_large", "POST", "/notifications", {"as_": "shop", "json": {"title": "x" * 70_000}}),
    (413, "payload_too_large", "POST", "/auth/login", {"json": {"username": "x" * 70_000}}),
    (415, "unsupported_media_type", "POST", "/notifications", {"as_": "shop", "content": b"{}"}),
    (422, "validation_failed", "POST", "/notifications", {"as_": "shop", "json": {"title": ""}}),
    (422, "validation_failed", "GET", "/inbox?limit=many", {"as_": "ada"}),
    (422, "not_supported", "POST", "/notifications", {"as_": "shop", "json": {"topic": "t", "title": "x"}}),
    (422, "invalid_json", "POST", "/notifications", {"as_": "shop", "content": b"{", "headers": JSON}),
    (422, "invalid_json", "POST", "/notifications", {"as_": "shop", "content": b"\xff", "headers": JSON}),
    (422, "validation_failed", "POST", "/auth/login", {"json": {"username": 1, "password": ["x"]}}),
    (422, "password_too_short", "POST", "/admin/users", {"as_": "admin", "json": {**NEW, "password": "short"}}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "code", "method", "path", "asked"), WRONG)
def test_API_01_every_refusal_is_a_problem(
    node: Node, shop: str, token: str, status: int, code: str, method: str, path: str, asked: dict[str, Any]
) -> None:
    more = {name: value for name, value in asked.items() if name != "as_"}
    who = {"ada": token, "shop": shop, "admin": node.admin}.get(asked.get("as_", ""))
    answer = node.request(method, path, token=who, **more)
    problem = is_problem(answer, status, code)
    if code in ("validation_failed", "not_supported"):
        assert all(set(one) == {"pointer", "detail"} for one in problem["errors"])
        assert problem["errors"]
    if status == 405:
        assert method not in answer.headers["allow"]
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer ")


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "bad_request"),
        (b"nonsense\r\n\r\n", 400, "bad_request"),
        (head("/ws", "Sec-WebSocket-Version: 8"), 400, "bad_handshake"),
        (head("/ws?token=eyJ", method="POST"), 405, "bad_handshake"),
        (head("/ws", "Origin: https://evil.test"), 403, "origin_refused"),
        (head("/elsewhere"), 404, "not_found"),
    ],
)
def test_API_01_what_never_reaches_a_route_is_a_problem_too(
    node: Node, request_bytes: bytes, status: int, code: str
) -> None:
    raw = Raw(node.port).send(request_bytes)
    with contextlib.closing(raw.sock):
        answered, fields = raw.response()
        problem = json.loads(raw.exactly(int(fields["content-length"])))
    assert (answered, fields["content-type"]) == (status, "application/problem+json")
    assert {"type", "title", "status", "detail", "instance", "code"} <= set(problem)
    assert (problem["status"], problem["code"]) == (status, code)
    assert "?" not in problem["instance"]
    gives_nothing_away(json.dumps(problem))
    for name, value in HARDENING.items():
        assert fields[name] == value


def test_API_01_a_database_that_is_gone_is_a_503_and_a_mistake_of_ours_a_500(start: Callable[..., Node]) -> None:
    node = start()
    user, shop = node.user(), node.client_token()
    file = node.directory / "gateway.db"
    file.rename(node.directory / "moved")
    for method, path, body in (
        ("POST", "/notifications", {"user_id": user.id, "title": "x"}),
        ("GET", "/notifications/some", None),
        ("POST", "/auth/login", {"username": user.username, "password": user.password}),
    ):
        answer = node.request(method, path, token=shop, json=body)
        is_problem(answer, 503, "store_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    ready = node.request("GET", "/readyz")
    assert is_problem(ready, 503, "not_ready")["reasons"]
    node.request("GET", "/healthz", expect=200)
    (node.directory / "moved").rename(file)
    node.push(shop, user_id=user.id)
    with contextlib.closing(sqlite3.connect(file, timeout=10)) as store, store:
        store.execute("UPDATE users SET role = 'nonsense' WHERE id = ?", [user.id])
    body = {"username": user.username, "password": user.password}
    is_problem(node.request("POST", "/auth/login", json=body), 500, "internal_error")
    assert "Traceback" in node.log_text(), "it is told to the operator"
    node.push(shop, user_id=user.id)


# -- fields behind the body -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("trailer", ["Authorization: Bearer {token}", "X-Request-Id: from-behind"])
def test_a_field_behind_the_body_is_no_field_of_the_request(node: Node, token: str, trailer: str) -> None:
    """RFC 9110 section 6.5.1: nobody in front of the gateway has looked at it."""
    raw = Raw(node.port)
    ask = "POST /inbox/read HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw.send(f"{ask}2\r\n{{}}\r\n0\r\n{trailer.format(token=token)}\r\n\r\n".encode())
    status, fields = raw.response()
    assert (status, json.loads(raw.exactly(int(fields["content-length"])))["code"]) == (401, "token_missing")
    assert fields["x-request-id"] != "from-behind"
    raw.sock.close()
