"""The whole HTTP interface in one place: its routers, and the OpenAPI document that says what they do. No endpoint.

What all operations share (who may call, which problems can come back) is added here from what the routes themselves
say, so that no route can forget it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api import admin, auth, events, health, inbox, notifications, oauth_tokens, oversight, problems
from gateway.api.cors import Cors
from gateway.api.deps import BY_COOKIE, GUARDS
from gateway.api.door import Door, Pace
from gateway.api.edge import Edge
from gateway.api.examples import ANSWERS, BODIES
from gateway.api.refusals import ANYWHERE, DESCRIPTIONS, answer, examples, refusals
from gateway.api.routes import LeanRoute
from gateway.cookies import ACCESS
from gateway.errors import TooManySignIns
from gateway.hosts import Hosts
from gateway.model import ADMIN, INBOX, PUSH

DESCRIPTION = """Notifications are stored in their user's inbox first and announced afterwards: what was answered 2xx
is durable. A user signs in and listens on `/ws` or `/events`; a client, a backend service, pushes. Every error is
`application/problem+json` with a stable `code`; `/auth/token`, `/auth/revoke` and `/auth/introspect` answer as RFC 6749
says."""
TAGS = [
    {"name": "auth", "description": "Signing in and out, one's sessions, the public keys."},
    {"name": "notifications", "description": "Pushing. Scope `notifications:write`."},
    {"name": "inbox", "description": "A user's own notifications. Scope `inbox`."},
    {"name": "admin", "description": "Users, clients, revocations, the audit. Scope `admin`."},
    {"name": "operations", "description": "For load balancers and monitoring."},
]
SCOPES = {
    INBOX: "read one's own notifications",
    PUSH: "push, to anybody",
    ADMIN: "administer",
}
SECURITY_SCHEMES = {
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": ACCESS,
        "description": "Set by `POST /auth/login?cookie=true`. It counts for pages of this or an allowed origin.",
    },
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "basic": {"type": "http", "scheme": "basic", "description": "Client id and secret (RFC 6749 section 2.3.1)."},
    "oauth2": {
        "type": "oauth2",
        "flows": {
            "password": {"tokenUrl": "/auth/token", "refreshUrl": "/auth/token", "scopes": SCOPES},
            "clientCredentials": {"tokenUrl": "/auth/token", "scopes": {PUSH: SCOPES[PUSH]}},
        },
    },
}
CROWDED = ("/auth/login", "/auth/refresh", "/auth/ticket", "/auth/token")
"""What everybody asks for at once when they all come back."""

_TEXT = {"type": "string"}
_INSTANT = {"type": "string", "format": "date-time"}
PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457, with a stable `code`.",
    "required": ["type", "title", "status", "detail", "instance", "code"],
    "properties": {
        **dict.fromkeys(("type", "title", "detail", "instance", "code"), _TEXT),
        "status": {"type": "integer"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {
                    "pointer": {**_TEXT, "description": "RFC 6901 into the body, or `query:` or `header:` and a name."},
                    "detail": _TEXT,
                },
            },
        },
    },
}
NOTIFICATION: dict[str, Any] = {
    "type": "object",
    "required": ["seq", "id", "title", "body", "data", "category", "priority", "created_at", "expires_at"],
    "properties": {
        "seq": {"type": "integer"},
        **dict.fromkeys(("id", "title", "body"), _TEXT),
        "data": {"type": "object"},
        "category": {"type": ["string", "null"]},
        "priority": {"enum": ["low", "normal", "high"]},
        **dict.fromkeys(("created_at", "expires_at", "read_at"), _INSTANT),
    },
}
INBOX_PAGE: dict[str, Any] = {
    "type": "object",
    "required": ["items", "head", "rev", "epoch", "unread", "next"],
    "properties": {
        "items": {"type": "array", "items": {"$ref": "#/components/schemas/Notification"}},
        **{name: {"type": "integer"} for name in ("head", "rev", "unread")},
        "epoch": _TEXT,
        "next": {"type": ["integer", "null"]},
    },
}


def routers() -> list[APIRouter]:
    """All routers, the ones asked most often first: routes are tried in order."""
    return [
        notifications.router,
        inbox.router,
        auth.router,
        auth.form_router,
        oauth_tokens.router,
        events.router,
        health.router,
        oversight.router,
        admin.router,
    ]


FastLane = Mapping[tuple[str, str], ASGIApp]
"""(method, path) → the application that answers it."""


def install(
    app: FastAPI,
    *,
    bind: Callable[[str], object] = lambda request_id: None,
    hosts: Hosts | None = None,
    cors: Cors | None = None,
    tls_only: bool = False,
) -> FastLane:
    """Make ``app`` the gateway's HTTP interface. The options are those of ``Edge``, which every request passes.

    The lean routes are also returned as applications of their own, for whoever wants to spare a push the six layers
    that FastAPI puts around every route; what they answer is the same.
    """
    problems.install(app)
    edge = partial(Edge, bind=bind, hosts=hosts, cors=cors, tls_only=tls_only)
    app.add_middleware(edge)
    for router in routers():
        # Put there directly, not by include_router: that wraps each router in a matcher of its own, which costs more
        # than a push takes to be read, and would build the lean routes anew.
        app.router.routes.extend(router.routes)
    app.router.redirect_slashes = False  # a redirect answers with the Host header as it came; here it is 404
    app.openapi = lambda: document(app)  # type: ignore[method-assign]

    def dressed(inner: ASGIApp) -> ASGIApp:
        return edge(ExceptionMiddleware(inner, handlers=app.exception_handlers))

    lanes: dict[tuple[str, str], ASGIApp] = {
        ("POST", route.path): dressed(route.app)
        for route in app.routes
        if isinstance(route, LeanRoute) and route.methods == {"POST"} and not route.param_convertors
    }
    lanes["GET", "/events"] = dressed(events.events)
    door = partial(Door, pace=Pace(), refusal=dressed(_turn_away))
    for path in CROWDED:
        inside = lanes.get(("POST", path), partial(FastAPI.__call__, app))
        lanes["POST", path] = door(inside, full=_full) if path == "/auth/login" else door(inside)
    return lanes


def _full(scope: Scope) -> bool:
    client = scope.get("client")
    full: bool = scope["state"]["services"].login.full(client[0] if client else None)
    return full


async def _turn_away(scope: Scope, receive: Receive, send: Send) -> None:
    raise TooManySignIns


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = _document(app)
    return app.openapi_schema


def _document(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, tags=TAGS, routes=app.routes)
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas.update({"Problem": PROBLEM, "Notification": NOTIFICATION, "Inbox": INBOX_PAGE})
    made["components"]["examples"] = examples()
    made["components"]["securitySchemes"] = SECURITY_SCHEMES
    for route, method, operation in _operations(app, made):
        _complete(route, method, operation)
    return made


def _operations(app: FastAPI, made: dict[str, Any]) -> Iterator[tuple[APIRoute, str, dict[str, Any]]]:
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                yield route, method, made["paths"][route.path_format][method.lower()]


def _complete(route: APIRoute, method: str, operation: dict[str, Any]) -> None:
    """Who may call, the problems that can come back, and examples."""
    scopes = [GUARDS[one.call] for one in route.dependant.dependencies if one.call in GUARDS]
    if scopes:
        names = [scope for scope in scopes if scope is not None]
        operation["security"] = [{"oauth2": names}, {"bearer": []}]
        if any(one.call in BY_COOKIE for one in route.dependant.dependencies):
            operation["security"].append({"cookie": []})
    name = f"{method} {route.path_format}"
    answers = operation["responses"]
    if answers.get("422", {}).get("content", {}).get("application/json"):
        del answers["422"]  # FastAPI's own idea of one
    for given in answers.values():
        if given["description"] == "Successful Response":  # FastAPI's words where we have none
            given["description"] = "Done."
    for status, codes in sorted(refusals(name, operation, scopes=scopes).items()):
        said = answer(DESCRIPTIONS[status], codes)
        there = answers.setdefault(str(status), said)
        if there is not said:  # what RFC 6749 has for it, and a problem
            there["description"] += f" {said['description']}"
            there["content"] = there.get("content", {}) | said["content"]
    answers["default"] = answer("Anywhere:", ANYWHERE)
    _illustrate(name, operation)


def _illustrate(name: str, operation: dict[str, Any]) -> None:
    """An example for the body and for each answer that has one."""
    if name in BODIES:
        (taken,) = operation["requestBody"]["content"].values()
        taken["example"] = BODIES[name]
    for status, shown in ANSWERS.get(name, {}).items():
        (given,) = operation["responses"][str(status)]["content"].values()
        given["example"] = shown
