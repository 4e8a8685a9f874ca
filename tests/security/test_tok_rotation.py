"""TOK-17, 18: keys are rotated and retired by the command line under two running nodes that share a database."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import asyncpg
import pytest
from cluster import Cluster
from faulty import FastNode
from jose import jws
from wire import Node, Socket, User, claims_of, eventually

WITHIN = 3.0
"""Seconds. A node looks twice a second; the rest is for a machine that is busy."""


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> list[FastNode]:
    return cluster(2, signing_keys="")


@pytest.fixture
def ada(nodes: list[FastNode]) -> User:
    for node in nodes:
        node.forget_admin()  # its token may be of a key that an earlier test has retired
    return nodes[0].user()


def keys(node: FastNode, *arguments: str) -> Any:
    status, said, complained = node.command("keys", *arguments, "--json")
    assert status == 0, complained
    return json.loads(said)


def signing(node: FastNode) -> str:
    (kid,) = [row["kid"] for row in keys(node, "list") if row["state"] == "signs"]
    return str(kid)


def kid_of(token: str) -> str:
    head = token.split(".")[0]
    return str(json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"])


def published(node: Node) -> dict[str, dict[str, str]]:
    found = node.request("GET", "/.well-known/jwks.json", expect=200).json()["keys"]
    return {key["kid"]: key for key in found}


def counts(node: Node, token: str) -> bool:
    status = node.request("GET", "/auth/me", token=token).status_code
    assert status in (200, 401)
    return status == 200


def on_every(nodes: list[FastNode], condition: Callable[[FastNode], bool], what: str) -> None:
    for node in nodes:
        eventually(partial(condition, node), within=WITHIN, what=f"{what} on {node.settings['node']}")


async def material_of(node: FastNode, kid: str) -> str:
    """What somebody who could read the database has."""
    url = str(node.settings["database_url"]).replace("postgresql+asyncpg://", "postgresql://")
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval("SELECT material FROM signing_keys WHERE kid = $1", kid))
    finally:
        await connection.close()


async def test_TOK_17_a_key_is_published_by_every_node_before_it_signs(nodes: list[FastNode], ada: User) -> None:
    before = signing(nodes[0])
    made = keys(nodes[0], "rotate")
    assert made["kid"] != before
    on_every(nodes, lambda node: made["kid"] in published(node), "published")
    assert signing(nodes[0]) == before
    assert kid_of(ada.token()) == before
    keys(nodes[1], "retire", made["kid"])  # it has not signed: it may go at once
    on_every(nodes, lambda node: made["kid"] not in published(node), "withdrawn")
    assert kid_of(ada.token()) == before


async def test_TOK_17_both_keys_count_in_the_overlap_and_the_old_one_nowhere_after_it(
    nodes: list[FastNode], ada: User
) -> None:
    old = signing(nodes[0])
    signed_in = ada.sign_in()
    of_old = signed_in["access_token"]
    assert kid_of(of_old) == old
    leaked = await material_of(nodes[0], old)

    new = keys(nodes[0], "rotate", "--in", "2")["kid"]
    on_every(nodes, lambda node: new in published(node), "published")
    of_new = eventually(lambda: token if kid_of(token := ada.token()) == new else None, what="the new key signs")
    for node in nodes:
        assert counts(node, of_old)
        assert counts(node, of_new)

    status, _, complained = nodes[0].command("keys", "retire", old)
    assert (status, "may be valid for" in complained) == (1, True), "tokens of the old key may live"
    losing = [await node.open(of_old) for node in nodes]
    keeping = [await node.open(of_new) for node in nodes]
    ticket = nodes[0].request("POST", "/auth/ticket", token=of_old, expect=201).json()["ticket"]
    keys(nodes[0], "retire", old, "--force")
    retired = time.monotonic()
    for socket in losing:
        assert await socket.until_closed(within=WITHIN) == ([], (1008, "token_revoked"))
    assert time.monotonic() - retired < 1, "within the second every node has put them out"
    for node in nodes:
        assert not counts(node, of_old)
    now = int(time.time())
    claims = {**claims_of(of_old), "sub": "admin", "iat": now, "nbf": now, "exp": now + 600, "jti": "made-up"}
    by_the_thief = jws.sign(claims, leaked, headers={"kid": old, "typ": "at+jwt"}, algorithm="ES256")
    for node in nodes:
        assert await node.refusal(of_old) == (1008, "token_invalid")
        assert await node.refusal(by_the_thief) == (1008, "token_invalid")
        assert not counts(node, by_the_thief)
        assert old not in published(node)
    assert (await nodes[1].refusal(ticket))[0] == 1008

    for socket in keeping:
        await socket.quiet()
    assert await delivered(nodes, ada, keeping)
    body = {"refresh_token": signed_in["refresh_token"]}
    renewed = nodes[1].request("POST", "/auth/refresh", json=body, expect=200).json()["access_token"]
    assert claims_of(renewed)["sid"] == claims_of(of_old)["sid"], "a refresh token does not depend on the key"
    assert kid_of(renewed) == new
    assert counts(nodes[0], renewed)


async def delivered(nodes: list[FastNode], ada: User, sockets: list[Socket]) -> bool:
    nodes[0].forget_admin()
    shop = nodes[0].client_token()
    for number, node in enumerate(nodes):  # there is no Redis: each node tells its own
        node.push(shop, user_id=ada.id, title=f"from {number}")
        await sockets[number].next("notification")
    return True


async def test_TOK_17_a_retired_key_stays_gone_over_a_restart(nodes: list[FastNode], ada: User) -> None:
    old, token = signing(nodes[0]), ada.token()
    new = keys(nodes[0], "rotate", "--in", "0", "--alg", "RS256")["kid"]
    keys(nodes[0], "retire", old, "--force")
    assert nodes[1].stop() == 0
    nodes[1].start()
    assert not counts(nodes[1], token)
    assert set(published(nodes[1])) == {new}
    on_every(nodes, lambda node: not counts(node, token), "refused")


def test_TOK_18_what_is_published_of_keys_in_the_database_is_public(nodes: list[FastNode], ada: User) -> None:
    elliptic = keys(nodes[0], "rotate")["kid"]
    rsa = keys(nodes[0], "rotate", "--alg", "RS256")["kid"]
    on_every(nodes, lambda node: {elliptic, rsa} <= set(published(node)), "published")
    for node in nodes:
        assert set(published(node)[elliptic]) == {"kid", "kty", "alg", "use", "crv", "x", "y"}
        assert set(published(node)[rsa]) == {"kid", "kty", "alg", "use", "n", "e"}
        answer = node.request("GET", "/.well-known/jwks.json")
        assert answer.headers["cache-control"] == "public, max-age=300"


async def test_TOK_17_one_node_on_sqlite_takes_note_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    node = FastNode(tmp_path_factory.mktemp("alone"), signing_keys="").start()
    try:
        user = node.user()
        token = user.token()
        old = signing(node)
        socket = await node.open(token)
        keys(node, "rotate", "--in", "0")
        eventually(lambda: kid_of(user.token()) != old, within=WITHIN, what="the new key signs")
        keys(node, "retire", old, "--force")
        assert await socket.closed(within=WITHIN) == (1008, "token_revoked")
        assert not counts(node, token)
        node.forget_admin()
        rows = node.request("GET", "/admin/audit", token=node.admin, expect=200).json()["items"]
        told = [(row["action"], row["target"]) for row in rows if row["action"].startswith("key_")]
        assert told == [("key_retired", old), ("key_added", signing(node))]
        assert node.stop() == 0
        assert node.complaints() == []
    finally:
        node.end()
