"""AUTH-08: which address counts: the peer's, and of a trusted proxy the right-most it names that is no proxy."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import httpx2
import pytest
from callers import login
from wire import ADMIN_PASSWORD, Node

LIMIT = 10
HOME = "192.0.2.7"
NOT_TRUSTED = "not in GATEWAY_FORWARDED_ALLOW_IPS"


def seen_as(node: Node, *forwarded: str, source: str = "127.0.0.1") -> str:
    """The address the gateway takes a caller from ``source`` for, whose request brings these fields."""
    transport = httpx2.HTTPTransport(local_address=source)
    headers = [("X-Forwarded-For", value) for value in forwarded]
    with httpx2.Client(transport=transport, base_url=node.url, timeout=30) as client:
        body = {"username": "admin", "password": ADMIN_PASSWORD}
        tokens = client.post("/auth/login", json=body, headers=headers).json()
        answer = client.get("/auth/sessions?limit=1", headers={"Authorization": f"Bearer {tokens['access_token']}"})
        return str(answer.json()["items"][0]["address"])


def test_AUTH_08_a_stranger_who_claims_another_address_each_time_is_limited_all_the_same(
    start: Callable[..., Node],
) -> None:
    node = start()
    codes = [login(node, f"name {n}", "x", at=f"203.0.{n}.1, 198.51.{n}.1").status_code for n in range(LIMIT + 5)]
    assert codes == [401] * LIMIT + [429] * 5
    assert node.log_text().count(NOT_TRUSTED) == 1, "an operator who forgot to name the proxy is told, once"


def test_AUTH_08_nobody_is_believed_by_default(start: Callable[..., Node]) -> None:
    node = start()
    assert seen_as(node, HOME) == "127.0.0.1"
    assert seen_as(node, HOME, source="127.9.9.9") == "127.9.9.9"


def test_AUTH_08_behind_one_proxy_what_it_added_counts_and_not_what_it_was_sent(start: Callable[..., Node]) -> None:
    node = start(forwarded_allow_ips="127.0.0.1")
    assert seen_as(node, HOME) == HOME
    assert seen_as(node, f"10.6.6.6, {HOME}") == HOME
    assert seen_as(node, "10.6.6.6", HOME) == HOME, "two fields are one list"
    assert seen_as(node, f"{HOME}:4711") == HOME
    assert seen_as(node, "2001:db8::1") == "2001:db8::1"
    assert seen_as(node) == "127.0.0.1"
    assert NOT_TRUSTED not in node.log_text()
    codes = [login(node, f"name {n}", "x", at=f"10.6.{n}.6, {HOME}").status_code for n in range(LIMIT + 2)]
    assert codes == [401] * LIMIT + [429] * 2
    assert seen_as(node, HOME, source="127.9.9.9") == "127.9.9.9", "another peer is no proxy"
    assert node.log_text().count(NOT_TRUSTED) == 1


def test_AUTH_08_behind_two_proxies_the_first_that_is_none_of_them_counts(start: Callable[..., Node]) -> None:
    node = start(forwarded_allow_ips="127.0.0.1, 10.0.0.0/8")
    assert seen_as(node, f"{HOME}, 10.1.2.3") == HOME
    assert seen_as(node, f"6.6.6.6, {HOME}, 10.1.2.3") == HOME
    assert seen_as(node, f"10.1.2.4, {HOME}, 10.1.2.3") == HOME
    codes = [login(node, f"name {n}", "x", at=f"6.6.{n}.6, {HOME}, 10.1.2.3").status_code for n in range(LIMIT + 2)]
    assert codes == [401] * LIMIT + [429] * 2


def test_AUTH_08_what_a_proxy_says_counts_only_if_it_is_an_address(start: Callable[..., Node]) -> None:
    """Else whoever is passed on as he came stands in log and audit with as much text as fits into a field."""
    node = start(forwarded_allow_ips="127.0.0.1")
    for text in ("unknown", "x" * 7000, "192.0.2.7.9", f"{HOME}; x", f"{HOME}, unknown", f"fe80::1%{'z' * 7000}"):
        assert seen_as(node, text) == "127.0.0.1", text
    assert seen_as(node, f"::ffff:{HOME}") == HOME, "one spelling of it, as of the peer's own"
    assert seen_as(node, "[2001:db8::1]:443") == "2001:db8::1"


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_AUTH_08_a_socket_for_both_families_knows_an_ipv4_proxy_as_one(start: Callable[..., Node]) -> None:
    node = start(host="::", forwarded_allow_ips="127.0.0.1")
    assert seen_as(node) == "127.0.0.1"
    assert seen_as(node, HOME) == HOME
    assert seen_as(node, HOME, source="127.9.9.9") == "127.9.9.9"


async def test_AUTH_08_it_is_the_same_for_a_socket(start: Callable[..., Node]) -> None:
    node = start(forwarded_allow_ips="127.0.0.1")
    user = node.user()
    await node.open(user.token(), headers={"X-Forwarded-For": f"6.6.6.6, {HOME}"})
    (connection,) = node.connections(user)
    assert connection["address"] == HOME
