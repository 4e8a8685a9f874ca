"""The language of the token endpoint (RFC 6749): its form, its grants, its errors. Signs nobody in itself."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.deps import address_of, request_id_of, services_of
from gateway.api.problems import REALM
from gateway.api.routes import FORM, MAX_BODY, read_body
from gateway.errors import Invalid, Unauthenticated
from gateway.granting import TokenAnswer
from gateway.model import PUSH, is_client_id

MAX_FIELDS = 50
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
GRANTS = ("password", "refresh_token", "client_credentials", EXCHANGE)
TOKEN_TYPE = "urn:ietf:params:oauth:token-type:"  # noqa: S105 - how their names begin (RFC 8693 section 3)
ACCESS_TOKEN = f"{TOKEN_TYPE}access_token"
SUBJECT_TOKENS = (f"{TOKEN_TYPE}jwt", f"{TOKEN_TYPE}id_token", ACCESS_TOKEN)


_REFUSED = {"client_credentials": "invalid_client", EXCHANGE: "invalid_request"}
"""The word for credentials that will not do (RFC 6749 section 5.2, RFC 8693 section 2.2.2); else ``invalid_grant``."""


class TokenError(Exception):
    """An error answer of RFC 6749 section 5.2. ``code`` is one of its words."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code, self.description = code, description


def refuse(error: TokenError) -> Response:
    body = orjson.dumps({"error": error.code, "error_description": error.description})
    if error.code == "invalid_client":
        challenge = {"WWW-Authenticate": f'Basic realm="{REALM}"'}
        return Response(body, 401, challenge, media_type="application/json")
    return Response(body, 400, media_type="application/json")


async def read_form(request: Request) -> Mapping[str, str]:
    """The parameters of the body. One without a value counts as absent, unknown ones are left alone (section 3.2).

    Raises TokenError for what cannot be read or stands twice; Refusal for another type (415) or size (413).
    """
    raw = await read_body(request, media_type=FORM, limit=MAX_BODY)
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:  # UnicodeDecodeError is one
        raise TokenError("invalid_request", "The form cannot be read.") from None
    form: dict[str, str] = {}
    for name, value in pairs:
        if name in form:
            raise TokenError("invalid_request", "A parameter stands more than once.")
        if "\0" in value:
            raise TokenError("invalid_request", "A parameter holds NUL.")
        form[name] = value
    return {name: value for name, value in form.items() if value}


async def grant(request: Request, form: Mapping[str, str]) -> TokenAnswer:
    """Tokens for what the form brings. Raises TokenError; Limited and Unavailable pass through."""
    login = services_of(request).login
    address, request_id = address_of(request), request_id_of(request)
    kind = needed(form, "grant_type")
    presented = client_credentials_of(request, form)
    try:
        if kind == "password":
            username, password = needed(form, "username"), needed(form, "password")
            return await login.password(username, password, device=None, address=address, request_id=request_id)
        if kind == "refresh_token":
            return await login.refresh(needed(form, "refresh_token"), address=address, request_id=request_id)
        if kind == "client_credentials":
            client_id, secret = presented or (form.get("client_id", ""), "")
            if form.get("client_id", client_id) != client_id:
                raise TokenError("invalid_request", "client_id is not the client that authenticates.")
            return await login.client_credentials(
                credible(client_id), secret, scope=form.get("scope"), address=address, request_id=request_id
            )
        if kind == EXCHANGE and services_of(request).exchange.trusts_anybody:
            token = subject_token(form, audience=services_of(request).keyring.audience)
            return await services_of(request).exchange.token(token, address=address, request_id=request_id)
    except Unauthenticated as error:
        raise TokenError(_REFUSED.get(kind, "invalid_grant"), error.detail) from None
    except Invalid as error:
        raise TokenError(
            "invalid_scope" if error.code == "invalid_scope" else "invalid_request", error.detail
        ) from None
    raise TokenError("unsupported_grant_type", f"The grants here are {', '.join(GRANTS)}.")


def subject_token(form: Mapping[str, str], *, audience: str) -> str:
    """What is to be exchanged (RFC 8693 section 2.1) for a token of ours, whose ``aud`` is ``audience``."""
    token = needed(form, "subject_token")
    if needed(form, "subject_token_type") not in SUBJECT_TOKENS:
        raise TokenError("invalid_request", f"subject_token_type has to be one of {', '.join(SUBJECT_TOKENS)}.")
    if form.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:
        raise TokenError("invalid_request", f"requested_token_type has to be {ACCESS_TOKEN}.")
    if "actor_token" in form or "actor_token_type" in form:
        raise TokenError("invalid_request", "Nobody acts for somebody else here: actor_token cannot be taken.")
    if "resource" in form or form.get("audience", audience) != audience:
        raise TokenError("invalid_target", "The tokens made here are for this gateway alone.")
    return token


def needed(form: Mapping[str, str], name: str) -> str:
    value = form.get(name)
    if value is None:
        raise TokenError("invalid_request", f"{name} is missing.")
    return value


def credible(client_id: str) -> str:
    """``client_id``, if it can be one; else nobody's, which is noted as such: people paste their secret there."""
    return client_id if is_client_id(client_id) else ""


def client_credentials_of(request: Request, form: Mapping[str, str]) -> tuple[str, str] | None:
    """Client id and secret, by HTTP Basic or in the form (section 2.3.1); None without. Raises TokenError for both."""
    basic = _basic(request)
    if basic is not None and "client_secret" in form:
        raise TokenError("invalid_request", "The client authenticates in two ways at once.")
    if basic is None and "client_secret" in form:
        return form.get("client_id", ""), form["client_secret"]
    return basic


def _basic(request: Request) -> tuple[str, str] | None:
    """Client id and secret of HTTP Basic, each form-encoded inside it (section 2.3.1); None without it."""
    found = [value for name, value in request.scope["headers"] if name == b"authorization"]
    if not found:
        return None
    if len(found) > 1:
        raise TokenError("invalid_request", "The client authenticates more than once.")
    scheme, _, credentials = found[0].partition(b" ")
    if scheme.lower() != b"basic":
        raise TokenError("invalid_client", "A client authenticates by HTTP Basic or in the form.")
    try:
        client_id, colon, secret = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
        client_id, secret = unquote_plus(client_id, errors="strict"), unquote_plus(secret, errors="strict")
    except (binascii.Error, UnicodeDecodeError):
        raise TokenError("invalid_client", "The Basic credentials cannot be read.") from None
    if not colon or "\0" in client_id + secret:
        raise TokenError("invalid_client", "The Basic credentials cannot be read.")
    return client_id, secret


# -- said to readers of the OpenAPI document ----------------------------------------------------------------------

_TEXT = {"type": "string"}
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/x-www-form-urlencoded": {
            "schema": {
                "type": "object",
                "required": ["grant_type"],
                "properties": {
                    "grant_type": {"enum": list(GRANTS)},
                    "username": _TEXT,
                    "password": {"type": "string", "format": "password"},
                    "refresh_token": _TEXT,
                    "client_id": _TEXT,
                    "client_secret": {"type": "string", "format": "password"},
                    "scope": _TEXT,
                    "subject_token": {**_TEXT, "description": "Of a trusted issuer (RFC 8693)."},
                    "subject_token_type": {"enum": list(SUBJECT_TOKENS)},
                    "requested_token_type": {"enum": [ACCESS_TOKEN]},
                    "audience": _TEXT,
                },
            },
            "example": {"grant_type": "client_credentials", "scope": PUSH},
        }
    },
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": _TEXT, "error_description": _TEXT},
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Tokens.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Tokens"}}},
    },
    400: {
        "description": "`invalid_request`, `invalid_grant`, `unsupported_grant_type`, `invalid_scope` or "
        "`invalid_target`.",
        "content": {"application/json": {"schema": ERROR}},
    },
    401: {"description": "`invalid_client`.", "content": {"application/json": {"schema": ERROR}}},
}
