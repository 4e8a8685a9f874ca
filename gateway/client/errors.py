"""Every way a client's call can fail, as an exception with what the gateway said about it. Decides no retry."""

from __future__ import annotations

from gateway.client.values import FieldError, Problem, Result


class GatewayError(Exception):
    """What all errors of this package are.

    ``status``: of the HTTP answer, 0 if there was none. ``code``: the gateway's machine word, stable. ``detail``: for
    people. ``errors``: what is wrong with which field. ``request_id``: how the gateway's log calls the request.
    """

    unknown: bool = False
    """Whether the gateway may have done it all the same. Sent again with ``idempotency_key``, it is done once."""
    idempotency_key: str | None = None
    """Of the push that failed."""
    results: tuple[Result, ...] = ()
    """Of ``push_many``: what is known of each item, in the order given."""

    def __init__(
        self,
        detail: str,
        *,
        code: str = "",
        status: int = 0,
        errors: tuple[FieldError, ...] = (),
        request_id: str | None = None,
    ) -> None:
        where = ";".join(f" {error.pointer}: {error.detail}" for error in errors)
        super().__init__(f"{detail}{where} ({code})" if code else detail + where)
        self.detail, self.code, self.status, self.errors, self.request_id = detail, code, status, errors, request_id

    @property
    def problem(self) -> Problem:
        return Problem(
            status=self.status, code=self.code, detail=self.detail, errors=self.errors, request_id=self.request_id
        )


class Refused(GatewayError):
    """The gateway said no, and saying it again will not help."""


class Invalid(Refused):
    """The request cannot be taken (422): ``errors`` names the fields."""


class Unauthorized(Refused):
    """The gateway does not know who is asking (401), also after a fresh token; or the secret is wrong."""


class Forbidden(Refused):
    """Whoever is asking may not do this (403)."""


class NotFound(Refused):
    """There is no such thing, or it is somebody else's (404)."""


class Unavailable(GatewayError):
    """No answer, or one that says to come again. ``after``: seconds the gateway asked for, 0 if it did not say."""

    def __init__(
        self,
        detail: str,
        *,
        after: float = 0.0,
        unknown: bool = True,
        code: str = "",
        status: int = 0,
        errors: tuple[FieldError, ...] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(detail, code=code, status=status, errors=errors, request_id=request_id)
        self.after, self.unknown = after, unknown


class RateLimited(Unavailable):
    """Too much at once (429): nothing was stored."""


class Stopped(GatewayError):
    """Listening has ended for good. ``code``: the slug of the close, if there was one.

    ``bug``: because the gateway or this client did something wrong; else somebody has to sign in again.
    """

    def __init__(self, words: str, *, bug: bool = False, reason: str = "") -> None:
        super().__init__(words)
        self.bug, self.code = bug, reason
