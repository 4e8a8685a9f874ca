"""``/ws``: who passes the entrance is accepted and handed over, or is told why not. Plain ASGI; knows no server.

Under the gateway's own server the scope carries the extension ``gateway.connection``: the connection is handed to it
and this coroutine returns, so nothing of the request is kept. Any other server gets a loop over ``receive()``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from gateway.closing import (
    BINARY_FRAME,
    INTERNAL_ERROR,
    INVALID_TEXT,
    MESSAGE_TOO_BIG,
    OVERLOADED,
    PEER_GONE,
    Close,
)
from gateway.connection import Connection
from gateway.errors import GatewayError, OriginRefused, without_tokens
from gateway.hardening import HARDENING, NO_PAGE
from gateway.hosts import Hosts
from gateway.introduction import introduction
from gateway.ports import Transport
from gateway.sockets.asking import Refused, address_of, position
from gateway.sockets.entrance import Entrance
from gateway.sockets.queued import QueuedTransport, carry

EXTENSION, OVERLOADED_EXTENSION = "gateway.connection", "gateway.overloaded"
PATH = "/ws"
SUBPROTOCOL = "notify.v1"


class SocketEndpoint:
    """The ASGI application behind ``/ws``. ``bind`` is told the upgrade's id, as that of ``Edge`` is."""

    def __init__(
        self,
        entrance: Entrance,
        *,
        max_message: int,
        hosts: Hosts | None = None,
        require_tls: bool = False,
        bind: Callable[[str], object] = lambda request_id: None,
    ) -> None:
        self._entrance, self._bind = entrance, bind
        self._max_message = max_message
        self._hosts = hosts or Hosts()
        self._require_tls = require_tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        request_id, host, origin = introduction(scope["headers"])
        self._bind(request_id)
        wrong = self._hosts.refusal(host, scheme=scope.get("scheme", "ws"), path=scope["path"])
        if wrong is not None:
            self._entrance.ties.metrics.refused("host")
            await self._deny(scope, send, *wrong)
            return
        if self._require_tls and scope.get("scheme") != "wss":
            self._entrance.ties.metrics.refused("tls")
            await self._deny(scope, send, 403, "tls_required", "The gateway is only spoken to over TLS.")
            return
        if scope["path"] != PATH:
            await self._deny(scope, send, 404, "not_found", "There is nothing at this path.")
            return
        if not self._entrance.is_open_to(scope, origin=origin, host=host):
            await self._foreign(scope, send)
            return
        if OVERLOADED_EXTENSION in scope.get("extensions", {}):
            await self._refuse(scope, send, OVERLOADED)
            return
        extension = scope.get("extensions", {}).get(EXTENSION)
        queued = None if extension is not None else QueuedTransport(address=address_of(scope))
        take: Callable[[Connection], Transport] = extension.hand_over if queued is None else lambda connection: queued
        try:
            connection = await self._entrance.admit(scope, position=position, transport=take)
        except Refused as refused:
            await self._refuse(scope, send, refused.why)
            return
        except OriginRefused:
            await self._foreign(scope, send)
            return
        except GatewayError as error:
            await self._refuse(scope, send, error.close or INTERNAL_ERROR)
            return
        offered = scope.get("subprotocols") or []
        if connection.closed_as is None:
            chosen = SUBPROTOCOL if SUBPROTOCOL in offered else None
            try:
                await send({"type": "websocket.accept", "subprotocol": chosen})
            except BaseException:  # the peer left meanwhile, or this was cancelled: nobody else would detach it
                if queued is not None:
                    connection.lost(PEER_GONE)
                raise
        elif queued is not None:
            await self._refuse(scope, send, connection.closed_as)
            return
        self._entrance.opened(connection)
        if queued is not None:
            await carry(queued, send, connection, self._read(connection, queued, receive))

    async def _foreign(self, scope: Scope, send: Send) -> None:
        self._entrance.foreign(scope)
        await _answer(scope, send, 403, "origin_refused", "Pages of this origin may not open a socket here.")

    async def _deny(self, scope: Scope, send: Send, status: int, code: str, detail: str) -> None:
        self._entrance.denied(code, status, scope)
        await _answer(scope, send, status, code, detail)

    async def _refuse(self, scope: Scope, send: Send, why: Close) -> None:
        self._entrance.refused(why, scope)
        await send({"type": "websocket.close", "code": why.code, "reason": why.reason})

    async def _read(self, connection: Connection, queued: QueuedTransport, receive: Receive) -> None:
        while True:
            message = await receive()
            queued.heard += 1
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if text is None:
                connection.close(BINARY_FRAME)
            elif len(text) > self._max_message or len(text.encode("utf-8", "surrogatepass")) > self._max_message:
                connection.close(MESSAGE_TOO_BIG)
            elif any("\ud800" <= character <= "\udfff" for character in text):
                connection.close(INVALID_TEXT)
            else:
                connection.received(text)
            if connection.closed_as is not None:
                await asyncio.Event().wait()  # the sender says goodbye and ends this


async def _answer(scope: Scope, send: Send, status: int, code: str, detail: str) -> None:
    """An HTTP answer in every mode (ASGI WebSocket Denial Response): a problem, as the HTTP interface has them."""
    problem = {
        "type": f"/problems/{code}", "title": code.replace("_", " ").capitalize(), "status": status, "detail": detail,
        "code": code, "instance": without_tokens(scope["path"]),
    }  # fmt: skip
    body = json.dumps(problem).encode()
    headers = [
        (b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"), *HARDENING, *NO_PAGE,
    ]  # fmt: skip
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
