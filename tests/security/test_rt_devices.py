"""RT-08 … RT-10: a user's devices: what ends them all, who may see and end one, and what a new sign-in is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from cluster import Cluster
from faulty import FastNode
from wire import Node, User, claims_of

REVOKED = (1008, "token_revoked")
DISABLED = (1008, "user_disabled")


def sid(tokens: dict[str, Any]) -> str:
    return str(claims_of(tokens["access_token"])["sid"])


def over(node: Node, tokens: dict[str, Any], *, code: str = "token_revoked") -> None:
    answer = node.request("GET", "/auth/me", token=tokens["access_token"], expect=401)
    assert answer.json()["code"] == code
    node.request("POST", "/auth/refresh", json={"refresh_token": tokens["refresh_token"]}, expect=401)


ENDINGS: dict[str, tuple[Callable[[Node, User], object], tuple[int, str]]] = {
    "reset": (
        lambda node, user: node.request(
            "PUT", f"/admin/users/{user.id}/password", token=node.admin, json={"password": "a new one"}, expect=204
        ),
        REVOKED,
    ),
    "disabled": (
        lambda node, user: node.request(
            "PATCH", f"/admin/users/{user.id}", token=node.admin, json={"disabled": True}, expect=200
        ),
        DISABLED,
    ),
    "another role": (
        lambda node, user: node.request(
            "PATCH", f"/admin/users/{user.id}", token=node.admin, json={"role": "admin"}, expect=200
        ),
        REVOKED,
    ),
    "deleted": (
        lambda node, user: node.request("DELETE", f"/admin/users/{user.id}", token=node.admin, expect=204),
        REVOKED,
    ),
}


@pytest.mark.parametrize("how", list(ENDINGS))
async def test_RT_08_what_an_admin_does_to_a_user_ends_every_session(node: Node, shop: str, how: str) -> None:
    user, bystander = node.user(), node.user()
    signed_in = [user.sign_in() for _ in range(3)]
    devices = [await node.open(tokens["access_token"]) for tokens in signed_in for _ in range(2)]
    other = await node.open(bystander.token())
    end, close = ENDINGS[how]
    end(node, user)
    late = node.push(shop, user_ids=[user.id, bystander.id], title="late", expect=200)
    for device in devices:
        assert await device.until_closed(within=1) == ([], close)
    for tokens in signed_in:
        over(node, tokens, code=close[1])
        assert await node.refusal(tokens["access_token"]) == close
    assert (await other.next("notification"))["id"] == late["results"][1]["id"]
    assert node.connections(user) == []


@pytest.fixture(scope="module")
def pair(cluster: Cluster) -> list[FastNode]:
    """Two nodes that have nothing in common but the database."""
    return cluster(2)


@pytest.mark.parametrize("how", [*ENDINGS, "changed"])
async def test_RT_08_it_ends_the_sessions_on_the_other_node_too(pair: list[FastNode], how: str) -> None:
    here, there = pair
    user, bystander = here.user(), here.user()
    own, other = user.sign_in(), user.sign_in()
    device, beside = await there.open(other["access_token"]), await there.open(bystander.token())
    if how == "changed":
        body = {"current_password": user.password, "new_password": "quite another one"}
        here.request("PUT", "/auth/password", token=own["access_token"], json=body, expect=204)
        close = REVOKED
    else:
        end, close = ENDINGS[how]
        end(here, user)
    answered = time.monotonic()
    assert await device.until_closed() == ([], close)
    assert time.monotonic() - answered < 1, "every node reads the database twice a second"
    over(there, other, code=close[1])
    assert await there.refusal(other["access_token"]) == close
    await beside.quiet()


async def test_RT_08_a_disabled_user_cannot_sign_in_until_enabled_and_still_stores(node: Node, shop: str) -> None:
    user = node.user()
    ENDINGS["disabled"][0](node, user)
    body = {"username": user.username, "password": user.password}
    assert node.request("POST", "/auth/login", json=body, expect=401).json()["code"] == "user_disabled"
    wrong = node.request("POST", "/auth/login", json=body | {"password": "wrong one"}, expect=401)
    assert wrong.json()["code"] == "bad_credentials", "only who knows the password is told"
    stored = node.push(shop, user_id=user.id)
    node.request("PATCH", f"/admin/users/{user.id}", token=node.admin, json={"disabled": False}, expect=200)
    device = await node.open(user.token())
    assert (await device.next("notification"))["id"] == stored["id"]


async def test_RT_08_a_changed_password_ends_every_other_session(node: Node) -> None:
    user = node.user()
    own, other = user.sign_in(), user.sign_in()
    here, there = await node.open(own["access_token"]), await node.open(other["access_token"])
    body = {"current_password": user.password, "new_password": "quite another one"}
    for wrong, status in (
        (body | {"current_password": "not it"}, 401), (body | {"new_password": "short"}, 422), ({}, 422),
    ):  # fmt: skip
        node.request("PUT", "/auth/password", token=own["access_token"], json=wrong, expect=status)
    await there.quiet()
    node.request("PUT", "/auth/password", token=own["access_token"], json=body, expect=204)
    assert await there.until_closed(within=1) == ([], REVOKED)
    over(node, other)
    await here.quiet()
    node.request("POST", "/auth/refresh", json={"refresh_token": own["refresh_token"]}, expect=200)
    old = {"username": user.username, "password": user.password}
    node.request("POST", "/auth/login", json=old, expect=401)
    node.sign_in(user.username, "quite another one")


async def test_RT_09_one_sees_and_ends_ones_own_sessions_and_an_admin_anybody_s(node: Node) -> None:
    ada, bob = node.user(), node.user()
    phone, laptop, theirs = ada.sign_in(device="phone"), ada.sign_in(), bob.sign_in(device="bob's")
    listed = node.request("GET", "/auth/sessions", token=phone["access_token"], expect=200).json()["items"]
    assert [(one["id"], one["device"], one["current"]) for one in listed] == [
        (sid(laptop), None, False),
        (sid(phone), "phone", True),
    ]
    assert {one["user_id"] for one in listed} == {ada.id}
    assert {one["address"] for one in listed} == {"127.0.0.1"}
    devices = {name: await node.open(tokens["access_token"]) for name, tokens in
               (("phone", phone), ("laptop", laptop), ("theirs", theirs))}  # fmt: skip

    def end(session: str, token: str, expect: int) -> None:
        answer = node.request("DELETE", f"/auth/sessions/{session}", token=token, expect=expect)
        assert expect == 204 or answer.json()["code"] == "unknown_session"

    end(sid(phone), theirs["access_token"], 404)
    end("no-such-session", theirs["access_token"], 404)
    for device in devices.values():
        await device.quiet()
    end(sid(laptop), phone["access_token"], 204)
    assert await devices["laptop"].until_closed(within=1) == ([], REVOKED)
    over(node, laptop)
    end(sid(laptop), phone["access_token"], 404)
    end(sid(theirs), node.admin, 204)
    assert await devices["theirs"].until_closed(within=1) == ([], REVOKED)
    await devices["phone"].quiet()
    end(sid(phone), phone["access_token"], 204)
    assert await devices["phone"].closed(within=1) == REVOKED
    node.request("GET", "/auth/sessions", token=node.client_token(), expect=403)


async def test_RT_10_a_new_sign_in_is_a_new_session_beside_the_old_one(node: Node) -> None:
    user = node.user()
    first, second = user.sign_in(), user.sign_in()
    before, after = claims_of(first["access_token"]), claims_of(second["access_token"])
    for name in ("sid", "jti"):
        assert before[name] != after[name]
    for tokens in (first, second):
        listed = node.request("GET", "/auth/sessions", token=tokens["access_token"], expect=200).json()["items"]
        assert {one["id"] for one in listed} == {before["sid"], after["sid"]}
    device = await node.open(first["access_token"])
    node.request("POST", "/auth/logout", token=second["access_token"], expect=204)
    over(node, second)
    await device.quiet()
    me = node.request("GET", "/auth/me", token=first["access_token"], expect=200).json()
    assert (me["id"], me["username"], me["role"], me["session"]) == (user.id, user.username, "user", before["sid"])


async def test_a_logout_ends_the_session_and_closes_its_sockets(node: Node) -> None:
    tokens = node.user().sign_in()
    devices = [await node.open(tokens["access_token"]) for _ in range(2)]
    node.request("POST", "/auth/logout", token=tokens["access_token"], expect=204)
    for device in devices:
        assert await device.until_closed(within=1) == ([], REVOKED)
    over(node, tokens)
    node.request("POST", "/auth/logout", token=tokens["access_token"], expect=401)
    service = node.client_token()
    node.request("POST", "/auth/logout", token=service, expect=204)
    node.request("GET", "/auth/me", token=service, expect=401)
