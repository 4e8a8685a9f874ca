"""Contract section 4: the life of an open ``/ws``, from hello to close. Who gets in: ``test_refusals.py``."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from callers import crowd
from rawpeer import CLOSE, TEXT, Raw, frame, head
from streams import listen
from wire import HS256_KEYS, Node, claims_of, eventually_async, forged, running

HEARTBEAT = 2


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("node"), signing_keys=HS256_KEYS, heartbeat=HEARTBEAT) as node:
        yield node


Dial = Callable[[Node, str], Raw]


@pytest.fixture
def dial() -> Iterator[Dial]:
    """Opens a socket that does nothing by itself: it answers no ping and no close."""
    raws: list[Raw] = []

    def open_raw(node: Node, token: str) -> Raw:
        raws.append(Raw(node.port).send(head(f"/ws?token={token}")))
        assert raws[-1].response()[0] == 101
        return raws[-1]

    yield open_raw
    for raw in raws:
        raw.shut()


def at(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


async def acked(node: Node, token: str, seq: int) -> None:
    """The session of ``token`` has acknowledged up to ``seq``; its socket is closed again."""
    device = await node.open(token)
    assert (await device.ask(type="ack", seq=seq))["type"] == "ok"
    await device.close()


# -- hello, and what follows -----------------------------------------------------------------------------------------


async def test_hello_comes_first_and_says_where_everything_stands(node: Node, shop: str) -> None:
    user = node.user()
    token = user.token()
    ids = [node.push(shop, user_id=user.id)["id"] for _ in range(3)]
    node.request("POST", "/inbox/read", token=token, json={"ids": ids[:1]}, expect=200)
    await acked(node, token, 2)
    hello = (await node.open(token)).hello
    (listed,) = node.connections(user)
    assert hello == {
        "type": "hello", "connection": listed["id"], "user": user.id, "session": claims_of(token)["sid"],
        "epoch": node.inbox(token)["epoch"], "head": 3, "rev": 1, "cursor": 2, "after": 2, "reset": False,
        "unread": 2, "heartbeat": HEARTBEAT, "token_expires_at": at(claims_of(token)["exp"]), "node": listed["node"],
    }  # fmt: skip


async def test_a_notification_says_everything_its_sender_said(node: Node, shop: str) -> None:
    user = node.user()
    token = user.token()
    device = await node.open(token)
    said: dict[str, Any] = {
        "title": "Order shipped – 📦", "body": 'Arrives "Friday"\n', "data": {"order": 1234, "deep": [{"a": None}]},
        "category": "orders", "priority": "high",
    }  # fmt: skip
    answer = node.push(shop, user_id=user.id, ttl=60, **said)
    live = await device.next("notification")
    stored = {name: answer[name] for name in ("id", "seq", "created_at", "expires_at")}
    assert live == {"type": "notification", **said, **stored}
    assert await (await node.open(token)).next("notification") == live, "and the same again from the inbox"
    node.request("POST", "/inbox/read", token=token, json={"up_to": 1}, expect=200)
    replayed = await (await node.open(token)).next("notification")
    assert replayed == {**live, "read_at": replayed["read_at"]}
    assert answer["created_at"] < replayed["read_at"] < answer["expires_at"]


async def test_what_was_missed_comes_before_what_is_new_and_the_cursor_says_where_to_begin(
    node: Node, shop: str
) -> None:
    user = node.user()
    token = user.token()
    node.batch(shop, *[{"user_id": user.id}] * 250)  # more than two pages
    await acked(node, token, 10)
    device = await node.open(token)
    node.push(shop, user_id=user.id)
    assert [one["seq"] for one in await device.notifications(241)] == list(range(11, 252))
    await device.quiet()


async def test_after_moves_the_start_and_acknowledges_nothing(node: Node, shop: str) -> None:
    user = node.user()
    token = user.token()
    node.batch(shop, *[{"user_id": user.id}] * 4)
    await acked(node, token, 3)
    epoch = node.inbox(token)["epoch"]
    for after, comes in ((0, [1, 2, 3, 4]), (2, [3, 4]), (4, [])):
        device = await node.open(token, after=after, epoch=epoch)
        assert (device.hello["after"], device.hello["cursor"], device.hello["reset"]) == (after, 3, False)
        assert [one["seq"] for one in await device.notifications(len(comes))] == comes
        await device.quiet()
    assert (await node.open(token)).hello["after"] == 3


async def test_a_position_beyond_the_head_or_of_another_epoch_is_not_trusted(node: Node, shop: str) -> None:
    user = node.user()
    token = user.token()
    node.batch(shop, *[{"user_id": user.id}] * 2)
    await acked(node, token, 1)
    for after, epoch in ((3, node.inbox(token)["epoch"]), (2, "another")):
        device = await node.open(token, after=after, epoch=epoch)
        assert (device.hello["after"], device.hello["cursor"], device.hello["reset"]) == (1, 1, True)
        assert (await device.next("notification"))["seq"] == 2


async def test_a_new_session_starts_at_what_any_device_has_acknowledged_signed_out_or_not(
    node: Node, shop: str
) -> None:
    user = node.user()
    old, gone, first = user.token(), user.token(), await node.open(user.token())
    node.batch(shop, *[{"user_id": user.id}] * 4)
    await first.notifications(4)
    await acked(node, old, 1)
    await acked(node, gone, 3)
    node.request("POST", "/auth/logout", token=gone, expect=204)
    device = await node.open(user.token())
    assert (device.hello["cursor"], device.hello["after"]) == (3, 3)
    assert (await device.next("notification"))["seq"] == 4
    assert (await node.open(old)).hello["cursor"] == 1, "the others keep their own"


# -- live ------------------------------------------------------------------------------------------------------------


async def test_all_devices_and_tabs_of_a_user_hear_it_and_nobody_else(node: Node, shop: str) -> None:
    user, other = node.user(), node.user()
    token = user.token()
    sockets = [await node.open(token), await node.open(token), await node.open(user.token())]
    bystander = await node.open(other.token())
    answer = node.push(shop, user_id=user.id)
    assert answer["online"] is True
    for device in sockets:
        assert (await device.next("notification"))["id"] == answer["id"]
    await bystander.quiet()


async def test_ttl_0_passes_by_who_is_there_under_no_seq_and_is_stored_nowhere(node: Node, shop: str) -> None:
    user, other = node.user(), node.user()
    token = user.token()
    devices = [await node.open(token), await node.open(other.token())]
    one = node.push(shop, user_id=user.id, ttl=0, title="one", expect=202)
    two = node.push(shop, user_ids=[user.id, other.id, "nobody"], ttl=0, title="two", expect=202)
    every = node.push(shop, everyone=True, ttl=0, title="all", expect=202)
    assert (one["online"], two["online_count"], every["online_count"]) == (True, 2, 2)
    heard = [await device.notifications(count) for device, count in zip(devices, (3, 2), strict=True)]
    assert [frame["id"] for frame in heard[0]] == [one["id"], two["id"], every["id"]]
    assert [frame["id"] for frame in heard[1]] == [two["id"], every["id"]]
    assert {frame["seq"] for frame in heard[0]} == {None}
    assert node.inbox(token)["head"] == 0
    assert node.request("GET", f"/notifications/{one['id']}", token=shop).status_code == 404


async def test_a_burst_past_the_inbox_comes_whole_and_in_one_order_to_sockets_and_streams(
    node: Node, shop: str
) -> None:
    sockets = [await node.open(node.user().token()) for _ in range(3)]
    stream = await listen(node, node.user().token())
    async with crowd(node, connections=40) as client:

        async def push(number: int) -> str:
            body = {"everyone": True, "ttl": 0, "title": f"n {number}", "body": "t" * (number * 50)}
            answer = await client.post("/notifications", json=body, headers={"Authorization": f"Bearer {shop}"})
            assert answer.status_code == 202
            return str(answer.json()["id"])

        pushed = await asyncio.gather(*(push(number) for number in range(40)))
    heard = [[frame["id"] for frame in await device.notifications(40)] for device in (*sockets, stream)]
    assert sorted(heard[0]) == sorted(pushed)
    assert heard == [heard[0]] * 4


# -- what the client says --------------------------------------------------------------------------------------------


async def test_an_ack_moves_the_session_forward_only_and_no_other_connection(node: Node, shop: str) -> None:
    user = node.user()
    token = user.token()
    answers = node.batch(shop, *[{"user_id": user.id}] * 3)
    device, tab = await node.open(token), await node.open(token)
    await device.notifications(3)
    for seq in (2, 1, 0):
        assert (await device.ask(type="ack", seq=seq))["type"] == "ok"
    assert [frame["seq"] for frame in await tab.notifications(3)] == [1, 2, 3]
    assert (await node.open(token)).hello["cursor"] == 2
    states = [
        node.request("GET", f"/notifications/{item['id']}", token=shop, expect=200).json()["state"] for item in answers
    ]
    assert states == ["acknowledged", "acknowledged", "stored"]
    error = await device.ask(type="ack", seq=4)
    assert (error["type"], error["code"]) == ("error", "ack_out_of_range")
    assert (await node.open(token)).hello["cursor"] == 2


async def test_an_ok_comes_only_to_a_frame_with_a_ref_and_an_error_always(node: Node, shop: str) -> None:
    user = node.user()
    token = user.token()
    node.push(shop, user_id=user.id)
    device = await node.open(token)
    await device.next("notification")
    await device.send(type="ack", seq=1, more="unknown fields are passed over")
    await device.quiet()

    async def moved() -> bool:
        other = await node.open(token)
        await other.close()
        return bool(other.hello["cursor"] == 1)

    await eventually_async(moved, what="the ack arrived")
    await device.quiet()
    await device.send(type="ack", seq=2)
    error = await device.next("error")
    assert set(error) == {"type", "code", "detail"}
    assert await device.text('{"type": "ack", "seq": 1, "ref": 7}') == {"type": "ok", "ref": 7}
    assert await device.text('{"type": "ping"}') == {"type": "pong"}


BAD_FRAMES = [
    ("no json", "invalid_json"),
    ('{"type": "ping"', "invalid_json"),
    ("[" * 5000, "invalid_json"),
    ("[]", "invalid_frame"),
    ("null", "invalid_frame"),
    ("{}", "invalid_frame"),
    ('{"type": 1}', "invalid_frame"),
    ('{"type": "hello"}', "unknown_type"),
    ('{"type": "ping", "ref": [1]}', "invalid_frame"),
    ('{"type": "ack"}', "invalid_frame"),
    ('{"type": "ack", "seq": "1"}', "invalid_frame"),
    ('{"type": "ack", "seq": -1}', "invalid_frame"),
    ('{"type": "ack", "seq": 1.0}', "invalid_frame"),
    ('{"type": "ack", "seq": true}', "invalid_frame"),
    ('{"type": "ack", "seq": 9007199254740992}', "invalid_frame"),
    ('{"type": "read"}', "invalid_frame"),
    ('{"type": "read", "ids": []}', "invalid_frame"),
    ('{"type": "read", "ids": [1]}', "invalid_frame"),
    ('{"type": "read", "ids": ["a"], "up_to": 1}', "invalid_frame"),
    (json.dumps({"type": "read", "ids": ["a"] * 101}), "invalid_frame"),
    ('{"type": "read", "up_to": 1}', "validation_failed"),
    ('{"type": "token"}', "invalid_frame"),
    ('{"type": "token", "token": "garbage"}', "token_invalid"),
]


async def test_WSF_11_a_frame_that_cannot_be_taken_gets_an_error_and_the_socket_stays(node: Node) -> None:
    device = await node.open(node.user().token())
    for text, code in BAD_FRAMES:
        error = await device.text(text)
        assert (error["type"], error["code"]) == ("error", code), text
        assert error["detail"]
    assert (await device.text('{"type": "nonsense", "ref": "r"}'))["ref"] == "r"
    await device.quiet()


async def test_a_message_of_16_kib_is_taken_and_one_beyond_ends_the_socket(node: Node) -> None:
    device = await node.open(node.user().token())
    text = json.dumps({"type": "ping", "padding": ""})
    assert await device.text(text[:-2] + "x" * (16 * 1024 - len(text)) + text[-2:]) == {"type": "pong"}
    await device.connection.send(text[:-2] + "x" * (16 * 1024 - len(text) + 1) + text[-2:])
    assert await device.until_closed() == ([], (1009, "message_too_big"))


@pytest.mark.parametrize(
    ("sent", "close"),
    [
        (frame(2, b"binary"), (1003, "binary_frame")),
        (frame(TEXT, b"\xff"), (1007, "invalid_text")),
        (frame(TEXT, b"{}", mask=False), (1002, "protocol_error")),
        (frame(TEXT, b"{}", rsv=4), (1002, "protocol_error")),
    ],
)
def test_a_frame_that_breaks_the_protocol_ends_the_socket(
    node: Node, dial: Dial, sent: bytes, close: tuple[int, str]
) -> None:
    raw = dial(node, node.user().token())
    assert json.loads(raw.said()[1])["type"] == "hello"
    code, reason = close
    assert raw.send(sent).said() == (CLOSE, code.to_bytes(2, "big") + reason.encode())


async def test_a_hundred_frames_at_once_are_taken_and_a_flood_is_rate_limited(node: Node) -> None:
    device = await node.open(node.user().token())
    for _ in range(100):
        await device.send(type="ping")
    assert [await device.receive() for _ in range(100)] == [{"type": "pong"}] * 100
    for _ in range(100):
        await device.send(type="ping")
    frames, close = await device.until_closed()
    assert close == (1008, "rate_limited")
    assert len(frames) < 60, "ten a second and no burst any more"


# -- the deadline of the token ---------------------------------------------------------------------------------------


async def test_a_bad_token_gets_an_error_and_the_old_deadline_stands(node: Node) -> None:
    user = node.user()
    token, other = user.token(), user.token()
    revoked = user.token()
    node.request("POST", "/auth/logout", token=revoked, expect=204)
    expires = int(time.time()) + 3
    device = await node.open(forged(token, exp=expires))
    past = int(time.time()) - 99
    for bad, code in (
        ("garbage", "token_invalid"),
        (token[:-4] + "AAAA", "token_invalid"),
        (forged(token, iat=past, exp=past + 9), "token_expired"),
        (revoked, "token_revoked"),
        (other, "credentials_conflict"),
        (node.user().token(), "credentials_conflict"),
        (node.client_token(), "credentials_conflict"),
        (forged(token, scope="other"), "insufficient_scope"),
    ):
        answer = await device.ask(type="token", token=bad)
        assert (answer["type"], answer["code"]) == ("error", code)
    assert await device.until_closed() == ([], (1008, "token_expired"))
    assert abs(time.time() - expires) <= 1


async def test_a_revoked_jti_ends_the_sockets_that_are_on_it_now(node: Node) -> None:
    signed_in = node.user().sign_in()
    token = signed_in["access_token"]
    body = {"refresh_token": signed_in["refresh_token"]}
    fresh = node.request("POST", "/auth/refresh", json=body, expect=200).json()["access_token"]
    stays, goes = await node.open(token), await node.open(token)
    assert (await stays.ask(type="token", token=fresh))["type"] == "ok"
    assert node.revoke(jti=claims_of(token)["jti"])["connections_closed"] == 1
    assert await goes.closed() == (1008, "token_revoked")
    await stays.quiet()


# -- heartbeats ------------------------------------------------------------------------------------------------------


async def test_WSF_16_who_never_answers_a_ping_is_dropped_and_who_does_stays(node: Node, dial: Dial) -> None:
    user = node.user()
    token = user.token()
    healthy = await node.open(token)
    silent = dial(node, token)
    opened = time.monotonic()
    await eventually_async(lambda: len(node.connections(user)) == 1, within=20, what="the silent one is dropped")
    after = time.monotonic() - opened
    assert 9.5 <= after <= HEARTBEAT + 10 + 1 + 1, after  # and a second for a busy machine
    silent.sock.settimeout(5)
    assert await asyncio.to_thread(ended, silent), "at the transport, too"
    await healthy.quiet()


def ended(raw: Raw) -> bool:
    while raw.more():
        pass
    return raw.buffer.endswith(b"\x89\x00")  # pings, and no close frame: it would not have been read


async def test_a_client_that_leaves_is_forgotten_at_once(node: Node, shop: str) -> None:
    user = node.user()
    token = user.token()
    before = node.open_files()
    polite, rude = await node.open(token), await node.open(token)
    await polite.close()
    rude.connection.transport.abort()
    await eventually_async(lambda: node.connections(user) == [], within=2, what="nobody is left")
    assert node.push(shop, user_id=user.id)["online"] is False
    await eventually_async(lambda: node.open_files() <= before, what="the descriptors are back")


# -- going away ------------------------------------------------------------------------------------------------------


async def test_WSF_13_a_drain_tells_every_client_when_to_come_back_and_ends_with_1012(
    start: Callable[..., Node], dial: Dial
) -> None:
    node = start()
    tokens = [node.user().token() for _ in range(2)]
    devices = [await node.open(token) for token in tokens for _ in range(12)]
    # These two never answer a close: they hold the drain up, so that there is a moment in which to be refused.
    for token in tokens:
        dial(node, token)
    stopping = asyncio.create_task(asyncio.to_thread(node.stop))
    first = await devices[0].next("reconnect")
    assert await node.refusal(tokens[0]) == (1012, "draining")
    assert node.request("GET", "/readyz").status_code == 503
    told = [first] + [await device.next("reconnect") for device in devices[1:]]
    assert {frame["reason"] for frame in told} == {"draining"}
    waits = [frame["after_ms"] for frame in told]
    assert all(0 < wait <= 60_000 for wait in waits)
    assert len(set(waits)) > 1, "jittered"
    for device in devices:
        assert await device.until_closed() == ([], (1012, "draining"))
    assert await stopping == 0


async def test_what_was_not_acknowledged_before_a_drain_is_sent_after_it(start: Callable[..., Node]) -> None:
    node = start()
    user = node.user()
    token = user.token()
    shop = node.client_token()
    device = await node.open(token)
    sent = node.push(shop, user_id=user.id)
    await device.next("notification")
    assert node.stop() == 0
    node.start()
    again = await node.open(token)
    assert again.hello["epoch"] == device.hello["epoch"]
    assert (await again.next("notification"))["id"] == sent["id"]
    assert node.stop() == 0
