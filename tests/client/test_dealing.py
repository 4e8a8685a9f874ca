"""When a notification counts as dealt with: a subscription at a scripted gateway, on real sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest
from scripted import NOW, Heard, hello, notification, playing, plays, scripted
from websockets.asyncio.server import ServerConnection
from wire import eventually_async

from gateway import closing
from gateway.client import Notification, Refused, Stopped, Subscription, Unauthorized, receiving


class Desk:
    """Signs everybody in, and counts."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.refuse: str | None = None

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.paths.append(request.url.path)
        self.bodies.append(json.loads(request.content) if request.content else {})
        if request.url.path == self.refuse:
            return httpx2.Response(401, json={"code": "bad_credentials", "detail": "No."})
        if request.url.path == "/auth/logout":
            return httpx2.Response(204)
        count = len(self.paths)
        answer = {"access_token": f"a{count}", "refresh_token": f"r{count}", "expires_in": 900}
        return httpx2.Response(200, json=answer)


def subscription(url: str, heard: Heard, desk: Desk | None = None, **more: Any) -> Subscription:
    async def sleep(seconds: float) -> None:
        heard.waits.append(seconds)

    given = {"username": "alice", "password": "pw", "sleep": sleep, "random": lambda: 0.5, **more}
    return Subscription(url, transport=httpx2.MockTransport(desk or Desk()), on_note=heard.notes.append, **given)


def acked(heard: Heard) -> list[int]:
    return [frame["seq"] for frame in heard.of("ack")]


async def test_what_arrives_is_typed() -> None:
    frame = {
        **notification(1),
        "body": "b",
        "data": {"order": 1},
        "category": "c",
        "priority": "high",
        "expires_at": NOW,
    }
    async with playing(plays(hello(), frame, notification(2))) as (url, heard), subscription(url, heard) as listening:
        first, second = await anext(listening), await anext(listening)
    assert isinstance(first, Notification)
    assert (first.id, first.seq, first.title, first.body, first.data) == ("n1", 1, "t1", "b", {"order": 1})
    assert (first.category, first.priority, first.read_at) == ("c", "high", None)
    assert first.expires_at == first.created_at
    assert (second.body, second.data, second.category, second.priority) == ("", {}, None, "normal")


async def test_it_is_acknowledged_when_the_loop_comes_for_the_next_one() -> None:
    async with playing(plays(hello(), *map(notification, (1, 2, 3)))) as (url, heard):
        async with subscription(url, heard) as listening:
            async for one in listening:
                assert all(seq < (one.seq or 0) for seq in acked(heard)), "before its body has ended"
                assert listening.position == ((one.seq or 0) - 1, "e1")
                if one.seq == 2:
                    await eventually_async(lambda: acked(heard) == [1], what="the ack while the second is dealt with")
                if one.seq == 3:
                    break
        assert acked(heard) == [1, 2], "who breaks out has not said that the third is done"


async def test_who_breaks_out_after_the_work_says_done() -> None:
    async with playing(plays(hello(), notification(1))) as (url, heard):
        async with subscription(url, heard) as listening:
            async for _ in listening:
                listening.done()
                break
            assert listening.position == (1, "e1")
        assert acked(heard) == [1]


async def test_what_the_body_raised_at_is_not_acknowledged() -> None:
    async with playing(plays(hello(), notification(1), notification(2))) as (url, heard):

        async def listen() -> None:
            async with subscription(url, heard) as listening:
                async for one in listening:
                    if one.seq == 2:
                        raise LookupError

        with pytest.raises(LookupError):
            await listen()
        assert acked(heard) == [1]


async def test_a_gap_counts_as_soon_as_all_before_it_is_done() -> None:
    frames = [notification(1), {"type": "gap", "from": 2, "to": 5}, notification(6)]
    async with playing(plays(hello(), *frames)) as (url, heard):
        async with subscription(url, heard) as listening:
            assert (await anext(listening)).seq == 1
            assert (await anext(listening)).seq == 6
            assert listening.position == (5, "e1")
        assert acked(heard)[-1] == 5


async def test_what_is_stored_nowhere_holds_nothing_up() -> None:
    script = plays(hello(7), notification(None, "passing"), notification(8))
    async with playing(script) as (url, heard), subscription(url, heard) as listening:
        assert (await anext(listening)).seq is None
        assert (await anext(listening)).seq == 8
        assert listening.position == (7, "e1")


async def test_what_waits_when_the_connection_is_lost_comes_once_and_is_not_asked_for_again() -> None:
    first = plays(hello(), *map(notification, (1, 2, 3)), close=closing.INTERNAL_ERROR)
    async with playing(first, plays(hello(3, cursor=0), notification(4))) as (url, heard):
        async with subscription(url, heard) as listening:
            seqs = []
            async for one in listening:
                seqs.append(one.seq)
                if one.seq == 1:
                    await eventually_async(lambda: len(heard.requests) == 2)
                if one.seq == 4:
                    listening.done()
                    break
        assert seqs == [1, 2, 3, 4]
        assert heard.requests[1].path == "/ws?after=3&epoch=e1"
        assert heard.waits == [0.5]
        assert acked(heard)[-1] == 4


async def test_when_the_log_begins_anew_nothing_undone_is_acknowledged_or_lost() -> None:
    """What was told under old numbers comes under new ones: once, and acknowledged by the new number."""
    again = [notification(1, "n8"), notification(2, "n9"), notification(3, "new")]
    async with playing(
        plays(hello(7), notification(8), notification(9), close=closing.DRAINING),
        plays(hello(0, epoch="e2", reset=True), *again),
    ) as (url, heard):
        async with subscription(url, heard) as listening:
            first = await anext(listening)
            await eventually_async(lambda: listening.position == (0, "e2"))
            ids = [first.id, (await anext(listening)).id]
            assert listening.position == (1, "e2"), "its copy is still to be recognised, the second is at hand"
            ids.append((await anext(listening)).id)
            assert listening.position == (2, "e2")
            listening.done()
        assert ids == ["n8", "n9", "new"]
        assert acked(heard)[-1] == 3


async def test_what_is_withdrawn_while_it_waits_is_not_handed_out() -> None:
    withdrawn = {"type": "withdrawn", "id": "n2", "seq": 2, "unread": 0, "rev": 1}
    async with playing(plays(hello(), *map(notification, (1, 2, 3)), withdrawn, notification(4))) as (url, heard):
        frames: list[str] = []
        async with subscription(url, heard, on_frame=lambda frame: frames.append(frame["type"])) as listening:
            assert (await anext(listening)).seq == 1
            await eventually_async(lambda: "withdrawn" in frames)
            assert [(await anext(listening)).seq for _ in range(2)] == [3, 4]


async def test_more_than_fits_is_left_to_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "WAITING", 3)
    async with playing(plays(hello(), *map(notification, range(1, 51)))) as (url, heard):
        async with subscription(url, heard) as listening:
            most, seqs = 0, []
            async for one in listening:
                await asyncio.wait([asyncio.create_task(eventually_async(lambda: True))])
                most = max(most, len(listening._waiting))
                seqs.append(one.seq)
                if one.seq == 50:
                    break
        assert seqs == list(range(1, 51))
        assert most <= 3


async def test_while_a_body_works_the_connection_is_kept() -> None:
    kinds: list[str] = []

    async def script(connection: ServerConnection) -> None:
        await connection.send(json.dumps(hello(heartbeat=1)))
        await connection.send(json.dumps(notification(1)))
        async for text in connection:
            kinds.append(json.loads(text)["type"])
            if kinds[-1] == "ping":
                await connection.send(json.dumps({"type": "pong"}))

    desk = Desk()
    async with scripted(script) as (url, heard), subscription(url, heard, desk) as listening:
        await anext(listening)
        await eventually_async(lambda: "ping" in kinds, what="a ping during one body")
    assert heard.waits == []


async def test_leaving_signs_out_unless_the_session_is_kept() -> None:
    desk, kept = Desk(), list[str]()
    async with playing(plays(hello())) as (url, heard), subscription(url, heard, desk) as listening:
        await eventually_async(lambda: listening.position is not None)
    assert desk.paths == ["/auth/login", "/auth/logout"]
    options: dict[str, Any] = {"refresh_token": "kept", "on_refresh_token": kept.append}
    async with playing(plays(hello())) as (url, heard), subscription(url, heard, desk, **options) as listening:
        await eventually_async(lambda: listening.position is not None)
    assert desk.paths[2:] == ["/auth/refresh"]
    assert (desk.bodies[2], kept) == ({"refresh_token": "kept"}, ["r3"])


async def test_a_position_that_was_kept_is_gone_on_from() -> None:
    async with playing(plays(hello(7, cursor=3), notification(8))) as (url, heard):
        async with subscription(url, heard, position=(7, "e1")) as listening:
            assert (await anext(listening)).seq == 8
        assert heard.requests[0].path == "/ws?after=7&epoch=e1"
        assert acked(heard) == [7], "it was dealt with before"


@pytest.mark.parametrize("close", [closing.TOKEN_REVOKED, closing.USER_DISABLED, closing.MESSAGE_TOO_BIG])
async def test_an_end_for_good_is_raised_from_the_loop(close: closing.Close) -> None:
    async with playing(plays(hello(), close=close)) as (url, heard), subscription(url, heard) as listening:
        with pytest.raises(Stopped, match=close.reason) as caught:
            await anext(listening)
    assert (caught.value.code, caught.value.bug) == (close.reason, close.retry == "bug")


async def test_who_cannot_sign_in_is_told_so() -> None:
    desk = Desk()
    desk.refuse = "/auth/login"
    async with playing() as (url, heard):
        with pytest.raises(Unauthorized, match="bad_credentials") as caught:
            async with subscription(url, heard, desk) as listening:
                await anext(listening)
    assert isinstance(caught.value, Refused)


async def test_a_notification_that_is_none_ends_it() -> None:
    async with playing(plays(hello(), {**notification(1), "created_at": "now"})) as (url, heard):
        with pytest.raises(Stopped, match="is none") as caught:
            async with subscription(url, heard) as listening:
                await anext(listening)
    assert caught.value.bug


async def test_it_is_entered_before_it_is_asked() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await anext(subscription("http://gateway.test", Heard()))
