"""A backend service and a real gateway: what is stored, refused, lost and asked again, by both clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2
import pytest
from between import between
from wire import HS256_KEYS, Node, eventually_async, forged

from gateway.client import AsyncGateway, Gateway, Invalid, NotFound, Push, Unauthorized, Unavailable

Call = Callable[[Any], Any]
Run = Callable[[Call], Any]
Opens = Callable[..., AbstractAsyncContextManager[Run]]


@pytest.fixture(params=["sync", "async"])
def opened(request: pytest.FixtureRequest) -> Opens:
    """A client of either kind; what it gives runs a call of it, that of the one without a loop in a thread."""

    @asynccontextmanager
    async def sync(url: str, key: tuple[str, str], **options: Any) -> AsyncIterator[Run]:
        with Gateway(url, client_id=key[0], client_secret=key[1], **options) as gateway:
            yield lambda call: asyncio.to_thread(call, gateway)

    @asynccontextmanager
    async def loop(url: str, key: tuple[str, str], **options: Any) -> AsyncIterator[Run]:
        if "sleep" in options:
            sleep = options["sleep"]

            async def sleep_async(seconds: float) -> None:
                sleep(seconds)

            options["sleep"] = sleep_async
        async with AsyncGateway(url, client_id=key[0], client_secret=key[1], **options) as gateway:
            yield lambda call: call(gateway)

    return sync if request.param == "sync" else loop


@pytest.fixture(scope="module")
def key(node: Node) -> tuple[str, str]:
    """Id and secret of a backend service."""
    return node.client()


async def test_a_push_its_receipt_and_its_withdrawal(node: Node, key: tuple[str, str], opened: Opens) -> None:
    alice = node.user()
    device = await node.open(alice.token())
    async with opened(node.url, key) as run:
        pushed = await run(lambda gateway: gateway.push(user_id=alice.id, title="ü", data={"order": 1}))
        assert (pushed.user_id, pushed.seq, pushed.online) == (alice.id, 1, True)
        assert (pushed.expires_at - pushed.created_at).days == 30
        frame = await device.next("notification")
        assert (frame["id"], frame["title"], frame["data"]) == (pushed.id, "ü", {"order": 1})
        receipt = await run(lambda gateway: gateway.receipt(pushed.id))
        assert (receipt.state, receipt.seq, receipt.acknowledged_at) == ("stored", 1, None)
        await device.ask(type="ack", seq=1)
        receipt = await run(lambda gateway: gateway.receipt(pushed.id))
        assert (receipt.state, receipt.acknowledged_at is None) == ("acknowledged", False)
        await run(lambda gateway: gateway.withdraw(pushed.id))
        assert (await device.next("withdrawn"))["id"] == pushed.id
        assert (await run(lambda gateway: gateway.receipt(pushed.id))).state == "withdrawn"
        with pytest.raises(NotFound, match="unknown_notification"):
            await run(lambda gateway: gateway.receipt("nothing"))
    await device.close()


async def test_to_several_and_past_the_inbox(node: Node, key: tuple[str, str], opened: Opens) -> None:
    alice, bob = node.user(), node.user()
    async with opened(node.url, key) as run:
        ids = [alice.id, "nobody", bob.id]
        pushed = await run(lambda gateway: gateway.push(user_ids=ids, title="t"))
        assert [(one.ok, one.user_id, one.seq) for one in pushed.results] == [
            (True, alice.id, 1), (False, "nobody", None), (True, bob.id, 1),
        ]  # fmt: skip
        passed = await run(lambda gateway: gateway.push(user_id=alice.id, title="t", ttl=0))
        assert (passed.seq, passed.online) == (None, False)
        told = await run(lambda gateway: gateway.push(everyone=True, title="t", ttl=0))
        assert isinstance(told.online_count, int)


async def test_a_field_that_is_wrong_is_named(node: Node, key: tuple[str, str], opened: Opens) -> None:
    async with opened(node.url, key) as run:
        with pytest.raises(Invalid) as caught:
            await run(lambda gateway: gateway.push(user_id="42", title="", priority="urgent"))
    error = caught.value
    assert (error.code, [one.pointer for one in error.errors]) == ("validation_failed", ["/title", "/priority"])
    assert error.request_id
    await eventually_async(lambda: str(error.request_id) in node.log_text(), what="the line of the request")


async def test_more_than_a_batch_holds_with_bad_ones_among_them(
    node: Node, key: tuple[str, str], opened: Opens
) -> None:
    alice = node.user()
    items = [Push(user_id=alice.id, title=str(number)) for number in range(1001)]
    items[3] = Push(user_id="nobody", title="lost")
    items[5] = Push(user_id=alice.id, title="x" * 201)
    items[1000] = Push(user_id=alice.id, title="last", ttl=0)
    async with opened(node.url, key) as run:
        told = await run(lambda gateway: gateway.push_many(items))
    assert [at for at, one in enumerate(told) if not one.ok] == [3, 5]
    assert (told[3].problem.code, told[5].problem.errors[0].pointer) == ("unknown_user", "/title")
    seqs = [one.seq for one in told if one.ok]
    assert seqs == [*range(1, 999), None]


async def test_a_lost_answer_is_asked_for_again_and_it_is_one_notification(
    node: Node, key: tuple[str, str], opened: Opens
) -> None:
    alice = node.user()
    async with between(node) as way, opened(way.url, key, sleep=lambda seconds: None) as run:
        way.lose = 2
        pushed = await run(lambda gateway: gateway.push(user_id=alice.id, title="t"))
        assert (pushed.seq, pushed.replayed, way.requests) == (1, True, 3)
        way.lose = 1
        (one,) = await run(lambda gateway: gateway.push_many([Push(user_id=alice.id, title="t")]))
        assert (one.seq, way.requests) == (2, 5)
    assert node.inbox(alice.token())["head"] == 2


async def test_what_may_have_been_shown_is_not_shown_twice(node: Node, key: tuple[str, str], opened: Opens) -> None:
    alice = node.user()
    device = await node.open(alice.token())
    async with between(node) as way, opened(way.url, key) as run:
        way.lose = 1
        with pytest.raises(Unavailable) as caught:
            await run(lambda gateway: gateway.push(user_id=alice.id, title="t", ttl=0))
        assert (caught.value.unknown, way.requests) == (True, 1)
    await device.notifications(1)
    await device.quiet()
    await device.close()


async def test_who_is_told_to_come_again_waits_as_long(node: Node, key: tuple[str, str], opened: Opens) -> None:
    alice, waits = node.user(), list[float]()
    async with between(node) as way, opened(way.url, key, sleep=waits.append) as run:
        way.come_again = 2
        assert (await run(lambda gateway: gateway.push(user_id=alice.id, title="t"))).seq == 1
    assert (len(waits), min(waits) >= 2, max(waits) <= 2.5) == (2, True, True)


async def test_a_push_waits_for_a_gateway_that_is_just_starting(start: Callable[..., Node], opened: Opens) -> None:
    node = start()
    alice, key, attempts = node.user(), node.client(), 0
    assert node.stop() == 0

    def sleep(seconds: float) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 2:
            node.start()

    async with opened(node.url, key, sleep=sleep) as run:
        pushed = await run(lambda gateway: gateway.push(user_id=alice.id, title="t"))
    assert (pushed.seq, attempts) == (1, 2)


async def test_a_token_that_was_revoked_is_replaced_and_a_deleted_client_is_told(node: Node, opened: Opens) -> None:
    alice, key = node.user(), node.client()
    async with opened(node.url, key) as run:
        await run(lambda gateway: gateway.push(user_id=alice.id, title="t"))
        node.revoke(client_id=key[0])
        assert (await run(lambda gateway: gateway.push(user_id=alice.id, title="t"))).seq == 2
        node.request("DELETE", f"/admin/clients/{key[0]}", token=node.admin, expect=204)
        with pytest.raises(Unauthorized, match="invalid_client"):
            await run(lambda gateway: gateway.push(user_id=alice.id, title="t"))


class OldTokenFirst(httpx2.AsyncHTTPTransport):
    """Gives its client a token that has expired; everything else goes to the gateway."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self.old = forged(token, iat=1_000_000_000, nbf=1_000_000_000, exp=1_000_000_900)
        self.tokens = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/auth/token":
            self.tokens += 1
            if self.tokens == 1:
                return httpx2.Response(200, json={"access_token": self.old, "expires_in": 900})
        return await super().handle_async_request(request)


async def test_a_token_that_has_expired_is_replaced(start: Callable[..., Node]) -> None:
    node = start(signing_keys=HS256_KEYS)
    alice, (id, secret) = node.user(), node.client()
    transport = OldTokenFirst(node.client_token((id, secret)))
    async with AsyncGateway(node.url, client_id=id, client_secret=secret, transport=transport) as gateway:
        pushed = await gateway.push(user_id=alice.id, title="t")
    assert (pushed.seq, transport.tokens) == (1, 2)
    assert node.push(transport.old, user_id=alice.id, expect=401)["code"] == "token_expired"


async def test_threads_share_one_client(node: Node, key: tuple[str, str]) -> None:
    alice = node.user()
    with Gateway(node.url, client_id=key[0], client_secret=key[1]) as gateway:
        calls = [asyncio.to_thread(gateway.push, user_id=alice.id, title=str(number)) for number in range(20)]
        told = await asyncio.gather(*calls)
    assert sorted(one.seq for one in told if one.seq) == list(range(1, 21))
