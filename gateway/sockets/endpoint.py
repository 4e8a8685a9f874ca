"""``/ws``: parse, authenticate, register, check again, accept, hand over. Plain ASGI; knows no server and no log.

Under the gateway's own server the scope carries the extension ``gateway.connection``: the connection is handed to it
and this coroutine returns, so nothing of the request is kept. Any other server gets a loop over ``receive()``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from gateway.closing import (
    BINARY_FRAME,
    DRAINING,
    INTERNAL_ERROR,
    INVALID_TEXT,
    MESSAGE_TOO_BIG,
    OVERLOADED,
    PEER_GONE,
    RATE_LIMITED,
    Close,
)
from gateway.connection import Connection
from gateway.errors import GatewayError, InsufficientScope, OriginRefused, without_tokens
from gateway.hardening import HARDENING, NO_PAGE
from gateway.hosts import Hosts
from gateway.introduction import introduction
from gateway.limits import holder
from gateway.model import INBOX, Policy, Principal
from gateway.origins import Origins, origin_of
from gateway.ports import Limiter
from gateway.sockets.asking import Refused, address_of, kept, position, query_of
from gateway.sockets.credentials import identify
from gateway.sockets.queued import QueuedTransport
from gateway.ties import Ties

EXTENSION, OVERLOADED_EXTENSION = "gateway.connection", "gateway.overloaded"
PATH = "/ws"
SUBPROTOCOL = "notify.v1"
UPGRADE_BURST = 10
"""Seconds' worth of upgrades that may come at once from one address."""

log = logging.getLogger("gateway.sockets")


class SocketEndpoint:
    """The ASGI application behind ``/ws``. ``draining`` says whether this node is shutting down. ``upgrade_rate``: per
    second and address, 0: no limit. ``bind`` is told the upgrade's id, as that of ``Edge`` is."""

    def __init__(
        self,
        *,
        ties: Ties,
        origins: Origins,
        draining: Callable[[], bool],
        max_message: int,
        hosts: Hosts | None = None,
        limiter: Limiter,
        upgrade_rate: float,
        require_tls: bool = False,
        bind: Callable[[str], object] = lambda request_id: None,
    ) -> None:
        self._ties, self._bind = ties, bind
        self._limiter = limiter
        burst = max(1.0, UPGRADE_BURST * upgrade_rate)
        self._upgrades = Policy("upgrades", upgrade_rate, burst) if upgrade_rate else None
        self._origins = origins
        self._draining = draining
        self._max_message = max_message
        self._hosts = hosts or Hosts()
        self._require_tls = require_tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        request_id, host, said = introduction(scope["headers"])
        origin = None if said is None else said.decode("latin-1")
        self._bind(request_id)
        wrong = self._hosts.refusal(host, scheme=scope.get("scheme", "ws"), path=scope["path"])
        if wrong is not None:
            self._ties.metrics.refused("host")
            await self._deny(scope, send, *wrong)
            return
        if self._require_tls and scope.get("scheme") != "wss":
            self._ties.metrics.refused("tls")
            await self._deny(scope, send, 403, "tls_required", "The gateway is only spoken to over TLS.")
            return
        if scope["path"] != PATH:
            await self._deny(scope, send, 404, "not_found", "There is nothing at this path.")
            return
        here = None if host is None else host.decode("latin-1")
        if not self._origins.allowed(origin, scope.get("scheme", "ws"), here):
            await self._foreign(scope, send)
            return
        address = address_of(scope)
        if OVERLOADED_EXTENSION in scope.get("extensions", {}):
            await self._refuse(send, OVERLOADED, address)
            return
        if self._upgrades is not None and await self._limiter.take(self._upgrades, holder(address), 1):
            self._ties.metrics.limited(self._upgrades.name)
            await self._refuse(send, RATE_LIMITED, address)
            return
        try:
            connection = await self._admit(scope, address)
            connection.origin = kept(origin)
        except Refused as refused:
            await self._refuse(send, refused.why, address)
            return
        except OriginRefused:
            await self._foreign(scope, send)
            return
        except GatewayError as error:
            await self._refuse(send, error.close or INTERNAL_ERROR, address)
            return
        extension = scope.get("extensions", {}).get(EXTENSION)
        queued = None if extension is not None else QueuedTransport(address=address)
        # Registered, then checked again, then accepted: a revocation in between finds it or is found.
        connection.attach(extension.hand_over(connection) if queued is None else queued)
        verdict = self._ties.authn.verdict(connection.principal)
        if verdict is not None:
            connection.close(verdict)
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
            await self._refuse(send, connection.closed_as, address)
            return
        if connection.closed_as is None:
            log.info(
                "socket open",
                extra={
                    "user": connection.claims.subject, "sid": connection.claims.session, "connection": connection.id,
                    "address": address, "origin": connection.origin,
                },
            )  # fmt: skip
        connection.start()
        if queued is not None:
            await self._loop(connection, queued, receive, send)

    async def _admit(self, scope: Scope, address: str | None) -> Connection:
        """Everything before registration. Waits only for the use of a ticket, when nothing else is against it; what may
        have changed meanwhile is asked again. Raises Refused, OriginRefused or a GatewayError that has a close."""
        ties = self._ties
        if self._draining():
            raise Refused(DRAINING)
        query = query_of(scope)
        principal, ticket = identify(ties, self._origins, scope, query.get("token", []))
        if not principal.has(INBOX) or principal.claims.session is None:
            raise InsufficientScope(INBOX)
        after = position(query)
        self._room(principal, address)
        if ticket is not None:
            principal = await ties.tickets.use(ticket)
            if self._draining():
                raise Refused(DRAINING)
            self._room(principal, address)
        return Connection(principal, ties=ties, address=address, after=after)

    def _room(self, principal: Principal, address: str | None) -> None:
        refusal = self._ties.hub.refusal(principal.subject, address=address)
        if refusal is not None:
            raise Refused(refusal)

    async def _foreign(self, scope: Scope, send: Send) -> None:
        """A page of another origin learns nothing: a close code could be read from there."""
        self._ties.metrics.refused("origin")
        detail = "Pages of this origin may not open a socket here."
        await self._deny(scope, send, 403, "origin_refused", detail, level=logging.WARNING)

    async def _deny(
        self, scope: Scope, send: Send, status: int, code: str, detail: str, *, level: int = logging.INFO
    ) -> None:
        about = {
            "reason": code,
            "code": status,
            "address": address_of(scope),
            "origin": kept(origin_of(scope["headers"])),
        }
        log.log(level, "socket refused", extra=about)
        await _answer(scope, send, status, code, detail)

    async def _refuse(self, send: Send, why: Close, address: str | None) -> None:
        self._ties.metrics.refused(why.reason)
        log.info("socket refused", extra={"reason": why.reason, "code": why.code, "address": address})
        await send({"type": "websocket.close", "code": why.code, "reason": why.reason})

    async def _loop(self, connection: Connection, queued: QueuedTransport, receive: Receive, send: Send) -> None:
        """Where nobody takes the connection over: a reader beside the transport's own sender."""
        pump = asyncio.create_task(queued.pump(send, connection), name="socket-sender")
        reader = asyncio.create_task(self._read(connection, queued, receive), name="socket-reader")
        try:
            await asyncio.wait((pump, reader), return_when=asyncio.FIRST_COMPLETED)
        finally:
            connection.lost(connection.closed_as or PEER_GONE)  # first: whoever cancels this may do so again below
            for task in (pump, reader):
                task.cancel()
            # Not gather: it would make this cancellation look like one of theirs, and anyio tells its own by the text.
            await asyncio.wait((pump, reader))
            for task in (pump, reader):
                if not task.cancelled():
                    task.exception()  # of a server whose peer has left: there is nobody to tell

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
