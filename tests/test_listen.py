"""The rules a client keeps, and the client that keeps them: against a scripted gateway, on real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from scripted import Heard, hello, notification, playing, plays, scripted
from websockets.asyncio.server import ServerConnection

from gateway import closing
from gateway.client import Refused, Stopped, Unavailable
from gateway.client import listener as listening
from gateway.client.addresses import gateway_url, is_local
from gateway.client.listener import Listener
from gateway.client.rules import SHOWN_IDS, Backoff, Position, retry_after_close
from gateway.client.signin import Account, post

# -- rules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("close", closing.ALL, ids=lambda close: close.reason)
def test_every_close_of_the_table_is_answered_as_the_table_says(close: closing.Close) -> None:
    assert retry_after_close(close.code, close.reason) == close.retry


@pytest.mark.parametrize(
    ("code", "reason", "retry"),
    [
        (1008, "something_new", "stop"),
        (1008, "internal_error", "stop"),
        (1002, "", "bug"),
        (1009, "", "bug"),
        (1012, "", "after_ms"),
        (1013, "", "long_backoff"),
        (1000, "", "backoff"),
        (1001, "", "backoff"),
        (1011, "", "backoff"),
        (4321, "token_revoked", "backoff"),
        (None, "", "backoff"),
    ],
)
def test_an_unknown_reason_goes_by_its_code(code: int | None, reason: str, retry: closing.Retry) -> None:
    assert retry_after_close(code, reason) == retry


def test_backoff_has_full_jitter_under_a_ceiling_that_doubles_from_1_to_60_seconds() -> None:
    highest = Backoff(random=lambda: 1.0)
    assert [highest.next() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    lowest = Backoff(random=lambda: 0.0)
    assert [lowest.next() for _ in range(3)] == [0, 0, 0]
    highest.reset()
    assert highest.next() == 1


def test_backoff_never_overflows() -> None:
    assert Backoff(random=lambda: 1.0, failures=100_000).next() == 60


def test_a_long_backoff_is_never_short() -> None:
    assert Backoff(random=lambda: 0.0).long() == 30
    assert Backoff(random=lambda: 1.0).long() == 60


def test_a_position_moves_with_notifications_and_gaps_and_is_asked_for_with_its_epoch() -> None:
    position = Position()
    assert position.query() == {}
    for frame in (hello(3), notification(4), {"type": "gap", "from": 5, "to": 7}, notification(None, "passing")):
        assert position.take(frame)
    assert position.query() == {"after": "7", "epoch": "e1"}


def test_after_a_reset_the_numbers_are_forgotten_and_the_ids_are_not() -> None:
    position = Position()
    position.take(hello(0))
    position.take(notification(1, "same"))
    position.take(hello(0, epoch="e2", reset=True))
    assert position.query() == {"after": "0", "epoch": "e2"}
    assert not position.take(notification(1, "same"))
    assert position.query() == {"after": "1", "epoch": "e2"}


def test_a_withdrawn_notification_that_arrives_later_is_not_shown() -> None:
    position = Position()
    position.take(hello(0))
    assert position.take({"type": "withdrawn", "id": "n1", "seq": 1, "unread": 0, "rev": 1})
    assert not position.take(notification(1))


def test_a_frame_whose_rev_is_not_above_the_last_one_is_ignored() -> None:
    position = Position()
    position.take(hello(0, rev=5))
    assert not position.take({"type": "read", "up_to": 1, "unread": 0, "rev": 5})
    assert position.take({"type": "read", "up_to": 1, "unread": 0, "rev": 6})
    assert not position.take({"type": "changed", "unread": 0, "rev": 6})


def test_the_ids_kept_are_bounded() -> None:
    position = Position()
    for seq in range(SHOWN_IDS + 10):
        position.take(notification(seq))
    assert len(position.shown) == SHOWN_IDS


# -- the socket --------------------------------------------------------------------------------------------------


@dataclass
class Tokens:
    """Counts what is asked of it. ``renew_at`` far away unless a test brings it near."""

    renew_at: float = 1e12
    renewals: int = 0
    refusal: Exception | None = None

    async def token(self) -> str:
        return f"token-{self.renewals}"

    async def renew(self) -> str:
        if self.refusal is not None:
            raise self.refusal
        self.renewals += 1
        self.renew_at = 1e12
        return f"token-{self.renewals}"


def listener(url: str, heard: Heard, tokens: Tokens | None = None, **more: Any) -> Listener:
    async def sleep(seconds: float) -> None:
        heard.waits.append(seconds)

    return Listener(
        url=url,
        tokens=tokens or Tokens(),
        show=heard.shown.append,
        note=heard.notes.append,
        sleep=sleep,
        direct=True,
        backoff=Backoff(random=lambda: 0.5),
        **more,
    )


async def test_it_shows_what_comes_in_order_and_acknowledges_it_before_it_leaves() -> None:
    frames = [notification(1), notification(2), {"type": "gap", "from": 3, "to": 4}, notification(5)]
    async with playing(plays(hello(), *frames)) as (url, heard):
        await listener(url, heard, wanted=3).run()
    assert heard.seqs() == [1, 2, 5]
    assert [frame["type"] for frame in heard.shown] == ["hello", "notification", "notification", "gap", "notification"]
    assert heard.of("ack")[-1]["seq"] == 5


async def test_acks_are_sent_at_most_once_a_second() -> None:
    async with playing(plays(hello(), *[notification(seq) for seq in range(1, 201)])) as (url, heard):
        await listener(url, heard, wanted=200).run()
    assert len(heard.of("ack")) <= 3
    assert heard.of("ack")[-1]["seq"] == 200


async def test_without_acking_nothing_is_acknowledged() -> None:
    async with playing(plays(hello(), notification(1))) as (url, heard):
        await listener(url, heard, wanted=1, acking=False).run()
    assert heard.received == []


async def test_the_token_travels_in_the_header_and_never_in_the_url() -> None:
    async with playing(plays(hello(), notification(1))) as (url, heard):
        await listener(url, heard, wanted=1).run()
    (request,) = heard.requests
    assert request.headers["Authorization"] == "Bearer token-0"
    assert request.headers["Sec-WebSocket-Protocol"] == "notify.v1"
    assert "token" not in request.path


async def test_it_comes_back_where_it_was_after_a_jittered_wait() -> None:
    async with playing(
        plays(hello(), notification(1), close=closing.INTERNAL_ERROR), plays(hello(1), notification(2))
    ) as (url, heard):
        await listener(url, heard, wanted=2).run()
    assert heard.requests[1].path == "/ws?after=1&epoch=e1"
    assert heard.waits == [0.5]
    assert heard.seqs() == [1, 2]


async def test_a_starting_point_given_by_hand_acknowledges_nothing() -> None:
    async with playing(plays(hello(7, cursor=3), notification(None, "passing"))) as (url, heard):
        await listener(url, heard, wanted=1, position=Position(after=7), floor=7).run()
    assert heard.requests[0].path == "/ws?after=7"
    assert heard.of("ack") == []


async def test_what_was_shown_before_and_not_acknowledged_is_acknowledged_now() -> None:
    async with playing(plays(hello(7, cursor=3), notification(None, "passing"))) as (url, heard):
        await listener(url, heard, wanted=1, position=Position(after=7, epoch="e1")).run()
    assert heard.of("ack")[0]["seq"] == 7


async def test_an_expired_token_is_renewed_and_it_comes_back_at_once() -> None:
    tokens = Tokens()
    async with playing(plays(close=closing.TOKEN_EXPIRED), plays(hello(), notification(1))) as (url, heard):
        await listener(url, heard, tokens, wanted=1).run()
    assert heard.waits == [0.0]
    assert heard.requests[1].headers["Authorization"] == "Bearer token-1"


async def test_a_gateway_that_calls_every_token_expired_is_not_hammered() -> None:
    async with playing(*[plays(close=closing.TOKEN_EXPIRED)] * 4, plays(hello(), notification(1))) as (url, heard):
        await listener(url, heard, wanted=1).run()
    assert heard.waits == [0.0, 0.5, 1.0, 2.0]


@pytest.mark.parametrize("close", [closing.TOKEN_REVOKED, closing.USER_DISABLED, closing.TOKEN_INVALID])
async def test_a_revoked_listener_stops(close: closing.Close) -> None:
    async with playing(plays(hello(), close=close)) as (url, heard):
        with pytest.raises(Stopped, match=close.reason):
            await listener(url, heard).run()
    assert len(heard.requests) == 1


async def test_a_close_that_blames_the_client_says_so() -> None:
    async with playing(plays(hello(), close=closing.MESSAGE_TOO_BIG)) as (url, heard):
        with pytest.raises(Stopped) as caught:
            await listener(url, heard).run()
    assert caught.value.bug


async def test_when_there_is_no_room_it_stays_away_long() -> None:
    async with playing(plays(close=closing.CONNECTION_LIMIT), 503, plays(hello(), notification(1))) as (url, heard):
        await listener(url, heard, wanted=1).run()
    assert heard.waits == [45.0, 45.0]


async def test_a_draining_node_is_left_and_met_again_when_it_said() -> None:
    asked = {"type": "reconnect", "after_ms": 3_600_000, "reason": "draining"}
    async with playing(plays(hello(), asked, close=closing.DRAINING), plays(hello(), notification(1))) as (url, heard):
        await listener(url, heard, wanted=1).run()
    assert 3590 < heard.waits[0] <= 3600


async def test_it_leaves_by_itself_when_asked_to_reconnect() -> None:
    asked = {"type": "reconnect", "after_ms": 5, "reason": "draining"}
    async with playing(plays(hello(), notification(1), asked), plays(hello(1), notification(2))) as (url, heard):
        await listener(url, heard, wanted=2).run()
    assert heard.waits == [0.0]
    assert heard.of("ack")[-1]["seq"] == 2


async def test_after_a_silence_it_pings_and_an_answer_keeps_the_connection() -> None:
    pings = 0

    async def script(connection: ServerConnection) -> None:
        nonlocal pings
        await connection.send(json.dumps(hello(heartbeat=1)))
        async for text in connection:
            assert json.loads(text)["type"] == "ping"
            pings += 1
            await connection.send(json.dumps({"type": "pong"} if pings == 1 else notification(1)))

    async with scripted(script) as (url, heard):
        await listener(url, heard, wanted=1, acking=False).run()
    assert pings == 2
    assert heard.waits == []


async def test_a_gateway_that_does_not_answer_a_ping_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "PONG_WITHIN", 0.1)
    async with playing(plays(hello(heartbeat=1), notification(1)), plays(hello(1), notification(2))) as (url, heard):
        await listener(url, heard, wanted=2, acking=False).run()
    assert heard.of("ping")
    assert heard.waits == [0.5]
    assert heard.seqs() == [1, 2]


async def test_a_token_is_renewed_on_the_open_socket() -> None:
    tokens = Tokens(renew_at=0.0)

    async def script(connection: ServerConnection) -> None:
        await connection.send(json.dumps(hello()))
        frame = json.loads(await connection.recv())
        assert frame == {"type": "token", "token": "token-1"}
        await connection.send(json.dumps(notification(1)))
        await connection.wait_closed()

    async with scripted(script) as (url, heard):
        await listener(url, heard, tokens, wanted=1, acking=False).run()
    assert len(heard.requests) == 1


async def test_a_session_that_cannot_be_renewed_ends_the_listener() -> None:
    tokens = Tokens(renew_at=0.0, refusal=Refused("over", code="bad_credentials", status=401))
    async with playing(plays(hello())) as (url, heard):
        with pytest.raises(Refused, match="bad_credentials"):
            await listener(url, heard, tokens).run()


async def test_a_renewal_that_fails_for_now_is_tried_again_and_nothing_is_missed() -> None:
    tokens = Tokens(renew_at=0.0, refusal=Unavailable("the database is away", after=3600))
    async with playing(plays(hello(), notification(1))) as (url, heard):
        await listener(url, heard, tokens, wanted=1).run()
    assert heard.seqs() == [1]


async def test_a_redirect_is_not_followed() -> None:
    async with playing(302) as (url, heard):
        with pytest.raises(Stopped, match="302"):
            await listener(url, heard).run()
    assert len(heard.requests) == 1


async def test_a_refused_upgrade_is_tried_with_a_fresh_token() -> None:
    tokens = Tokens()
    async with playing(403, plays(hello(), notification(1))) as (url, heard):
        await listener(url, heard, tokens, wanted=1).run()
    assert tokens.renewals == 1


async def test_nobody_there_is_backed_off_from() -> None:
    async with playing(404) as (url, heard):
        pass  # closed again: the port is free
    tokens = Tokens()
    one = listener(url, heard, tokens)
    waits = heard.waits

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise asyncio.CancelledError

    one.sleep = sleep
    with pytest.raises(asyncio.CancelledError):
        await one.run()
    assert waits == [0.5, 1.0, 2.0]


NESTED = "[" * 100_000


@pytest.mark.parametrize(
    "text",
    ["no json", "[]", '"x"', "{}", '{"type": "hello"}', '{"type": "notification"}', pytest.param(NESTED, id="[…")],
)
async def test_a_server_of_another_protocol_is_left_for_good(text: str) -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.send(text)
        await connection.wait_closed()

    async with scripted(script) as (url, heard):
        with pytest.raises(Stopped) as caught:
            await listener(url, heard).run()
    assert caught.value.bug


@pytest.mark.parametrize("text", ["[]", pytest.param(NESTED, id="[…")])
async def test_it_is_left_also_by_who_has_something_to_acknowledge(text: str) -> None:
    async def script(connection: ServerConnection) -> None:
        for said in (*map(json.dumps, (hello(), notification(1), notification(2))), text, text):
            await connection.send(said)
        await connection.wait_closed()

    async with scripted(script) as (url, heard):
        with pytest.raises(Stopped) as caught:
            await listener(url, heard).run()
    assert caught.value.bug


async def test_unknown_frames_and_fields_are_taken_without_complaint() -> None:
    async with playing(plays(hello(new=1), {"type": "novelty"}, {**notification(1), "new": 1})) as (url, heard):
        await listener(url, heard, wanted=1).run()
    assert heard.seqs() == [1]


# -- signing in --------------------------------------------------------------------------------------------------


class Desk:
    """The HTTP side of a gateway, as far as a client sees it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, tuple[int, dict[str, Any], dict[str, str]]] = {}
        self.count = 0

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        self.asked.append((path, json.loads(request.content) if request.content[:1] == b"{" else {}))
        if path in self.answers:
            status, body, headers = self.answers[path]
            return httpx2.Response(status, json=body, headers=headers)
        self.count += 1
        return httpx2.Response(
            200, json={"access_token": f"a{self.count}", "refresh_token": f"r{self.count}", "expires_in": 900}
        )

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


@asynccontextmanager
async def desk() -> AsyncIterator[tuple[Desk, httpx2.AsyncClient]]:
    one = Desk()
    async with httpx2.AsyncClient(base_url="http://gateway.test", transport=httpx2.MockTransport(one)) as http:
        yield one, http


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def account(
    http: httpx2.AsyncClient, clock: Clock, *, kept: str | None = None, changed: list[str] | None = None
) -> Account:
    heard = [] if changed is None else changed
    return Account(
        http, username="alice", password=lambda: "pw", device="here", kept=kept, changed=heard.append, clock=clock
    )


async def test_it_signs_in_once_and_renews_by_the_newest_refresh_token() -> None:
    clock, changed = Clock(), list[str]()
    async with desk() as (asked, http):
        one = account(http, clock, changed=changed)
        assert await one.token() == "a1"
        assert await one.token() == "a1"
        assert one.renew_at == 100 + 900 - 60
        clock.now = 940
        assert await one.token() == "a2"
        assert await one.renew() == "a3"
    assert asked.asked == [
        ("/auth/login", {"username": "alice", "password": "pw", "device": "here"}),
        ("/auth/refresh", {"refresh_token": "r1"}),
        ("/auth/refresh", {"refresh_token": "r2"}),
    ]
    assert changed == ["r1", "r2", "r3"]


async def test_an_answer_that_got_lost_is_asked_for_again_with_the_same_refresh_token() -> None:
    async with desk() as (asked, http):
        one = account(http, Clock())
        await one.token()
        asked.answers["/auth/refresh"] = (503, {"code": "store_unavailable"}, {"Retry-After": "7"})
        with pytest.raises(Unavailable) as caught:
            await one.renew()
        assert caught.value.after == 7
        del asked.answers["/auth/refresh"]
        await one.renew()
    assert [body for path, body in asked.asked if path == "/auth/refresh"] == [{"refresh_token": "r1"}] * 2


async def test_a_session_that_was_ended_is_not_begun_again_by_the_password() -> None:
    async with desk() as (asked, http):
        one = account(http, Clock())
        await one.token()
        asked.answers["/auth/refresh"] = (401, {"code": "bad_credentials", "detail": "no"}, {})
        with pytest.raises(Refused, match="bad_credentials"):
            await one.renew()
    assert asked.paths() == ["/auth/login", "/auth/refresh"]


async def test_a_kept_session_needs_no_password_and_a_dead_one_falls_back_to_it() -> None:
    async with desk() as (asked, http):
        assert await account(http, Clock(), kept="old").token() == "a1"
        assert asked.asked == [("/auth/refresh", {"refresh_token": "old"})]
        asked.answers["/auth/refresh"] = (401, {"code": "bad_credentials"}, {})
        assert await account(http, Clock(), kept="dead").token() == "a2"
    assert asked.paths() == ["/auth/refresh", "/auth/refresh", "/auth/login"]


async def test_a_token_that_lives_shortly_is_renewed_in_its_last_quarter() -> None:
    async with desk() as (asked, http):
        asked.answers["/auth/login"] = (200, {"access_token": "a", "expires_in": 8}, {})
        one = account(http, Clock())
        await one.token()
        assert one.renew_at == 106


@pytest.mark.parametrize(
    "answer", [{}, {"access_token": "a"}, {"access_token": "a", "expires_in": "soon"}, {"expires_in": 900}]
)
async def test_who_answers_a_sign_in_without_a_token_is_no_gateway(answer: dict[str, Any]) -> None:
    async with desk() as (asked, http):
        asked.answers["/auth/login"] = (200, answer, {})
        with pytest.raises(Refused, match="not look like a gateway"):
            await account(http, Clock()).token()


async def test_a_token_that_is_born_expired_is_not_renewed_all_the_time() -> None:
    async with desk() as (asked, http):
        asked.answers["/auth/login"] = (200, {"access_token": "a", "expires_in": 0}, {})
        one = account(http, clock := Clock())
        await one.token()
        assert one.renew_at >= clock.now + 0.75


async def test_errors_say_the_code_and_the_field_and_nothing_that_was_sent() -> None:
    async with desk() as (asked, http):
        problem = {"code": "validation_failed", "detail": "No.", "errors": [{"pointer": "/ttl", "detail": "too long"}]}
        asked.answers["/notifications"] = (422, problem, {})
        with pytest.raises(Refused, match=r"No\. /ttl: too long \(validation_failed\)"):
            await post(http, "/notifications", json={"secret": 1})
        asked.answers["/notifications"] = (307, {}, {"Location": "http://elsewhere.test/"})
        with pytest.raises(Refused, match="HTTP 307"):
            await post(http, "/notifications", json={})
    assert len(asked.asked) == 2


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://x", "http://", "http://u:p@x", "http://x/?q", "", "http://[x"]
)
def test_what_is_no_address_of_a_gateway_is_refused(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its words are for people
        gateway_url(url)


def test_only_this_machine_is_local() -> None:
    assert gateway_url("https://push.example/base/") == "https://push.example/base"
    assert all(map(is_local, ("http://127.0.0.1:8000", "http://localhost", "http://[::1]:1")))
    assert not any(map(is_local, ("http://10.0.0.1", "http://localhost.example", "http://push.example")))
