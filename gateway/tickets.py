"""Tickets: what a page puts into the URL of a socket in the place of its token. Signed, good once and for seconds.

Nothing is stored when one is made: it carries the claims of the token it was asked with, and dies with them. Only that
one was used is written down, in the database, because any node may be shown it again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, fields

import orjson

from gateway.authn import Authn
from gateway.errors import TokenExpired, TokenInvalid
from gateway.model import Claims, Principal
from gateway.ports import Clock, UsedTickets

LIFE = 30
"""Seconds a ticket is good for (contract section 3)."""
PREFIX = "t~"
LONGEST = 2048
_SHAPE = re.compile(r"t~([A-Za-z0-9_-]{1,1980})\.([A-Za-z0-9_-]{43})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket that is genuine and not over, and was perhaps used. ``expires_at``: seconds."""

    id: str
    expires_at: int
    principal: Principal


def is_ticket(text: str) -> bool:
    """Whether ``text`` means to be one; no access token begins so."""
    return text.startswith(PREFIX)


class Tickets:
    """``key``: 32 bytes, the same on every node. ``used`` knows which were used, on any of them."""

    def __init__(self, *, key: bytes, authn: Authn, used: UsedTickets, clock: Clock) -> None:
        if len(key) < 32:
            raise ValueError("the server key must have at least 32 bytes")
        self._key, self._authn, self._used, self._clock = key, authn, used, clock

    def issue(self, principal: Principal, *, origin: str | None) -> tuple[str, int]:
        """A ticket for what ``principal`` may, and the seconds it is good for: no longer than the token itself.

        ``origin``: of the page that asks, if it is one; only sockets of that page may use it then.
        """
        now, claims = int(self._clock()), principal.claims
        life = max(1, min(LIFE, claims.expires_at - now))
        said = {field.name: getattr(claims, field.name) for field in fields(Claims)}
        content = {
            "id": secrets.token_hex(16),
            "exp": now + life,
            "origin": None if origin is None else _digest(origin),
            "claims": said | {"scopes": sorted(claims.scopes)},
        }
        body = _base64url(orjson.dumps(content))
        return f"{PREFIX}{body}.{self._mac(body)}", life

    def read(self, raw: str, *, origin: str | None) -> Ticket:
        """Everything about it but whether it was used; from memory. ``origin``: of whoever presents it, if any.

        Raises TokenInvalid, TokenExpired, TokenRevoked, UserDisabled, RevocationsStale.
        """
        shape = _SHAPE.fullmatch(raw) if len(raw) <= LONGEST else None
        if shape is None or not hmac.compare_digest(self._mac(shape[1]), shape[2]):
            raise TokenInvalid("no ticket of ours")
        try:
            content = orjson.loads(base64.urlsafe_b64decode(shape[1] + "=" * (-len(shape[1]) % 4)))
            claims = Claims(**{**content["claims"], "scopes": frozenset(content["claims"]["scopes"])})
            id, expires_at, asked_by = str(content["id"]), int(content["exp"]), content["origin"]
        except (ValueError, KeyError, TypeError, binascii.Error):  # made by another version of the gateway
            raise TokenInvalid("a ticket of another version") from None
        if self._clock() >= expires_at:
            raise TokenExpired
        principal = self._authn.standing(claims)
        if origin is not None and asked_by is not None and _digest(origin) != asked_by:
            raise TokenInvalid("a ticket of another origin")
        return Ticket(id, expires_at, principal)

    async def use(self, ticket: Ticket) -> Principal:
        """Whose it was. Raises TokenInvalid if it was used before, on whichever node; else as ``read``, for what
        happened meanwhile; StoreUnavailable leaves open whether it is used now."""
        if not await self._used.use(ticket.id, until=ticket.expires_at * 1000):
            raise TokenInvalid("a used ticket")
        return self._authn.standing(ticket.principal.claims)

    async def redeem(self, raw: str, *, origin: str | None = None) -> Principal:
        """``read`` and ``use``."""
        return await self.use(self.read(raw, origin=origin))

    def _mac(self, body: str) -> str:
        return _base64url(hmac.digest(self._key, body.encode("ascii"), "sha256"))


def _digest(origin: str) -> str:
    """Of fixed length, whatever a client calls its origin."""
    return hashlib.sha256(origin.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
