"""Contract section 9, around it: health, readiness, metrics, public keys, request ids, and the first start of all."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hostile import b64, is_problem
from jose import jwt
from wire import Node, claims_of, eventually


def test_healthz_and_readyz_are_answered_to_anybody(node: Node) -> None:
    for path, body in (("/healthz", {"status": "ok"}), ("/readyz", {"status": "ready"})):
        answer = node.request("GET", path, expect=200)
        assert answer.json() == body
        assert node.request("HEAD", path, expect=200).content == b""


async def test_metrics_count_what_happened_for_an_admin(node: Node, shop: str) -> None:
    def value(name: str) -> float:
        text = node.request("GET", "/metrics", token=node.admin, expect=200).text
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    names = {
        "gateway_notifications_stored_total": 2, "gateway_notifications_passed_total": 1, "gateway_connections": 1,
        "gateway_connections_opened_total": 2, "gateway_users_online": 1, "gateway_revocations_in_force": 1,
        'gateway_connections_closed_total{reason="token_revoked"}': 1,
        'gateway_upgrades_refused_total{reason="token_invalid"}': 1,
    }  # fmt: skip
    before = {name: value(name) for name in names}
    user, other = node.user(), node.user()
    revoked = user.sign_in()
    gone, stays = await node.open(revoked["access_token"]), await node.open(other.token())
    node.push(shop, user_ids=[user.id, other.id], expect=200)
    node.push(shop, user_id=other.id, ttl=0, expect=202)
    node.revoke(session=claims_of(revoked["access_token"])["sid"])
    await gone.closed()
    assert await node.refusal("garbage") == (1008, "token_invalid")
    assert {name: value(name) - before[name] for name in names} == names
    await stays.notifications(2)
    text = node.request("GET", "/metrics", token=node.admin, expect=200).text
    for private in (user.id, user.username, "eyJ", claims_of(revoked["access_token"])["sid"]):
        assert private not in text


def test_a_stranger_can_verify_a_token_with_the_published_keys(node: Node) -> None:
    answer = node.request("GET", "/.well-known/jwks.json", expect=200)
    assert "max-age" in answer.headers["cache-control"]
    (key,) = answer.json()["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "alg", "use", "kid"}
    assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("EC", "P-256", "ES256", "sig")
    token = node.user().token()
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": key["kid"], "typ": "at+jwt"}
    claims = jwt.decode(token, key, algorithms=["ES256"], audience="notification-gateway")
    assert claims == claims_of(token)
    with pytest.raises(Exception, match="Signature verification failed"):
        jwt.decode(token[:-8] + b64(b"\0" * 6), key, algorithms=["ES256"], audience="notification-gateway")


def is_logged(node: Node, text: str) -> None:
    eventually(lambda: text in node.log_text(), what=f"a line with {text}")  # it is written after the answer


def test_a_request_keeps_the_id_its_caller_gave_it_if_it_is_a_sane_one(node: Node) -> None:
    for given, kept in (("trace-42.a_B", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("", False)):
        answer = node.request("GET", "/nothing", headers={"X-Request-Id": given})
        assert (answer.headers["x-request-id"] == given) is kept
        assert answer.headers["x-request-id"]
        is_logged(node, f'"request_id": "{answer.headers["x-request-id"]}"')


def test_the_first_start_makes_an_admin_whose_password_is_printed_once(start: Callable[..., Node]) -> None:
    node = start(bootstrap_admin_password="")
    (password,) = re.findall(r"^password +(\S+)", node.log_text(), re.MULTILINE)
    assert len(password) >= 16
    logged = [line for line in node.log_text().splitlines() if line.startswith("{")]
    assert logged
    assert password not in "".join(logged), "it is shown to whoever starts it, and not logged"
    token = node.sign_in("admin", password)["access_token"]
    admin = node.request("GET", "/auth/me", token=token, expect=200).json()
    assert (admin["username"], admin["role"]) == ("admin", "admin")
    for guess in ("admin", "password", "", "changeme", "notification-gateway"):
        body = {"username": "admin", "password": guess}
        is_problem(node.request("POST", "/auth/login", json=body), 401, "bad_credentials")
    assert node.stop() == 0
    said = len(node.log_text())
    node.settings["bootstrap_admin_password"] = "another one, too late"
    node.start()
    assert not re.search(r"password|PASSWORD", node.log_text()[said:])
    node.sign_in("admin", password)
    body = {"username": "admin", "password": "another one, too late"}
    node.request("POST", "/auth/login", json=body, expect=401)
    users = node.request("GET", "/admin/users", token=token, expect=200).json()["items"]
    assert [one["username"] for one in users] == ["admin"]
