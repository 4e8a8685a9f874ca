"""RT-01 … RT-06: refresh tokens, their rotation and their reuse. How long a session lives is shown with a clock."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import secrets
import socket
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from cluster import Cluster
from faulty import FastNode
from hostile import refused_over_http
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from wire import Node, User, claims_of, eventually, eventually_async

REVOKED = (1008, "token_revoked")


@pytest.fixture(scope="module")
def pair(cluster: Cluster) -> list[FastNode]:
    """Two nodes that have nothing in common but a PostgreSQL database."""
    return cluster(2)


@pytest.fixture(params=["one node on SQLite", "two nodes on PostgreSQL"])
def places(request: pytest.FixtureRequest) -> tuple[Node, Node]:
    """Here and there: on one node the same."""
    if request.param == "one node on SQLite":
        node: Node = request.getfixturevalue("node")
        return node, node
    here, there = request.getfixturevalue("pair")
    return here, there


@contextlib.contextmanager
def database(node: Node) -> Iterator[sqlite3.Connection]:
    """The store, looked at and prepared from outside."""
    connection = sqlite3.connect(node.directory / "gateway.db", timeout=10)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def kept(node: Node, session: str) -> tuple[bytes, int]:
    """What is stored of a session's refresh token: its hash, its generation."""
    with database(node) as connection:
        row = connection.execute("SELECT refresh_hash, generation FROM sessions WHERE id = ?", [session]).fetchone()
    return bytes(row[0]), int(row[1])


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def refresh(node: Node, token: str, *, expect: int = 200) -> dict[str, Any]:
    return dict(node.request("POST", "/auth/refresh", json={"refresh_token": token}, expect=expect).json())


def refused(node: Node, token: str) -> None:
    """Refused by both doors, and neither says why."""
    assert refresh(node, token, expect=401)["code"] == "bad_credentials"
    form = {"grant_type": "refresh_token", "refresh_token": token}
    answer = node.request("POST", "/auth/token", data=form, expect=400)
    assert answer.json() == {"error": "invalid_grant", "error_description": "The credentials are not right."}
    assert answer.headers["cache-control"] == "no-store"


# -- rotation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["/auth/refresh", "/auth/token"])
async def test_RT_01_a_refresh_answers_new_tokens_and_only_their_hash_is_kept(node: Node, door: str) -> None:
    signed_in = node.user().sign_in()
    old = signed_in["refresh_token"]
    if door == "/auth/refresh":
        answer = node.request("POST", door, json={"refresh_token": old}, expect=200)
    else:
        answer = node.request("POST", door, data={"grant_type": "refresh_token", "refresh_token": old}, expect=200)
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    fresh = answer.json()
    assert set(fresh) == {"access_token", "token_type", "expires_in", "refresh_token", "refresh_expires_in", "scope"}
    before, after = claims_of(signed_in["access_token"]), claims_of(fresh["access_token"])
    assert (before["sid"], before["sub"]) == (after["sid"], after["sub"])
    assert before["jti"] != after["jti"]
    for token in (old, fresh["refresh_token"]):
        secret = token.rpartition(".")[2]
        assert len(base64.urlsafe_b64decode(secret + "=")) == 32
    assert old.rpartition(".")[2] != fresh["refresh_token"].rpartition(".")[2]
    assert kept(node, after["sid"]) == (digest(fresh["refresh_token"]), 1)
    for file in node.directory.iterdir():
        content = file.read_bytes()
        for token in (old, fresh["refresh_token"]):
            assert token.rpartition(".")[2].encode() not in content, file
    await (await node.open(fresh["access_token"])).close()


async def test_RT_02_a_used_token_that_comes_back_later_ends_the_whole_family(node: Node) -> None:
    user = node.user()
    signed_in = user.sign_in()
    session = claims_of(signed_in["access_token"])["sid"]
    other = await node.open(user.token())
    device = await node.open(signed_in["access_token"])
    fresh = refresh(node, signed_in["refresh_token"])
    with database(node) as connection:  # an hour passes
        connection.execute("UPDATE sessions SET rotated_at = rotated_at - 3600000 WHERE id = ?", [session])
    assert refresh(node, signed_in["refresh_token"], expect=401)["code"] == "bad_credentials"
    assert await device.until_closed(within=1) == ([], REVOKED)
    for token in (signed_in["refresh_token"], fresh["refresh_token"]):
        refused(node, token)
    for token in (signed_in["access_token"], fresh["access_token"]):
        refused_over_http(node, token, code="token_revoked")
        assert await node.refusal(token) == REVOKED
    rows = node.request("GET", "/admin/audit", token=node.admin, expect=200).json()["items"]
    (row,) = [row for row in rows if (row["action"], row["target"]) == ("refresh_reuse", session)]
    assert row["detail"]["user"] == user.id
    assert row["address"] == "127.0.0.1"
    assert row["request_id"]
    await other.quiet()


async def test_RT_02_the_token_endpoint_ends_it_all_the_same(node: Node) -> None:
    signed_in = node.user().sign_in()
    fresh = refresh(node, signed_in["refresh_token"])
    with database(node) as connection:
        connection.execute("UPDATE sessions SET rotated_at = rotated_at - 31000")
    form = {"grant_type": "refresh_token", "refresh_token": signed_in["refresh_token"]}
    assert node.request("POST", "/auth/token", data=form, expect=400).json()["error"] == "invalid_grant"
    refused(node, fresh["refresh_token"])


async def test_RT_03_of_fifty_at_once_all_get_the_same_successor(node: Node) -> None:
    signed_in = node.user().sign_in()
    session, token = claims_of(signed_in["access_token"])["sid"], signed_in["refresh_token"]
    limits = httpx2.Limits(max_connections=50, max_keepalive_connections=50)
    async with httpx2.AsyncClient(base_url=node.url, timeout=30, limits=limits, verify=False) as client:
        for generation in range(1, 21):
            body = {"refresh_token": token}
            answers = await asyncio.gather(*(client.post("/auth/refresh", json=body) for _ in range(50)))
            assert {answer.status_code for answer in answers} == {200}
            (successor,) = {answer.json()["refresh_token"] for answer in answers}
            assert successor != token
            assert kept(node, session) == (digest(successor), generation)
            token = successor
        last = {answer.json()["access_token"] for answer in answers}
    assert {claims_of(one)["sid"] for one in last} == {session}
    for one in list(last)[:3]:
        node.request("GET", "/auth/me", token=one, expect=200)


async def test_RT_03_of_fifty_at_once_over_two_nodes_all_get_the_same_successor(pair: list[FastNode]) -> None:
    here, there = pair
    user = here.user()
    token = user.sign_in()["refresh_token"]
    limits = httpx2.Limits(max_connections=25, max_keepalive_connections=25)
    chain = [token]
    async with (
        httpx2.AsyncClient(base_url=here.url, timeout=30, limits=limits, verify=False) as one,
        httpx2.AsyncClient(base_url=there.url, timeout=30, limits=limits, verify=False) as other,
    ):
        for _ in range(20):
            body = {"refresh_token": chain[-1]}
            asked = [client.post("/auth/refresh", json=body) for _ in range(25) for client in (one, other)]
            answers = await asyncio.gather(*asked)
            assert {answer.status_code for answer in answers} == {200}
            (successor,) = {answer.json()["refresh_token"] for answer in answers}
            chain.append(successor)
    assert len(set(chain)) == 21
    signed_in = refresh(there, chain[-1])
    listed = here.request("GET", "/auth/sessions", token=signed_in["access_token"], expect=200).json()["items"]
    assert [one["id"] for one in listed] == [claims_of(signed_in["access_token"])["sid"]]
    refresh(here, chain[0], expect=401)
    refused(there, signed_in["refresh_token"])


def test_RT_04_whose_answer_was_lost_may_ask_again(node: Node) -> None:
    signed_in = node.user().sign_in()
    session, token = claims_of(signed_in["access_token"])["sid"], signed_in["refresh_token"]
    body = json.dumps({"refresh_token": token}).encode()
    head = (
        "POST /auth/refresh HTTP/1.1\r\nHost: gateway.test\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", node.port)) as sock:
        sock.sendall(head.encode() + body)
        eventually(lambda: kept(node, session)[1] == 1, what="the token is rotated")
    again = refresh(node, token)
    assert kept(node, session) == (digest(again["refresh_token"]), 1)
    assert refresh(node, token)["refresh_token"] == again["refresh_token"]
    node.request("GET", "/auth/me", token=again["access_token"], expect=200)
    assert refresh(node, again["refresh_token"])["refresh_token"] != again["refresh_token"]


async def test_RT_05_the_grace_is_for_the_direct_predecessor_only(places: tuple[Node, Node]) -> None:
    here, there = places
    signed_in = here.user().sign_in()
    device, beside = [await node.open(signed_in["access_token"]) for node in places]
    first = signed_in["refresh_token"]
    second = refresh(there, first)["refresh_token"]
    third = refresh(here, second)
    assert refresh(there, second)["refresh_token"] == third["refresh_token"], "the direct one"
    assert refresh(here, first, expect=401)["code"] == "bad_credentials"
    for one in (device, beside):
        assert await one.closed(within=1) == REVOKED
    for node in places:
        for token in (first, second, third["refresh_token"]):
            refused(node, token)
        refused_over_http(node, third["access_token"], code="token_revoked")


async def test_RT_05_a_made_up_token_ends_nobody_s_session(node: Node) -> None:
    signed_in = node.user().sign_in()
    session, token = claims_of(signed_in["access_token"])["sid"], signed_in["refresh_token"]
    device = await node.open(signed_in["access_token"])
    fresh = refresh(node, token)["refresh_token"]
    for made_up in (
        token[:-2] + "AA", f"{session}.0.{secrets.token_urlsafe(32)}", f"{session}.5.{secrets.token_urlsafe(32)}",
        token.replace(".0.", ".1."), fresh.replace(".1.", ".0."), token.replace(session, "nobody"), f"{token} ", "x",
        f"{session}.-1.{secrets.token_urlsafe(32)}", f"{session}.999999999.{secrets.token_urlsafe(32)}",
    ):  # fmt: skip
        refresh(node, made_up, expect=401)
    await device.quiet()
    refresh(node, fresh)


async def clones(user: User, count: int) -> list[tuple[str, str]]:
    """More sessions of a user, each with its refresh token: put into the store, for a sign-in takes its time."""
    like = claims_of(user.token())["sid"]
    made = [(session := secrets.token_hex(13), f"{session}.0.{secrets.token_urlsafe(32)}") for _ in range(count)]
    engine = create_async_engine(str(user.node.settings["database_url"]))
    try:
        async with engine.begin() as connection:
            columns = list((await connection.execute(text("SELECT * FROM sessions WHERE false"))).keys())
            values = ", ".join({"id": ":id", "refresh_hash": ":hash"}.get(column, column) for column in columns)
            await connection.execute(
                text(f"INSERT INTO sessions ({', '.join(columns)}) SELECT {values} FROM sessions WHERE id = :like"),
                [{"id": session, "hash": digest(token), "like": like} for session, token in made],
            )
    finally:
        await engine.dispose()
    return made


async def test_RT_06_what_a_refresh_made_during_a_revocation_is_worth_nothing_after_it(
    places: tuple[Node, Node],
) -> None:
    """Refreshed at one node, revoked at the other, and the other way round."""
    here, _ = places
    sessions = await clones(here.user(), 200)
    minted: list[str] = []
    headers = {"Authorization": f"Bearer {here.admin}"}
    async with contextlib.AsyncExitStack() as stack:

        async def speaking_to(node: Node, **more: Any) -> httpx2.AsyncClient:
            client = httpx2.AsyncClient(base_url=node.url, timeout=30, verify=False, **more)
            return await stack.enter_async_context(client)

        clients = [await speaking_to(node) for node in places]
        admins = [await speaking_to(node, headers=headers) for node in places]
        for number, (session, token) in enumerate(sessions):
            at = number // 2 % 2
            client, beside, admin = clients[at], clients[1 - at], admins[1 - at]
            asked = client.post("/auth/refresh", json={"refresh_token": token})
            revoked = admin.post("/admin/revocations", json={"session": session})
            if number % 2:  # a refresh reads before it writes: the revocation begins some round trips later
                ahead = asyncio.ensure_future(asked)
                for _ in range(number // 4 % 6):
                    await client.get("/healthz")
                answer, done = await asyncio.gather(ahead, revoked)
            else:
                done, answer = await asyncio.gather(revoked, asked)
            assert done.status_code == 201
            if answer.status_code == 200:
                made = answer.json()
                minted.append(made["access_token"])
                me = await beside.get("/auth/me", headers={"Authorization": f"Bearer {made['access_token']}"})
                assert (me.status_code, me.json()["code"]) == (401, "token_revoked"), "where it was revoked, at once"
                token = made["refresh_token"]
            again = await (client, beside)[number % 2].post("/auth/refresh", json={"refresh_token": token})
            assert again.status_code == 401
        last = time.monotonic()
        await eventually_async(lambda: time.monotonic() > last + 1, what="a second has passed")
        for access_token in minted[-20:]:
            for client in clients:
                me = await client.get("/auth/me", headers={"Authorization": f"Bearer {access_token}"})
                assert (me.status_code, me.json()["code"]) == (401, "token_revoked")
    assert 0 < len(minted) < 200, "neither side always wins: it was a race"
