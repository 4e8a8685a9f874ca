"""REV-01, REV-08, API-09: what one user can add to the list of revocations and to the audit trail is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import Any

import httpx2
import pytest
from callers import crowd, statuses
from wire import Node, User, claims_of

from gateway.allowance import AT_ONCE, EVERY
from gateway.granting import REFRESHES_AT_ONCE

AT_A_TIME = 50


def written(node: Node, subject: str) -> tuple[int, int]:
    """How many bans there are of a session or a token, and how many rows the audit trail has of its end."""
    with contextlib.closing(sqlite3.connect(node.directory / "gateway.db", timeout=30)) as connection:
        (bans,) = connection.execute("SELECT count(*) FROM revocations WHERE subject = ?", [subject]).fetchone()
        (rows,) = connection.execute(
            "SELECT count(*) FROM audit WHERE target = ? AND action IN ('revoked', 'session_ended', 'refresh_reuse')",
            [subject],
        ).fetchone()
    return int(bans), int(rows)


def refused(answer: httpx2.Response, policy: str, *, quota: int, window: int) -> None:
    assert answer.status_code == 429, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["code"], answer.json()["violated-policies"]) == ("rate_limited", [policy])
    wait = int(answer.headers["retry-after"])
    assert 1 <= wait <= EVERY
    assert answer.headers["ratelimit"] == f'"{policy}";r=0;t={wait}'
    assert answer.headers["ratelimit-policy"] == f'"{policy}";q={quota};w={window}'


@pytest.mark.parametrize("kind", ["access", "refresh"])
async def test_REV_01_of_many_that_end_one_token_at_once_each_is_answered_and_one_is_written(
    node: Node, kind: str
) -> None:
    signed_in = node.user().sign_in()
    claims = claims_of(signed_in["access_token"])
    async with crowd(node, connections=AT_A_TIME) as client:
        form = {"token": signed_in[f"{kind}_token"]}
        answers = await asyncio.gather(*(client.post("/auth/revoke", data=form) for _ in range(AT_A_TIME)))
    assert statuses(answers) == {200: AT_A_TIME}
    assert written(node, claims["jti" if kind == "access" else "sid"]) == (1, 1)
    node.request("GET", "/auth/me", token=signed_in["access_token"], expect=401)


@pytest.mark.parametrize("who", ["user", "client"])
async def test_REV_01_of_many_sign_outs_at_once_one_is_written(node: Node, who: str) -> None:
    token = node.user().token() if who == "user" else node.client_token()
    async with crowd(node, connections=AT_A_TIME) as client:
        headers = {"Authorization": f"Bearer {token}"}
        answers = await asyncio.gather(*(client.post("/auth/logout", headers=headers) for _ in range(AT_A_TIME)))
    assert statuses(answers).keys() <= {204, 401}
    ended = str(claims_of(token)["sid" if who == "user" else "jti"])
    assert written(node, ended) == (1, 1)
    listed = node.request("GET", "/admin/revocations?limit=200", token=node.admin, expect=200).text
    assert ended not in listed, "the list is what administrators did"


async def test_RT_02_of_many_that_reuse_a_token_at_once_the_trail_tells_once(node: Node) -> None:
    signed_in = node.user().sign_in()
    session = claims_of(signed_in["access_token"])["sid"]
    body = {"refresh_token": signed_in["refresh_token"]}
    node.request("POST", "/auth/refresh", json=body, expect=200)
    with contextlib.closing(sqlite3.connect(node.directory / "gateway.db", timeout=30)) as connection, connection:
        connection.execute("UPDATE sessions SET rotated_at = rotated_at - 3600000 WHERE id = ?", [session])
    async with crowd(node, connections=AT_A_TIME) as client:
        answers = await asyncio.gather(*(client.post("/auth/refresh", json=body) for _ in range(AT_A_TIME)))
    assert statuses(answers) == {401: AT_A_TIME}
    assert written(node, session) == (1, 2), "that it ended, and why"


def test_REV_08_who_ends_one_access_token_after_the_other_is_told_to_wait(node: Node) -> None:
    client = node.client()

    def end(token: str) -> httpx2.Response:
        return node.request("POST", "/auth/revoke", data={"token": token})

    ended = 0
    while (answer := end(token := node.client_token(client))).status_code == 200:
        ended += 1
        assert ended < AT_ONCE + 20, "some are earned meanwhile"
    assert ended >= AT_ONCE
    refused(answer, "token-revocations", quota=AT_ONCE, window=AT_ONCE * EVERY)
    node.request("GET", "/auth/me", token=token, expect=200)
    assert end(node.user().token()).status_code == 200, "others are not concerned"


async def test_API_09_a_user_who_signs_in_rightly_again_and_again_is_told_to_wait(node: Node) -> None:
    user = node.user()

    async def sign_in(client: httpx2.AsyncClient, who: User) -> httpx2.Response:
        return await client.post("/auth/login", json={"username": who.username, "password": who.password})

    async with crowd(node) as client:
        for _ in range(AT_ONCE // AT_A_TIME):
            answers = await asyncio.gather(*(sign_in(client, user) for _ in range(AT_A_TIME)))
            assert statuses(answers) == {200: AT_A_TIME}
        over: list[Any] = [await sign_in(client, user)]
        form = {"grant_type": "password", "username": user.username, "password": user.password}
        over.append(await client.post("/auth/token", data=form))
        # What it took has given one or two back.
        while len(over) < 30 and over[-1].status_code != 429:
            over.append(await sign_in(client, user))
        refused(over[-1], "sign-ins", quota=AT_ONCE, window=AT_ONCE * EVERY)
        assert (await sign_in(client, node.user())).status_code == 200, "others are not concerned"
    first = answers[0].json()["access_token"]
    node.request("GET", "/auth/me", token=first, expect=200)


def test_API_09_a_session_that_is_refreshed_again_and_again_is_told_to_wait(node: Node) -> None:
    user = node.user()
    tokens = user.sign_in()
    for _ in range(REFRESHES_AT_ONCE + 10):
        answer = node.request("POST", "/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
        if answer.status_code == 429:
            break
        tokens = answer.json()
    refused(answer, "refreshes", quota=REFRESHES_AT_ONCE, window=REFRESHES_AT_ONCE * 10)
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert node.request("POST", "/auth/token", data=form).status_code == 429
    node.request("GET", "/auth/me", token=tokens["access_token"], expect=200)
    other = user.sign_in()
    node.request("POST", "/auth/refresh", json={"refresh_token": other["refresh_token"]}, expect=200)


async def test_API_09_tickets_are_asked_for_so_often(node: Node) -> None:
    token = node.user().token()
    async with crowd(node, connections=AT_A_TIME) as client:
        headers = {"Authorization": f"Bearer {token}"}
        answers = [
            answer
            for _ in range(6)
            for answer in await asyncio.gather(
                *(client.post("/auth/ticket", headers=headers) for _ in range(AT_A_TIME))
            )
        ]
    assert set(statuses(answers)) == {201, 429}
    over = next(answer for answer in answers if answer.status_code == 429)
    assert over.headers["ratelimit-policy"] == '"tickets";q=200;w=200'
    node.request("POST", "/auth/ticket", token=node.user().token(), expect=201)
