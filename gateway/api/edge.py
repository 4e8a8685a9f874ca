"""What every HTTP request passes first: request id, Host, CORS, security headers, a log line, the last catch.

No routes here. Pure ASGI, so nothing is buffered and no task is added; WebSocket and lifespan scopes pass straight
through.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.cors import Cors
from gateway.api.problems import Refusal, internal_error, refused
from gateway.hardening import HARDENING, NO_PAGE, TLS_ONLY
from gateway.hosts import PROBES, Hosts
from gateway.introduction import introduction

log = logging.getLogger("gateway.http")

TLS_REQUIRED = "The gateway is only spoken to over TLS."
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines: logged at debug unless they fail."""


class Edge:
    """``bind`` is told the request's id, in the context of its task: what is logged in its course can then carry it.
    ``tls_only``: whoever comes by anything else is refused, but for the probes, and whoever comes over TLS is told to
    keep to it (Strict-Transport-Security)."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        bind: Callable[[str], object] = lambda request_id: None,
        hosts: Hosts | None = None,
        cors: Cors | None = None,
        tls_only: bool = False,
    ) -> None:
        self.app, self._bind = app, bind
        self._hosts, self._cors, self._tls_only = hosts or Hosts(), cors or Cors(), tls_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id, host, origin = introduction(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id
        self._bind(request_id)
        auth = scope["path"].startswith("/auth/")
        status = 0

        async def dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"] = list(message.get("headers", ()))
                own = {name for name, _ in headers}
                headers.append((b"x-request-id", request_id.encode()))
                headers += HARDENING
                headers += self._cors.fields(origin)
                if b"content-security-policy" not in own:
                    headers += NO_PAGE
                if b"cache-control" not in own:
                    headers.append((b"cache-control", b"no-store"))
                if auth:
                    headers.append((b"pragma", b"no-cache"))
                if self._tls_only and scope["scheme"] == "https":
                    headers += TLS_ONLY
            await send(message)

        began = time.perf_counter()
        try:
            wrong = self._hosts.refusal(host, scheme=scope.get("scheme", "http"), path=scope["path"])
            if wrong is not None:
                await refused(Request(scope), Refusal(*wrong))(scope, receive, dressed)
            elif self._tls_only and scope.get("scheme") != "https" and scope["path"] not in PROBES:
                await refused(Request(scope), Refusal(403, "tls_required", TLS_REQUIRED))(scope, receive, dressed)
            elif (allowed := self._cors.preflight(scope, origin)) is not None:
                await dressed({"type": "http.response.start", "status": 204, "headers": list(allowed)})
                await dressed({"type": "http.response.body", "body": b""})
            else:
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
            if status >= 500 and (services := scope["state"].get("services")) is not None:
                services.metrics.failed.inc()
            _log(scope, status, time.perf_counter() - began)


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
