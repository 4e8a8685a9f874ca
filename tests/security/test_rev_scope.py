"""REV-03 … REV-06: what a revocation ends, when, for how long, and whom it leaves alone. Nothing expires here."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
from cluster import Cluster
from faulty import FastNode
from hostile import refused_over_http
from pushing import Listener, pushing
from servers import Redis
from wire import (
    HS256_KEYS,
    Node,
    Socket,
    User,
    claims_of,
    eventually,
    eventually_async,
    forged,
    running,
)

T = TypeVar("T")
REVOKED = (1008, "token_revoked")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("node"), signing_keys=HS256_KEYS) as node:
        yield node


def until_now() -> str:
    """An instant that lies between what was and what comes."""
    moment = datetime.now(UTC)
    eventually(lambda: (datetime.now(UTC) - moment).total_seconds() > 0.02, what="a moment passes")
    return moment.isoformat()


Target = dict[str, str]
AIMS: dict[str, Callable[[User, dict[str, Any], str], Target]] = {
    "session": lambda user, claims, moment: {"session": claims["sid"]},
    "jti": lambda user, claims, moment: {"jti": claims["jti"]},
    "user": lambda user, claims, moment: {"user_id": user.id},
    "issued before": lambda user, claims, moment: {"user_id": user.id, "issued_before": moment},
}


@pytest.mark.parametrize("aim", list(AIMS))
async def test_REV_03_every_matching_socket_is_closed_before_the_answer_and_no_other(node: Node, aim: str) -> None:
    shop = node.client_token()
    user, bystander = node.user(), node.user()
    first = user.sign_in()
    token = first["access_token"]
    another_token = node.request(
        "POST", "/auth/refresh", json={"refresh_token": first["refresh_token"]}, expect=200
    ).json()["access_token"]
    moment = until_now()
    second = user.token()
    hit = {"session": {token, another_token}, "jti": {token}, "user": {token, another_token, second},
           "issued before": {token, another_token}}[aim]  # fmt: skip
    opened = [(one, Listener(await node.open(one))) for one in (token, another_token, second) for _ in range(5)]
    others = [Listener(await node.open(bystander.token())) for _ in range(2)]
    matching = [listener for one, listener in opened if one in hit]
    spared = others + [listener for one, listener in opened if one not in hit]
    async with pushing(node, shop, user, bystander) as pusher:
        await pusher.past(5)
        target = AIMS[aim](user, claims_of(token), moment)
        answer = await asyncio.to_thread(node.revoke, **target)
        answered = time.monotonic()
        assert answer["connections_closed"] == len(matching)
        await pusher.past(10)
    too_late = [number for number, begun in pusher.begun if begun > answered]
    assert len(too_late) >= 9
    for listener in matching:
        heard, close = await listener.ended()
        assert close == REVOKED
        assert heard, "pushes were on their way when it was revoked"
        assert not set(heard) & set(too_late)
    for one in (token, another_token, second):
        if one in hit:
            refused_over_http(node, one, code="token_revoked")
            assert await node.refusal(one) == REVOKED
        else:
            node.request("GET", "/inbox", token=one, expect=200)
    for listener in spared:
        await listener.still_there()
    connections = {one["session"] for one in node.connections(user)}
    assert connections == {claims_of(one)["sid"] for one in (token, another_token, second) if one not in hit}


@pytest.fixture(scope="module")
def pair(cluster: Cluster, redis_server: Redis) -> list[FastNode]:
    return cluster(2, redis=redis_server)


@pytest.mark.parametrize("aim", list(AIMS))
async def test_REV_03_the_other_node_writes_nothing_to_a_matching_socket_a_second_later(
    pair: list[FastNode], aim: str
) -> None:
    here, there = pair
    shop = here.client_token()
    user, bystander = here.user(), here.user()
    first = user.sign_in()
    token = first["access_token"]
    body = {"refresh_token": first["refresh_token"]}
    again = there.request("POST", "/auth/refresh", json=body, expect=200).json()["access_token"]
    moment = until_now()
    second = user.token()
    hit = {"session": {token, again}, "jti": {token}, "user": {token, again, second},
           "issued before": {token, again}}[aim]  # fmt: skip
    opened = {
        node: [(one, Listener(await node.open(one))) for one in (token, again, second) for _ in range(3)]
        for node in pair
    }
    others = [Listener(await node.open(bystander.token())) for node in pair]
    async with pushing(here, shop, user, bystander) as pusher:
        await pusher.past(5)
        answer = await asyncio.to_thread(here.revoke, **AIMS[aim](user, claims_of(token), moment))
        answered = time.monotonic()
        assert answer["connections_closed"] == 3 * len(hit), "those on the node that answers"
        await eventually_async(lambda: time.monotonic() > answered + 1, what="a second has passed")
        await pusher.past(5)
    for node, grace in ((here, 0.0), (there, 1.0)):
        too_late = {number for number, begun in pusher.begun if begun > answered + grace}
        assert len(too_late) >= 4
        for one, listener in opened[node]:
            if one in hit:
                heard, close = await listener.ended()
                assert close == REVOKED
                assert heard, "pushes were on their way when it was revoked"
                assert not set(heard) & too_late
            else:
                await listener.still_there()
    for listener in others:
        await listener.still_there()
    for node in pair:
        for one in (token, again, second):
            if one in hit:
                refused_over_http(node, one, code="token_revoked")
                assert await node.refusal(one) == REVOKED
            else:
                node.request("GET", "/inbox", token=one, expect=200)


async def test_REV_03_whose_refresh_token_is_of_a_revoked_session_gets_nothing_for_it(node: Node) -> None:
    user = node.user()
    signed_in = user.sign_in()
    node.revoke(jti=claims_of(signed_in["access_token"])["jti"])
    body = {"refresh_token": signed_in["refresh_token"]}
    fresh = node.request("POST", "/auth/refresh", json=body, expect=200).json()  # a jti is that token and no more
    await (await node.open(fresh["access_token"])).close()
    node.revoke(user_id=user.id)
    for token in (signed_in["refresh_token"], fresh["refresh_token"]):
        node.request("POST", "/auth/refresh", json={"refresh_token": token}, expect=401)
    await (await node.open(user.token())).close()


async def test_REV_03_a_client_s_tokens_up_to_now_are_revoked_and_it_may_get_another_at_once(node: Node) -> None:
    user = node.user()
    device = await node.open(user.token())
    credentials, other = node.client(), node.client_token()
    old = [node.client_token(credentials) for _ in range(3)]
    assert node.revoke(client_id=credentials[0])["connections_closed"] == 0
    for token in old:
        answer = node.request("POST", "/notifications", token=token, json={"user_id": user.id, "title": "x"})
        assert (answer.status_code, answer.json()["code"]) == (401, "token_revoked")
    fresh = node.client_token(credentials)
    for number, token in enumerate((fresh, other), 1):
        node.push(token, user_id=user.id)
        assert (await device.next("notification"))["seq"] == number
    refused_over_http(node, old[0], code="token_revoked", path="/auth/me")


async def test_REV_03_a_user_s_own_client_id_is_no_client_to_revoke(node: Node) -> None:
    """Every sign-in carries ``c~gateway``; revoking it must not be a way to sign everybody out by mistake."""
    for target in ({"client_id": "c~gateway"}, {"client_id": "c~nobody"}, {"user_id": "nobody"}, {"session": "none"}):
        answer = node.request("POST", "/admin/revocations", token=node.admin, json=target)
        assert answer.status_code == 404, target


async def after(turns: int, work: Awaitable[T]) -> T:
    """``work``, begun so many turns of the loop from now: a race that meets every step of the other side."""
    for _ in range(turns):
        await asyncio.sleep(0)
    return await work


async def test_REV_05_of_200_sockets_that_opened_during_their_revocation_none_hears_of_what_came_after(
    node: Node,
) -> None:
    shop, user = node.client_token(), node.user()
    token = user.token()
    refused = closed = 0
    headers = {"Authorization": f"Bearer {node.admin}"}
    async with httpx2.AsyncClient(base_url=node.url, headers=headers, timeout=30, verify=False) as admin:
        for number in range(200):
            mine = forged(token, jti=f"race-{number}")
            turns = number % 50 * 4
            answer, opened = await asyncio.gather(
                after(0 if number % 2 else turns, admin.post("/admin/revocations", json={"jti": f"race-{number}"})),
                after(turns if number % 2 else 0, node.raw(mine)),
            )
            assert answer.status_code == 201
            late = await admin.post("/notifications", json={"user_id": user.id, "title": "late", "ttl": 60})
            frames, close = await Socket(opened).until_closed(within=5)
            assert close == REVOKED
            assert late.json()["id"] not in [frame.get("id") for frame in frames]
            refused += not frames
            closed += bool(frames)
    assert refused, "some were refused"
    assert closed, "some were open already"
    assert node.connections(user) == []
    assert node.push(shop, user_id=user.id)["online"] is False


async def test_REV_06_what_was_revoked_stays_revoked_after_kill_9(node: Node) -> None:
    user = node.user()
    lost, banned, good, credentials = user.sign_in(), user.sign_in(), user.sign_in(), node.client()
    service = node.client_token(credentials)
    node.revoke(session=claims_of(lost["access_token"])["sid"])
    node.revoke(jti=claims_of(banned["access_token"])["jti"])
    node.revoke(client_id=credentials[0])
    node.kill()
    node.start()
    for token in (lost["access_token"], banned["access_token"]):
        refused_over_http(node, token, code="token_revoked")
        assert await node.refusal(token) == REVOKED
    refused_over_http(node, service, code="token_revoked", path="/auth/me")
    node.request("POST", "/auth/refresh", json={"refresh_token": lost["refresh_token"]}, expect=401)
    node.request("POST", "/auth/refresh", json={"refresh_token": banned["refresh_token"]}, expect=200)
    await (await node.open(good["access_token"])).close()


# -- by another process -------------------------------------------------------------------------------------------


def revoke_beside(node: Node, *arguments: str) -> dict[str, Any]:
    status, said, complained = node.command("revoke", *arguments, "--json")
    assert status == 0, complained
    return dict(json.loads(said))


@pytest.mark.parametrize("aim", ["session", "jti", "user"])
async def test_a_revocation_on_the_command_line_reaches_the_sockets_of_a_running_node(node: Node, aim: str) -> None:
    user = node.user()
    token = user.token()
    claims = claims_of(token)
    device, other = Listener(await node.open(token)), await node.open(node.user().token())
    option = {"session": ("--session", claims["sid"]), "jti": ("--jti", claims["jti"]), "user": ("--user", user.id)}
    await asyncio.to_thread(revoke_beside, node, *option[aim], "--reason", "lost phone")
    done = time.monotonic()
    assert await device.ended() == ([], REVOKED)
    assert time.monotonic() - done < 1
    refused_over_http(node, token, code="token_revoked")
    await other.quiet()
    listed = node.request("GET", "/admin/revocations", token=node.admin, expect=200).json()["items"]
    assert listed[0]["reason"] == "lost phone"


async def test_a_client_revoked_on_the_command_line_is_refused_within_a_second(node: Node) -> None:
    credentials = node.client()
    token = node.client_token(credentials)
    revoke_beside(node, "--client", credentials[0])
    eventually(lambda: node.request("GET", "/auth/me", token=token).status_code == 401, within=1, what="refused")
    node.request("GET", "/auth/me", token=node.client_token(credentials), expect=200)


def test_the_data_of_a_node_is_its_owner_s_alone(node: Node) -> None:
    modes = {file.name: oct(file.stat().st_mode & 0o077) for file in Path(node.directory).glob("gateway.db*")}
    assert set(modes.values()) == {"0o0"}, modes
