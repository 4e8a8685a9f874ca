"""Every error is a problem (RFC 9457) whose status is that of the answer, and says nothing it should not (API-01)."""

from __future__ import annotations

import inspect
import logging
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from gateway import errors
from gateway.api import problems
from gateway.errors import (
    BadCredentials,
    Conflict,
    CredentialsConflict,
    GatewayError,
    InsufficientScope,
    Invalid,
    Limited,
    NotFound,
    RevocationsStale,
    StoreUnavailable,
    TokenExpired,
    TokenInvalid,
    TokenMissing,
    TokenRevoked,
    UserDisabled,
)

MEMBERS = {"type", "title", "status", "detail", "instance", "code"}
ROUTES = "GET /inbox", "POST /notifications", "PUT /auth/password", "DELETE /inbox/n1", "GET /auth/me", "GET /metrics"


def checked(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert set(problem) >= MEMBERS
    assert (problem["status"], problem["code"], problem["instance"]) == (status, code, answer.request.url.path)
    return problem


def raising(app: FastAPI, error: Exception) -> None:
    async def boom(request: Request) -> Response:
        raise error

    app.router.add_route("/boom", boom)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (TokenMissing(), 401, "token_missing"),
        (TokenInvalid("sig"), 401, "token_invalid"),
        (TokenExpired(), 401, "token_expired"),
        (TokenRevoked(), 401, "token_revoked"),
        (UserDisabled(), 401, "user_disabled"),
        (CredentialsConflict(), 401, "credentials_conflict"),
        (BadCredentials(), 401, "bad_credentials"),
        (InsufficientScope("admin"), 403, "insufficient_scope"),
        (NotFound("user"), 404, "unknown_user"),
        (Conflict("id_taken", "Taken."), 409, "id_taken"),
        (Invalid(), 422, "validation_failed"),
        (Limited("push", retry_after=0.2, quota=10, window=1), 429, "rate_limited"),
        (StoreUnavailable(), 503, "store_unavailable"),
        (RevocationsStale(), 503, "revocations_stale"),
    ],
    ids=lambda value: value.__class__.__name__ if isinstance(value, GatewayError) else str(value),
)
async def test_each_decision_has_its_status(
    app: FastAPI, http: httpx2.AsyncClient, error: GatewayError, status: int, code: str
) -> None:
    raising(app, error)
    checked(await http.get("/boom?token=canary"), status, code)


def test_no_class_of_the_tree_is_without_a_status() -> None:
    kinds = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, GatewayError)]
    assert [kind for kind in kinds if not any(issubclass(kind, known) for known, _ in problems._STATUS)] == [
        GatewayError
    ]


@pytest.mark.parametrize("error", [TokenInvalid("bad signature"), TokenExpired(), TokenRevoked(), UserDisabled()])
async def test_a_bad_token_is_challenged_as_invalid_token(
    app: FastAPI, http: httpx2.AsyncClient, error: GatewayError
) -> None:
    raising(app, error)
    answer = await http.get("/boom")
    assert answer.headers["www-authenticate"] == 'Bearer realm="notification-gateway", error="invalid_token"'
    assert "bad signature" not in answer.text


@pytest.mark.parametrize("route", ROUTES)
async def test_without_credentials_the_challenge_names_the_realm_only(http: httpx2.AsyncClient, route: str) -> None:
    method, path = route.split()
    answer = await http.request(method, path)
    checked(answer, 401, "token_missing")
    assert answer.headers["www-authenticate"] == 'Bearer realm="notification-gateway"'


@pytest.mark.parametrize("value", ["Basic cm9vdDpyaWdodA==", "Bearer", "Bearer ", "root", "Digest root"])
async def test_another_scheme_is_no_credentials(http: httpx2.AsyncClient, value: str) -> None:
    answer = await http.get("/auth/me", headers={"Authorization": value})
    checked(answer, 401, "token_missing")


@pytest.mark.parametrize("value", ["Bearer nobody", "bearer nobody", "BEARER root root", "Bearer \xff"])
async def test_a_token_that_does_not_count_is_invalid(http: httpx2.AsyncClient, value: str) -> None:
    checked(await http.get("/auth/me", headers={b"Authorization": value.encode("latin-1")}), 401, "token_invalid")


async def test_two_authorization_headers_are_refused(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/auth/me", headers=[("Authorization", "Bearer root"), ("Authorization", "Bearer ada")])
    checked(answer, 401, "credentials_conflict")


@pytest.mark.parametrize("path", ["/auth/me?access_token=root", "/auth/me?token=root"])
async def test_a_token_in_the_query_is_no_token(http: httpx2.AsyncClient, path: str) -> None:
    answer = await http.get(path, headers={"Cookie": "token=root; access_token=root"})
    checked(answer, 401, "token_missing")


@pytest.mark.parametrize(
    ("who", "route", "scope"),
    [
        ("ada", "POST /notifications", "notifications:write"),
        ("ada", "GET /notifications/n1", "notifications:write"),
        ("shop", "GET /inbox", "inbox"),
        ("shop", "GET /auth/sessions", "inbox"),
        ("shop", "GET /admin/users", "admin"),
        ("ada", "GET /metrics", "admin"),
    ],
)
async def test_the_wrong_scope_is_403_and_names_the_right_one(
    http: httpx2.AsyncClient, as_: Any, who: str, route: str, scope: str
) -> None:
    method, path = route.split()
    answer = await http.request(method, path, headers=as_(who))
    checked(answer, 403, "insufficient_scope")
    challenge = answer.headers["www-authenticate"]
    assert challenge == f'Bearer realm="notification-gateway", error="insufficient_scope", scope="{scope}"'


async def test_over_a_rate_says_when_to_come_back_and_what_the_rate_is(app: FastAPI, http: httpx2.AsyncClient) -> None:
    raising(app, Limited("push", retry_after=2.2, quota=10, window=1))
    answer = await http.get("/boom")
    problem = checked(answer, 429, "rate_limited")
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert problem["violated-policies"] == ["push"]
    assert answer.headers["retry-after"] == "3"
    assert answer.headers["ratelimit"] == '"push";r=0;t=3'
    assert answer.headers["ratelimit-policy"] == '"push";q=10;w=1'


async def test_unavailable_says_when_to_come_back(app: FastAPI, http: httpx2.AsyncClient) -> None:
    raising(app, StoreUnavailable())
    assert (await http.get("/boom")).headers["retry-after"] == "1"


async def test_an_unknown_path_is_a_problem(http: httpx2.AsyncClient) -> None:
    checked(await http.get("/nowhere"), 404, "not_found")
    checked(await http.get("/inbox/"), 404, "not_found")


@pytest.mark.parametrize(
    ("route", "allowed"),
    [("PUT /inbox/n1", "DELETE, GET"), ("DELETE /notifications", "POST"), ("PUT /admin/users/x", "DELETE, GET, PATCH")],
)
async def test_an_unknown_method_names_all_that_the_path_knows(
    http: httpx2.AsyncClient, route: str, allowed: str
) -> None:
    method, path = route.split()
    answer = await http.request(method, path)
    checked(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


async def test_what_nobody_foresaw_is_500_told_to_nobody_and_logged_once(
    http: httpx2.AsyncClient, services: SimpleNamespace, as_: Any, caplog: pytest.LogCaptureFixture
) -> None:
    services.publisher.fail = RuntimeError("SELECT secret FROM users")
    with caplog.at_level(logging.ERROR):
        answer = await http.post("/notifications", json={"user_id": "ada", "title": "hi"}, headers=as_("shop"))
    problem = checked(answer, 500, "internal_error")
    assert set(problem) == MEMBERS
    assert "SELECT" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert [record.exc_info is not None for record in caplog.records] == [True]


async def test_an_error_nobody_gave_a_status_is_500(app: FastAPI, http: httpx2.AsyncClient) -> None:
    raising(app, GatewayError("odd"))
    answer = await http.get("/boom")
    assert "odd" not in answer.text
    checked(answer, 500, "internal_error")


async def test_validation_errors_point_at_what_is_wrong(http: httpx2.AsyncClient, as_: Any) -> None:
    body = {"username": " ada ", "password": 7, "nick/name": 1}
    problem = checked(await http.post("/admin/users", json=body, headers=as_("root")), 422, "validation_failed")
    assert {one["pointer"]: one["detail"] for one in problem["errors"]} == {
        "/username": "has to be printable, without space around it",
        "/password": "Input should be a valid string",
        "/nick~1name": "unknown field",
    }


async def test_a_bad_query_is_told_by_name(http: httpx2.AsyncClient, as_: Any) -> None:
    problem = checked(await http.get("/inbox?limit=0", headers=as_("ada")), 422, "validation_failed")
    assert [one["pointer"] for one in problem["errors"]] == ["query:limit"]


async def test_a_missing_member_is_required(http: httpx2.AsyncClient) -> None:
    problem = checked(await http.post("/auth/login", json={"username": "ada"}), 422, "validation_failed")
    assert problem["errors"] == [{"pointer": "/password", "detail": "required"}]


async def test_what_was_sent_is_not_repeated(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/auth/login", json={"username": "ada", "password": ["canary-password"]})
    assert answer.status_code == 422
    assert "canary" not in answer.text


async def test_a_flood_of_errors_is_cut(http: httpx2.AsyncClient, as_: Any) -> None:
    body = {f"x{at}" * 60: 1 for at in range(200)}
    answer = await http.post("/notifications", json=body, headers=as_("shop"))
    assert len(checked(answer, 422, "validation_failed")["errors"]) == problems.MAX_ERRORS
    assert len(answer.content) < 10_000
