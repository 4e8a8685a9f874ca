"""WSH-03: a ticket is good once, for seconds, for its session and the page that asked; and for nothing but a socket."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cluster import Cluster
from rawpeer import Raw, head
from wire import HS256_KEYS, Node, Socket, claims_of, eventually_async, forged, running

PAGE, OTHER_PAGE = "https://app.example", "https://other.example"
Accepted = tuple[int, str]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(
        tmp_path_factory.mktemp("node"), signing_keys=HS256_KEYS, allowed_origins=f"{PAGE},{OTHER_PAGE}"
    ) as node:
        yield node


def ticket_of(node: Node, token: str, **headers: str) -> str:
    answer = node.request("POST", "/auth/ticket", token=token, headers=headers, expect=201)
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body.keys() == {"ticket", "expires_in"}
    assert 0 < body["expires_in"] <= 30
    return str(body["ticket"])


def spelled(ticket: str, **changed: Any) -> str:
    """The ticket with other contents under the old signature."""
    body, mac = ticket.removeprefix("t~").split(".")
    content = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    text = base64.urlsafe_b64encode(json.dumps({**content, **changed}).encode()).decode().rstrip("=")
    return f"t~{text}.{mac}"


def content_of(ticket: str) -> dict[str, Any]:
    body = ticket.removeprefix("t~").split(".")[0]
    return dict(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))))


async def outcome(node: Node, ticket: str) -> Accepted | None:
    """The hello's session means it was accepted: None. Else how the upgrade was closed."""
    socket = Socket(await node.raw(ticket))
    frames, close = [], None
    try:
        frames.append(await socket.receive())
    except Exception:
        close = (await socket.until_closed())[1]
    assert frames == [] or frames[0]["type"] == "hello"
    return close


async def test_WSH_03_a_ticket_is_good_once_and_is_of_its_tokens_session(node: Node) -> None:
    user = node.user()
    token = user.token()
    ticket = ticket_of(node, token)
    device = await node.open(ticket)
    assert device.hello["session"] == claims_of(token)["sid"]
    assert device.hello["user"] == user.id
    expires = device.hello["token_expires_at"]
    assert (await node.open(token)).hello["token_expires_at"] == expires, "the deadline is the token's"
    assert await node.refusal(ticket) == (1008, "token_invalid")
    assert len(node.connections(user)) == 2
    await device.quiet()


async def test_WSH_03_of_twenty_uses_at_once_one_is_accepted(node: Node) -> None:
    user = node.user()
    ticket = ticket_of(node, user.token())
    outcomes = await asyncio.gather(*(outcome(node, ticket) for _ in range(20)))
    assert outcomes.count(None) == 1
    assert outcomes.count((1008, "token_invalid")) == 19


async def test_WSH_03_of_twenty_uses_at_once_over_two_nodes_one_is_accepted(cluster: Cluster) -> None:
    nodes = cluster(2)
    user = nodes[0].user()
    for _ in range(5):
        ticket = ticket_of(nodes[0], user.token())
        outcomes = await asyncio.gather(*(outcome(nodes[number % 2], ticket) for number in range(20)))
        assert outcomes.count(None) == 1
        assert outcomes.count((1008, "token_invalid")) == 19


async def test_WSH_03_a_ticket_that_ran_out_is_token_expired(node: Node) -> None:
    user = node.user()
    token = user.token()
    dying = forged(token, exp=int(time.time()) + 2)
    ticket = ticket_of(node, dying)
    assert content_of(ticket)["exp"] == claims_of(dying)["exp"], "it does not outlive its token"

    async def over() -> bool:
        return bool(time.time() >= content_of(ticket)["exp"])

    await eventually_async(over, what="its time has passed")
    assert await node.refusal(ticket) == (1008, "token_expired")
    fresh = content_of(ticket_of(node, token))
    assert 0 < fresh["exp"] - time.time() <= 30


async def test_WSH_03_a_bent_ticket_is_token_invalid(node: Node) -> None:
    token = node.user().token()
    ticket = ticket_of(node, token)
    later = content_of(ticket)["exp"] + 1000
    claims = {**content_of(ticket)["claims"], "subject": "admin"}
    body, mac = ticket.split(".")
    last = "B" if mac[-1] != "B" else "C"
    for bent in (
        spelled(ticket, exp=later), spelled(ticket, id="0" * 32), spelled(ticket, claims=claims),
        f"{body}.{mac[:-1]}{last}", f"{body}.", body, "t~", "t~.", f"{ticket}.{mac}", f"{ticket}=",
        "t~" + "A" * 3000 + "." + mac, f"t~{mac}.{mac}", f"T{ticket[1:]}",
    ):  # fmt: skip
        assert await node.refusal(bent) == (1008, "token_invalid"), bent
    assert (await node.open(ticket)).hello, "none of these has used it up"


async def test_WSH_03_a_ticket_dies_with_its_session_and_with_its_token(node: Node) -> None:
    ends: list[Callable[[str], object]] = [
        lambda token: node.request("POST", "/auth/logout", token=token, expect=204),
        lambda token: node.revoke(session=claims_of(token)["sid"]),
        lambda token: node.revoke(jti=claims_of(token)["jti"]),
        lambda token: node.revoke(user_id=claims_of(token)["sub"]),
    ]
    for end in ends:
        token = node.user().token()
        ticket = ticket_of(node, token)
        end(token)
        assert await node.refusal(ticket) == (1008, "token_revoked")


async def test_WSH_03_the_socket_of_a_ticket_closes_when_the_token_is_revoked(node: Node) -> None:
    token = node.user().token()
    device = await node.open(ticket_of(node, token))
    node.revoke(jti=claims_of(token)["jti"])
    assert await device.closed() == (1008, "token_revoked")


async def test_WSH_03_a_ticket_is_bound_to_the_page_that_asked(node: Node) -> None:
    token = node.user().token()
    ticket = ticket_of(node, token, Origin=PAGE)
    assert await node.refusal(ticket, headers={"Origin": OTHER_PAGE}) == (1008, "token_invalid")
    await node.open(ticket, headers={"Origin": PAGE})
    # Who is no page has no Origin, neither asking nor opening: then there is nothing to compare.
    await node.open(ticket_of(node, token, Origin=PAGE))
    await node.open(ticket_of(node, token), headers={"Origin": PAGE})


async def test_WSH_03_a_ticket_is_nothing_anywhere_else(node: Node) -> None:
    token = node.user().token()
    ticket = ticket_of(node, token)
    for method, path in (("GET", "/inbox"), ("GET", "/auth/me"), ("POST", "/auth/ticket"), ("POST", "/auth/logout")):
        answer = node.request(method, path, token=ticket, expect=401)
        assert answer.json()["code"] == "token_invalid"
        assert ticket not in answer.text
    assert await node.refusal(None, headers={"Authorization": f"Bearer {ticket}"}) == (1008, "token_invalid")
    node.request("POST", "/auth/refresh", json={"refresh_token": ticket}, expect=401)
    assert node.request("GET", f"/inbox?token={ticket}", expect=401).json()["code"] == "token_missing"
    await node.open(ticket)


def test_WSH_03_only_a_signed_in_user_gets_one(node: Node) -> None:
    assert node.request("POST", "/auth/ticket", expect=401).json()["code"] == "token_missing"
    assert node.request("POST", "/auth/ticket", token="garbage", expect=401).json()["code"] == "token_invalid"
    assert node.request("POST", "/auth/ticket", token=node.client_token(), expect=403).json()["code"] == (
        "insufficient_scope"
    )


async def test_WSH_03_beside_a_token_of_another_session_it_is_refused_and_not_spent(node: Node) -> None:
    user = node.user()
    token, other = user.token(), user.token()
    ticket = ticket_of(node, token)
    assert await node.refusal(ticket, headers={"Authorization": f"Bearer {other}"}) == (1008, "credentials_conflict")
    await node.open(ticket, headers={"Authorization": f"Bearer {token}"})


async def test_a_ticket_moves_the_deadline_of_an_open_socket_once(node: Node) -> None:
    user = node.user()
    token = user.token()
    device = await node.open(forged(token, exp=claims_of(token)["exp"] - 300))
    before = device.hello["token_expires_at"]
    ticket = ticket_of(node, token)
    renewed = await device.ask(type="token", token=ticket)
    assert renewed["type"] == "ok"
    assert renewed["token_expires_at"] > before
    for bad, code in (
        (ticket, "token_invalid"),
        ("t~garbage", "token_invalid"),
        (ticket_of(node, user.token()), "credentials_conflict"),
    ):
        answer = await device.ask(type="token", token=bad)
        assert (answer["type"], answer["code"]) == ("error", code)
    await device.quiet()


async def test_a_ticket_frame_of_a_revoked_token_does_not_bring_it_back(node: Node) -> None:
    user = node.user()
    signed_in = user.sign_in()
    device = await node.open(signed_in["access_token"])
    fresh = node.request("POST", "/auth/refresh", json={"refresh_token": signed_in["refresh_token"]}, expect=200)
    ticket = ticket_of(node, fresh.json()["access_token"])
    node.revoke(jti=claims_of(fresh.json()["access_token"])["jti"])
    answer = await device.ask(type="token", token=ticket)
    assert (answer["type"], answer["code"]) == ("error", "token_revoked")
    await device.quiet()


async def test_WSH_03_garbage_never_reaches_the_database_and_no_ticket_the_log(start: Callable[..., Node]) -> None:
    node = start()
    token = node.user().token()
    ticket = ticket_of(node, token)
    await node.open(ticket)
    assert await node.refusal(ticket) == (1008, "token_invalid")
    assert await node.refusal(ticket[:-4] + "AAAA") == (1008, "token_invalid")
    Raw(node.port).send(head(f"/elsewhere/{ticket}?token={ticket}")).shut()
    node.request("GET", f"/nowhere/{ticket}", expect=404)
    assert ticket not in node.request("GET", f"/nowhere/{ticket}").text
    assert node.stop() == 0
    text = node.log_text()
    body, mac = ticket.removeprefix("t~").split(".")
    assert body[:40] not in text
    assert mac not in text
