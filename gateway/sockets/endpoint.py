"""``/ws``: parse, authenticate, register, check again, accept, hand over. Plain ASGI; knows no server and no log.

Under the gateway's own server the scope carries the extension ``gateway.connection``: the connection is handed to it
and this coroutine returns, so nothing of the request is kept. Any other server gets a loop over ``receive()``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from gateway.closing import (
    BINARY_FRAME,
    DRAINING,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    INVALID_TEXT,
    MESSAGE_TOO_BIG,
    OVERLOADED,
    PEER_GONE,
    RATE_LIMITED,
    Close,
)
from gateway.connection import Connection
from gateway.errors import GatewayError, InsufficientScope, OriginRefused, without_tokens
from gateway.frames import MAX_SEQ
from gateway.hardening import HARDENING, NO_PAGE
from gateway.hosts import Hosts, host_of
from gateway.limits import holder
from gateway.model import INBOX, SANE_REQUEST_ID, Policy, Principal, new_id
from gateway.origins import Origins, origin_of
from gateway.ports import Limiter
from gateway.sockets.credentials import identify
from gateway.sockets.queued import QueuedTransport
from gateway.ties import Ties

EXTENSION, OVERLOADED_EXTENSION = "gateway.connection", "gateway.overloaded"
PATH = "/ws"
SUBPROTOCOL = "notify.v1"
UPGRADE_BURST = 10
"""Seconds' worth of upgrades that may come at once from one address."""

log = logging.getLogger("gateway.sockets")


class Refused(Exception):
    """The request is not one this endpoint can take; ``why`` goes into the close frame."""

    def __init__(self, why: Close) -> None:
        super().__init__(why.reason)
        self.why = why


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
        self._bind(_request_id(scope))
        wrong = self._hosts.refusal(host_of(scope["headers"]), scheme=scope.get("scheme", "ws"), path=scope["path"])
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
        headers = _headers(scope)
        origin = origin_of(scope["headers"])
        if not self._origins.allowed(origin, scope.get("scheme", "ws"), headers.get("host")):
            await self._foreign(scope, send)
            return
        address = _address(scope)
        if OVERLOADED_EXTENSION in scope.get("extensions", {}):
            await self._refuse(send, OVERLOADED, address)
            return
        if self._upgrades is not None and await self._limiter.take(self._upgrades, holder(address), 1):
            self._ties.metrics.limited(self._upgrades.name)
            await self._refuse(send, RATE_LIMITED, address)
            return
        try:
            connection = await self._admit(scope, address)
            connection.origin = _origin(headers)
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
        query = _query(scope)
        principal, ticket = identify(ties, self._origins, scope, query.get("token", []))
        if not principal.has(INBOX) or principal.claims.session is None:
            raise InsufficientScope(INBOX)
        after = _after(query)
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
        about = {"reason": code, "code": status, "address": _address(scope), "origin": _origin(_headers(scope))}
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


def _address(scope: Scope) -> str | None:
    return scope["client"][0] if scope.get("client") else None


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _request_id(scope: Scope) -> str:
    given = (value for name, value in scope["headers"] if name == b"x-request-id" and SANE_REQUEST_ID.fullmatch(value))
    return next((str(value, "ascii") for value in given), None) or new_id()


def _origin(headers: dict[str, str]) -> str | None:
    """For the log: one string for all sockets of a page, and no long one kept."""
    origin = headers.get("origin")
    return None if origin is None else sys.intern(origin[:200])


def _query(scope: Scope) -> dict[str, list[str]]:
    query: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(
            scope.get("query_string", b"").decode("ascii"), keep_blank_values=True, max_num_fields=20, errors="strict"
        )
    except ValueError:
        raise Refused(INVALID_REQUEST) from None
    for name, value in pairs:
        query.setdefault(name, []).append(value)
    return query


def _after(query: dict[str, list[str]]) -> tuple[int, str] | None:
    """The position the client kept: a number without the epoch it belongs to says nothing."""
    after, epoch = query.get("after", []), query.get("epoch", [])
    if not after and not epoch:
        return None
    if len(after) != 1 or len(epoch) != 1 or not after[0].isascii() or not after[0].isdigit() or len(after[0]) > 16:
        raise Refused(INVALID_REQUEST)
    seq = int(after[0])
    if seq > MAX_SEQ:
        raise Refused(INVALID_REQUEST)
    return seq, epoch[0]


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
