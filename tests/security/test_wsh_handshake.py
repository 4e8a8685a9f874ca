"""WSH-01, 06 … 09, 11, 12: what an upgrade of ``/ws`` has to be, how much of it there may be, and who asks for proof.

Origins, cookies, tickets and hosts have tests of their own; so has every kind of bad token.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import middled
import pytest
from rawpeer import TEXT, Raw, frame, head
from streams import listen, refusal
from websockets.exceptions import InvalidStatus
from wire import ROOT, Node, Socket, User, eventually_async, running

MISSING, CONFLICT = (1008, "token_missing"), (1008, "credentials_conflict")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("node"), connections_per_user=3) as node:
        yield node
        assert "canary" not in node.log_text()


@pytest.fixture(scope="module")
def ada(node: Node) -> User:
    return node.user()


@pytest.fixture(scope="module")
def token(ada: User) -> str:
    return ada.token()


@pytest.fixture
def dial(node: Node) -> Iterator[Callable[[bytes], Raw]]:
    """Sends bytes on a connection of its own."""
    raws: list[Raw] = []

    def send(data: bytes) -> Raw:
        raws.append(Raw(node.port))
        return raws[-1].send(data)

    yield send
    for raw in raws:
        raw.shut()


Dial = Callable[[bytes], Raw]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def nothing_of(user: User) -> None:
    """It is not registered, and to a sender the user is offline."""
    assert user.node.connections(user) == []
    assert user.node.push(user.node.admin, user_id=user.id, ttl=0, expect=202)["online"] is False


# -- WSH-01 ----------------------------------------------------------------------------------------------------------


async def test_WSH_01_no_token_and_an_empty_one_are_refused(node: Node, ada: User) -> None:
    assert await node.refusal(None) == MISSING
    assert await node.refusal("") == MISSING
    assert await node.refusal(None, headers={"Authorization": "Basic YTpi"}) == MISSING
    assert await node.refusal(None, headers={"Authorization": "Bearer "}) == MISSING
    nothing_of(ada)


async def test_WSH_01_two_tokens_in_one_query_are_refused_though_both_are_good(node: Node, ada: User) -> None:
    one, other = ada.token(), ada.token()
    assert await node.refusal(f"{one}&token={other}") == CONFLICT
    assert await node.refusal(f"{one}&token={one}") == CONFLICT
    assert await node.refusal(f"{one}&token=") == CONFLICT
    nothing_of(ada)


async def test_WSH_01_credentials_of_different_sessions_are_refused(node: Node, dial: Dial, ada: User) -> None:
    one, other = ada.token(), ada.token()
    assert await node.refusal(one, headers=bearer(other)) == CONFLICT
    assert await node.refusal(one, headers=bearer("garbage")) == (1008, "token_invalid")
    raw = dial(head("/ws", *[f"Authorization: Bearer {token}" for token in (one, other)]))
    assert raw.response()[0] == 101
    assert raw.closed() == CONFLICT
    nothing_of(ada)


async def test_WSH_01_under_ws_reject_http_it_is_a_403(start: Callable[..., Node]) -> None:
    node = start(ws_reject="http")
    user = node.user()
    one, other = user.token(), user.token()
    for presented, more in ((None, {}), ("", {}), (f"{one}&token={other}", {}), (one, bearer(other))):
        with pytest.raises(InvalidStatus) as refused:
            await node.raw(presented, headers=more)
        assert refused.value.response.status_code == 403
    nothing_of(user)
    assert node.stop() == 0


# -- WSH-06 … WSH-09 -------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[Callable[[str], bytes], int]] = {
    "version 8": (lambda path: head(path, "Sec-WebSocket-Version: 8"), 400),
    "no version": (lambda path: head(path, without="sec-websocket-version"), 400),
    "no key": (lambda path: head(path, without="sec-websocket-key"), 400),
    "short key": (lambda path: head(path, "Sec-WebSocket-Key: short"), 400),
    "key of garbage": (lambda path: head(path, "Sec-WebSocket-Key: not base64 at all !!"), 400),
    "long key": (lambda path: head(path, f"Sec-WebSocket-Key: {'A' * 40}"), 400),
    "POST": (lambda path: head(path, method="POST"), 405),
    "HTTP/1.0": (lambda path: head(path, version="1.0"), 400),
    "no host": (lambda path: head(path, without="host"), 400),
    "two hosts": (lambda path: head(path)[:-2] + b"Host: another.test\r\n\r\n", 400),
    "a body": (lambda path: head(path, "Content-Length: 5") + b"hello", 400),
}


@pytest.mark.parametrize("what", list(BAD))
def test_WSH_06_what_is_no_handshake_is_a_4xx_though_its_token_is_good(dial: Dial, token: str, what: str) -> None:
    upgrade, expected = BAD[what]
    status, problem = dial(upgrade(f"/ws?token={token}")).problem()
    assert status == expected
    assert problem["code"] in ("bad_handshake", "bad_request")


def test_WSH_06_a_wrong_version_is_told_the_right_one(dial: Dial, token: str) -> None:
    _, fields = dial(head(f"/ws?token={token}", "Sec-WebSocket-Version: 8")).response()
    assert fields["sec-websocket-version"] == "13"


def refused_at_once(raw: Raw, status: int, code: str) -> None:
    """Answered, and hung up, within the second."""
    began = time.monotonic()
    answered, problem = raw.problem()
    assert (answered, problem["code"]) == (status, code)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("size", [9_000, 70_000, 2_000_000])
def test_WSH_07_a_long_query_is_a_414_at_once(dial: Dial, size: int) -> None:
    refused_at_once(dial(head("/ws?token=canary" + "x" * size)), 414, "uri_too_long")


def test_WSH_07_many_or_large_fields_are_a_431_at_once(dial: Dial, token: str) -> None:
    path = f"/ws?token={token}"
    for lines in (
        [f"X-{number}: canary" for number in range(200)],
        ["Cookie: " + "canary" * 3_000],
        [f"X-{number}: " + "y" * 7_000 for number in range(3)],
    ):
        refused_at_once(dial(head(path, *lines)), 431, "headers_too_large")


def test_WSH_07_a_field_that_never_ends_is_a_431_and_costs_nothing(node: Node, dial: Dial) -> None:
    before = node.resident()
    raw = dial(head("/ws?token=canary")[:-2] + b"X-Endless: ")
    for _ in range(200):
        raw.send(b"x" * 100_000)
    refused_at_once(raw, 431, "headers_too_large")
    assert node.resident() - before < 2_000_000


def test_WSH_07_a_second_head_on_the_same_connection_is_bounded_too(dial: Dial) -> None:
    raw = dial(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    status, fields = raw.response()
    assert status == 200
    raw.exactly(int(fields["content-length"]))
    raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Endless: " + b"x" * 100_000)
    refused_at_once(raw, 431, "headers_too_large")


async def test_WSH_07_what_is_just_within_the_limits_is_let_in(dial: Dial, token: str) -> None:
    upgrade = f"/ws?token={token}&x="
    raw = dial(head(upgrade + "x" * (8_100 - len(upgrade)), *[f"X-{number}: y" for number in range(90)]))
    assert raw.response()[0] == 101
    assert '"hello"' in raw.text()


async def test_WSH_08_only_a_supported_subprotocol_is_echoed_and_never_the_token(
    node: Node, dial: Dial, token: str
) -> None:
    for offered, chosen in (
        (["notify.v1"], "notify.v1"), (["other", "notify.v1"], "notify.v1"), (["other"], None), (None, None),
    ):  # fmt: skip
        connection = await node.raw(token, options={"subprotocols": offered})
        assert connection.subprotocol == chosen
        await connection.close()
    for line in (f"Sec-WebSocket-Protocol: bearer, {token}", f"Sec-WebSocket-Protocol: {token}"):
        raw = dial(head(f"/ws?token={token}", line))
        status, fields = raw.response()
        assert (status, fields.get("sec-websocket-protocol")) == (101, None)
        assert token not in str(fields)
        raw.shut()


def test_WSH_09_compression_is_never_negotiated(dial: Dial, token: str) -> None:
    for offer in ("permessage-deflate", "permessage-deflate; client_max_window_bits", "permessage-deflate, x-other"):
        raw = dial(head(f"/ws?token={token}", f"Sec-WebSocket-Extensions: {offer}"))
        status, fields = raw.response()
        assert status == 101
        assert "sec-websocket-extensions" not in fields
        assert '"hello"' in raw.text()
        raw.send(frame(TEXT, b"x", rsv=4))
        assert raw.closed() == (1002, "protocol_error")
        raw.shut()


# -- WSH-11 ----------------------------------------------------------------------------------------------------------


async def test_WSH_11_a_user_has_so_many_connections_and_no_more(node: Node) -> None:
    user, other = node.user(), node.user()
    token = user.token()
    devices = [await node.open(token), await node.open(token), await node.open(user.token())]
    assert await node.refusal(token) == (1008, "connection_limit")
    await node.open(other.token())
    assert len(node.connections(user)) == 3
    await devices[0].close()
    await eventually_async(lambda: len(node.connections(user)) == 2, what="the place is free")
    await node.open(token)


async def test_WSH_11_an_address_and_the_node_have_so_many_and_http_goes_on(start: Callable[..., Node]) -> None:
    node = start(connections_per_address=2, connections_max=3)
    user = node.user()
    token = user.token()
    elsewhere = {"local_addr": ("127.0.0.2", 0)}
    devices = [await node.open(token), await node.open(token)]
    assert await node.refusal(token) == (1008, "connection_limit")
    await Socket(await node.raw(token, options=elsewhere)).next("hello")
    overloaded = Socket(await node.raw(token, options=elsewhere))
    assert await overloaded.until_closed() == ([], (1013, "overloaded"))
    for path in ("/healthz", "/readyz"):
        assert node.request("GET", path).status_code == 200
    node.push(node.admin, user_id=user.id)
    await devices[0].close()
    await eventually_async(lambda: len(node.connections(user)) == 2, what="the place is free")
    await node.open(token)
    assert node.stop() == 0


async def test_WSH_11_the_addresses_of_one_ipv6_customer_are_one(start: Callable[..., Node]) -> None:
    """A customer is given a /64 (RFC 6177), and takes an address of it for every connection."""
    node = start(connections_per_address=2, forwarded_allow_ips="127.0.0.1")
    token = node.user().token()

    def at(address: str) -> dict[str, str]:
        return {"X-Forwarded-For": address}

    devices = [await node.open(token, headers=at(f"2001:db8:0:1::{number:x}")) for number in range(2)]
    assert await node.refusal(token, headers=at("2001:db8:0:1:ffff::9")) == (1008, "connection_limit")
    await node.open(token, headers=at("2001:db8:0:2::1"))
    await node.open(token, headers=at("192.0.2.7"))
    await node.open(token, headers=at("::ffff:192.0.2.7"))
    assert await node.refusal(token, headers=at("192.0.2.7")) == (1008, "connection_limit")
    await devices[0].close()

    def left() -> bool:
        return len(node.request("GET", "/admin/connections", token=node.admin, expect=200).json()["items"]) == 4

    await eventually_async(left, what="the place is free")
    await node.open(token, headers=at("2001:db8:0:1::a"))
    assert node.stop() == 0


# -- WSH-12 ----------------------------------------------------------------------------------------------------------


class MiddledNode(Node):
    """A gateway with an HTTP middleware in front of all that FastAPI serves."""

    def __init__(self, directory: Path, verdict: str) -> None:
        super().__init__(directory)
        self.verdict = verdict

    def start(self, *, wait: bool = True) -> MiddledNode:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, middled.__file__, self.verdict, "serve"], cwd=ROOT, stdin=subprocess.DEVNULL,
                env={**self.environment, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log,
            )  # fmt: skip
        if wait:
            self.until_ready()
        return self


@pytest.mark.parametrize("verdict", ["refuse", "let in"])
async def test_WSH_12_no_http_middleware_has_a_say_in_who_may_open_a_socket(tmp_path: Path, verdict: str) -> None:
    """One that refuses every request keeps no token out that counts, one that lets all in brings none in."""
    node = MiddledNode(tmp_path, verdict)
    try:
        user = node.start().user()
        token = user.token()
        seen = node.request("GET", "/inbox")
        assert seen.status_code == (418 if verdict == "refuse" else 200), "the middleware is there"
        for bad, slug in (
            (None, "token_missing"),
            ("garbage", "token_invalid"),
            (token[:-4] + "AAAA", "token_invalid"),
        ):
            assert await node.refusal(bad) == (1008, slug)
            assert await refusal(node, bad) == (1008, slug), "nor a stream of events"
        for device in (await node.open(token), await listen(node, token)):
            assert device.hello["user"] == user.id
            await device.close()
        assert node.stop() == 0
    finally:
        node.kill()
