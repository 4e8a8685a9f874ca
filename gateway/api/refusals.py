"""Which errors each route can answer, said to readers of the OpenAPI document: status, codes, an example. Raises none.

What a route does is known here by its name, method and path; that all of it is true is found out by the fuzzer, which
takes no status and no code that is not listed (``tests/fuzz/test_api.py``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gateway.api.problems import members
from gateway.errors import (
    BadCredentials,
    Conflict,
    CredentialsConflict,
    GatewayError,
    InsufficientScope,
    Invalid,
    IssuerUnavailable,
    Limited,
    NotFound,
    OriginRefused,
    RevocationsStale,
    StoreUnavailable,
    TokenExpired,
    TokenInvalid,
    TokenMissing,
    TokenRevoked,
    TooManyAttempts,
    TooManySignIns,
    UserDisabled,
)

DESCRIPTIONS = {
    400: "The `Idempotency-Key` is none.",
    401: "No token, or one that does not count.",
    403: "The token lacks the scope, or cookies or a form come from a page that may not send them.",
    404: "There is no such thing, or it is somebody else's.",
    409: "It conflicts with what is there.",
    413: "The body is too large.",
    414: "The target is too long.",
    415: "The body is of another type.",
    422: "The request cannot be taken; nothing was stored.",
    429: "Over a rate; `Retry-After` says when to come back.",
    503: "Not now: what was asked is unknown. Try again, a push with its `Idempotency-Key`.",
}
ANYWHERE = (
    *("bad_request", "tls_required", "not_found", "method_not_allowed", "request_timeout", "uri_too_long"),
    *("misdirected_request", "validation_failed", "headers_too_large", "internal_error", "store_unavailable"),
)
"""What can be said to a request before anybody knows which route it is for, or that a route does not expect."""

_ERRORS: tuple[GatewayError, ...] = (
    *(TokenMissing(), TokenInvalid(), TokenExpired(), TokenRevoked(), UserDisabled(), CredentialsConflict()),
    *(BadCredentials(), InsufficientScope("admin"), OriginRefused(), StoreUnavailable(), RevocationsStale()),
    *(NotFound(what) for what in ("user", "client", "session", "notification")),
    NotFound("keys", "Tokens are signed with a shared secret: there is no public key."),
    Conflict("id_taken", "A user with this id exists, or did."),
    Conflict("username_taken", "A user with this name exists."),
    Conflict("last_admin", "Without this user nobody could administer any more."),
    Conflict("ack_out_of_range", "The inbox does not go that far."),
    Conflict("epoch_mismatch", "The epoch is not that of this inbox: forget the numbers kept with it."),
    Invalid(errors=[("/title", "required")]),
    Invalid("The body is not JSON.", code="invalid_json"),
    Invalid("Not supported by this version: topic.", code="not_supported", errors=[("/topic", "not supported")]),
    Invalid("This Idempotency-Key was used for another request.", code="idempotency_mismatch"),
    *(
        Invalid(detail, code=code, errors=[("/password", detail)])
        for code, detail in (
            ("password_too_short", "A password has at least 8 characters."),
            ("password_too_long", "A password has at most 1024 characters."),
            ("password_common", "This password is among the first that are guessed."),
        )
    ),
    Limited("push", retry_after=1, quota=1000, window=1),
    TooManyAttempts("sign-ins of an account", retry_after=60, quota=10, window=900),
    *(TooManySignIns(), IssuerUnavailable(retry_after=5)),
)
_BY_HTTP = {
    "bad_request": (400, "Not exactly one Host."),
    "idempotency_key_invalid": (400, "An Idempotency-Key is one header field of 1 to 255 visible ASCII characters."),
    "tls_required": (403, "This gateway is spoken to over TLS only."),
    "not_found": (404, "There is nothing at this path."),
    "method_not_allowed": (405, "This path does not know that method."),
    "request_timeout": (408, "The request took too long to arrive."),
    "payload_too_large": (413, "The body is larger than 65536 bytes."),
    "uri_too_long": (414, "The target is too long."),
    "unsupported_media_type": (415, "The body has to be application/json in UTF-8, not compressed."),
    "misdirected_request": (421, "This gateway does not answer for that host."),
    "headers_too_large": (431, "The head of the request is too large."),
    "internal_error": (500, "The gateway made a mistake."),
    "not_ready": (503, "This node cannot serve now."),
}
"""What only HTTP knows; the words are those of a real answer, and for people."""

_TOKEN = ("token_missing", "token_invalid", "token_expired", "token_revoked", "user_disabled", "credentials_conflict")
_PASSWORDS = ("password_too_short", "password_too_long", "password_common")
_NOTIFICATION = ("unknown_notification",)
_FOR_PAGES = (
    *("/auth/login", "/auth/refresh", "/auth/logout", "/auth/ticket"),
    *("/auth/token", "/auth/revoke", "/auth/introspect"),
)
"""A page of another origin may use no cookies there, and send no forms."""
_OF: dict[str, dict[int, tuple[str, ...]]] = {
    "POST /notifications": {
        404: ("unknown_user",), 422: ("not_supported", "idempotency_mismatch"), 429: ("rate_limited",),
    },
    "POST /notifications/batch": {429: ("rate_limited",)},
    "GET /notifications/{id}": {404: _NOTIFICATION},
    "DELETE /notifications/{id}": {404: _NOTIFICATION},
    "GET /inbox/{id}": {404: _NOTIFICATION},
    "DELETE /inbox/{id}": {404: _NOTIFICATION},
    "POST /inbox/read": {409: ("epoch_mismatch",)},
    "POST /inbox/ack": {409: ("epoch_mismatch", "ack_out_of_range")},
    "POST /auth/login": {
        401: ("bad_credentials", "user_disabled"), 429: ("too_many_attempts", "rate_limited"), 503: ("unavailable",),
    },
    "POST /auth/refresh": {
        401: ("bad_credentials", "token_missing"), 429: ("rate_limited",), 503: ("unavailable",),
    },
    "POST /auth/token": {
        429: ("too_many_attempts", "rate_limited"), 503: ("unavailable", "issuer_unavailable"),
    },
    "POST /auth/revoke": {429: ("too_many_attempts", "rate_limited"), 503: ("revocations_stale",)},
    "POST /auth/introspect": {429: ("too_many_attempts",), 503: ("revocations_stale",)},
    "POST /auth/ticket": {429: ("rate_limited",), 503: ("unavailable",)},
    "POST /auth/logout": {429: ("rate_limited",)},
    "DELETE /auth/sessions/{sid}": {404: ("unknown_session",)},
    "PUT /auth/password": {
        401: ("bad_credentials",), 422: _PASSWORDS, 429: ("too_many_attempts", "rate_limited"), 503: ("unavailable",),
    },
    "GET /.well-known/jwks.json": {404: ("unknown_keys",)},
    "GET /readyz": {503: ("not_ready",)},
    "POST /admin/users": {409: ("id_taken", "username_taken"), 422: _PASSWORDS, 503: ("unavailable",)},
    "GET /admin/users/{id}": {404: ("unknown_user",)},
    "PATCH /admin/users/{id}": {404: ("unknown_user",), 409: ("last_admin",)},
    "DELETE /admin/users/{id}": {404: ("unknown_user",), 409: ("last_admin",)},
    "PUT /admin/users/{id}/password": {404: ("unknown_user",), 422: _PASSWORDS, 503: ("unavailable",)},
    "POST /admin/clients/{client_id}/rotate": {404: ("unknown_client",)},
    "DELETE /admin/clients/{client_id}": {404: ("unknown_client",)},
    "POST /admin/revocations": {404: ("unknown_session", "unknown_user", "unknown_client")},
}  # fmt: skip
"""What is particular to one route, beside what follows from its parameters, its body and whom it lets in."""


def refusals(name: str, operation: Mapping[str, Any], *, scopes: Collection[str | None]) -> dict[int, list[str]]:
    """Status → codes that ``name`` (method and path) can answer. ``scopes``: those its guards ask for (None: any)."""
    path = name.partition(" ")[2]
    found: dict[int, list[str]] = {}

    def add(status: int, *codes: str) -> None:
        found.setdefault(status, []).extend(code for code in codes if code not in found.get(status, ()))

    if path in ("/healthz", "/events"):  # the first answers from memory, the other tells everything as an event
        return found
    form = "application/x-www-form-urlencoded" in operation.get("requestBody", {}).get("content", ())
    if "security" in operation and not form:
        add(401, *_TOKEN)
        add(503, "revocations_stale")
        if scopes != [None]:
            add(403, "insufficient_scope")
    if "requestBody" in operation:
        add(413, "payload_too_large")
        add(415, "unsupported_media_type")
        if not form:  # what is wrong with a form is told as RFC 6749 has it
            add(422, "validation_failed", "invalid_json")
    parameters = operation.get("parameters", ())
    if any(parameter["name"] == "Idempotency-Key" for parameter in parameters) or path == "/notifications/batch":
        add(400, "idempotency_key_invalid")  # the batch looks at it too, to refuse it
    if any(parameter["in"] == "query" for parameter in parameters):
        add(422, "validation_failed")
    if any(parameter["schema"].get("type") == "array" for parameter in parameters):
        add(414, "uri_too_long")
    if path in _FOR_PAGES:
        add(403, "origin_refused")
    for status, codes in _OF.get(name, {}).items():
        add(status, *codes)
    if path not in ("/readyz", "/.well-known/jwks.json"):
        add(503, "store_unavailable")
    return found


def examples() -> dict[str, Any]:
    """Of every code one, for ``components/examples``."""
    return {code: {"value": _example(code)} for code in sorted({*_BY_HTTP, *(error.code for error in _ERRORS)})}


def _example(code: str) -> dict[str, Any]:
    """A problem as it is answered, with the members that go with its kind."""
    instance = "/the/path/asked"
    for error in _ERRORS:
        if error.code == code:
            return {**members(error), "instance": instance}
    status, detail = _BY_HTTP[code]
    title = code.replace("_", " ").capitalize()
    problem = {"type": f"/problems/{code}", "title": title, "status": status, "detail": detail, "code": code}
    if code == "not_ready":
        problem["reasons"] = ["the database cannot be used"]
    return {**problem, "instance": instance}


def answer(description: str, codes: Collection[str]) -> dict[str, Any]:
    """A problem response of the document: which codes it can have, each with its example."""
    named = ", ".join(f"`{code}`" for code in codes)
    return {
        "description": f"{description} {named}.",
        "content": {
            "application/problem+json": {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in codes},
            }
        },
    }
