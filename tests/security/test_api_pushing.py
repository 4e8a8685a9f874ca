"""API-02 … API-09, API-13, API-14: retries, quotas, and whose inbox it is. How bodies are read is told elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from hostile import is_problem
from rawpeer import Raw
from wire import ROOT, Node, User, eventually_async

DOCUMENTED = (ROOT / "docs" / "api.md").read_text()


def keyed(node: Node, token: str, key: str, body: dict[str, Any]) -> httpx2.Response:
    return node.request("POST", "/notifications", token=token, json=body, headers={"Idempotency-Key": key})


# -- with a key -----------------------------------------------------------------------------------------------------


async def test_API_02_a_retry_gets_the_first_answer_and_one_notification_is_stored(node: Node, shop: str) -> None:
    user, other = node.user(), node.user()
    token = user.token()
    device = await node.open(token)
    body = {"user_id": user.id, "title": "once", "data": {"b": 1, "a": 2}}
    first = keyed(node, shop, '"8e03978e-40d5"', body)
    assert first.status_code == 201
    assert "Idempotency-Replayed" not in first.headers
    assert first.headers["location"] == f"/notifications/{first.json()['id']}"
    for again in (body, dict(reversed(body.items())), {**body, "data": {"a": 2, "b": 1}}):
        answer = keyed(node, shop, '"8e03978e-40d5"', again)
        assert (answer.status_code, answer.content) == (201, first.content)
        assert answer.headers["idempotency-replayed"] == "true"
        assert answer.headers["location"] == first.headers["location"]
    assert (await device.next("notification"))["id"] == first.json()["id"]
    await device.quiet()
    assert node.inbox(token)["head"] == 1
    both = {"user_ids": [user.id, "nobody", other.id], "title": "x"}
    several = [keyed(node, shop, "several", both) for _ in range(2)]
    assert [answer.status_code for answer in several] == [200, 200]
    assert several[0].content == several[1].content
    assert several[1].headers["idempotency-replayed"] == "true"
    assert node.inbox(token)["head"] == 2


def test_API_03_the_same_key_for_another_request_is_refused_and_stores_nothing(node: Node, shop: str) -> None:
    user, other = node.user(), node.user()
    token = user.token()
    body = {"user_id": user.id, "title": "one"}
    assert keyed(node, shop, "k-03", body).status_code == 201
    for changed in ({"title": "two"}, {"user_id": other.id}, {"ttl": 60}, {"data": {"x": 1}}, {"priority": "high"}):
        is_problem(keyed(node, shop, "k-03", body | changed), 422, "idempotency_mismatch")
    (item,) = node.batch(shop, {"user_id": user.id, "title": "two", "idempotency_key": "k-03"})
    assert (item["status"], item["code"]) == (422, "idempotency_mismatch")
    assert node.inbox(token)["head"] == 1
    assert keyed(node, shop, "k-03", body).headers["idempotency-replayed"] == "true"


async def test_API_04_of_twenty_at_once_all_get_the_one_answer(node: Node, shop: str) -> None:
    users = [node.user() for _ in range(3)]
    tokens = [user.token() for user in users]
    limits = httpx2.Limits(max_connections=20)
    headers = {"Authorization": f"Bearer {shop}"}
    async with httpx2.AsyncClient(
        base_url=node.url, headers=headers, limits=limits, timeout=30, verify=False
    ) as client:
        for number in range(5):
            key, body = {"Idempotency-Key": f"k-04-{number}"}, {"user_ids": [user.id for user in users], "title": "x"}
            answers = await asyncio.gather(*(client.post("/notifications", json=body, headers=key) for _ in range(20)))
            assert {answer.status_code for answer in answers} == {200}
            assert len({answer.content for answer in answers}) == 1
            assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
            assert [node.inbox(token)["head"] for token in tokens] == [number + 1] * 3


@pytest.mark.parametrize("key", ["x" * 256, "", "a b", "a\tb", "caf\u00e9", "\u0430", "a\x7f", " ", "two"])
def test_API_05_a_key_that_is_none_is_refused_and_stores_nothing(node: Node, shop: str, key: str) -> None:
    user = node.user()
    body = json.dumps({"user_id": user.id, "title": "x"}).encode()
    line = b"Idempotency-Key: " + key.encode() + b"\r\n"
    lines = line * 2 if key == "two" else line
    raw = Raw(node.port).send(
        b"POST /notifications HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + lines
        + f"Authorization: Bearer {shop}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )  # fmt: skip
    with contextlib.closing(raw.sock):
        status, fields = raw.response()
        problem = json.loads(raw.exactly(int(fields["content-length"])))
    assert (status, fields["content-type"]) == (400, "application/problem+json")
    assert problem["code"] in ("idempotency_key_invalid", "bad_request")
    assert f"`{problem['code']}`" in DOCUMENTED, "where a client reads what a key is"
    if problem["code"] == "idempotency_key_invalid":
        assert fields["link"].endswith('-idempotency-key-header/>; rel="describedby"')
    assert node.inbox(user.token())["head"] == 0


def test_API_05_every_visible_character_up_to_255_may_stand_in_a_key(node: Node, shop: str) -> None:
    user = node.user()
    visible = "".join(map(chr, range(0x21, 0x7F)))
    for key in (visible, "x" * 255, "k"):
        answers = [keyed(node, shop, key, {"user_id": user.id, "title": "x"}) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 201]
        assert answers[0].content == answers[1].content


def test_API_06_a_key_belongs_to_the_client_that_chose_it(node: Node, shop: str) -> None:
    user = node.user()
    token = user.token()
    body = {"user_id": user.id, "title": "x"}
    for number, sender in enumerate((shop, node.client_token(), node.admin), 1):
        answer = keyed(node, sender, "k-06", body)
        assert (answer.status_code, answer.json()["seq"]) == (201, number)
        assert "idempotency-replayed" not in answer.headers
    (item,) = node.batch(shop, body | {"idempotency_key": "k-06"})
    assert item["seq"] == 1, "single and batch together: this is the first one again"
    assert node.inbox(token)["head"] == 3


def test_API_08_a_key_is_forgotten_after_the_24_hours_that_are_documented(node: Node, shop: str) -> None:
    user = node.user()
    body = {"user_id": user.id, "title": "x"}
    first = keyed(node, shop, "k-08", body).json()
    with contextlib.closing(sqlite3.connect(node.directory / "gateway.db", timeout=10)) as store, store:
        (until,) = store.execute("SELECT expires_at FROM idempotency WHERE key = 'k-08'").fetchone()
        assert abs(until / 1000 - time.time() - 24 * 3600) < 60
        store.execute("UPDATE idempotency SET expires_at = expires_at - 24 * 3600000 WHERE key = 'k-08'")
    second = keyed(node, shop, "k-08", body | {"title": "another one"})
    assert (second.status_code, second.json()["seq"]) == (201, 2)
    assert second.json()["id"] != first["id"]
    assert "idempotency-replayed" not in second.headers
    document = node.request("GET", "/openapi.json", expect=200).json()
    assert "24 hours" in json.dumps(document["paths"]["/notifications"]["post"])


async def test_API_09_beyond_its_rate_a_client_is_told_when_to_come_back(start: Callable[..., Node]) -> None:
    node = start(push_rate=10)
    user, shop, other = node.user(), node.client_token(), node.client_token()
    body = {"user_id": user.id, "title": "x"}

    async def again() -> httpx2.Response | None:
        answer = node.request("POST", "/notifications", token=shop, json=body)
        return answer if answer.status_code == 429 else None

    answer = await eventually_async(again, what="over the rate")
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert (problem["status"], problem["code"], problem["violated-policies"]) == (429, "rate_limited", ["push"])
    wait = int(answer.headers["retry-after"])
    assert wait >= 1
    assert answer.headers["ratelimit"] == f'"push";r=0;t={wait}'
    assert re.fullmatch(r'"push";q=10;w=1', answer.headers["ratelimit-policy"])
    head = node.inbox(user.token())["head"]
    is_limited = node.request("POST", "/notifications/batch", token=shop, json={"notifications": [body] * 200})
    assert is_limited.status_code == 429, "a batch counts as what is in it"
    assert node.push(other, user_id=user.id)["seq"] == head + 1, "another client has a rate of its own"

    async def allowed() -> bool:
        return node.request("POST", "/notifications", token=shop, json=body).status_code == 201

    await eventually_async(allowed, within=wait + 1, what="let in again")


# -- whose it is ----------------------------------------------------------------------------------------------------


async def test_API_13_nobody_reads_acknowledges_or_takes_what_is_another_s(node: Node, shop: str) -> None:
    ada, bob = node.user(), node.user()
    mine, theirs = ada.token(), bob.token()
    device = await node.open(theirs)
    sent = node.push(shop, user_id=bob.id, title="for bob")
    assert (await device.next("notification"))["id"] == sent["id"]
    before = node.inbox(theirs)
    for method, path, body in (
        ("GET", f"/inbox/{sent['id']}", None), ("DELETE", f"/inbox/{sent['id']}", None),
        ("GET", f"/inbox/{sent['id']}?user_id={bob.id}", None),
    ):  # fmt: skip
        is_problem(node.request(method, path, token=mine, json=body), 404, "unknown_notification")
    node.request("POST", "/inbox/read", token=mine, json={"ids": [sent["id"]]}, expect=200)
    node.request("POST", "/inbox/ack", token=mine, json={"seq": 1, "epoch": before["epoch"]}, expect=409)
    listed = node.request("GET", f"/inbox?user_id={bob.id}", token=mine, expect=200).json()
    assert (listed["items"], listed["head"]) == ([], 0)
    another = node.client_token()
    for method in ("GET", "DELETE"):
        is_problem(node.request(method, f"/notifications/{sent['id']}", token=another), 404, "unknown_notification")
        is_problem(node.request(method, f"/notifications/{sent['id']}", token=theirs), 403, "insufficient_scope")
    for path in ("/inbox", f"/inbox/{sent['id']}"):
        is_problem(node.request("GET", path, token=shop), 403, "insufficient_scope")
    for path in (f"/admin/users/{bob.id}", f"/admin/sessions?user_id={bob.id}", f"/admin/connections?user_id={bob.id}"):
        is_problem(node.request("GET", path, token=mine), 403, "insufficient_scope")
    await device.quiet()
    assert node.inbox(theirs) == before
    assert node.request("GET", f"/notifications/{sent['id']}", token=shop, expect=200).json()["state"] == "stored"
    await device.close()
    assert (await node.open(theirs)).hello["cursor"] == 0


async def test_API_14_an_ack_beyond_the_head_or_below_zero_moves_nothing(node: Node, shop: str) -> None:
    user = node.user()
    phone, laptop = user.token(), user.token()
    for _ in range(3):
        node.push(shop, user_id=user.id)
    epoch = node.inbox(phone)["epoch"]

    def ack(token: str, seq: object, expect: int, **more: object) -> dict[str, Any]:
        answer = node.request("POST", "/inbox/ack", token=token, json={"seq": seq, "epoch": epoch, **more})
        assert answer.status_code == expect, answer.text
        return dict(answer.json()) if expect != 204 else {}

    async def cursor(token: str) -> int:
        device = await node.open(token)
        await device.close()
        return int(device.hello["cursor"])

    assert ack(phone, 4, 409)["code"] == "ack_out_of_range"
    assert ack(phone, 2**53 - 1, 409)["code"] == "ack_out_of_range"
    for seq in (-1, 2**53, 1.5, "2", True, None):
        ack(phone, seq, 422)
    ack(phone, 2, 422, session="other")
    assert await cursor(phone) == 0
    ack(phone, 2, 204)
    ack(phone, 1, 204)
    assert (await cursor(phone), await cursor(laptop)) == (2, 0), "one device's ack is not another's"
    device = await node.open(laptop)
    await device.notifications(3)
    for seq, code in ((4, "ack_out_of_range"), (-1, "invalid_frame"), ("1", "invalid_frame")):
        answer = await device.ask(type="ack", seq=seq)
        assert (answer["type"], answer["code"]) == ("error", code)
    assert (await cursor(phone), await cursor(laptop)) == (2, 0)
    stranger: User = node.user()
    assert await cursor(stranger.token()) == 0
