"""WSH-10: with GATEWAY_REQUIRE_TLS nothing is served that did not come over TLS, by a trusted proxy's word alone."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response
from wire import ADMIN_PASSWORD, Node

HTTPS = {"X-Forwarded-Proto": "https"}


async def denial(node: Node, token: str, **headers: str) -> Response:
    with pytest.raises(InvalidStatus) as refused:
        await node.raw(token, headers=headers)
    return refused.value.response


def sign_in(node: Node, **headers: str) -> str:
    body = {"username": "admin", "password": ADMIN_PASSWORD}
    return str(node.request("POST", "/auth/login", json=body, headers=headers, expect=200).json()["access_token"])


async def test_WSH_10_what_did_not_come_over_tls_is_403_and_the_probes_are_answered(start: Callable[..., Node]) -> None:
    node = start(require_tls="true", forwarded_allow_ips="127.0.0.1")
    token = sign_in(node, **HTTPS)
    for headers in ({}, {"X-Forwarded-Proto": "http"}, {"X-Forwarded-Proto": "ftp"}, {"Forwarded": "proto=https"}):
        for method, path in (
            ("GET", "/auth/me"), ("POST", "/auth/login"), ("POST", "/notifications"), ("GET", "/nowhere"),
            ("POST", "/auth/ticket"), ("GET", "/healthz/"), ("GET", "/ws"),
        ):  # fmt: skip
            answer = node.request(method, path, token=token, headers=headers, expect=403)
            assert answer.json()["code"] == "tls_required"
            assert answer.headers["content-type"] == "application/problem+json"
        response = await denial(node, token, **headers)
        assert response.status_code == 403
        assert json.loads(response.body or b"")["code"] == "tls_required"
    for probe in ("/healthz", "/readyz"):
        node.request("GET", probe, expect=200)
    node.request("GET", "/auth/me", token=token, headers=HTTPS, expect=200)
    await node.open(token, headers=HTTPS)
    node.request("POST", "/notifications", token=token, headers=HTTPS, json={}, expect=422)
    assert node.stop() == 0


async def test_WSH_10_a_stranger_does_not_say_what_it_came_over(start: Callable[..., Node]) -> None:
    node = start(require_tls="true")
    assert node.request("POST", "/auth/login", headers=HTTPS, json={}, expect=403).json()["code"] == "tls_required"
    assert (await denial(node, "garbage", **HTTPS)).status_code == 403
    assert node.stop() == 0


async def test_WSH_10_it_is_off_unless_it_is_asked_for(node: Node) -> None:
    await node.open(node.user().token())
