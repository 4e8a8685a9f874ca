"""The way in that sockets and streams of events share: who asks, how often, from where, and then it is registered.

It accepts nothing and answers nothing: what a refusal looks like is each endpoint's own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from starlette.types import Scope

from gateway.closing import DRAINING, RATE_LIMITED, TOKEN_INVALID, Close
from gateway.connection import Connection
from gateway.errors import InsufficientScope, TokenInvalid
from gateway.limits import holder
from gateway.model import INBOX, Policy, Principal
from gateway.origins import Origins, origin_of
from gateway.ports import Limiter, Transport
from gateway.sockets.asking import Position, Query, Refused, address_of, kept, query_of
from gateway.sockets.credentials import identify
from gateway.ties import Ties

UPGRADE_BURST = 10
"""Seconds' worth of upgrades that may come at once from one address."""

log = logging.getLogger("gateway.sockets")


class Entrance:
    """``draining`` says whether this node is shutting down. ``upgrade_rate``: per second and address, 0: no limit."""

    def __init__(
        self, *, ties: Ties, origins: Origins, draining: Callable[[], bool], limiter: Limiter, upgrade_rate: float
    ) -> None:
        self.ties = ties
        self._origins, self._draining, self._limiter = origins, draining, limiter
        burst = max(1.0, UPGRADE_BURST * upgrade_rate)
        self._upgrades = Policy("upgrades", upgrade_rate, burst) if upgrade_rate else None

    def is_open_to(self, scope: Scope, *, origin: bytes | None, host: bytes | None) -> bool:
        """Whether a page of this origin may come at all, with whatever it brings."""
        said, here = (None if field is None else field.decode("latin-1") for field in (origin, host))
        return self._origins.allowed(said, scope.get("scheme", "http"), here)

    async def admit(
        self,
        scope: Scope,
        *,
        position: Callable[[Query], Position],
        transport: Callable[[Connection], Transport],
        used: Close = TOKEN_INVALID,
    ) -> Connection:
        """A connection that is registered; if it may not be accepted after all, its ``closed_as`` says why.

        Waits only for the limiter, and for the use of a ticket when nothing else is against it; what may have changed
        meanwhile is asked again. ``used``: what is said of a ticket that was used before. Raises Refused, OriginRefused
        or a GatewayError that has a close.
        """
        ties, address = self.ties, address_of(scope)
        if self._upgrades is not None and await self._limiter.take(self._upgrades, holder(address), 1):
            ties.metrics.limited(self._upgrades.name)
            raise Refused(RATE_LIMITED)
        if self._draining():
            raise Refused(DRAINING)
        query = query_of(scope)
        principal, ticket = identify(ties, self._origins, scope, query.get("token", []))
        if not principal.has(INBOX) or principal.claims.session is None:
            raise InsufficientScope(INBOX)
        after = position(query)
        self._room(principal, address)
        if ticket is not None:
            try:
                principal = await ties.tickets.use(ticket)
            except TokenInvalid:
                raise Refused(used) from None
            if self._draining():
                raise Refused(DRAINING)
            self._room(principal, address)
        connection = Connection(principal, ties=ties, address=address, after=after)
        connection.origin = kept(origin_of(scope["headers"]))
        # Registered, then checked again, then accepted: a revocation in between finds it or is found.
        connection.attach(transport(connection))
        verdict = ties.authn.verdict(connection.principal)
        if verdict is not None:
            connection.close(verdict)
        return connection

    def _room(self, principal: Principal, address: str | None) -> None:
        refusal = self.ties.hub.refusal(principal.subject, address=address)
        if refusal is not None:
            raise Refused(refusal)

    def opened(self, connection: Connection) -> None:
        """It has been accepted: note it, and let it speak."""
        if connection.closed_as is None:
            log.info(
                "socket open",
                extra={
                    "user": connection.claims.subject, "sid": connection.claims.session, "connection": connection.id,
                    "address": connection.address, "origin": connection.origin,
                    "transport": connection.transport.kind,
                },
            )  # fmt: skip
        connection.start()

    def refused(self, why: Close, scope: Scope) -> None:
        """Note a refusal that is told in our own words."""
        self.ties.metrics.refused(why.reason)
        about = {"reason": why.reason, "code": why.code, "address": address_of(scope)}
        log.info("socket refused", extra=about)

    def denied(self, code: str, status: int, scope: Scope, *, level: int = logging.INFO) -> None:
        """Note a refusal that is told by an HTTP status."""
        about = {"reason": code, "code": status, "address": address_of(scope)}
        log.log(level, "socket refused", extra={**about, "origin": kept(origin_of(scope["headers"]))})

    def foreign(self, scope: Scope) -> None:
        """Note that a page of another origin was sent away. It learns nothing: it could read a close code."""
        self.ties.metrics.refused("origin")
        self.denied("origin_refused", 403, scope, level=logging.WARNING)
