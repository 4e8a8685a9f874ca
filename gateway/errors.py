"""One exception tree: a class for every decision the gateway makes against a caller. Words only.

    GatewayError
    ├── Unauthenticated            401 · 1008      no principal could be made of what was presented
    │   ├── TokenMissing
    │   ├── TokenInvalid
    │   ├── TokenExpired
    │   ├── TokenRevoked
    │   ├── UserDisabled
    │   ├── CredentialsConflict
    │   └── BadCredentials                         a wrong password, refresh token or client secret
    │       └── CredentialsChanged                 right when it was verified, but no more when the session was to start
    ├── InsufficientScope          403 · 1008
    ├── OriginRefused              403             a page of another origin, or with cookies and of none
    ├── NotFound                   404             unknown_user, unknown_notification, unknown_session, …
    ├── Conflict                   409             username_taken, id_taken, ack_out_of_range, epoch_mismatch, …
    ├── Invalid                    422             validation_failed, idempotency_mismatch, not_supported, …
    ├── Limited                    429             over a rate; says when to come back
    │   └── TooManyAttempts                        of signing in, that failed
    └── Unavailable                503 · 1013      the store, or news of revocations, cannot be had now
        ├── StoreUnavailable
        ├── RevocationsStale
        ├── TooManySignIns
        └── IssuerUnavailable

The core raises these and nothing between it and an edge catches them: ``api/problems.py`` turns them into a status,
``sockets/endpoint.py`` into a close. ``code`` is the stable machine word; ``str(error)`` is the human detail and never
holds a token, an SQL text or a path.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import ClassVar

from gateway.closing import (
    CREDENTIALS_CONFLICT,
    INSUFFICIENT_SCOPE,
    OVERLOADED,
    TOKEN_EXPIRED,
    TOKEN_INVALID,
    TOKEN_MISSING,
    TOKEN_REVOKED,
    USER_DISABLED,
    Close,
)


class GatewayError(Exception):
    """Root of the tree. ``code``: stable machine word. ``close``: how a socket ends on it, if one can."""

    code: str = "error"
    detail: str = "The request was refused."
    close: ClassVar[Close | None] = None

    def __init__(self, detail: str | None = None, *, code: str | None = None) -> None:
        super().__init__(detail or self.detail)
        self.detail = detail or self.detail
        if code is not None:
            self.code = code


class Unauthenticated(GatewayError):
    code = "unauthenticated"
    detail = "Sign in first."


class TokenMissing(Unauthenticated):
    code, detail, close = "token_missing", "No token was presented.", TOKEN_MISSING


class TokenInvalid(Unauthenticated):
    """``why`` is for the log only: to the outside, every bad token is the same (RFC 8725)."""

    code, detail, close = "token_invalid", "The token is not valid.", TOKEN_INVALID

    def __init__(self, why: str = "") -> None:
        super().__init__()
        self.why = why


class TokenExpired(Unauthenticated):
    code, detail, close = "token_expired", "The token has expired.", TOKEN_EXPIRED


class TokenRevoked(Unauthenticated):
    code, detail, close = "token_revoked", "The token has been revoked.", TOKEN_REVOKED


class UserDisabled(Unauthenticated):
    code, detail, close = "user_disabled", "The user is disabled.", USER_DISABLED


class CredentialsConflict(Unauthenticated):
    code, close = "credentials_conflict", CREDENTIALS_CONFLICT
    detail = "The request carries credentials more than once."


class BadCredentials(Unauthenticated):
    code, detail = "bad_credentials", "The credentials are not right."


class CredentialsChanged(BadCredentials):
    """Whoever verified it may look once more."""


class InsufficientScope(GatewayError):
    code, close = "insufficient_scope", INSUFFICIENT_SCOPE

    def __init__(self, scope: str) -> None:
        super().__init__(f"The token lacks the scope {scope}.")
        self.scope = scope


class OriginRefused(GatewayError):
    """No ``close``: a page of another origin learns nothing from a socket, which a close code could tell it."""

    code, detail = "origin_refused", "Pages of this origin may not do this here."


class NotFound(GatewayError):
    """``what`` completes the code: NotFound("user") is ``unknown_user``."""

    def __init__(self, what: str, detail: str | None = None) -> None:
        super().__init__(detail or f"There is no such {what}.", code=f"unknown_{what}")


class Conflict(GatewayError):
    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail, code=code)


class Invalid(GatewayError):
    """The request says something that cannot be taken; nothing was stored.

    ``errors``: (JSON pointer, detail) pairs, RFC 6901 pointers into the body (``""`` is the whole of it), or
    ``query:name`` / ``header:name`` for what does not stand in a body.
    """

    code, detail = "validation_failed", "The request is not valid."

    def __init__(
        self, detail: str | None = None, *, code: str | None = None, errors: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(detail, code=code)
        self.errors = tuple(errors)


class Limited(GatewayError):
    """Over a rate. ``retry_after`` and ``window``: seconds. ``policy``: the name of the limit; ``quota`` per window."""

    code, detail = "rate_limited", "Too many requests."

    def __init__(self, policy: str, *, retry_after: float, quota: int, window: int) -> None:
        super().__init__()
        self.policy, self.retry_after, self.quota, self.window = policy, retry_after, quota, window


class TooManyAttempts(Limited):
    """Nothing was verified: it says nothing about what was presented."""

    code, detail = "too_many_attempts", "Too many sign-ins have failed. Come back later."


class Unavailable(GatewayError):
    """Try again: what was asked is unknown, not refused. ``retry_after``: seconds."""

    code, detail, close = "unavailable", "The gateway cannot do this right now.", OVERLOADED
    retry_after: float = 1.0


class StoreUnavailable(Unavailable):
    code, detail = "store_unavailable", "The database cannot be used right now."


class RevocationsStale(Unavailable):
    code, detail = "revocations_stale", "News of revocations is late."


class TooManySignIns(Unavailable):
    """At once: passwords are verified by few, and the line is full. They are sent away for different times, or they
    would all be back in the same moment."""

    detail = "Too many sign-ins at once."

    def __init__(self) -> None:
        super().__init__()
        self.retry_after = random.uniform(1.0, 5.0)  # noqa: S311 - jitter


class IssuerUnavailable(Unavailable):
    """The keys of a trusted issuer cannot be had: whether its token is good cannot be known now."""

    code, detail = "issuer_unavailable", "The keys of the issuer of this token cannot be fetched right now."

    def __init__(self, *, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


_TOKEN = re.compile(r"(?:eyJ|t~)[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*")


def without_tokens(text: str) -> str:
    """``text`` that an error repeats of what its caller wrote, a path or a name, without its tokens (contract 9)."""
    return _TOKEN.sub("[redacted]", text) if "eyJ" in text or "t~" in text else text
