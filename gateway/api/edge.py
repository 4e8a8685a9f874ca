"""What every HTTP request passes first: request id, security headers, one log line, the last catch. No routes here.

Pure ASGI, so nothing is buffered and no task is added; WebSocket and lifespan scopes pass straight through.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.problems import internal_error
from gateway.model import new_id

log = logging.getLogger("gateway.http")

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines: logged at debug unless they fail."""


class Edge:
    """``bind`` is told the request's id, in the context of its task: what is logged in its course can then carry it."""

    def __init__(self, app: ASGIApp, *, bind: Callable[[str], object] = lambda request_id: None) -> None:
        self.app, self._bind = app, bind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        self._bind(request_id)
        auth = scope["path"].startswith("/auth/")
        status = 0

        async def dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"] = list(message.get("headers", ()))
                headers += (
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                )
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                if auth:
                    headers.append((b"pragma", b"no-cache"))
            await send(message)

        began = time.perf_counter()
        try:
            await self.app(scope, receive, dressed)
        except ClientDisconnect:
            pass  # it went away while it was sending: nobody is left to answer
        except Exception:
            # The last catch of an HTTP request: whatever it was, the caller learns nothing but that we failed.
            if status:
                raise  # half an answer is out: the server has to cut the connection, and logs this
            log.exception("the request failed")
            await internal_error(Request(scope))(scope, receive, dressed)
        finally:
            _log(scope, status, time.perf_counter() - began)


def _request_id(scope: Scope) -> str:
    """The caller's X-Request-Id if it is sane, so that a trace can go through; else a fresh one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value):
            return str(value, "ascii")
    return new_id()


def _log(scope: Scope, status: int, seconds: float) -> None:
    level = logging.DEBUG if scope["path"] in _QUIET and status < 400 else logging.INFO
    if not log.isEnabledFor(level):
        return
    principal = scope.get("gateway.principal")
    log.log(
        level,
        "request",
        extra={
            "method": scope["method"],
            # As it came, percent-encoded and without the query: no control character, no token in a parameter.
            "path": (scope.get("raw_path") or scope["path"].encode()).decode("ascii", "backslashreplace"),
            "status": status,
            "ms": round(seconds * 1000, 1),
            "address": scope["client"][0] if scope.get("client") else None,
            "subject": principal.subject if principal is not None else None,
        },
    )
