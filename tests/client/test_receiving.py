"""A subscription at a real gateway: what it hears, through restarts, expiring tokens and revocations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from wire import Node, User, eventually_async

from gateway.client import Stopped, Subscription, Unauthorized


def subscription(user: User, **more: Any) -> Subscription:
    return Subscription(user.node.url, username=user.username, password=f"pw of {user.username}", **more)


async def test_it_hears_everything_in_order_and_only_what_was_done_is_acknowledged(node: Node, shop: str) -> None:
    alice = node.user()
    ids = [node.push(shop, user_id=alice.id)["id"] for _ in range(3)]

    def state(id: str) -> str:
        return str(node.request("GET", f"/notifications/{id}", token=shop, expect=200).json()["state"])

    heard = []

    async def listen() -> None:
        async with subscription(alice) as listening:
            async for one in listening:
                heard.append(one.id)
                assert state(one.id) == "stored"
                if one.id == ids[2]:
                    raise LookupError

    with pytest.raises(LookupError):
        await listen()
    assert heard == ids
    assert list(map(state, ids)) == ["acknowledged", "acknowledged", "stored"]
    async with subscription(alice) as listening:
        assert (await anext(listening)).id == ids[2]
        listening.done()
    assert state(ids[2]) == "acknowledged"


async def test_it_comes_through_a_restart_without_missing_or_doubling(start: Callable[..., Node]) -> None:
    node = start()
    alice, shop = node.user(), node.client_token()
    heard, notes = list[int](), list[str]()

    async def listen() -> None:
        async with subscription(alice, on_note=notes.append, random=lambda: 0.1) as listening:
            async for one in listening:
                heard.append(one.seq or 0)
                if one.title == "last":
                    listening.done()
                    return

    task = asyncio.create_task(listen())
    node.push(shop, user_id=alice.id)
    await eventually_async(lambda: heard == [1])
    for stop in (node.stop, node.kill):
        await asyncio.to_thread(stop)
        await asyncio.to_thread(node.start)
        node.push(shop, user_id=alice.id)
    node.push(shop, user_id=alice.id, title="last")
    await asyncio.wait_for(task, 20)
    assert heard == [1, 2, 3, 4]
    assert notes, "the losses were noted"


async def test_its_token_is_renewed_while_it_listens(start: Callable[..., Node]) -> None:
    node = start(access_token_ttl=1)
    alice, tokens = node.user(), list[str]()
    key = node.client()
    async with subscription(alice, on_refresh_token=tokens.append) as listening:
        await eventually_async(lambda: len(tokens) >= 3)
        node.push(node.client_token(key), user_id=alice.id)
        assert (await anext(listening)).seq == 1
    async with Subscription(
        node.url, username=alice.username, password=lambda: pytest.fail("the session was kept"),
        refresh_token=tokens[-1], on_refresh_token=tokens.append, position=listening.position,
    ) as again:  # fmt: skip
        assert (await anext(again)).seq == 1, "nobody said that it was done"


async def test_a_revocation_ends_it_and_so_does_a_wrong_password(node: Node) -> None:
    alice = node.user()

    async def listen() -> None:
        async with subscription(alice) as listening:
            await eventually_async(lambda: listening.position is not None)
            node.revoke(user_id=alice.id)
            await anext(listening)

    with pytest.raises(Stopped) as caught:
        await listen()
    assert (caught.value.code, caught.value.bug) == ("token_revoked", False)
    async with Subscription(node.url, username=alice.username, password="wrong") as listening:
        with pytest.raises(Unauthorized, match="bad_credentials"):
            await anext(listening)


async def test_a_crowd_of_them_waits_and_comes_in_order(node: Node, shop: str) -> None:
    alice = node.user()
    node.batch(shop, *[{"user_id": alice.id} for _ in range(500)])
    seqs = []
    async with subscription(alice) as listening:
        async for one in listening:
            seqs.append(one.seq)
            if one.seq == 500:
                listening.done()
                break
    assert seqs == list(range(1, 501))
    assert node.inbox(alice.token())["head"] == 500
