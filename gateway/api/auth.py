"""Signing in and out, one's own sessions and password, the public keys. Decides nothing: ``login`` and ``revoker`` do.

``POST /auth/token`` speaks the error language of RFC 6749 (``oauth.py``), everything else problem+json.
"""

from __future__ import annotations

import contextlib

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.api import oauth
from gateway.api.deps import (
    Cursor,
    Limit,
    Reader,
    SignedIn,
    actor,
    address_of,
    known,
    now_of,
    request_id_of,
    services_of,
)
from gateway.api.routes import LeanRoute, StrictRoute
from gateway.api.schemas import Credentials, Identity, NewPassword, RefreshToken, SessionList, SessionOut, Tokens
from gateway.errors import NotFound
from gateway.granting import TokenAnswer
from gateway.model import ADMIN, Target, rfc3339

router = APIRouter(tags=["auth"], route_class=StrictRoute)
form_router = APIRouter(tags=["auth"], route_class=LeanRoute)


def tokens(answer: TokenAnswer) -> Tokens:
    return Tokens(
        access_token=answer.access_token,
        expires_in=answer.expires_in,
        refresh_token=answer.refresh_token,
        refresh_expires_in=answer.refresh_expires_in,
        scope=answer.scope,
    )


@router.post("/auth/login", summary="Sign in", response_model_exclude_none=True)
async def login(request: Request, body: Credentials) -> Tokens:
    """A new session of a user on this device. An unknown user and a wrong password are the same answer."""
    answer = await services_of(request).login.password(
        body.username,
        body.password,
        device=body.device,
        address=address_of(request),
        request_id=request_id_of(request),
    )
    return tokens(answer)


@router.post("/auth/refresh", summary="Refresh", response_model_exclude_none=True)
async def refresh(request: Request, body: RefreshToken) -> Tokens:
    """Fresh tokens of the session, the refresh token rotated. The one before, sent again within 30 seconds because the
    answer was lost, gets the same successor; any other reuse ends the session."""
    answer = await services_of(request).login.refresh(
        body.refresh_token, address=address_of(request), request_id=request_id_of(request)
    )
    return tokens(answer)


async def token(request: Request) -> Response:
    """The token endpoint of RFC 6749: `grant_type` is `password`, `refresh_token` or `client_credentials`.

    A client's secret comes by HTTP Basic or in the form, not both.
    """
    try:
        form = await oauth.read_form(request)
        answer = await oauth.grant(request, form)
    except oauth.TokenError as error:
        return oauth.refuse(error)
    body = tokens(answer).model_dump(exclude_none=True)
    return Response(orjson.dumps(body), media_type="application/json")


form_router.add_api_route(
    "/auth/token",
    token,
    methods=["POST"],
    summary="Token endpoint (RFC 6749)",
    response_model=None,
    responses=oauth.RESPONSES,
    openapi_extra={"requestBody": oauth.REQUEST_BODY},
)


@router.post("/auth/logout", summary="Sign out", status_code=204, response_class=Response)
async def logout(request: Request, principal: SignedIn) -> None:
    """The session ends and its sockets close. A client has no session: its token ends."""
    session = principal.claims.session
    target = Target(session=session) if session is not None else Target(token_id=principal.claims.token_id)
    with contextlib.suppress(NotFound):  # over already: that is what was asked for
        # Without a reason: what one ends of one's own is not among the revocations administrators look at.
        await services_of(request).revoker.revoke(target, reason=None, by=actor(request, principal))


@router.get("/auth/me", summary="Who am I", response_model_exclude_none=True)
async def me(request: Request, principal: SignedIn) -> Identity:
    """The identity behind the token, as it is now."""
    services = services_of(request)
    scope = " ".join(sorted(principal.claims.scopes))
    token_expires_at = rfc3339(principal.claims.expires_at * 1000)
    if principal.claims.session is None:
        client = await services.clients.get(principal.subject)
        return Identity(client_id=client.client_id, name=client.name, scope=scope, token_expires_at=token_expires_at)
    user = await services.users.get(principal.subject)
    return Identity(
        id=user.id,
        username=user.username,
        role=user.role,
        session=principal.claims.session,
        scope=scope,
        token_expires_at=token_expires_at,
    )


@router.get("/auth/sessions", summary="My sessions")
async def sessions(request: Request, principal: Reader, limit: Limit = 50, cursor: Cursor = None) -> SessionList:
    """The devices one is signed in on, newest first."""
    found, following = await services_of(request).sessions.list(
        principal.subject, now=now_of(request), limit=limit, cursor=cursor
    )
    current = principal.claims.session
    return SessionList(items=[SessionOut.of(one, current=current) for one in found], next=following)


@router.delete("/auth/sessions/{sid}", summary="End a session", status_code=204, response_class=Response)
async def end_session(request: Request, principal: Reader, sid: str) -> None:
    """One's own, or as an admin anybody's. Its tokens die and its sockets close."""
    services = services_of(request)
    session = await services.sessions.get(known(sid, "session"))
    if session.ended_at is not None or not (session.user_id == principal.subject or principal.has(ADMIN)):
        raise NotFound("session")  # whether it exists is nobody else's business
    await services.revoker.revoke(Target(session=sid), reason=None, by=actor(request, principal))


@router.put("/auth/password", summary="Change my password", status_code=204, response_class=Response)
async def change_password(request: Request, principal: Reader, body: NewPassword) -> None:
    """Every other session of the user ends."""
    await services_of(request).login.change_password(
        principal,
        body.current_password,
        body.new_password,
        address=address_of(request),
        request_id=request_id_of(request),
    )


@router.get("/.well-known/jwks.json", summary="Public keys (RFC 7517)", response_model=None)
async def jwks(request: Request) -> Response:
    """What verifies access tokens. 404 where they are signed with a shared secret."""
    keys = services_of(request).keyring.jwks()
    if keys is None:
        raise NotFound("keys", "Tokens are signed with a shared secret: there is no public key.")
    # A new key is published before it signs, so a copy five minutes old is never behind.
    return Response(orjson.dumps(keys), media_type="application/json", headers={"Cache-Control": "public, max-age=300"})
