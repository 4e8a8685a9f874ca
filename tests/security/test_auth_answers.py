"""AUTH-11: answers about credentials are not cached, and no token counts in a URL of the HTTP interface."""

from __future__ import annotations

from typing import Any

import pytest
from wire import Node, claims_of


def test_AUTH_11_no_answer_about_credentials_is_cached(node: Node) -> None:
    user = node.user()
    tokens = user.sign_in()
    client = node.client()
    other = claims_of(user.token())["sid"]
    good = {"username": user.username, "password": user.password}
    changed = {**good, "password": "quite another one"}
    change = {"current_password": user.password, "new_password": changed["password"]}
    asked: list[tuple[str, str, dict[str, Any], int]] = [
        ("POST", "/auth/login", {"json": good}, 200),
        ("POST", "/auth/login", {"json": {**good, "password": "wrong"}}, 401),
        ("POST", "/auth/login", {"json": {"username": 1}}, 422),
        ("POST", "/auth/login", {"content": b"{"}, 415),
        ("POST", "/auth/token", {"data": {"grant_type": "password", **good}}, 200),
        ("POST", "/auth/token", {"data": {"grant_type": "password", **good, "password": "wrong"}}, 400),
        ("POST", "/auth/token", {"data": {"grant_type": "client_credentials"}, "auth": client}, 200),
        ("POST", "/auth/token", {"data": {"grant_type": "client_credentials"}, "auth": (client[0], "wrong")}, 401),
        ("POST", "/auth/refresh", {"json": {"refresh_token": tokens["refresh_token"]}}, 200),
        ("POST", "/auth/refresh", {"json": {"refresh_token": "wrong"}}, 401),
        ("GET", "/auth/me", {"token": tokens["access_token"]}, 200),
        ("GET", "/auth/me", {}, 401),
        ("GET", "/auth/sessions", {"token": tokens["access_token"]}, 200),
        ("DELETE", f"/auth/sessions/{other}", {"token": tokens["access_token"]}, 204),
        ("DELETE", f"/auth/sessions/{other}", {"token": tokens["access_token"]}, 404),
        ("PUT", "/auth/password", {"token": tokens["access_token"], "json": {}}, 422),
        ("PUT", "/auth/password", {"token": tokens["access_token"], "json": change}, 204),
        ("POST", "/auth/login?cookie=true", {"json": good, "headers": {"Origin": node.url}}, 401),
        ("POST", "/auth/login?cookie=true", {"json": changed, "headers": {"Origin": node.url}}, 200),
        ("POST", "/auth/login?cookie=true", {"json": changed, "headers": {"Origin": "https://evil.example"}}, 403),
        ("POST", "/auth/ticket", {"token": tokens["access_token"]}, 201),
        ("POST", "/auth/ticket", {}, 401),
        ("POST", "/auth/introspect", {"data": {"token": tokens["access_token"]}, "auth": client}, 200),
        ("POST", "/auth/introspect", {"data": {"token": tokens["access_token"]}}, 401),
        ("POST", "/auth/revoke", {"data": {"token": "garbage"}}, 200),
        ("POST", "/auth/revoke", {"data": {"token_type_hint": "x"}}, 400),
        ("GET", "/auth/login", {}, 405),
        ("GET", "/auth/nothing", {}, 404),
        ("POST", "/auth/logout", {"token": tokens["access_token"]}, 204),
    ]
    for method, path, more, status in asked:
        answer = node.request(method, path, expect=status, **more)
        assert answer.headers.get_list("cache-control") == ["no-store"], (method, path, status)
        assert answer.headers.get_list("pragma") == ["no-cache"], (method, path, status)
        assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("name", ["token", "access_token", "bearer", "authorization"])
def test_AUTH_11_a_token_in_a_url_is_none(node: Node, name: str) -> None:
    token = node.user().token()
    for method, path in (("GET", "/auth/me"), ("GET", "/inbox"), ("POST", "/auth/logout"), ("GET", "/admin/users")):
        answer = node.request(method, f"{path}?{name}={token}")
        assert answer.status_code == 401, (path, answer.text)
        assert token not in answer.text + str(answer.headers)
    node.request("GET", "/auth/me", token=token, expect=200)
