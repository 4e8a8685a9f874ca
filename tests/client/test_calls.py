"""What a sending client does with answers, silence and time. A scripted gateway, virtual time; no sockets."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from gateway.client import (
    AsyncGateway,
    Forbidden,
    Gateway,
    GatewayError,
    Invalid,
    NotFound,
    Push,
    RateLimited,
    Refused,
    Unauthorized,
    Unavailable,
)
from gateway.client.batches import MAX_BYTES

STORED = {
    "id": "n1", "user_id": "42", "seq": 7, "online": True,
    "created_at": "2026-11-20T17:27:23.516Z", "expires_at": "2026-12-20T17:27:23.516Z",
}  # fmt: skip
Said = dict[str, Any] | str
Reply = tuple[int, Said] | tuple[int, Said, dict[str, str]] | type[httpx2.TransportError]
Made = Callable[[Any], Any]


class Scene:
    """One client of ``kind`` at a gateway that answers ``replies`` in turn, then 201. Time passes only by waiting."""

    loop: asyncio.Runner | None = None

    def __init__(self, kind: str, *replies: Reply, **options: Any) -> None:
        self.replies, self.requests = list(replies), list[httpx2.Request]()
        self.tokens: list[Reply] = []
        self.token_requests: list[httpx2.Request] = []
        self.now, self.waits = 1000.0, list[float]()
        options = {"url": "http://gateway.test", "client_id": "c~1", "client_secret": "s", **options}
        options |= {"clock": lambda: self.now, "random": lambda: 1.0, "transport": httpx2.MockTransport(self._answer)}
        if kind == "sync":
            gateway = Gateway(**options, sleep=self._wait)

            def run(made: Made) -> Any:
                return made(gateway)
        else:
            loop, other = asyncio.Runner(), AsyncGateway(**options, sleep=self._wait_async)

            def run(made: Made) -> Any:
                async def call() -> Any:
                    return await made(other)

                return loop.run(call())

            self.loop = loop
        self.run = run

    def close(self) -> None:
        if self.loop is not None:
            self.loop.close()

    def push(self, **fields: Any) -> Any:
        return self.run(lambda gateway: gateway.push(**{"user_id": "42", "title": "t", **fields}))

    def push_many(self, *items: Push) -> Any:
        return self.run(lambda gateway: gateway.push_many(items))

    def keys(self) -> list[str | None]:
        return [request.headers.get("idempotency-key") for request in self.requests]

    def items(self) -> list[list[dict[str, Any]]]:
        return [json.loads(request.content)["notifications"] for request in self.requests]

    def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    async def _wait_async(self, seconds: float) -> None:
        self._wait(seconds)

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/auth/token":
            self.token_requests.append(request)
            count = len(self.token_requests)
            reply = self.tokens.pop(0) if self.tokens else (200, {"access_token": f"a{count}", "expires_in": 900})
        else:
            self.requests.append(request)
            reply = self.replies.pop(0) if self.replies else (201, STORED)
        if isinstance(reply, type):
            raise reply("lost with the secret inside", request=request)
        status, body, headers = reply if len(reply) == 3 else (*reply, {})
        content = body if isinstance(body, str) else json.dumps(body)
        return httpx2.Response(status, text=content, headers=headers)


Begin = Callable[..., Scene]


@pytest.fixture(params=["sync", "async"])
def scene(request: pytest.FixtureRequest) -> Any:
    scenes: list[Scene] = []

    def begin(*replies: Reply, **options: Any) -> Scene:
        scenes.append(Scene(request.param, *replies, **options))
        return scenes[-1]

    yield begin
    for one in scenes:
        one.close()


def problem(status: int, code: str, headers: dict[str, str] | None = None, **more: Any) -> Reply:
    return status, {"status": status, "code": code, "detail": "Why.", **more}, headers or {}


def item(status: int, code: str = "") -> dict[str, Any]:
    return {"status": 201, **STORED} if status == 201 else {"status": status, "code": code, "detail": "Why."}


def results(*items: dict[str, Any]) -> Reply:
    return 200, {"results": list(items)}


# -- one push ----------------------------------------------------------------------------------------------------


def test_a_push_is_what_the_api_takes_and_its_answer_is_typed(scene: Begin) -> None:
    one = scene()
    pushed = one.push(body="b", data={"order": 1, "ü": "€"}, category="c", priority="high", ttl=60)
    assert (pushed.id, pushed.user_id, pushed.seq, pushed.online, pushed.replayed) == ("n1", "42", 7, True, False)
    assert pushed.created_at.isoformat() == "2026-11-20T17:27:23.516000+00:00"
    (request,) = one.requests
    assert (request.method, request.url.path) == ("POST", "/notifications")
    assert json.loads(request.content) == {
        "user_id": "42", "title": "t", "body": "b", "data": {"order": 1, "ü": "€"}, "category": "c",
        "priority": "high", "ttl": 60,
    }  # fmt: skip
    assert request.headers["authorization"] == "Bearer a1"
    assert pushed.idempotency_key == one.keys()[0] is not None


def test_what_is_left_out_is_left_to_the_gateway(scene: Begin) -> None:
    one = scene()
    one.push()
    assert json.loads(one.requests[0].content) == {"user_id": "42", "title": "t"}


def test_a_key_of_ones_own_is_used_as_it_is(scene: Begin) -> None:
    one = scene((201, STORED, {"Idempotency-Replayed": "true"}))
    pushed = one.push(idempotency_key="order-1234")
    assert (one.keys(), pushed.idempotency_key, pushed.replayed) == (["order-1234"], "order-1234", True)


def test_each_push_has_a_key_of_its_own_and_what_is_stored_nowhere_has_none(scene: Begin) -> None:
    one = scene((201, STORED), (201, STORED), (202, {"id": "n2", "online": None}))
    one.push()
    one.push()
    passed = one.push(ttl=0)
    first, second, none = one.keys()
    assert first != second
    assert none is None
    assert (passed.id, passed.online, passed.seq, passed.idempotency_key) == ("n2", None, None, None)


def test_to_several_there_is_a_result_for_each_and_to_everyone_a_count(scene: Begin) -> None:
    one = scene(results(item(201), item(404, "unknown_user")), (202, {"id": "n3", "online_count": 5}))
    pushed = one.push(user_id=None, user_ids=("42", "43"))
    assert [(result.ok, result.seq) for result in pushed.results] == [(True, 7), (False, None)]
    assert (pushed.results[1].problem.status, pushed.results[1].problem.code) == (404, "unknown_user")
    assert one.push(user_id=None, everyone=True, ttl=0).online_count == 5
    assert json.loads(one.requests[1].content) == {"everyone": True, "title": "t", "ttl": 0}


def test_one_id_where_many_are_meant_is_not_taken_for_its_letters(scene: Begin) -> None:
    with pytest.raises(TypeError, match="user_id"):
        scene().push(user_id=None, user_ids="42")


def test_what_json_cannot_hold_is_refused_before_anything_is_sent(scene: Begin) -> None:
    one = scene()
    with pytest.raises(TypeError):
        one.push(data={"at": object()})
    with pytest.raises(ValueError, match="JSON compliant"):
        one.push(data={"at": float("nan")})
    assert one.requests == []


def test_half_a_surrogate_pair_is_for_the_gateway_to_refuse(scene: Begin) -> None:
    one = scene()
    one.push(title="\ud800")
    assert b'"\\ud800"' in one.requests[0].content


# -- retries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lost", [httpx2.ConnectError, httpx2.ReadTimeout, httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.PoolTimeout]
)
def test_silence_is_asked_again_with_the_same_key(scene: Begin, lost: type[httpx2.TransportError]) -> None:
    one = scene(lost, lost)
    assert one.push().id == "n1"
    assert len(set(one.keys())) == 1
    assert len({request.content for request in one.requests}) == 1
    assert one.waits == [0.25, 0.5]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_an_answer_that_leaves_it_open_is_asked_again_with_the_same_key(scene: Begin, status: int) -> None:
    one = scene(problem(status, "store_unavailable"), (status, "<html>"))
    assert one.push().id == "n1"
    assert len(set(one.keys())) == 1


def test_the_wait_that_is_asked_for_is_kept_and_jitter_comes_on_top(scene: Begin) -> None:
    one = scene(
        problem(503, "store_unavailable", {"Retry-After": "3"}), problem(429, "rate_limited", {"Retry-After": "2"})
    )
    one.push()
    assert one.waits == [3.25, 2.5]


SENT = {"Date": "Sat, 21 Nov 2026 12:00:00 GMT"}


@pytest.mark.parametrize(
    ("headers", "after"),
    [
        ({"Retry-After": "Sat, 21 Nov 2026 12:00:20 GMT", **SENT}, 20),
        ({"Retry-After": "Saturday, 21-Nov-26 12:00:20 GMT", **SENT}, 20),
        ({"Retry-After": "Sat, 21 Nov 2026 13:00:20 +0100", **SENT}, 20),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:00 GMT", **SENT}, 3600),
        ({"Retry-After": "9" * 400}, 3600),
        ({"Retry-After": "Sat, 21 Nov 2026 11:59:00 GMT", **SENT}, 0),
        ({"Retry-After": "Sat, 21 Nov 2026 12:00:20 GMT"}, 0),
        ({"Retry-After": "Sat, 21 Nov 2026 12:00:20 -0000", **SENT}, 0),
        ({"Retry-After": "Sat, 21 Nov 2026 12:00:20 GMT", "Date": "today"}, 0),
        ({"Retry-After": "Sat, 21 Nov 2026 12:00:20 +99999999999999", **SENT}, 0),
        ({"Retry-After": "-5", **SENT}, 0),
        ({"Retry-After": "soon", **SENT}, 0),
    ],
)
def test_a_proxy_may_say_until_when_and_no_clock_here_has_to_be_right(
    scene: Begin, headers: dict[str, str], after: float
) -> None:
    one = scene(problem(503, "store_unavailable", headers), attempts=1)
    with pytest.raises(Unavailable) as caught:
        one.push()
    assert caught.value.after == after


def test_a_wait_beyond_the_deadline_is_not_begun(scene: Begin) -> None:
    one = scene(problem(429, "rate_limited", {"Retry-After": "31"}, instance="/notifications"))
    with pytest.raises(RateLimited) as caught:
        one.push()
    assert (caught.value.after, caught.value.code, caught.value.unknown, one.waits) == (31, "rate_limited", False, [])


def test_the_waits_have_a_ceiling_that_doubles_and_all_of_it_a_deadline(scene: Begin) -> None:
    one = scene(*[httpx2.ReadTimeout] * 50, attempts=50)
    with pytest.raises(Unavailable) as caught:
        one.push()
    assert one.waits[:7] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, pytest.approx((30 - 15.75) / 2)]
    assert sum(one.waits) < 30
    assert caught.value.unknown
    assert caught.value.idempotency_key == one.keys()[0]
    assert "secret" not in str(caught.value), "some transports put the request into their text"


def test_the_attempts_are_counted(scene: Begin) -> None:
    one = scene(*[httpx2.ReadTimeout] * 50, attempts=3)
    with pytest.raises(Unavailable):
        one.push()
    assert len(one.requests) == 3


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "idempotency_key_invalid", Refused),
        (403, "insufficient_scope", Forbidden),
        (404, "unknown_user", NotFound),
        (409, "id_taken", Refused),
        (413, "payload_too_large", Refused),
        (422, "idempotency_mismatch", Invalid),
    ],
)
def test_a_refusal_is_not_asked_again(scene: Begin, status: int, code: str, kind: type[GatewayError]) -> None:
    one = scene(problem(status, code, {"X-Request-Id": "r1"}))
    with pytest.raises(kind) as caught:
        one.push()
    assert len(one.requests) == 1
    error = caught.value
    assert (error.status, error.code, error.detail, error.request_id) == (status, code, "Why.", "r1")
    assert not error.unknown


def test_a_refusal_names_the_fields(scene: Begin) -> None:
    one = scene(problem(422, "validation_failed", errors=[{"pointer": "/ttl", "detail": "has to be an integer"}]))
    with pytest.raises(Invalid, match="/ttl: has to be an integer") as caught:
        one.push(ttl="1h")
    assert [(error.pointer, error.detail) for error in caught.value.errors] == [("/ttl", "has to be an integer")]


def test_a_refusal_after_a_lost_answer_leaves_it_open(scene: Begin) -> None:
    one = scene(httpx2.ReadTimeout, problem(403, "insufficient_scope"))
    with pytest.raises(Forbidden) as caught:
        one.push()
    assert caught.value.unknown


@pytest.mark.parametrize("reply", [httpx2.ReadTimeout, (502, ""), (504, ""), problem(500, "internal_error")])
def test_what_may_have_been_passed_on_is_not_passed_on_twice(scene: Begin, reply: Reply) -> None:
    one = scene(reply)
    with pytest.raises(Unavailable):
        one.push(ttl=0)
    assert len(one.requests) == 1


@pytest.mark.parametrize(
    "reply", [httpx2.ConnectError, problem(503, "revocations_stale"), problem(429, "rate_limited")]
)
def test_what_was_certainly_not_passed_on_is(scene: Begin, reply: Reply) -> None:
    one = scene(reply, (202, {"id": "n2", "online": True}))
    assert one.push(ttl=0).id == "n2"


@pytest.mark.parametrize(
    "reply", [(200, {"hello": "world"}), (200, "<html>"), (302, {}), pytest.param((200, "[" * 100_000), id="[…")]
)
def test_who_is_no_gateway_is_told_from_one(scene: Begin, reply: Reply) -> None:
    one = scene(reply)
    with pytest.raises(Refused, match="not look like a gateway"):
        one.push()
    assert len(one.requests) == 1


# -- the token ---------------------------------------------------------------------------------------------------


def test_the_token_is_fetched_when_it_is_wanted_and_kept(scene: Begin) -> None:
    one = scene()
    assert one.token_requests == []
    one.push()
    one.push()
    (request,) = one.token_requests
    assert base64.b64decode(request.headers["authorization"].removeprefix("Basic ")) == b"c~1:s"
    assert request.content == b"grant_type=client_credentials"


def test_the_token_is_renewed_a_minute_before_it_expires(scene: Begin) -> None:
    one = scene()
    one.push()
    one.now += 839
    one.push()
    one.now += 1
    one.push()
    assert [request.headers["authorization"] for request in one.requests] == ["Bearer a1", "Bearer a1", "Bearer a2"]


def test_a_renewal_that_fails_for_now_does_not_hold_up_what_the_old_token_can_do(scene: Begin) -> None:
    one = scene()
    one.push()
    one.now += 850
    one.tokens = [httpx2.ReadTimeout]
    one.push()
    assert (one.waits, one.requests[1].headers["authorization"]) == ([], "Bearer a1")
    one.now += 5
    one.push()
    assert one.requests[2].headers["authorization"] == "Bearer a3"


def test_a_refused_token_is_replaced_once(scene: Begin) -> None:
    one = scene(problem(401, "token_revoked"))
    assert one.push().id == "n1"
    assert [request.headers["authorization"] for request in one.requests] == ["Bearer a1", "Bearer a2"]
    assert len(set(one.keys())) == 1
    one = scene(*[problem(401, "token_revoked")] * 2)
    with pytest.raises(Unauthorized, match="token_revoked"):
        one.push()
    assert (len(one.requests), len(one.token_requests), one.waits) == (2, 2, [])


def test_a_wrong_secret_is_not_tried_twice(scene: Begin) -> None:
    one = scene()
    one.tokens = [(401, {"error": "invalid_client", "error_description": "The credentials are not right."})]
    with pytest.raises(Unauthorized, match="invalid_client"):
        one.push()
    assert (len(one.token_requests), one.requests) == (1, [])


def test_a_gateway_that_is_away_is_waited_for_and_then_it_is_known_that_nothing_was_sent(scene: Begin) -> None:
    one = scene()
    one.tokens = [httpx2.ConnectError, problem(503, "store_unavailable")]
    assert one.push().id == "n1"
    one = scene()
    one.tokens = [httpx2.ReadTimeout] * 200
    with pytest.raises(Unavailable) as caught:
        one.push()
    assert (caught.value.unknown, one.requests) == (False, [])
    assert sum(one.waits) <= 30


async def test_tasks_that_want_a_token_at_once_fetch_one() -> None:
    tokens = 0

    async def answer(request: httpx2.Request) -> httpx2.Response:
        nonlocal tokens
        if request.url.path == "/auth/token":
            tokens += 1
            token = f"a{tokens}"
            await asyncio.to_thread(str)  # the others get their turn meanwhile
            return httpx2.Response(200, json={"access_token": token, "expires_in": 900})
        if request.headers["authorization"] == "Bearer a1":
            return httpx2.Response(401, json={"code": "token_revoked"})
        return httpx2.Response(201, json=STORED)

    transport = httpx2.MockTransport(answer)
    async with AsyncGateway("http://g.test", client_id="c", client_secret="s", transport=transport) as gateway:
        await asyncio.gather(*(gateway.push(user_id="42", title="t") for _ in range(20)))
    assert tokens == 2


# -- many --------------------------------------------------------------------------------------------------------


def pushes(amount: int, **fields: Any) -> list[Push]:
    return [Push(user_id=f"u{number}", title="t", **fields) for number in range(amount)]


def test_many_are_told_apart_in_the_order_given(scene: Begin) -> None:
    one = scene(results(item(201), item(404, "unknown_user"), {"status": 202, "id": "n2", "online": False}))
    stored, refused, passed = one.push_many(*pushes(2), Push(user_id="u2", title="t", ttl=0))
    assert (stored.ok, stored.seq, refused.ok, refused.problem.code) == (True, 7, False, "unknown_user")
    assert (refused.user_id, refused.unknown, passed.id, passed.online) == ("u1", False, "n2", False)
    ((first, second, third),) = one.items()
    assert (first["idempotency_key"], second["idempotency_key"]) == (stored.idempotency_key, refused.idempotency_key)
    assert third == {"user_id": "u2", "title": "t", "ttl": 0}
    assert one.keys() == [None], "a batch has no key of its own"


def test_none_are_no_request(scene: Begin) -> None:
    one = scene()
    assert one.push_many() == []
    assert one.requests == []


def test_a_batch_holds_a_thousand(scene: Begin) -> None:
    sizes = (1000, 1000, 1)
    one = scene(*[results(*[item(201)] * size) for size in sizes])
    assert len(one.push_many(*pushes(2001))) == 2001
    assert tuple(map(len, one.items())) == sizes


def test_a_batch_holds_two_mebibytes_and_an_item_that_is_larger_is_refused_by_itself(scene: Begin) -> None:
    one = scene(*[results(*[item(201)] * size) for size in (2, 2)])
    big, huge = "x" * (MAX_BYTES // 2 - 200), "x" * MAX_BYTES
    bodies = [big, huge, big, big, big]
    told = one.push_many(*[Push(user_id=str(at), title="t", body=body) for at, body in enumerate(bodies)])
    assert [result.ok for result in told] == [True, False, True, True, True]
    assert (told[1].problem.status, told[1].problem.code) == (413, "payload_too_large")
    assert [[one["user_id"] for one in batch] for batch in one.items()] == [["0", "2"], ["3", "4"]]
    assert all(len(request.content) <= MAX_BYTES for request in one.requests)


def test_items_that_are_told_to_come_again_are_sent_again_by_themselves(scene: Begin) -> None:
    again = item(503, "store_unavailable")
    one = scene(
        results(item(201), again, item(422, "validation_failed"), again), results(item(201), again), results(item(201))
    )
    told = one.push_many(*pushes(4))
    assert [result.ok for result in told] == [True, True, False, True]
    assert [[one["user_id"] for one in batch] for batch in one.items()] == [
        ["u0", "u1", "u2", "u3"],
        ["u1", "u3"],
        ["u3"],
    ]
    assert [batch[-1]["idempotency_key"] for batch in one.items()] == [told[3].idempotency_key] * 3


def test_an_item_that_stays_open_is_said_to_be_with_the_key_to_try_again(scene: Begin) -> None:
    one = scene(*[results(item(503, "store_unavailable"))] * 50)
    (result,) = one.push_many(*pushes(1))
    assert (result.ok, result.unknown, len(one.requests)) == (False, True, 10)
    assert result.idempotency_key == one.items()[0][0]["idempotency_key"]


def test_a_batch_that_fails_as_a_whole_raises_with_what_is_known_of_each(scene: Begin) -> None:
    one = scene(results(*[item(201)] * 1000), *[httpx2.ReadTimeout] * 50)
    with pytest.raises(Unavailable) as caught:
        one.push_many(*pushes(2001))
    told = caught.value.results
    assert [(told[at].ok, told[at].unknown) for at in (0, 999, 1000, 1999, 2000)] == [
        (True, False), (True, False), (False, True), (False, True), (False, False),
    ]  # fmt: skip
    assert told[2000].problem is not None
    assert told[2000].problem.detail == "not sent"
    assert told[1000].idempotency_key == one.items()[1][0]["idempotency_key"]


def test_a_batch_without_a_key_in_one_item_is_not_repeated_when_it_may_have_been_taken(scene: Begin) -> None:
    one = scene(httpx2.ReadTimeout)
    with pytest.raises(Unavailable):
        one.push_many(*pushes(1), *pushes(1, ttl=0))
    assert len(one.requests) == 1


# -- receipts ----------------------------------------------------------------------------------------------------


def test_a_receipt_is_typed_and_an_id_cannot_lead_elsewhere(scene: Begin) -> None:
    told = {**STORED, "state": "read", "acknowledged_at": "2026-11-20T17:27:24.000Z", "read_at": None}
    one = scene(httpx2.ReadTimeout, (200, told), problem(404, "unknown_notification"))
    receipt = one.run(lambda gateway: gateway.receipt("n1"))
    assert (receipt.state, receipt.seq, receipt.read_at, receipt.acknowledged_at.second) == ("read", 7, None, 24)
    with pytest.raises(NotFound):
        one.run(lambda gateway: gateway.receipt("../admin/users?x"))
    assert one.requests[2].url.raw_path == b"/notifications/..%2Fadmin%2Fusers%3Fx"


def test_withdrawing_is_asked_again(scene: Begin) -> None:
    one = scene(httpx2.ReadTimeout, (204, ""))
    assert one.run(lambda gateway: gateway.withdraw("n1")) is None
    assert [(request.method, request.url.path) for request in one.requests] == [("DELETE", "/notifications/n1")] * 2


def test_an_address_that_is_none_is_said_so(scene: Begin) -> None:
    with pytest.raises(ValueError, match="http"):
        scene(url="gateway.test")


def test_a_ready_token_is_used_as_it_is_and_not_renewed() -> None:
    asked = list[httpx2.Request]()

    def refuses(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(401, json={"code": "token_expired", "detail": "It has."})

    gateway = Gateway("http://gateway.test", token="mine", transport=httpx2.MockTransport(refuses))
    with gateway, pytest.raises(Unauthorized, match="token_expired"):
        gateway.push(user_id="42", title="hi")
    assert [request.headers["authorization"] for request in asked] == ["Bearer mine"]


@pytest.mark.parametrize("who", [{}, {"client_id": "c~1"}, {"client_id": "c~1", "client_secret": "s", "token": "t"}])
def test_who_sends_has_to_be_said_once(who: dict[str, Any]) -> None:
    for kind in (Gateway, AsyncGateway):
        with pytest.raises(ValueError, match="who sends"):
            kind("http://gateway.test", **who)
