"""WSH-05: which Host a request may name, over HTTP and on upgrades, whatever form it comes in. No Origin here."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from rawpeer import Raw, head
from wire import Node, running

from gateway.hosts import Hosts
from gateway.settings import SettingsError, read_settings

LISTED = "push.example, *.app.example, strict.example:8443, [::1]"
GOOD = (
    *("push.example", "PUSH.Example", "push.example:8000", "push.example:", "push.example."),
    *("a.app.example", "a.b.app.example:1", "strict.example:8443", "[::1]", "[::1]:80", "[0:0:0:0:0:0:0:1]"),
)
OTHERS = (
    *("127.0.0.1", "evil.test", "push.example.evil.test", "evilpush.example", "app.example", "xapp.example"),
    *("strict.example", "strict.example:80", "sub.push.example", "[::2]", "localhost"),
)
MALFORMED = (
    *("a/b?", "push.example/../x", "push.example?", "push.example#", "push.example@evil.test", "u:p@push.example"),
    *("push example", "push.example, evil.test", "push.example:port", "push.example:99999", "push.example:-1"),
    *("[::1", "::1", "[1.2.3.4]", "[::1]x", "push.example:80:80", "%70ush.example", "push\\example", ".."),
    *(".", ".example", "", "push.example\t", "\x7fpush.example", "pu\u00dfh.example", "<script>", "x" * 300),
)
PATHS = ("/inbox", "/notifications", "/auth/me", "/docs", "/openapi.json", "/nothing")


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("listed"), allowed_hosts=LISTED) as node:
        yield node


def ask(node: Node, request: bytes) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, fields and problem (if it is one) that are answered to these bytes."""
    raw = Raw(node.port).send(request)
    with contextlib.closing(raw.sock):
        status, fields = raw.response()
        body = raw.exactly(int(fields.get("content-length", "0"))) if status != 101 else b""
        problem = fields.get("content-type") == "application/problem+json"
        return status, fields, json.loads(body) if problem else {}


def get(target: str, *fields: str, version: str = "1.1", method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/{version}", *fields, "", ""]).encode("latin-1")


@pytest.mark.parametrize("host", GOOD)
def test_WSH_05_a_host_of_the_list_is_answered(listed: Node, host: str) -> None:
    assert ask(listed, get("/inbox", f"Host: {host}"))[2]["code"] == "token_missing"
    assert ask(listed, head("/ws", f"Host: {host}"))[0] == 101


@pytest.mark.parametrize("host", OTHERS)
def test_WSH_05_any_other_host_is_misdirected(listed: Node, host: str) -> None:
    for path in PATHS:
        status, _, problem = ask(listed, get(path, f"Host: {host}"))
        assert (status, problem["code"]) == (421, "misdirected_request"), path
    for path in ("/ws", "/ws?token=eyJ", "/nothing"):
        status, fields, problem = ask(listed, head(path, f"Host: {host}"))
        assert (status, problem["code"], fields["connection"]) == (421, "misdirected_request", "close"), path


def test_WSH_05_nobody_pushes_through_the_fast_lane_under_another_name(listed: Node) -> None:
    """It is the lane that passes by the layers of the framework, where such a rule usually stands."""
    shop = ask_for_token(listed)
    fields = (f"Authorization: Bearer {shop}", "Content-Type: application/json", "Content-Length: 2")
    for path in ("/notifications", "/notifications/batch"):
        for host, status, code in (
            ("push.example", 422, "validation_failed"),
            ("evil.test", 421, "misdirected_request"),
            ("a/b?", 400, "bad_request"),
        ):
            answered, _, problem = ask(listed, get(path, f"Host: {host}", *fields, method="POST") + b"{}")
            assert (answered, problem["code"]) == (status, code)


def ask_for_token(node: Node) -> str:
    """A client's token, asked for under a name of the list."""
    name = {"Host": "push.example"}
    body = {"username": "admin", "password": node.settings["bootstrap_admin_password"]}
    admin = node.request("POST", "/auth/login", json=body, headers=name, expect=200).json()["access_token"]
    return str(admin)


def test_WSH_05_probes_come_by_address(listed: Node) -> None:
    for path in ("/healthz", "/readyz"):
        for host in ("127.0.0.1", "10.0.0.7:8000", "evil.test"):
            assert ask(listed, get(path, f"Host: {host}"))[0] == 200
        assert ask(listed, get(path, version="1.0"))[0] == 200
        assert ask(listed, get(path, "Host: a/b?"))[0] == 400
    assert ask(listed, get("/healthz/", "Host: evil.test"))[0] == 421
    assert ask(listed, get("/healthz?/../inbox", "Host: evil.test"))[0] == 200


def test_WSH_05_no_host_is_none_of_the_list(node: Node, listed: Node) -> None:
    """HTTP/1.0 may leave it out."""
    assert ask(listed, get("/inbox", version="1.0"))[0] == 421
    assert ask(node, get("/inbox", version="1.0"))[0] == 401
    for one in (node, listed):
        assert ask(one, get("/inbox"))[0] == 400


@pytest.mark.parametrize("host", MALFORMED)
def test_WSH_05_what_is_no_host_is_refused_in_every_mode(node: Node, listed: Node, host: str) -> None:
    for one in (node, listed):
        for path in ("/inbox", "/healthz", "/nothing"):
            status, _, problem = ask(one, get(path, f"Host: {host}"))
            assert (status, problem["code"]) == (400, "bad_request"), path
        assert ask(one, head("/ws?token=eyJ", f"Host: {host}"))[0] == 400


def test_WSH_05_two_hosts_are_none(node: Node, listed: Node) -> None:
    for one in (node, listed):
        for hosts in (("push.example", "push.example"), ("push.example", "evil.test"), ("evil.test", "push.example")):
            fields = [f"Host: {host}" for host in hosts]
            status, answered, _ = ask(one, get("/healthz", *fields))
            assert (status, answered["connection"]) == (400, "close")
            upgrade = head("/ws", *[f"X{field}" for field in fields], without="host").replace(b"XHost", b"Host")
            assert ask(one, upgrade)[0] == 400


def test_WSH_05_what_a_proxy_or_a_stranger_adds_does_not_count(listed: Node) -> None:
    for field in ("X-Forwarded-Host: push.example", "Forwarded: host=push.example", "X-Host: push.example",
                  "X-Original-Host: push.example", ":authority: push.example"):  # fmt: skip
        assert ask(listed, get("/inbox", "Host: evil.test", field))[0] in (400, 421)


# -- RFC 9112 section 3.2.2: a target in absolute form ------------------------------------------------------------


def test_WSH_05_the_authority_of_an_absolute_target_is_the_host(listed: Node) -> None:
    for target, status in (
        ("http://push.example/inbox", 401),
        ("HTTP://PUSH.example:80/inbox?x=1", 401),
        ("https://push.example/inbox", 401),
        ("http://push.example", 404),
        ("http://push.example?x", 404),
        ("http://evil.test/inbox", 421),
        ("http://evil.test/notifications", 421),
        ("http://evil.test/healthz", 200),
        ("http://evil.test", 421),
    ):
        for host in ("push.example", "evil.test"):
            assert ask(listed, get(target, f"Host: {host}"))[0] == status, target
    for host in ("push.example", "evil.test"):
        for target, status in (("push.example/ws", 101), ("push.example/nothing", 404), ("evil.test/ws", 421)):
            assert ask(listed, head(f"http://{target}", f"Host: {host}"))[0] == status, target


@pytest.mark.parametrize(
    "target",
    [
        *("http://u@push.example/inbox", "http://u:p@push.example/inbox", "http://push.example@evil.test/inbox"),
        *("ftp://push.example/inbox", "file:///etc/passwd", "ws://push.example/ws", "http:///inbox", "http://?x"),
        *("http://push.example:99999/inbox", "http://push.example:x/inbox", "http://a b/inbox", "inbox"),
        *("push.example:80", "/inbox#x", "http://push.example/inbox#x", "http://push.example#x", "http://%41/inbox"),
    ],
)
def test_WSH_05_what_is_no_target_is_refused(node: Node, listed: Node, target: str) -> None:
    for one in (node, listed):
        for request in (get(target, "Host: push.example"), head(target, "Host: push.example")):
            assert ask(one, request)[0] == 400


def test_WSH_05_a_tunnel_and_the_server_itself_are_not_to_be_had(node: Node, listed: Node) -> None:
    for one in (node, listed):
        assert ask(one, get("push.example:443", "Host: push.example", method="CONNECT"))[0] == 400
        assert ask(one, get("*", "Host: push.example", method="OPTIONS"))[0] == 404
    assert ask(listed, get("*", "Host: evil.test", method="OPTIONS"))[0] == 421


def test_WSH_05_the_page_of_the_same_origin_is_that_of_the_host_that_counts(node: Node) -> None:
    """An absolute target cannot make a foreign page look like our own, nor the other way round."""
    ours, evil = "Origin: http://push.example", "Origin: http://evil.test"
    assert ask(node, head("http://push.example/ws", "Host: evil.test", ours))[0] == 101
    assert ask(node, head("http://push.example/ws", "Host: evil.test", evil))[0] == 403


@pytest.mark.parametrize("path", ["//evil.test/inbox", "/%2e%2e/inbox", "/..", "/%2finbox", "/x/../admin/users"])
def test_WSH_05_no_path_is_another_one_by_a_trick_of_the_target(listed: Node, path: str) -> None:
    assert ask(listed, get(path, "Host: push.example"))[0] == 404
    assert ask(listed, get(f"http://push.example{path}", "Host: push.example"))[0] == 404
    assert ask(listed, get(path, "Host: evil.test"))[0] == 421


# -- the setting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["*", "*.", "https://push.example", "push.example/x", "push.example:", "a b", "*.*.x", "[::1", "x:99999"]
)
def test_CFG_01_a_list_that_could_not_match_stops_the_start(value: str) -> None:
    with pytest.raises(SettingsError, match="GATEWAY_ALLOWED_HOSTS"):
        read_settings({"GATEWAY_ALLOWED_HOSTS": value})


def test_a_name_without_a_port_takes_any_and_one_with_the_default_port_takes_it_unsaid() -> None:
    hosts = Hosts(["push.example", "tls.example:443", "*.plain.example:80"])
    for host, scheme, taken in (
        (b"push.example:1", "http", True), (b"tls.example", "https", True), (b"tls.example", "wss", True),
        (b"tls.example", "http", False), (b"x.plain.example", "ws", True), (b"x.plain.example", "https", False),
        (None, "http", False),
    ):  # fmt: skip
        assert (hosts.refusal(host, scheme=scheme, path="/inbox") is None) == taken, host
