"""Which pages of other origins may read our answers: CORS, by the list of GATEWAY_ALLOWED_ORIGINS. Wraps nothing.

Starlette's middleware is not used: it refuses a preflight with text/plain, tells a stranger what would be allowed, and
would have to wrap the fast lane, the other routes and the last catch of an error each.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import Scope

from gateway.hardening import Fields

METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
MAY_SEND = b"Authorization, Content-Type, Idempotency-Key, X-Request-Id, Last-Event-ID"
MAY_READ = b"Location, Idempotency-Replayed, Retry-After, RateLimit, RateLimit-Policy, X-Request-Id, WWW-Authenticate"
MAX_AGE = b"600"
"""Seconds a browser may keep the answer to a preflight: an origin taken off the list is out after that."""

_VARY: Fields = ((b"vary", b"Origin"),)
_PREFLIGHT: Fields = (
    (b"access-control-allow-methods", METHODS),
    (b"access-control-allow-headers", MAY_SEND),
    (b"access-control-max-age", MAX_AGE),
)


class Cors:
    """``listed``: exact origins, or ``*`` for all. A page of the gateway's own origin needs no permission.

    Never with ``Access-Control-Allow-Credentials``: a token is sent by who holds it, and cookies are for our own pages.
    """

    def __init__(self, listed: Iterable[str] = ()) -> None:
        origins = [origin.encode("ascii") for origin in listed]
        self._all = _allow(b"*") if b"*" in origins else None
        self._listed = {origin: _allow(origin) + _VARY for origin in origins}
        self._others = _VARY if origins and self._all is None else ()

    def fields(self, origin: bytes | None) -> Fields:
        """What goes on every answer to a request of ``origin`` (None: it has none), whatever the answer is."""
        if origin is not None and self._all is not None:
            return self._all
        # Also without an Origin: else a cache would give a page what was answered to somebody who is none.
        return self._others if origin is None else self._listed.get(origin, self._others)

    def preflight(self, scope: Scope, origin: bytes | None) -> Fields | None:
        """What a preflight is answered besides ``fields``; None if this is none, or of an origin that may not read:
        then it is a request like any other, and told nothing."""
        if origin is None or scope["method"] != "OPTIONS" or (self._all is None and origin not in self._listed):
            return None
        asks = any(name == b"access-control-request-method" for name, _ in scope["headers"])
        return _PREFLIGHT if asks else None


def _allow(origin: bytes) -> Fields:
    return ((b"access-control-allow-origin", origin), (b"access-control-expose-headers", MAY_READ))
