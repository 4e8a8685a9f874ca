"""Every error an HTTP caller can get, as problem+json (RFC 9457). Decides nothing: the core raised, this renders.

Never a stack trace, an SQL text or a token: what is not one of our own errors is ``internal_error`` and no more.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.deps import address_of, services_of
from gateway.api.strict import pointer
from gateway.errors import (
    Conflict,
    CredentialsConflict,
    GatewayError,
    InsufficientScope,
    Invalid,
    Limited,
    NotFound,
    OriginRefused,
    TokenExpired,
    TokenInvalid,
    TokenRevoked,
    Unauthenticated,
    Unavailable,
    UserDisabled,
    without_tokens,
)

log = logging.getLogger("gateway.http")

REALM = "notification-gateway"
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
MAX_ERRORS = 20
MAX_NAME = 200
"""Characters of a caller's own member name that an error repeats."""

_STATUS: tuple[tuple[type[GatewayError], int], ...] = (
    (Unauthenticated, 401),
    (InsufficientScope, 403),
    (OriginRefused, 403),
    (NotFound, 404),
    (Conflict, 409),
    (Invalid, 422),
    (Limited, 429),
    (Unavailable, 503),
)
_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "payload_too_large"}
_DETAILS = {404: "There is nothing at this path.", 405: "This path does not know that method."}


class Refusal(Exception):
    """A refusal only HTTP knows: a header, a media type, a size."""

    def __init__(self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.headers = dict(headers or {})


def status_of(error: GatewayError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def members(error: GatewayError) -> dict[str, Any]:
    """``error`` as the members of a problem, without ``instance``: also what one item of a batch is told."""
    problem = _members(status_of(error), error.code, error.detail)
    if isinstance(error, Invalid) and error.errors:
        problem["errors"] = [{"pointer": _cut(where), "detail": detail} for where, detail in error.errors[:MAX_ERRORS]]
    elif isinstance(error, Limited):
        problem["type"] = QUOTA_EXCEEDED
        problem["violated-policies"] = [error.policy]
    elif isinstance(error, InsufficientScope):
        problem["scope"] = error.scope
    return problem


def headers_of(error: GatewayError) -> dict[str, str]:
    """The header fields that go with ``error``: a challenge (RFC 6750 section 3), or when to come back."""
    if isinstance(error, TokenInvalid | TokenExpired | TokenRevoked | UserDisabled):
        return {"WWW-Authenticate": f'Bearer realm="{REALM}", error="invalid_token"'}
    if isinstance(error, CredentialsConflict):
        return {"WWW-Authenticate": f'Bearer realm="{REALM}", error="invalid_request"'}
    if isinstance(error, Unauthenticated):
        return {"WWW-Authenticate": f'Bearer realm="{REALM}"'}
    if isinstance(error, InsufficientScope):
        return {"WWW-Authenticate": f'Bearer realm="{REALM}", error="insufficient_scope", scope="{error.scope}"'}
    if isinstance(error, Limited):
        wait = str(max(1, math.ceil(error.retry_after)))
        return {
            "Retry-After": wait,
            "RateLimit": f'"{error.policy}";r=0;t={wait}',
            "RateLimit-Policy": f'"{error.policy}";q={error.quota};w={error.window}',
        }
    if isinstance(error, Unavailable):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    return {}


def respond(request: Request, problem: dict[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """``problem`` as the answer to ``request``. ``instance`` is the path alone: a query may hold a token."""
    problem["instance"] = request.scope["path"]
    # A path may hold a lone surrogate no JSON can: uvicorn decodes it, other servers may not.
    body = orjson.dumps(_text(problem))
    return Response(body, problem["status"], headers, media_type="application/problem+json")


def internal_error(request: Request) -> Response:
    return respond(request, _members(500, "internal_error", "The gateway made a mistake."))


def refused(request: Request, error: Refusal) -> Response:
    return respond(request, _members(error.status, error.code, error.detail), error.headers)


def install(app: FastAPI) -> None:
    """From now on every error of ``app`` is a problem."""
    # Starlette calls a handler only with what it was added for, but types it as taking any Exception.
    app.add_exception_handler(GatewayError, _gateway_error)  # type: ignore[arg-type]
    app.add_exception_handler(Refusal, _refusal)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _http_exception)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _validation_error)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, _unexpected)


async def _gateway_error(request: Request, error: GatewayError) -> Response:
    if status_of(error) == 500:
        raise error  # a decision nobody gave a status is a mistake of ours, and logged like one
    if isinstance(error, Limited):
        services_of(request).metrics.limited(error.policy)
        principal = request.scope.get("gateway.principal")
        subject = principal.subject if principal is not None else None
        log.info("rate limit hit", extra={"policy": error.policy, "address": address_of(request), "subject": subject})
    return respond(request, members(error), headers_of(error))


async def _refusal(request: Request, error: Refusal) -> Response:
    return refused(request, error)


async def _http_exception(request: Request, error: HTTPException) -> Response:
    status = error.status_code
    phrase = HTTPStatus(status).phrase
    headers = dict(error.headers or {})
    if status == 405:
        headers["Allow"] = ", ".join(_methods(request))
    code = _CODES.get(status, phrase.lower().replace(" ", "_").replace("-", "_"))
    return respond(request, _members(status, code, _DETAILS.get(status, f"{phrase}.")), headers)


async def _validation_error(request: Request, error: RequestValidationError) -> Response:
    errors = [(_where(one["loc"]), _what(one)) for one in error.errors()[:MAX_ERRORS]]
    return respond(request, members(Invalid(errors=errors)))


async def _unexpected(request: Request, error: Exception) -> Response:
    return internal_error(request)


def _members(status: int, code: str, detail: str) -> dict[str, Any]:
    title = code.replace("_", " ").capitalize()
    return {"type": f"/problems/{code}", "title": title, "status": status, "detail": detail, "code": code}


def _where(location: tuple[str | int, ...]) -> str:
    """A pydantic location as Invalid.errors has it: a pointer into the body, or ``query:limit``."""
    if not location or location[0] == "body":
        return pointer(location[1:])
    return f"{location[0]}:{'.'.join(str(part) for part in location[1:])}"


def _what(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown field"
    if error["type"] == "missing":
        return "required"
    return str(error["msg"]).removeprefix("Value error, ")


def _methods(request: Request) -> list[str]:
    """What this path does know: several routes may share it, and Starlette names those of the first only."""
    path = request.scope["path"]
    found = [
        route.methods or set()
        for route in request.app.router.routes
        if isinstance(route, Route) and route.path_regex.match(path)
    ]
    return sorted(set().union(*found))


def _cut(where: str) -> str:
    return where if len(where) <= MAX_NAME else where[:MAX_NAME] + "…"


def _text(value: Any) -> Any:
    """``value`` with every string made encodable and without tokens: an error repeats names the caller made up."""
    if isinstance(value, str):
        return without_tokens(value.encode(errors="replace").decode())
    if isinstance(value, dict):
        return {name: _text(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_text(one) for one in value]
    return value
