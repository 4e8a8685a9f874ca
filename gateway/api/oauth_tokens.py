"""``POST /auth/revoke`` (RFC 7009) and ``POST /auth/introspect`` (RFC 7662): forms in, errors as RFC 6749 has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.api import oauth
from gateway.api.deps import address_of, bearer, refuse_foreign_form, request_id_of, services_of
from gateway.api.oauth import TokenError
from gateway.api.problems import REALM, headers_of, status_of
from gateway.api.routes import LeanRoute
from gateway.errors import BadCredentials, GatewayError, InsufficientScope, Unauthenticated
from gateway.model import ADMIN

router = APIRouter(tags=["auth"], route_class=LeanRoute)


async def revoke(request: Request) -> Response:
    """Whoever holds a token may revoke it: an access token ends by itself, its sockets with it; a refresh token ends
    its session; a ticket ends the access token it was made of.

    The answer is 200 for any token, also for one that is unknown or over. `token_type_hint` is not needed.
    """
    refuse_foreign_form(request)  # a client's wrong secret in it would count against who looks at that page
    try:
        form = await oauth.read_form(request)
        token = oauth.needed(form, "token")
        if bearer(request) is None:
            await _authenticated(request, form)  # not asked for; but who authenticates has to be who they say
    except TokenError as error:
        return oauth.refuse(error)
    await services_of(request).presented.revoke(token, address=address_of(request), request_id=request_id_of(request))
    return Response()


async def introspect(request: Request) -> Response:
    """Whether a token counts now, and what it says. For clients (HTTP Basic, in the form, or an access token of
    theirs) and admins (access token).

    A token that does not count is `{"active": false}` and nothing more, whatever the reason.
    """
    refuse_foreign_form(request)
    try:
        form = await oauth.read_form(request)
        await _may_introspect(request, form)
        token = oauth.needed(form, "token")
    except TokenError as error:
        return _refuse(error)
    except (Unauthenticated, InsufficientScope) as error:
        return _refuse_bearer(error)
    said = await services_of(request).presented.introspect(token)
    return Response(orjson.dumps(said or {"active": False}), media_type="application/json")


async def _authenticated(request: Request, form: Mapping[str, str]) -> bool:
    """Whether a client authenticates, by HTTP Basic or in the form (RFC 6749 section 2.3.1); False if nobody tries to.

    Raises TokenError ``invalid_client`` for one that does so wrongly.
    """
    credentials = oauth.client_credentials_of(request, form)
    if credentials is None:
        return False
    client_id, secret = credentials
    try:
        await services_of(request).login.authenticate_client(
            oauth.credible(client_id), secret, address=address_of(request), request_id=request_id_of(request)
        )
    except BadCredentials as error:
        raise TokenError("invalid_client", error.detail) from None
    return True


async def _may_introspect(request: Request, form: Mapping[str, str]) -> None:
    """Raises TokenError, Unauthenticated, InsufficientScope; Unavailable and Limited."""
    token = bearer(request)
    if token is None:
        if not await _authenticated(request, form):
            raise TokenError("invalid_client", "Only a client or an admin may ask.")
        return
    if "client_secret" in form:
        raise TokenError("invalid_request", "The client authenticates in two ways at once.")
    authn = services_of(request).authn
    principal = authn.principal(token)
    if principal.claims.session is not None:
        authn.require(principal, ADMIN)


def _refuse(error: TokenError) -> Response:
    response = oauth.refuse(error)
    if error.code == "invalid_client":  # there are two ways to be let in here
        response.headers["WWW-Authenticate"] = f'Basic realm="{REALM}", Bearer realm="{REALM}"'
    return response


def _refuse_bearer(error: GatewayError) -> Response:
    """RFC 6750 section 3.1: the words in the challenge are those of the body."""
    code = "insufficient_scope" if isinstance(error, InsufficientScope) else "invalid_token"
    body = orjson.dumps({"error": code, "error_description": error.detail})
    return Response(body, status_of(error), headers_of(error), media_type="application/json")


# -- said to readers of the OpenAPI document ----------------------------------------------------------------------


def _form(*required: str) -> dict[str, Any]:
    text = {"type": "string"}
    properties = {
        "token": text,
        "token_type_hint": {**text, "description": "Not needed, never wrong."},
        "client_id": text,
        "client_secret": {**text, "format": "password"},
    }
    schema = {"type": "object", "required": list(required), "properties": properties}
    return {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": schema}}}


_INTROSPECTED: dict[str, Any] = {
    "type": "object",
    "required": ["active"],
    "properties": {
        "active": {"type": "boolean"},
        "token_type": {"enum": ["Bearer", "refresh_token"]},
        **{name: {"type": "string"} for name in ("scope", "client_id", "username", "sub", "aud", "iss", "jti", "sid")},
        **{name: {"type": "integer", "description": "Seconds since 1970."} for name in ("exp", "iat", "nbf")},
    },
}


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": oauth.ERROR}}}


router.add_api_route(
    "/auth/revoke",
    revoke,
    methods=["POST"],
    summary="Revoke a token (RFC 7009)",
    response_model=None,
    response_class=Response,  # an empty one: without this the document promises JSON
    responses={
        200: {"description": "It does not count any more, if it ever did."},
        400: _error("`invalid_request`."),
        401: _error("`invalid_client`: client credentials came along and are wrong."),
    },
    openapi_extra={"requestBody": _form("token")},
)
router.add_api_route(
    "/auth/introspect",
    introspect,
    methods=["POST"],
    summary="Look into a token (RFC 7662)",
    response_model=None,
    responses={
        200: {
            "description": "`active: false` alone, or what the token says.",
            "content": {"application/json": {"schema": _INTROSPECTED}},
        },
        400: _error("`invalid_request`."),
        401: _error("`invalid_client` or `invalid_token`."),
        403: _error("`insufficient_scope`: a user who is no admin."),
    },
    openapi_extra={"requestBody": _form("token"), "security": [{"basic": []}, {"bearer": []}]},
)
