"""WSH on ``/events``: who may open a stream of events, as who may open a socket. What a request must look like is HTTP.

WSH-06, WSH-08 are of the handshake of RFC 6455, which a stream has none of.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator

import pytest
from streams import answered, listen, refusal, ticket_of
from wire import ADMIN_PASSWORD, HS256_KEYS, Node, claims_of, eventually_async, forged, running

GOOD, EVIL = "https://good.example", "https://evil.example"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(
        tmp_path_factory.mktemp("node"), signing_keys=HS256_KEYS, allowed_origins=GOOD, connections_per_user=3,
        allowed_hosts="127.0.0.1,*.push.example",
    ) as node:  # fmt: skip
        yield node


async def denial(node: Node, token: str | None, **headers: str) -> tuple[int, str]:
    """Status and code of the problem that answers; no page of a foreign origin may read it."""
    stream = await answered(node, token, headers={**headers, "Connection": "close"})
    assert stream.fields["content-type"] == "application/problem+json"
    assert "access-control-allow-origin" not in stream.fields
    return stream.status, json.loads(await stream.reader.read())["code"]


async def test_WSH_01_no_credential_or_several_that_do_not_agree_are_refused_on_events(node: Node) -> None:
    user = node.user()
    token, other = user.token(), user.token()
    assert await refusal(node) == (1008, "token_missing")
    assert await refusal(node, "") == (1008, "token_missing")
    assert await refusal(node, "garbage") == (1008, "token_invalid")
    assert await refusal(node, node.client_token()) == (1008, "insufficient_scope")
    assert await refusal(node, f"{token}&token={token}".replace("&", "%26")) == (1008, "token_invalid")
    conflict = (1008, "credentials_conflict")
    assert await refusal(node, token, headers={"Authorization": f"Bearer {other}"}) == conflict
    own = {"Sec-Fetch-Site": "same-origin"}
    assert await refusal(node, token, headers={"Cookie": f"__Host-gateway-access={other}", **own}) == conflict
    twice = await answered(node, headers={"Connection": "close", "X-Twice": token})
    assert (await twice.event()).frame["reason"] == "token_missing", "a token anywhere else is none"
    stream = await listen(node, None, headers={"Authorization": f"Bearer {token}"})
    assert stream.hello["session"] == claims_of(token)["sid"]


async def test_WSH_03_a_ticket_is_good_once_and_then_it_is_token_expired_on_events(node: Node) -> None:
    user = node.user()
    token = user.token()
    ticket = ticket_of(node, token)
    outcomes = await asyncio.gather(*(answered(node, ticket, headers={"Connection": "close"}) for _ in range(20)))
    first = [(await stream.event()).frame for stream in outcomes]
    (hello,) = [frame for frame in first if frame["type"] == "hello"]
    assert (hello["session"], hello["user"]) == (claims_of(token)["sid"], user.id)
    assert {(frame["code"], frame["reason"]) for frame in first if frame is not hello} == {(1008, "token_expired")}
    dying = forged(token, exp=int(time.time()) + 1)
    short = ticket_of(node, dying)
    await eventually_async(lambda: time.time() >= claims_of(dying)["exp"], what="its time has passed")
    assert await refusal(node, short) == (1008, "token_expired")
    bound = ticket_of(node, token, Origin=GOOD)
    own = f"http://127.0.0.1:{node.port}"
    assert await refusal(node, bound, headers={"Origin": own}) == (1008, "token_invalid"), "another page's"
    assert await refusal(node, ticket[:-2] + "xx") == (1008, "token_invalid")


async def test_WSH_04_the_origin_has_to_be_the_own_or_an_allowed_one_on_events(node: Node) -> None:
    token = node.user().token()
    own = f"http://127.0.0.1:{node.port}"
    stream = await listen(node, token, headers={"Origin": GOOD})
    assert stream.fields["access-control-allow-origin"] == GOOD
    assert "access-control-allow-credentials" not in stream.fields
    await stream.close()
    stream = await listen(node, token, headers={"Origin": own})
    assert "access-control-allow-origin" not in stream.fields, "the own page needs no permission"
    refused = await answered(node, "garbage", headers={"Origin": GOOD})
    assert refused.fields["access-control-allow-origin"] == GOOD, "it may read why"
    for origin in (EVIL, "null", "", f"{GOOD}.evil.example", GOOD.upper(), f"{GOOD}:443", f"{GOOD}, {EVIL}", "*"):
        for credential in (token, ticket_of(node, token), None):
            assert await denial(node, credential, Origin=origin) == (403, "origin_refused"), origin
    line = [one for one in node.log_text().splitlines() if "origin_refused" in one and "socket refused" in one]
    assert EVIL in line[0]


async def test_WSH_04_a_cookie_needs_an_origin_or_the_word_of_the_browser_on_events(node: Node) -> None:
    token = node.user().token()
    cookie = {"Cookie": f"__Host-gateway-access={token}"}
    for more in ({"Origin": f"http://127.0.0.1:{node.port}"}, {"Origin": GOOD}, {"Sec-Fetch-Site": "same-origin"}):
        stream = await listen(node, None, headers={**cookie, **more})
        assert stream.hello["session"] == claims_of(token)["sid"]
    for site in ("same-site", "cross-site", "none", "Same-Origin"):
        assert await refusal(node, headers={**cookie, "Sec-Fetch-Site": site}) == (1008, "token_missing")
    assert await refusal(node, headers=cookie) == (1008, "token_missing")
    foreign = {"Origin": EVIL, "Sec-Fetch-Site": "same-origin"}
    assert await denial(node, None, **cookie, **foreign) == (403, "origin_refused")


async def test_WSH_05_a_host_that_is_not_ours_is_refused_on_events(node: Node) -> None:
    token = node.user().token()
    assert await denial(node, token, Host="evil.example") == (421, "misdirected_request")
    assert await denial(node, token, Host="a/b?") == (400, "bad_request")
    await listen(node, token, headers={"Host": "eu.push.example"})


async def test_WSH_07_a_head_too_long_is_refused_at_once_on_events(node: Node) -> None:
    assert (await answered(node, "x" * 9000)).status == 414
    assert (await answered(node, None, headers={"Last-Event-ID": "e" * 20_000 + ":1"})).status == 431


async def test_WSH_09_nothing_is_compressed_on_events(node: Node) -> None:
    stream = await listen(node, node.user().token(), headers={"Accept-Encoding": "gzip, deflate, br, zstd"})
    assert "content-encoding" not in stream.fields


async def test_WSH_10_what_did_not_come_over_tls_is_403_on_events(start: Callable[..., Node]) -> None:
    node = start(require_tls="true", forwarded_allow_ips="127.0.0.1")
    https = {"X-Forwarded-Proto": "https"}
    body = {"username": "admin", "password": ADMIN_PASSWORD}
    token = node.request("POST", "/auth/login", json=body, headers=https, expect=200).json()["access_token"]
    assert await denial(node, token) == (403, "tls_required")
    stream = await listen(node, token, headers=https)
    assert stream.fields["strict-transport-security"] == "max-age=31536000"


async def test_WSH_11_streams_and_sockets_share_the_places_of_a_user_on_events(node: Node) -> None:
    user = node.user()
    token = user.token()
    stream, _, _ = await listen(node, token), await node.open(token), await listen(node, user.token())
    assert await refusal(node, token) == (1008, "connection_limit")
    assert await node.refusal(token) == (1008, "connection_limit")
    await stream.close()
    await eventually_async(lambda: len(node.connections(user)) == 2, what="the place is free")
    await listen(node, token)


async def test_WSH_11_an_address_and_the_node_have_so_many_and_http_goes_on_on_events(
    start: Callable[..., Node],
) -> None:
    node = start(connections_per_address=2, connections_max=3)
    token = node.user().token()
    await listen(node, token)
    await listen(node, token)
    assert await refusal(node, token) == (1008, "connection_limit")
    await listen(node, token, local="127.0.0.2")
    assert await refusal(node, token, local="127.0.0.2") == (1013, "overloaded")
    node.request("GET", "/readyz", expect=200)


async def test_WSH_11_over_its_rate_an_address_is_refused_before_its_token_is_looked_at_on_events(
    start: Callable[..., Node],
) -> None:
    node = start(upgrade_rate=0.02)  # one at once, the next after 50 s
    token = node.user().token()
    await listen(node, token)
    for presented in (token, "garbage", None):
        assert await refusal(node, presented) == (1008, "rate_limited")
    assert await node.refusal(token) == (1008, "rate_limited"), "sockets and streams are counted together"
    await listen(node, token, local="127.0.0.2")
