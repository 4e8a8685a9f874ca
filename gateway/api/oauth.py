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
from gateway.model import PUSH

MAX_FIELDS = 50
GRANTS = ("password", "refresh_token", "client_credentials")


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
    kind = _needed(form, "grant_type")
    basic = _basic(request)
    if basic is not None and "client_secret" in form:
        raise TokenError("invalid_request", "The client authenticates in two ways at once.")
    try:
        if kind == "password":
            username, password = _needed(form, "username"), _needed(form, "password")
            return await login.password(username, password, device=None, address=address, request_id=request_id)
        if kind == "refresh_token":
            return await login.refresh(_needed(form, "refresh_token"), address=address, request_id=request_id)
        if kind == "client_credentials":
            client_id, secret = basic or (form.get("client_id", ""), form.get("client_secret", ""))
            if form.get("client_id", client_id) != client_id:
                raise TokenError("invalid_request", "client_id is not the client that authenticates.")
            return await login.client_credentials(
                client_id, secret, scope=form.get("scope"), address=address, request_id=request_id
            )
    except Unauthenticated as error:
        # One word for a person's or a token's credentials, another for a client's (section 5.2).
        raise TokenError("invalid_client" if kind == "client_credentials" else "invalid_grant", error.detail) from None
    except Invalid as error:
        raise TokenError(
            "invalid_scope" if error.code == "invalid_scope" else "invalid_request", error.detail
        ) from None
    raise TokenError("unsupported_grant_type", f"The grants here are {', '.join(GRANTS)}.")


def _needed(form: Mapping[str, str], name: str) -> str:
    value = form.get(name)
    if value is None:
        raise TokenError("invalid_request", f"{name} is missing.")
    return value


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
                },
            },
            "example": {"grant_type": "client_credentials", "scope": PUSH},
        }
    },
}
_ERROR = {
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
        "description": "`invalid_request`, `invalid_grant`, `unsupported_grant_type` or `invalid_scope`.",
        "content": {"application/json": {"schema": _ERROR}},
    },
    401: {"description": "`invalid_client`.", "content": {"application/json": {"schema": _ERROR}}},
}
