"""Contract section 1, the promise, each sentence at the wire. No look into the gateway: only kills, sockets, HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from wire import ROOT, Node, Socket, User, claims_of, eventually

REVOKED = (1008, "token_revoked")


# -- durable: what was answered 2xx, and what was not answered at all ------------------------------------------------


@dataclass(frozen=True)
class Aftermath:
    """A gateway that was killed in the middle of its work and started again, and what its clients still know."""

    ada: User
    bob: User
    ada_token: str
    bob_token: str
    for_ada: list[dict[str, Any]]
    for_bob: list[dict[str, Any]]
    keyed: dict[str, Any]
    answer_lost: str
    under_way: list[str]


def post_and_hang_on(node: Node, token: str, key: str, **body: object) -> socket.socket:
    """Send a push whose answer nobody will read."""
    text = json.dumps({"title": key, **body}).encode()
    head = (
        f"POST /notifications HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nIdempotency-Key: {key}\r\nContent-Length: {len(text)}\r\n\r\n"
    )
    sock = socket.create_connection(("127.0.0.1", node.port))
    sock.sendall(head.encode() + text)
    return sock


@pytest.fixture(scope="module")
def aftermath(node: Node, shop: str) -> Aftermath:
    ada, bob = node.user(), node.user()
    ada_token, bob_token = ada.token(), bob.token()
    unread = post_and_hang_on(node, shop, "answer-lost", user_id=ada.id)
    eventually(lambda: node.inbox(ada_token)["head"] == 1, what="the push whose answer is lost is stored")
    keyed = node.push(shop, user_id=ada.id, title="keyed", headers={"Idempotency-Key": "keyed"})
    many = node.push(shop, user_ids=[ada.id, "nobody", bob.id], expect=200)["results"]
    batch = node.batch(shop, {"user_id": ada.id}, {"user_id": ada.id, "wrong": 1}, {"user_id": bob.id})
    assert [item["status"] for item in many] == [201, 404, 201]
    assert [item["status"] for item in batch] == [201, 422, 201]
    last = node.push(shop, user_id=ada.id)
    names = [f"under-way-{number}" for number in range(12)]
    waiting = [post_and_hang_on(node, shop, name, user_id=ada.id) for name in names]
    node.kill()
    for sock in [unread, *waiting]:
        sock.close()
    node.start()
    return Aftermath(
        ada, bob, ada_token, bob_token, [keyed, many[0], batch[0], last], [many[2], batch[2]], keyed, "answer-lost",
        names,
    )  # fmt: skip


async def test_what_was_answered_2xx_is_sent_after_kill_9(node: Node, aftermath: Aftermath) -> None:
    for token, answered in ((aftermath.ada_token, aftermath.for_ada), (aftermath.bob_token, aftermath.for_bob)):
        device = await node.open(token)
        frames = await device.notifications(device.hello["head"])
        assert [frame["seq"] for frame in frames] == list(range(1, device.hello["head"] + 1))
        ids = {frame["seq"]: frame["id"] for frame in frames}
        assert {one["seq"]: one["id"] for one in answered}.items() <= ids.items()
        assert [item["id"] for item in node.inbox(token, after=0)["items"]] == list(ids.values())
        await device.close()


async def test_a_retry_after_silence_and_kill_9_makes_it_exactly_one(
    node: Node, shop: str, aftermath: Aftermath
) -> None:
    def retry(key: str) -> httpx2.Response:
        body = {"title": key, "user_id": aftermath.ada.id}
        return node.request(
            "POST", "/notifications", token=shop, json=body, headers={"Idempotency-Key": key}, expect=201
        )

    again = retry("keyed")
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == aftermath.keyed
    assert retry(aftermath.answer_lost).headers["Idempotency-Replayed"] == "true"
    for name in aftermath.under_way:
        first, second = retry(name), retry(name)
        assert second.headers["Idempotency-Replayed"] == "true"
        assert second.json() == first.json()
    inbox = node.inbox(aftermath.ada_token, after=0, limit=200)
    titles = [item["title"] for item in inbox["items"]]
    assert sorted(titles) == sorted(["answer-lost", "keyed", *["hello"] * 3, *aftermath.under_way])
    assert [item["seq"] for item in inbox["items"]] == list(range(1, inbox["head"] + 1))


# -- every signed-in device, at least once, in order, under a stable id ----------------------------------------------


async def test_every_signed_in_device_hears_it_now_or_when_it_comes(node: Node, shop: str) -> None:
    user = node.user()
    phone, tablet = user.token(), user.token()
    here = await node.open(phone)
    sent = node.push(shop, user_id=user.id, body="for both")
    assert (await here.next("notification"))["id"] == sent["id"]
    later = await node.open(tablet)
    assert (await later.next("notification"))["id"] == sent["id"]
    await here.quiet()
    await later.quiet()


async def test_a_device_is_sent_it_again_under_the_same_id_until_it_has_acknowledged_it(node: Node, shop: str) -> None:
    user = node.user()
    phone, tablet = user.token(), user.token()
    sent = node.push(shop, user_id=user.id)
    for _ in range(3):
        device = await node.open(phone)
        assert (await device.next("notification"))["id"] == sent["id"]
        await device.close()
    device = await node.open(phone)
    assert (await device.next("notification"))["seq"] == 1
    assert (await device.ask(type="ack", seq=1))["type"] == "ok"
    await device.close()
    done, other = await node.open(phone), await node.open(tablet)
    await done.quiet()
    assert (await other.next("notification"))["id"] == sent["id"], "one device's ack is not another's"


async def test_under_many_senders_at_once_each_connection_hears_1_2_3_each_once(node: Node, shop: str) -> None:
    user = node.user()
    tokens = [user.token() for _ in range(4)]
    sockets = [await node.open(tokens[0])]
    answers: dict[int, str] = {}

    async def send(client: httpx2.AsyncClient, sender: int) -> None:
        for number in range(12):
            answer = await client.post("/notifications", json={"user_id": user.id, "title": f"{sender}-{number}"})
            assert answer.status_code == 201
            assert answer.json()["seq"] not in answers
            answers[answer.json()["seq"]] = answer.json()["id"]

    async def come_and_go() -> None:
        for token in tokens[1:]:
            for _ in range(4):
                passing = await node.open(token)
                if passing.hello["head"]:
                    assert (await passing.next("notification"))["seq"] == 1
                await passing.close()
            sockets.append(await node.open(token))

    headers = {"Authorization": f"Bearer {shop}"}
    async with httpx2.AsyncClient(base_url=node.url, headers=headers, timeout=30) as client:
        await asyncio.gather(*(send(client, sender) for sender in range(8)), come_and_go())
    assert sorted(answers) == list(range(1, 97)), "dense: 1, 2, 3, …"
    for device in sockets:
        heard = [(frame["seq"], frame["id"]) for frame in await device.notifications(96)]
        assert heard == sorted(answers.items())
        await device.quiet()


async def test_one_user_s_numbers_are_not_another_s(node: Node, shop: str) -> None:
    one, other = node.user(), node.user()
    assert [node.push(shop, user_id=user.id)["seq"] for user in (one, one, other, one, other)] == [1, 2, 1, 3, 2]


# -- gap: until it expires, is taken back, or falls beyond the limit -------------------------------------------------


async def test_numbers_that_will_not_come_are_told_with_a_gap(node: Node, shop: str) -> None:
    user = node.user()
    token = user.token()
    kept, back, hidden, short, last, end = [
        node.push(shop, user_id=user.id, ttl=1 if number == 3 else 60) for number in range(6)
    ]
    for id in (back["id"], end["id"]):
        node.request("DELETE", f"/notifications/{id}", token=shop, expect=204)
    node.request("DELETE", f"/inbox/{hidden['id']}", token=token, expect=204)
    eventually(lambda: len(node.inbox(token)["items"]) == 2, what="the short one has expired")
    device = await node.open(token)
    frames = [await device.receive() for _ in range(4)]
    await device.quiet()
    assert [(frame["type"], frame.get("id")) for frame in frames] == [
        ("notification", kept["id"]), ("gap", None), ("notification", last["id"]), ("gap", None),
    ]  # fmt: skip
    gaps = [(frame["from"], frame["to"]) for frame in frames if frame["type"] == "gap"]
    assert gaps == [(2, 4), (6, 6)]
    assert short["id"] not in json.dumps(frames)


async def test_beyond_the_inbox_limit_the_oldest_fall_out_and_are_told_with_a_gap(start: Callable[..., Node]) -> None:
    node = start(inbox_max=3)
    user, shop = node.user(), node.client_token()
    token = user.token()
    sent = [node.push(shop, user_id=user.id)["id"] for _ in range(5)]
    eventually(lambda: len(node.inbox(token)["items"]) == 3, what="the inbox is cut back")
    assert node.inbox(token)["unread"] == 3
    device = await node.open(token)
    gap = await device.next("gap")
    assert (gap["from"], gap["to"]) == (1, 2)
    assert [frame["id"] for frame in await device.notifications(3)] == sent[2:]
    await device.quiet()


# -- 4xx stored nothing ----------------------------------------------------------------------------------------------


async def test_4xx_stored_nothing(node: Node, shop: str) -> None:
    user = node.user()
    token = user.token()
    device = await node.open(token)
    node.push(shop, user_id=user.id, title="the only one", headers={"Idempotency-Key": "taken"})
    await device.next("notification")

    def post(status: int, text: str, *, token: str | None = shop, path: str = "/notifications", **headers: str) -> None:
        headers = {"Content-Type": "application/json", **{name.replace("_", "-"): headers[name] for name in headers}}
        answer = node.request("POST", path, token=token, content=text, headers=headers)
        assert answer.status_code == status, (text[:80], answer.text)
        assert answer.headers["Content-Type"] == "application/problem+json"

    def body(**changed: Any) -> str:
        return json.dumps({"user_id": user.id, "title": "never", **changed})

    post(422, body(unknown=1))
    post(422, body(title=""))
    post(422, body(ttl=-1))
    post(422, body(user_ids=[user.id]))
    post(422, body(topic="news", user_id=None))
    post(422, body(deliver_at="2026-01-01T00:00:00Z"))
    post(422, body(collapse_key="one"))
    post(422, body(data={"number": float("inf")}))
    post(422, body(data={"number": 2**53}))
    post(422, body()[:-1] + ', "title": "twice"}')
    post(404, body(user_id="nobody"))
    post(422, body(), Idempotency_Key="taken")
    post(400, body(), Idempotency_Key="k" * 256)
    post(413, body(body="x" * 70_000))
    post(401, body(), token=None)
    post(401, body(), token=shop[:-4] + "AAAA")
    post(403, body(), token=token)
    post(422, json.dumps({"notifications": [json.loads(body())]}), path="/notifications/batch", Idempotency_Key="new")
    post(422, json.dumps({"notifications": [json.loads(body())], "more": 1}), path="/notifications/batch")
    (item,) = node.batch(shop, {"user_id": user.id, "title": ""})
    assert item["status"] == 422
    await device.quiet()
    assert node.inbox(token)["head"] == 1


# -- with the same key: exactly one ----------------------------------------------------------------------------------


async def test_twenty_at_once_with_the_same_key_are_exactly_one(node: Node, shop: str) -> None:
    user = node.user()
    token = user.token()
    headers = {"Authorization": f"Bearer {shop}", "Idempotency-Key": "twenty"}
    async with httpx2.AsyncClient(base_url=node.url, headers=headers, timeout=30) as client:
        body = {"user_id": user.id, "title": "once"}
        answers = await asyncio.gather(*(client.post("/notifications", json=body) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert node.inbox(token)["head"] == 1


def test_the_key_of_a_4xx_is_not_remembered_and_one_client_s_key_is_not_another_s(node: Node, shop: str) -> None:
    user = node.user()
    token = user.token()
    key = {"Idempotency-Key": "free"}
    node.push(shop, user_id="nobody", headers=key, expect=404)
    first = node.push(shop, user_id=user.id, headers=key)
    other = node.push(node.client_token(), user_id=user.id, headers=key)
    (third,) = node.batch(shop, {"user_id": user.id, "idempotency_key": "free"})
    assert (first["seq"], other["seq"], third["seq"]) == (1, 2, 1), "single and batch share a client's namespace"
    assert node.inbox(token)["head"] == 2


# -- a revoked credential stops receiving within one second ----------------------------------------------------------


REVOCATIONS: dict[str, Callable[[Node, User, str, Socket], object]] = {
    "the session": lambda node, user, token, device: node.revoke(session=device.hello["session"]),
    "the user": lambda node, user, token, device: node.revoke(user_id=user.id),
    "the token": lambda node, user, token, device: node.revoke(jti=claims_of(token)["jti"]),
    "logout": lambda node, user, token, device: node.request("POST", "/auth/logout", token=token, expect=204),
    "deleted": lambda node, user, token, device: node.request(
        "DELETE", f"/admin/users/{user.id}", token=node.admin, expect=204
    ),
    "a new password": lambda node, user, token, device: node.request(
        "PUT", f"/admin/users/{user.id}/password", token=node.admin, json={"password": "quite another one"}, expect=204
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", list(REVOCATIONS))
async def test_REV_03_after_the_answer_to_a_revocation_nothing_is_sent_any_more(
    node: Node, shop: str, how: str
) -> None:
    user, bystander = node.user(), node.user()
    token = user.token()
    device, other = await node.open(token), await node.open(bystander.token())
    node.push(shop, user_ids=[user.id, bystander.id], expect=200)
    await device.next("notification")
    REVOCATIONS[how](node, user, token, device)
    node.push(shop, user_ids=[user.id, bystander.id], title="too late", expect=200)
    assert await device.until_closed(within=1) == ([], REVOKED)
    assert await node.refusal(token) == REVOKED
    assert [frame["title"] for frame in await other.notifications(2)] == ["hello", "too late"]


async def test_REV_03_only_what_was_meant_is_revoked(node: Node) -> None:
    user = node.user()
    old = await node.open(user.token())
    before = datetime.now(UTC)
    eventually(lambda: datetime.now(UTC) - before > timedelta(milliseconds=20), what="a moment between the sign-ins")
    new = await node.open(user.token())
    assert node.revoke(user_id=user.id, issued_before=before.isoformat())["connections_closed"] == 1
    assert await old.closed() == REVOKED
    await new.quiet()


async def test_a_revocation_by_another_process_ends_the_socket_within_one_second(node: Node, shop: str) -> None:
    user = node.user()
    device = await node.open(user.token())
    command = [sys.executable, "-m", "gateway", "revoke", "--session", device.hello["session"]]
    stop = asyncio.Event()

    async def keep_pushing() -> None:
        headers = {"Authorization": f"Bearer {shop}"}
        async with httpx2.AsyncClient(base_url=node.url, headers=headers, timeout=30) as client:
            while not stop.is_set():
                await client.post("/notifications", json={"user_id": user.id, "title": "tick"})

    pushing = asyncio.create_task(keep_pushing())
    reading = asyncio.create_task(device.until_closed(within=60))
    process = await asyncio.create_subprocess_exec(
        *command, env=node.environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert await process.wait() == 0
    revoked = datetime.now(UTC)
    frames, close = await asyncio.wait_for(reading, 10)
    stop.set()
    await pushing
    assert close == REVOKED
    assert frames, "it heard something until then"
    # By the gateway's own clock, so that a slow reader here counts for nothing.
    assert datetime.fromisoformat(frames[-1]["created_at"]) < revoked + timedelta(seconds=1)
