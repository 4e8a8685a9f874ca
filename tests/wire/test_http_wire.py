"""API-01, 15, 17, 18: how HTTP is answered, whatever is asked, and who may ask. No bodies here, and no pushes."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from freeport import free_port
from hostile import gives_nothing_away, is_problem
from rawpeer import Raw, head
from wire import Node, User, running

from gateway.app import create_app
from gateway.settings import read_settings

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
HARDENING = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """As an operator would run it in public: no interactive documentation, metrics on a port of their own."""
    with running(tmp_path_factory.mktemp("guarded"), docs="off", metrics_port=free_port()) as node:
        yield node


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


# -- API-15, 17, 18: who may look ------------------------------------------------------------------------------------


def test_API_15_no_page_of_another_origin_may_read_anything(node: Node, token: str) -> None:
    for origin in ("https://evil.test", "null", node.url):
        for path in ("/auth/login", "/inbox", "/notifications", "/healthz", "/admin/users", "/nothing"):
            asked = {"Origin": origin, "Access-Control-Request-Method": "POST",
                     "Access-Control-Request-Headers": "authorization"}  # fmt: skip
            preflight = node.request("OPTIONS", path, headers=asked)
            simple = node.request("GET", path, token=token, headers={"Origin": origin})
            assert preflight.status_code in (404, 405)
            for answer in (preflight, simple):
                assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_API_17_whatever_needs_a_scope_asks_for_it(node: Node, shop: str, token: str) -> None:
    document = node.request("GET", "/openapi.json", expect=200).json()
    asked = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            target = path.replace("{id}", "some").replace("{client_id}", "c~some").replace("{sid}", "some")
            needs = next((one["oauth2"] for one in operation.get("security", []) if "oauth2" in one), None)
            assert (needs == ["admin"]) == (path.startswith("/admin") or path == "/metrics")
            if needs is None:
                continue
            asked += 1
            is_problem(node.request(method.upper(), target), 401, "token_missing")
            for who, scopes in ((token, {"inbox"}), (shop, {"notifications:write"})):
                if not set(needs) <= scopes:
                    answer = node.request(method.upper(), target, token=who)
                    assert is_problem(answer, 403, "insufficient_scope")["scope"] == needs[0]
    assert asked > 25


def test_API_17_documentation_and_metrics_are_where_the_operator_put_them(node: Node, guarded: Node) -> None:
    assert "swagger" in node.request("GET", "/docs", expect=200).text
    for path in ("/docs", "/openapi.json", "/redoc", "/docs/oauth2-redirect"):
        is_problem(guarded.request("GET", path), 404, "not_found")
    for host, served in (("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("192.0.2.1", False)):
        app = create_app(read_settings({"GATEWAY_HOST": host}))
        assert ((app.docs_url is not None), (app.openapi_url is not None)) == (served, served)
        assert create_app(read_settings({"GATEWAY_HOST": host, "GATEWAY_DOCS": "on"})).openapi_url
    own = f"http://127.0.0.1:{guarded.settings['metrics_port']}/metrics"
    assert "gateway_" in httpx2.get(own, verify=False).text
    is_problem(guarded.request("GET", "/metrics"), 401, "token_missing")


def test_API_18_every_answer_is_hardened(node: Node, shop: str, token: str, ada: User) -> None:
    body = {"user_id": ada.id, "title": "x"}
    for method, path, who, more in (
        ("GET", "/docs", None, {}), ("GET", "/openapi.json", None, {}), ("GET", "/healthz", None, {}),
        ("GET", "/readyz", None, {}), ("GET", "/metrics", node.admin, {}), ("GET", "/inbox", token, {}),
        ("POST", "/notifications", shop, {"json": body}), ("POST", "/notifications", shop, {"json": {}}),
        ("POST", "/notifications", None, {"json": body}), ("POST", "/notifications", shop, {"json": body | {"ttl": 0}}),
        ("POST", "/notifications/batch", shop, {"json": {"notifications": [body]}}),
        ("GET", "/notifications/none", shop, {}), ("GET", "/nothing", None, {}), ("DELETE", "/inbox", token, {}),
        ("POST", "/auth/token", None, {"content": b"grant_type=x", "headers": FORM}),
        ("GET", "/.well-known/jwks.json", None, {}), ("POST", "/auth/logout", ada.token(), {}),
    ):  # fmt: skip
        answer = node.request(method, path, token=who, **more)
        for name, value in HARDENING.items():
            assert answer.headers.get_list(name) == [value], path
        assert answer.headers["cache-control"] == ("public, max-age=300" if "jwks" in path else "no-store")
        assert answer.headers["x-request-id"]
        assert "server" not in answer.headers


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
