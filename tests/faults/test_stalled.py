"""REV-04, N1, N2: clients that stop reading, read slowly, or are gone without a word. They cost little, delay nobody.

What such a client missed it is served from the inbox when it reads again; when its credential is revoked it is gone
within the second, though its close frame would never get through.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from faulty import FastNode, Row, flood
from rawpeer import PING, TEXT, Raw
from wire import Socket, eventually, eventually_async

FLOOD = 4000
"""Notifications of one user while its readers stand still: 16 MB, of which hardly any may be held for them."""
STALLED = 8
MEMORY = 10 << 20
"""Bytes the process may grow by meanwhile: less than the flood once, and a seventh of what one buffer each would be."""


async def drink(socket: Socket, count: int) -> int:
    """Read ``count`` notifications, each the next number."""
    for seq in range(socket.hello["after"] + 1, socket.hello["after"] + count + 1):
        assert (await socket.next("notification", within=30))["seq"] == seq
    return count


def messages(raw: Raw) -> Any:
    """The next text frame of a raw peer; pings in between are passed over."""
    while True:
        opcode, payload = raw.next()
        if opcode == TEXT:
            return json.loads(payload)
        assert opcode == PING, (opcode, payload)


async def test_N2_stalled_readers_cost_bounded_memory_delay_nobody_and_are_served_when_they_read_again(
    launch: Callable[..., FastNode], row: Row
) -> None:
    node = launch(log_level="info")
    shop = node.client_token()
    warm, user, other = node.user(), node.user(), node.user()
    token = user.token()
    # What SQLite and the allocator take once is not what a stalled reader costs.
    warming = await node.open(warm.token())
    await asyncio.gather(asyncio.to_thread(flood, node, shop, warm.id, FLOOD), drink(warming, FLOOD))
    await warming.close()
    before = node.resident()
    stalled = [node.upgrade(token, receive_buffer=4096) for _ in range(STALLED)]
    row.faults = len(stalled)
    reading, apart = await node.open(user.token()), await node.open(other.token())
    pushing = asyncio.create_task(asyncio.to_thread(flood, node, shop, user.id, FLOOD))
    drinking = asyncio.create_task(drink(reading, FLOOD))
    worst, grown, passed = 0.0, 0, 0
    async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
        while not (pushing.done() and drinking.done()):
            began = time.monotonic()
            reply = await http.post(
                f"{node.url}/notifications", json={"user_id": other.id, "title": "beside"},
                headers={"Authorization": f"Bearer {shop}"},
            )  # fmt: skip
            assert reply.status_code == 201
            assert (await apart.next("notification"))["id"] == reply.json()["id"]
            worst, passed = max(worst, time.monotonic() - began), passed + 1
            grown = max(grown, node.resident() - before)
    slowest, row.received = await pushing, await drinking + passed
    row.attempted = row.ok = FLOOD + passed
    row.also = {
        "mib": round(grown / 2**20, 1),
        "slowest_beside_s": round(worst, 3),
        "slowest_batch_s": round(slowest, 3),
    }
    assert grown < MEMORY, f"grown by {grown} bytes for {STALLED} stalled readers"
    assert worst < 2.0, "another user's notification waited for somebody's stalled reader"
    behind = [one for one in node.everybody() if one["behind"]]
    assert [one["user_id"] for one in behind] == [user.id] * STALLED
    # One of them reads again: nothing is missing and nothing comes twice, though nobody kept it for it.
    again = stalled[0]
    first = await asyncio.to_thread(messages, again)
    assert first["type"] == "hello"
    for seq in range(1, FLOOD + 1):
        assert (await asyncio.to_thread(messages, again))["seq"] == seq
    row.received += FLOOD
    await eventually_async(
        lambda: sum(one["behind"] for one in node.everybody()) == STALLED - 1, what="one is no longer behind"
    )
    for raw in stalled:
        raw.shut()
    await reading.close()
    await apart.close()
    await eventually_async(lambda: node.everybody() == [], what="all connections gone")
    row.judge()
    assert node.complaints() == []


@pytest.mark.parametrize("how", ["session", "user", "jti", "logout"])
def test_REV_04_a_stalled_reader_is_gone_within_a_second_of_its_revocation(
    shared: FastNode, row: Row, how: str
) -> None:
    node = shared
    user, bystander = node.user(), node.user()
    token, other = user.token(), bystander.token()
    claims = json.loads(_payload(token))
    idle = node.sockets()
    stalled = [node.upgrade(token, receive_buffer=4096) for _ in range(3)]
    beside = node.upgrade(other, receive_buffer=4096)
    row.faults = len(stalled)
    flood(node, node.admin, user.id, 200)
    flood(node, node.admin, bystander.id, 200)
    row.attempted = row.ok = 400
    eventually(lambda: [one["behind"] for one in node.everybody()] == [True] * 4, what="all are behind")
    began = time.monotonic()
    if how == "logout":
        node.request("POST", "/auth/logout", token=token, expect=204)
    else:
        target = {"session": claims["sid"], "user": claims["sub"], "jti": claims["jti"]}[how]
        body = {"user_id" if how == "user" else how: target, "reason": "lost"}
        answer = node.request("POST", "/admin/revocations", token=node.admin, json=body, expect=201).json()
        assert answer["connections_closed"] == 3
    # The one left is the bystander's: just as stalled, and not revoked.
    eventually(lambda: node.sockets() <= idle + 1, within=1.0, what="the descriptors are gone")
    row.also = {"gone_after": round(time.monotonic() - began, 3)}
    assert time.monotonic() - began < 1.0
    assert [one["user_id"] for one in node.everybody()] == [bystander.id]
    for raw in stalled:
        with contextlib.suppress(AssertionError):  # what the kernel still held, and then the end
            while True:
                raw.next()
        raw.shut()
    beside.shut()
    eventually(lambda: node.everybody() == [], what="the bystander has left")
    row.judge()


async def test_N1_a_client_that_is_gone_without_a_word_is_dropped_and_a_slow_one_is_not(
    launch: Callable[..., FastNode], row: Row
) -> None:
    node = launch(heartbeat=2, log_level="info")
    shop = node.client_token()
    silent, deaf, slow, quiet = (node.user() for _ in range(4))
    lost = {silent.id, deaf.id}
    peers = [
        node.upgrade(silent.token()),  # its kernel takes what comes, and nobody answers: as behind a cut line
        node.upgrade(deaf.token(), receive_buffer=4096),  # takes nothing
    ]
    sipping = node.upgrade(slow.token(), receive_buffer=4096)
    idle = await node.open(quiet.token())  # the library answers its pings
    listening = asyncio.create_task(idle.next("notification", within=60))
    began, row.faults, row.attempted = time.monotonic(), 3, 302
    node.push(shop, user_id=silent.id)
    flood(node, shop, deaf.id, 100)
    flood(node, shop, slow.id, 200)
    row.ok = 301

    def sip() -> int:
        """One KB at a time, never a pong: yet it takes something. Until the silent ones are gone, then all the rest."""
        expected, hurry = 1, False
        assert messages(sipping)["type"] == "hello"
        while expected <= 200:
            if not hurry:
                hurry = not lost & {one["user_id"] for one in node.everybody()}
                time.sleep(0.2)
                sipping.buffer += sipping.sock.recv(1024)
                while len(sipping.buffer) >= 4200:
                    assert messages(sipping)["seq"] == expected
                    expected += 1
            else:
                assert messages(sipping)["seq"] == expected
                expected += 1
        return expected - 1

    sipped = asyncio.create_task(asyncio.to_thread(sip))
    await eventually_async(
        lambda: not lost & {one["user_id"] for one in node.everybody()}, within=25, what="the silent are dropped"
    )
    took = time.monotonic() - began
    assert 10 <= took < 2 + 10 + 8, took
    row.received = await sipped
    assert node.push(shop, user_id=quiet.id)["id"] == (await listening)["id"], "an idle client that answers pings stays"
    assert [item["seq"] for item in _inbox(node, silent.token())] == [1], "what was undelivered remains"
    assert [item["seq"] for item in _inbox(node, deaf.token())][:1] == [100]
    row.ok, row.received = row.ok + 1, row.received + 1
    assert {one["user_id"] for one in node.everybody()} == {slow.id, quiet.id}
    row.also = {"dropped_after": round(took, 1)}
    for raw in (*peers, sipping):
        raw.shut()
    await idle.close()
    row.judge()
    assert node.complaints() == []


def _inbox(node: FastNode, token: str) -> list[dict[str, Any]]:
    return list(node.request("GET", "/inbox", token=token, expect=200).json()["items"])


def _payload(token: str) -> bytes:
    middle = token.split(".")[1]
    return base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place: Path = tmp_path_factory.mktemp("shared")
    node = FastNode(place, log_level="info").start()
    yield node
    try:
        assert node.stop() == 0
        assert node.complaints() == []
    finally:
        node.end()
