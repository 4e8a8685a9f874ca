"""Every HTTP answer carries a request id and the security headers; every request is one log line without its query."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from gateway.api.edge import Edge
from gateway.api.openapi import install


@pytest.mark.parametrize("path", ["/healthz", "/nowhere", "/inbox", "/auth/me", "/.well-known/jwks.json"])
async def test_every_answer_has_the_security_headers(http: httpx2.AsyncClient, path: str) -> None:
    headers = (await http.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/auth/me", "/auth/login", "/auth/token", "/auth/nowhere"])
async def test_nothing_under_auth_is_ever_cached(http: httpx2.AsyncClient, path: str) -> None:
    headers = (await http.get(path)).headers
    assert (headers["cache-control"], headers["pragma"]) == ("no-store", "no-cache")


async def test_what_says_how_long_it_keeps_is_left_alone(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/.well-known/jwks.json")).headers["cache-control"] == "public, max-age=300"


async def test_a_sane_request_id_is_echoed(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/healthz", headers={"X-Request-Id": "trace-1.2_3"})
    assert answer.headers["x-request-id"] == "trace-1.2_3"


@pytest.mark.parametrize("sent", [None, "", "a b", "x" * 129, "<script>", "a\tb"])
async def test_any_other_request_id_is_replaced_by_a_fresh_one(http: httpx2.AsyncClient, sent: str | None) -> None:
    headers = {"X-Request-Id": sent} if sent is not None else {}
    first, second = [(await http.get("/healthz", headers=headers)).headers["x-request-id"] for _ in range(2)]
    assert len(first) == 32
    assert first not in (sent, second)


async def test_the_request_id_is_bound_for_the_log(services: SimpleNamespace) -> None:
    bound: list[str] = []
    app = FastAPI()
    install(app, bind=bound.append)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://gateway.test") as client:
        await client.get("/healthz", headers={"X-Request-Id": "trace-1"})
    assert bound == ["trace-1"]


async def test_the_actor_of_an_audit_row_has_the_request_id(
    http: httpx2.AsyncClient, services: SimpleNamespace, as_: Any
) -> None:
    await http.post("/auth/logout", headers=as_("ada") | {"X-Request-Id": "trace-1"})
    ((_, _, by),) = services.revoker.revoked
    assert (by.id, by.request_id, by.address) == ("ada", "trace-1", "127.0.0.1")


async def test_a_request_is_one_line_without_its_query(
    http: httpx2.AsyncClient, as_: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="gateway.http"):
        await http.get("/inbox/a%0Ab?token=canary", headers=as_("ada"))
    (record,) = [one for one in caplog.records if one.name == "gateway.http"]
    assert vars(record)["path"] == "/inbox/a%0Ab"
    assert (vars(record)["status"], vars(record)["method"], vars(record)["subject"]) == (404, "GET", "ada")
    assert "canary" not in str(vars(record))


async def test_probes_are_logged_only_when_they_fail(
    http: httpx2.AsyncClient, services: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="gateway.http"):
        await http.get("/readyz")
        assert not caplog.records
        services.readiness.reasons = ["the database"]
        await http.get("/readyz")
    assert len(caplog.records) == 1


async def test_a_client_that_goes_away_while_it_sends_is_no_error(
    app: FastAPI, services: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError("nobody is there")

    headers = [(b"authorization", b"Bearer shop"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/notifications", "root_path": "", "headers": headers}
    with caplog.at_level(logging.WARNING):
        await app({**scope, "query_string": b"", "state": {"services": services}}, receive, send)
    assert not caplog.records


async def test_sockets_pass_straight_through() -> None:
    seen: list[Any] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend((scope, receive, send))

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    scope = {"type": "websocket", "path": "/ws"}
    await Edge(inner)(scope, receive, send)
    assert seen == [scope, receive, send]
    assert "state" not in scope
