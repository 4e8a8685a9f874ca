"""``GET /events``: what a socket is told, as server-sent events, over real connections to a real process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rawpeer import Raw
from streams import Stream, answered, asking, listen, refusal
from wire import Node, eventually, eventually_async, running


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("node"), heartbeat=2) as node:
        yield node


async def test_a_stream_and_a_socket_are_told_the_same(node: Node, shop: str) -> None:
    user = node.user()
    token, other = user.token(), user.token()
    for number in range(3):
        node.push(shop, user_id=user.id, title=f"before {number}")
    gone = node.push(shop, user_id=user.id, title="gone")
    node.request("DELETE", f"/notifications/{gone['id']}", token=shop, expect=204)
    device, stream = await node.open(other), await listen(node, token)
    own = ("connection", "session")
    assert {**stream.hello, **dict.fromkeys(own)} == {**device.hello, **dict.fromkeys(own)}
    assert stream.hello["heartbeat"] == 2
    odd: dict[str, Any] = {"title": "a\nb\r\nc\rd  ", "body": "data: x\n\nevent: close", "data": {"a": "\u2028\n"}}
    last = node.push(shop, user_id=user.id, **odd)
    passing = node.push(shop, user_id=user.id, title="passing", ttl=0, expect=202)
    node.request("POST", "/inbox/read", token=other, json={"up_to": 1}, expect=200)
    node.request("DELETE", f"/notifications/{last['id']}", token=shop, expect=204)
    heard = [await stream.event() for _ in range(8)]
    assert [one.frame for one in heard] == [await device.receive() for _ in range(8)]
    epoch = stream.hello["epoch"]
    assert [(one.name, one.id) for one in heard] == [
        *[("notification", f"{epoch}:{number}") for number in (1, 2, 3)], ("gap", f"{epoch}:4"),
        ("notification", f"{epoch}:5"), ("notification", None), ("read", None), ("withdrawn", None),
    ]  # fmt: skip
    assert heard[4].frame["title"] == "a\nb\r\nc\rd  "
    assert heard[5].frame["id"] == passing["id"]


async def test_its_head_says_what_it_is_and_that_nobody_may_keep_or_gather_it(node: Node) -> None:
    for version in ("1.1", "1.0"):
        stream = await listen(node, node.user().token(), version=version, headers={"Accept-Encoding": "gzip, br"})
        fields = stream.fields
        assert fields["cache-control"] == "no-store"
        assert fields["x-accel-buffering"] == "no"
        assert fields["connection"] == "close"
        assert fields["x-content-type-options"] == "nosniff"
        assert fields["x-request-id"]
        assert not {"content-encoding", "content-length", "transfer-encoding"} & fields.keys()
        assert 1000 <= stream.retry < 3000


def test_any_other_method_is_405(node: Node) -> None:
    token = node.user().token()
    for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        answer = node.request(method, f"/events?token={token}", expect=405)
        assert answer.headers["allow"] == "GET"
        assert answer.headers["content-type"] == "application/problem+json"
    assert node.request("GET", "/events/", expect=404)


async def test_last_event_id_beats_after_and_acknowledges_nothing(node: Node, shop: str) -> None:
    user = node.user()
    token = user.token()
    for _ in range(4):
        node.push(shop, user_id=user.id)
    epoch = (await listen(node, token)).hello["epoch"]
    positions: list[tuple[dict[str, str], dict[str, Any], int]] = [
        ({"Last-Event-ID": f"{epoch}:2"}, {}, 3),
        ({"Last-Event-ID": f"{epoch}:2"}, {"after": 1, "epoch": epoch}, 3),
        ({"Last-Event-ID": f"{epoch}:2"}, {"after": 1, "epoch": "another"}, 3),
        ({"Last-Event-ID": ""}, {"after": 1, "epoch": epoch}, 2),
        ({}, {"after": 3, "epoch": epoch}, 4),
        ({}, {}, 1),
    ]
    for said, query, first in positions:
        stream = await listen(node, token, headers=said, **query)
        assert (stream.hello["reset"], stream.hello["after"], stream.hello["cursor"]) == (False, first - 1, 0)
        assert (await stream.next("notification"))["seq"] == first
    for last_id in ("another:3", f"{epoch}:5"):
        stream = await listen(node, token, headers={"Last-Event-ID": last_id})
        assert (stream.hello["reset"], stream.hello["after"]) == (True, 0), last_id


async def test_a_last_event_id_that_is_none_of_ours_is_told(node: Node) -> None:
    token = node.user().token()
    for said in ("7", ":7", "e:", "e:-1", "e:1.0", "e:+1", "e:1 2", "e:99999999999999999999", "e:\xb2", f"e:{2**53}"):
        assert await refusal(node, token, headers={"Last-Event-ID": said}) == (1008, "invalid_request"), said
    for query in ({"after": 1}, {"after": "x", "epoch": "e"}, {"epoch": "e"}):
        assert await refusal(node, token, **query) == (1008, "invalid_request"), query
    assert await refusal(node, token, headers={"Last-Event-ID": "e:1\r\nLast-Event-ID: e:2"}) == (
        1008, "invalid_request",
    )  # fmt: skip


async def test_a_refusal_is_one_event_that_asks_for_patience(node: Node) -> None:
    stream = await answered(node, "garbage")
    event = await stream.event()
    assert event.frame == {"type": "close", "code": 1008, "reason": "token_invalid"}
    assert event.id is None
    assert event.retry is not None
    assert 60_000 <= event.retry < 120_000, "an EventSource that nobody closes comes back by itself"
    stream.writer.write(asking("/healthz"))
    assert b"200 OK" in await stream.reader.readline(), "the connection is as good as before"


async def test_what_was_acknowledged_over_http_is_where_the_session_goes_on(node: Node, shop: str) -> None:
    user = node.user()
    token = user.token()
    for _ in range(3):
        node.push(shop, user_id=user.id)
    stream = await listen(node, token)
    assert [one["seq"] for one in await stream.notifications(3)] == [1, 2, 3]
    body = {"seq": 2, "epoch": stream.hello["epoch"]}
    node.request("POST", "/inbox/ack", token=token, json=body, expect=204)
    again = await listen(node, token)
    assert (again.hello["cursor"], again.hello["after"]) == (2, 2)
    assert (await again.next("notification"))["seq"] == 3


async def test_it_is_listed_counted_and_present_until_its_peer_is_gone(node: Node) -> None:
    user = node.user()
    stream = await listen(node, user.token())
    (listed,) = node.connections(user)
    assert (listed["transport"], listed["id"]) == ("sse", stream.hello["connection"])
    presence = f"/admin/presence?user_id={user.id}"
    assert node.request("GET", presence, token=node.admin).json()["items"][0]["online"] is True
    told = node.request("GET", "/metrics", token=node.admin, expect=200).text
    assert "gateway_connections 1.0" in told.splitlines()
    await stream.close()
    await eventually_async(lambda: node.connections(user) == [], what="it is gone")
    assert node.request("GET", presence, token=node.admin).json()["items"][0]["online"] is False
    half = await listen(node, user.token())
    half.writer.write_eof()
    assert (await half.until_closed())[1] == (1006, "")
    assert node.connections(user) == []


async def test_silence_is_filled_with_heartbeats_and_is_no_fault_of_the_peer(node: Node, shop: str) -> None:
    user = node.user()
    stream = await listen(node, user.token())
    late = asyncio.ensure_future(stream.receive(within=30))
    await eventually_async(lambda: stream.heartbeats, within=5, what="a heartbeat")
    node.push(shop, user_id=user.id)
    assert (await late)["seq"] == 1


async def test_it_may_follow_another_request_and_nothing_may_follow_it(node: Node, shop: str) -> None:
    user = node.user()
    raw = Raw(node.port)
    raw.send(asking("/healthz") + asking(f"/events?token={user.token()}") + asking("/healthz") * 3)
    status, fields = raw.response()
    assert (status, raw.exactly(int(fields["content-length"]))) == (200, b'{"status":"ok"}')
    assert raw.response()[1]["content-type"] == "text/event-stream"
    eventually(lambda: raw.more() and b"event: hello" in raw.buffer, what="hello")
    node.push(shop, user_id=user.id, title="still there")
    eventually(lambda: b"still there" in raw.buffer or (raw.more() and False), what="it is told")
    assert b"HTTP/1.1" not in raw.buffer
    with contextlib.suppress(OSError):
        for _ in range(3):
            raw.sock.sendall(b"x" * 16_000)
    eventually(lambda: node.connections(user) == [], what="who talks all the time is cut off")
    raw.shut()


# -- readers that stall -------------------------------------------------------------------------------------------


def unread(port: int, peer: socket.socket) -> int:
    """Bytes that the kernel holds for this peer on the gateway's side."""
    mine = peer.getsockname()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        row = line.split()
        if (int(row[1].split(":")[1], 16), int(row[2].split(":")[1], 16)) == (port, mine):
            return int(row[4].split(":")[0], 16)
    raise AssertionError("there is no such connection")


def stalled(node: Node, token: str) -> Raw:
    raw = Raw(node.port, receive_buffer=4096)
    raw.send(asking(f"/events?token={token}"))
    assert raw.response()[0] == 200
    return raw


def heard(raw: Raw, count: int) -> list[int]:
    """The numbers of ``count`` notifications, read as they come."""
    while raw.buffer.count(b"\nid: ") < count or not raw.buffer.endswith(b"\n\n"):
        assert raw.more()
    return [int(line.rpartition(b":")[2]) for line in raw.buffer.splitlines() if line.startswith(b"id: ")]


def test_a_reader_that_stalls_costs_little_and_hears_everything_once_when_it_reads_again(node: Node) -> None:
    user = node.user()
    raw = stalled(node, user.token())
    items = [{"user_id": user.id, "body": "x" * 3900}] * 250
    before = node.resident()
    for _ in range(2):
        assert all(one["status"] == 201 for one in node.batch(node.admin, *items))
    eventually(lambda: [one["behind"] for one in node.connections(user)] == [True], what="it is behind")
    assert unread(node.port, raw.sock) < 96 * 1024
    grown = node.resident() - before
    assert heard(raw, 500) == list(range(1, 501))
    eventually(lambda: [one["behind"] for one in node.connections(user)] == [False], what="it has caught up")
    node.push(node.admin, user_id=user.id)
    assert heard(raw, 501)[-1] == 501
    raw.shut()
    assert grown < 24 * 1024 * 1024, "two megabytes in, in two requests, and nothing of it kept for the reader"


# -- going away ---------------------------------------------------------------------------------------------------


async def test_a_stop_says_when_to_come_back_and_waits_for_nobody_who_does_not_read(
    start: Callable[..., Node],
) -> None:
    node = start()
    user, other = node.user(), node.user()
    stream = await listen(node, user.token())
    raw = stalled(node, other.token())
    node.batch(node.admin, *[{"user_id": other.id, "body": "x" * 3900}] * 250)
    eventually(lambda: [one["behind"] for one in node.connections(other)] == [True], what="it is behind")
    stopping = asyncio.create_task(asyncio.to_thread(node.stop, within=5))
    reconnect = await stream.event()
    assert reconnect.frame["reason"] == "draining"
    assert reconnect.retry == max(1000, reconnect.frame["after_ms"])
    last = await stream.event()
    assert last.frame == {"type": "close", "code": 1012, "reason": "draining"}
    assert last.retry is None, "what reconnect said holds"
    await stream.is_over()
    await stream.close()
    assert await stopping == 0
    raw.shut()


async def test_over_restarts_nothing_is_missed_and_nothing_comes_twice(start: Callable[..., Node]) -> None:
    node = start()
    user = node.user()
    token, shop = user.token(), node.client_token()
    stored: list[str] = []
    heard: list[str] = []
    last_id = ""

    def push(count: int) -> None:
        stored.extend(str(one["id"]) for one in node.batch(shop, *[{"user_id": user.id}] * count))

    async def resumed() -> Stream:
        stream = await listen(node, token, headers={"Last-Event-ID": last_id} if last_id else {})
        assert (stream.hello["reset"], stream.hello["after"]) == (False, len(heard))
        return stream

    for end in ("stop", "kill"):
        stream = await resumed()
        pushing = asyncio.create_task(asyncio.to_thread(push, 20))
        goal = len(heard) + 10
        while len(heard) < goal:  # the others may be on their way when it ends
            heard.append((await stream.next("notification"))["id"])
        await pushing
        if end == "stop":
            assert node.stop() == 0
        else:
            node.kill()
        frames, close = await stream.until_closed()
        assert close == ((1012, "draining") if end == "stop" else (1006, ""))
        heard += [frame["id"] for frame in frames if frame["type"] == "notification"]
        last_id = stream.last_id
        node.start()
        push(3)
    stream = await resumed()
    while len(heard) < len(stored):
        heard.append((await stream.next("notification"))["id"])
    assert heard == stored
