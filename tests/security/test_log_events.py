"""What is logged of who comes and goes, with time, request and address; of a credential only what names it."""

from __future__ import annotations

import datetime
import hashlib
import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from logged import events, logged
from rawpeer import Raw, head
from websockets.exceptions import InvalidStatus
from wire import ADMIN_PASSWORD, Node, claims_of

UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
HERE = {"address": "127.0.0.1"}


def named() -> dict[str, str]:
    return {"X-Request-Id": f"named-{uuid.uuid4().hex}"}


@pytest.fixture
def limited(start: Callable[..., Node]) -> Node:
    return start(push_rate=1, frame_burst=3, frame_rate=0.01, refresh_grace=0)


def test_LOG_03_what_is_typed_where_a_client_id_belongs_is_not_written_down(node: Node) -> None:
    """Nor in the audit trail: people paste their secret there. A client that can be one is named."""
    client_id, _ = node.client()
    typed = ("c~hunter2-canary", "c~" + "canary" * 9, "canary-alone", "c~" + "C" * 32 + "canary")
    for name in (client_id, *typed):
        form = {"grant_type": "client_credentials", "client_id": name, "client_secret": "wrong"}
        node.request("POST", "/auth/token", data=form, expect=401)
        node.request("POST", "/auth/introspect", data={"token": "x"}, auth=(name, "wrong"), expect=401)
    rows = node.request("GET", "/admin/audit?limit=50", token=node.admin, expect=200).text
    told = node.log_text()
    assert "canary" not in rows + told
    assert rows.count(client_id) == 3
    assert len(events(node, "sign-in failed", target=client_id)) == 2


async def test_LOG_01_who_comes_goes_and_is_kept_out_is_logged_with_time_and_request(limited: Node) -> None:
    node, asked = limited, dict[str, str]()
    user = node.user()

    def ask(what: str, method: str, path: str, *, expect: int, **more: Any) -> Any:
        headers = named()
        asked[what] = headers["X-Request-Id"]
        return node.request(method, path, headers=headers, expect=expect, **more)

    good = {"username": user.username, "password": user.password}
    tokens = ask("ok", "POST", "/auth/login", json=good, expect=200).json()
    sid = claims_of(tokens["access_token"])["sid"]
    ask("fail", "POST", "/auth/login", json={**good, "password": "wrong"}, expect=401)
    old = {"refresh_token": tokens["refresh_token"]}
    fresh = ask("refresh", "POST", "/auth/refresh", json=old, expect=200).json()
    ask("refresh again", "POST", "/auth/refresh", json={"refresh_token": fresh["refresh_token"]}, expect=200)
    ask("reuse", "POST", "/auth/refresh", json=old, expect=401)

    session = user.sign_in()
    jti = claims_of(session["access_token"])["jti"]
    ask("revoke", "POST", "/admin/revocations", token=node.admin, json={"jti": jti}, expect=201)
    ask("admin", "PATCH", f"/admin/users/{user.id}", token=node.admin, json={"disabled": True}, expect=200)
    shop = node.client_token()
    batch = {"notifications": [{"user_id": user.id, "title": "x"}] * 30}
    ask("push", "POST", "/notifications/batch", token=shop, json=batch, expect=200)
    ask("limit", "POST", "/notifications", token=shop, json={"user_id": user.id, "title": "x"}, expect=429)

    expected: dict[str, tuple[str, dict[str, object]]] = {
        "ok": ("signed in", {"user": user.id, "session": sid, **HERE}),
        "fail": ("sign-in failed", {"target": user.id, "reason": "password", **HERE}),
        "refresh": ("refreshed", {"session": sid, **HERE}),
        "reuse": ("a used refresh token came back", {"session": sid, "level": "warning", **HERE}),
        "revoke": ("audit", {"action": "revoked", **HERE}),
        "admin": ("audit", {"action": "user_updated", "target": user.id, **HERE}),
        "limit": ("rate limit hit", {"policy": "push", "subject": claims_of(shop)["sub"], **HERE}),
    }
    for what, (event, members) in expected.items():
        assert logged(node, event, request_id=asked[what], **members), what
    for what, request_id in asked.items():
        request = logged(node, "request", request_id=request_id)
        assert request["address"] == "127.0.0.1", what
    assert logged(node, "audit", request_id=asked["revoke"])["actor"] == claims_of(node.admin)["sub"]


async def test_LOG_01_a_socket_is_logged_when_it_opens_and_when_it_closes(limited: Node) -> None:
    node = limited
    user = node.user()
    token = user.token()
    sid = claims_of(token)["sid"]
    headers = {**named(), "Origin": node.url}
    device = await node.open(token, headers=headers)
    about = {"user": user.id, "sid": sid, "origin": node.url, **HERE}
    opened = logged(node, "socket open", request_id=headers["X-Request-Id"], **about)
    await device.connection.close(1000, "bye")
    assert logged(node, "socket closed", connection=opened["connection"], code=1006, reason="peer_gone", **about)

    talks = await node.open(token)
    for _ in range(4):
        await talks.send(type="ping")
    assert await talks.closed() == (1008, "rate_limited")
    closed = {"user": user.id, "sid": sid, "code": 1008, "reason": "rate_limited", "origin": None, **HERE}
    assert logged(node, "socket closed", **closed)

    headers = named()
    assert await node.refusal("garbage", headers=headers) == (1008, "token_invalid")
    request_id = headers["X-Request-Id"]
    assert logged(node, "socket refused", request_id=request_id, code=1008, reason="token_invalid", **HERE)
    headers = {**named(), "Origin": "https://evil.example"}
    with pytest.raises(InvalidStatus):
        await node.raw(token, headers=headers)
    about = {"request_id": headers["X-Request-Id"], "origin": "https://evil.example", "level": "warning", **HERE}
    assert logged(node, "socket refused", code=403, reason="origin_refused", **about)
    headers = {**named(), "Host": "a/b?"}
    refused = Raw(node.port).send(head("/ws", *[f"{name}: {value}" for name, value in headers.items()]))
    assert refused.problem()[0] == 400
    refused.shut()
    request_id = headers["X-Request-Id"]
    assert logged(node, "socket refused", request_id=request_id, code=400, reason="bad_request", **HERE)
    told = node.request("GET", "/metrics", token=node.admin, expect=200).text
    assert 'gateway_rate_limited_total{policy="frames"} 1.0' in told


def test_LOG_01_every_event_is_json_with_a_time_in_utc(node: Node) -> None:
    for path in ("/healthz", "/nowhere", "/auth/me"):
        node.request("GET", path)
    found = events(node)
    assert len(found) > 5
    now = datetime.datetime.now(datetime.UTC)
    for event in found:
        assert UTC_TIME.fullmatch(event["time"]), event
        assert abs(datetime.datetime.fromisoformat(event["time"]) - now) < datetime.timedelta(minutes=10)
        assert {"level", "logger", "event"} <= event.keys()
    for event in (one for one in found if one["event"] == "request"):
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", event["request_id"])


async def test_LOG_03_a_token_is_known_in_the_log_by_its_jti_alone(node: Node) -> None:
    user = node.user()
    session = user.sign_in()
    client = node.client()
    token, shop = session["access_token"], node.client_token(client)
    jti = claims_of(token)["jti"]
    device = await node.open(token)
    node.push(shop, user_id=user.id)
    await device.next("notification")
    fresh = node.request("POST", "/auth/refresh", json={"refresh_token": session["refresh_token"]}, expect=200).json()
    node.request("GET", "/auth/me", headers={"Authorization": f"Bearer {token[:-4]}AAAA"}, expect=401)
    node.request("GET", f"/auth/me?token={token}", expect=401)
    node.revoke(jti=jti)
    assert (await device.closed())[0] == 1008
    assert await node.refusal(token) == (1008, "token_revoked")
    assert logged(node, "audit", action="revoked")["target"] == jti
    text = node.log_text()
    secrets = [token, shop, fresh["access_token"], client[1], user.password, ADMIN_PASSWORD]
    # A refresh token begins with the session's id, which is no secret.
    secrets += [one["refresh_token"].rpartition(".")[2] for one in (session, fresh)]
    for secret in secrets:
        assert not [secret[at : at + 16] for at in range(len(secret) - 15) if secret[at : at + 16] in text]
    # If a hash of one is written, then the beginning of it.
    for digest in (hashlib.sha256(one.encode()).hexdigest() for one in (token, fresh["refresh_token"], client[1])):
        assert digest[:9] not in text
