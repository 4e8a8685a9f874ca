"""``GET /events``: server-sent events (HTML, section 9.2) that tell what a socket is told. Plain ASGI; knows no server.

Under the gateway's own server the scope carries the extension ``gateway.stream``: the connection is handed to it and
this coroutine returns, so nothing of the request is kept. Any other server gets a sender beside ``receive()``.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

from starlette.types import Receive, Scope, Send

from gateway.closing import INTERNAL_ERROR, OVERLOADED, PEER_GONE, TOKEN_EXPIRED, Close
from gateway.connection import Connection
from gateway.errors import GatewayError, OriginRefused
from gateway.hardening import Fields
from gateway.introduction import introduction
from gateway.ports import Transport
from gateway.sockets.admission import Admission
from gateway.sockets.asking import Position, Query, Refused, last_event, position
from gateway.sockets.entrance import Entrance
from gateway.sockets.queued import QueuedStream, carry
from gateway.sockets.wire import AGAIN, STREAM, WireLimits, close_event

_FIELDS: Fields = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would gather four kilobytes before it passes anything on
)


class EventsEndpoint:
    """The ASGI application behind ``GET /events``; Host, TLS and CORS are ``Edge``'s, which it stands behind."""

    def __init__(self, entrance: Entrance, limits: WireLimits) -> None:
        self._entrance, self._wait = entrance, limits.handshake_timeout
        self._admission = Admission(at_once=limits.upgrades_at_once, waiting=limits.upgrades_waiting)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises OriginRefused, and ClientDisconnect if the peer left before it was accepted."""
        entrance, epoch = self._entrance, self._entrance.ties.epoch
        _, host, origin = introduction(scope["headers"])
        if not entrance.is_open_to(scope, origin=origin, host=host):
            entrance.foreign(scope)
            raise OriginRefused
        extension = scope.get("extensions", {}).get(STREAM)
        queued: QueuedStream | None = None

        def take(connection: Connection) -> Transport:
            nonlocal queued
            if extension is not None:
                handed: Transport = extension.hand_over(connection, epoch=epoch.current, address=connection.address)
                return handed
            queued = QueuedStream(address=connection.address, epoch=epoch.current)
            return queued

        def kept(query: Query) -> Position:
            """What an EventSource says by itself when it comes back is newer than what stands in its URL."""
            return last_event(scope["headers"]) or position(query)

        try:
            async with self._turn():
                connection = await entrance.admit(scope, position=kept, transport=take, used=TOKEN_EXPIRED)
        except Refused as refused:
            await self._refuse(scope, send, refused.why)
            return
        except OriginRefused:
            entrance.foreign(scope)
            raise
        except GatewayError as error:
            await self._refuse(scope, send, error.close or INTERNAL_ERROR)
            return
        if connection.closed_as is not None:
            await self._refuse(scope, send, connection.closed_as)
            return
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [*_FIELDS]})
            await send({"type": "http.response.body", "body": _beginning(), "more_body": True})
        except BaseException:  # the peer left meanwhile, or this was cancelled: nobody else would detach it
            connection.lost(PEER_GONE)
            raise
        entrance.opened(connection)
        if queued is not None:
            await carry(queued, send, connection, _until_gone(receive))

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """As an upgrade, a few at a time. Raises Refused if there are too many before it, or it takes too long."""
        turn = _Turn()
        if not self._admission.enter(turn):
            raise Refused(OVERLOADED)
        try:
            try:
                async with asyncio.timeout(self._wait):
                    await turn.come
            except TimeoutError:
                raise Refused(OVERLOADED) from None
            yield
        finally:
            if turn.begun:
                self._admission.over()
            else:
                self._admission.leave(turn)

    async def _refuse(self, scope: Scope, send: Send, why: Close) -> None:
        """One event and the end: an EventSource shows no page what an HTTP status said."""
        self._entrance.refused(why, scope)
        body = _beginning() + close_event(why).sse(self._entrance.ties.epoch.current)
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [*_FIELDS, length]})
        await send({"type": "http.response.body", "body": body})


class _Turn:
    """Implements ``admission.Waiting``."""

    def __init__(self) -> None:
        self.come: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.begun = False

    def begin(self) -> None:
        self.begun = True
        if not self.come.done():
            self.come.set_result(None)


def _beginning() -> bytes:
    return b"retry: %d\n\n" % random.choice(AGAIN)  # noqa: S311 - jitter


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
