"""``/ws``: parse, authenticate, register, check again, accept, hand over. Plain ASGI; knows no server and no log.

Under the gateway's own server the scope carries the extension ``gateway.connection``: the connection is handed to it
and this coroutine returns, so nothing of the request is kept. Any other server gets a loop over ``receive()``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from gateway.authn import Authn
from gateway.closing import (
    BINARY_FRAME,
    DRAINING,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    INVALID_TEXT,
    MESSAGE_TOO_BIG,
    PEER_GONE,
    Close,
)
from gateway.connection import Connection
from gateway.errors import CredentialsConflict, GatewayError, InsufficientScope, TokenMissing, without_tokens
from gateway.frames import MAX_SEQ
from gateway.model import INBOX, Principal
from gateway.sockets.queued import QueuedTransport
from gateway.ties import Ties

EXTENSION = "gateway.connection"
PATH = "/ws"
SUBPROTOCOL = "notify.v1"

log = logging.getLogger("gateway.sockets")


class Refused(Exception):
    """The request is not one this endpoint can take; ``why`` goes into the close frame."""

    def __init__(self, why: Close) -> None:
        super().__init__(why.reason)
        self.why = why


class SocketEndpoint:
    """The ASGI application behind ``/ws``. ``draining`` says whether this node is shutting down."""

    def __init__(
        self,
        *,
        ties: Ties,
        allowed_origins: tuple[str, ...],
        draining: Callable[[], bool],
        max_message: int,
    ) -> None:
        self._ties = ties
        self._origins = frozenset(allowed_origins)
        self._draining = draining
        self._max_message = max_message

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        if scope["path"] != PATH:
            await _deny(scope, send, 404, "not_found", "There is nothing at this path.")
            return
        headers = _headers(scope)
        if not self._origin_allowed(headers, scope):
            self._ties.metrics.refused("origin")
            log.warning("socket refused: Origin %.200r is not in GATEWAY_ALLOWED_ORIGINS", headers.get("origin"))
            # A page of another origin learns nothing: a close code could be read from there.
            await _deny(scope, send, 403, "origin_refused", "Pages of this origin may not open a socket here.")
            return
        address = scope["client"][0] if scope.get("client") else None
        try:
            connection = self._admit(scope, headers, address)
        except Refused as refused:
            await self._refuse(send, refused.why, address)
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
                    "address": address, "origin": headers.get("origin"),
                },
            )  # fmt: skip
        connection.start()
        if queued is not None:
            await self._loop(connection, queued, receive, send)

    def _admit(self, scope: Scope, headers: dict[str, str], address: str | None) -> Connection:
        """Everything before registration; reads memory only. Raises Refused or a GatewayError that has a close."""
        ties = self._ties
        if self._draining():
            raise Refused(DRAINING)
        query = _query(scope)
        principal = _principal(ties.authn, query, _authorizations(scope))
        if not principal.has(INBOX) or principal.claims.session is None:
            raise InsufficientScope(INBOX)
        after = _after(query)
        refusal = ties.hub.refusal(principal.subject, address=address)
        if refusal is not None:
            raise Refused(refusal)
        return Connection(principal, ties=ties, address=address, after=after)

    async def _refuse(self, send: Send, why: Close, address: str | None) -> None:
        self._ties.metrics.refused(why.reason)
        log.info("socket refused", extra={"reason": why.reason, "code": why.code, "address": address})
        await send({"type": "websocket.close", "code": why.code, "reason": why.reason})

    def _origin_allowed(self, headers: dict[str, str], scope: Scope) -> bool:
        """An exact match against the list, or the page of this very host. No Origin: not a browser (RFC 6454, 6455)."""
        origin = headers.get("origin")
        if origin is None or origin in self._origins or "*" in self._origins:
            return True
        own = "https" if scope.get("scheme") == "wss" else "http"
        return origin == f"{own}://{headers.get('host', '')}"

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


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


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


def _authorizations(scope: Scope) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"authorization"]


def _principal(authn: Authn, query: dict[str, list[str]], authorizations: list[str]) -> Principal:
    """Who it is. Two credentials in one request must be of one session (WSH-01); the query's may not be given twice."""
    tokens = query.get("token", [])
    if len(tokens) > 1:
        raise CredentialsConflict
    presented = [token for token in tokens if token]
    for authorization in authorizations:
        scheme, _, bearer = authorization.partition(" ")
        if scheme.lower() == "bearer" and bearer.strip():
            presented.append(bearer.strip())
    if not presented:
        raise TokenMissing
    principals = [authn.principal(token) for token in presented]
    first = principals[0]
    for other in principals[1:]:
        if (other.subject, other.claims.session) != (first.subject, first.claims.session):
            raise CredentialsConflict
    return first


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


async def _deny(scope: Scope, send: Send, status: int, code: str, detail: str) -> None:
    """An HTTP answer in every mode (ASGI WebSocket Denial Response): a problem, as the HTTP interface has them."""
    problem = {
        "type": f"/problems/{code}", "title": code.replace("_", " ").capitalize(), "status": status, "detail": detail,
        "code": code, "instance": without_tokens(scope["path"]),
    }  # fmt: skip
    body = json.dumps(problem).encode()
    headers = [
        (b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"),
    ]  # fmt: skip
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
