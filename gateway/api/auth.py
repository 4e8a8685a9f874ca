"""Signing in and out, one's own sessions and password, the public keys. Decides nothing: ``login`` and ``revoker`` do.

``POST /auth/token`` speaks the error language of RFC 6749 (``oauth.py``), everything else problem+json.
"""

from __future__ import annotations

import contextlib
from typing import Annotated

import orjson
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from gateway.allowance import TICKETS, Allowance
from gateway.api import oauth
from gateway.api.deps import (
    Cursor,
    Leaver,
    Limit,
    PageReader,
    Reader,
    SignedIn,
    actor,
    address_of,
    cookie_of,
    known,
    now_of,
    refuse_foreign_form,
    request_id_of,
    services_of,
)
from gateway.api.problems import headers_of, members, respond
from gateway.api.routes import LeanRoute, StrictRoute
from gateway.api.schemas import (
    Credentials,
    Identity,
    NewPassword,
    RefreshToken,
    SessionList,
    SessionOut,
    SignedInByCookie,
    Ticket,
    Tokens,
)
from gateway.cookies import ACCESS, REFRESH, from_own_page, setting
from gateway.errors import BadCredentials, NotFound, OriginRefused, TokenMissing
from gateway.granting import TokenAnswer
from gateway.model import ADMIN, Target, rfc3339
from gateway.origins import origin_of

router = APIRouter(tags=["auth"], route_class=StrictRoute)
form_router = APIRouter(tags=["auth"], route_class=LeanRoute)

_KEY_SET = {
    "type": "object",
    "required": ["keys"],
    "properties": {"keys": {"type": "array", "items": {"type": "object", "required": ["kty", "kid", "alg", "use"]}}},
}


def tokens(answer: TokenAnswer) -> Tokens:
    return Tokens(
        access_token=answer.access_token,
        expires_in=answer.expires_in,
        refresh_token=answer.refresh_token,
        refresh_expires_in=answer.refresh_expires_in,
        scope=answer.scope,
    )


ByCookie = Annotated[bool, Query(description="Set cookies and return no tokens: for pages of the same origin.")]


@router.post("/auth/login", summary="Sign in", response_model_exclude_none=True)
async def login(
    request: Request, response: Response, body: Credentials, cookie: ByCookie = False
) -> Tokens | SignedInByCookie:
    """A new session of a user on this device. An unknown user and a wrong password are the same answer.

    With `cookie=true`, which only pages of this or an allowed origin may ask for, the tokens stand in two cookies that
    no script can read. They count on `/ws`, `/auth/ticket`, `/auth/refresh` and `/auth/logout`, and nowhere else.
    """
    if cookie and not from_own_page(request.scope["headers"], request.scope["scheme"], services_of(request).origins):
        raise OriginRefused  # a form of another site would sign its reader in as somebody else (login CSRF)
    answer = await services_of(request).login.password(
        body.username,
        body.password,
        device=body.device,
        address=address_of(request),
        request_id=request_id_of(request),
    )
    if not cookie:
        return tokens(answer)
    _set_cookies(response, answer)
    return SignedInByCookie(
        expires_in=answer.expires_in, refresh_expires_in=answer.refresh_expires_in, scope=answer.scope
    )


@router.post("/auth/refresh", summary="Refresh", response_model=Tokens, response_model_exclude_none=True)
async def refresh(request: Request, response: Response, body: RefreshToken | None = None) -> Tokens | Response:
    """Fresh tokens of the session, the refresh token rotated. The one before, sent again within 30 seconds because the
    answer was lost, gets the same successor; any other reuse ends the session.

    Without a body it is the refresh cookie that counts: both cookies are set anew, and the answer holds an access token
    alone, for the page's own requests. If it does not count any more, both cookies are taken back.
    """
    login, address, request_id = services_of(request).login, address_of(request), request_id_of(request)
    if body is not None:
        return tokens(await login.refresh(body.refresh_token, address=address, request_id=request_id))
    cookie = cookie_of(request, REFRESH)
    if cookie is None:
        raise TokenMissing
    try:
        answer = await login.refresh(cookie, address=address, request_id=request_id)
    except BadCredentials as error:
        refused = respond(request, members(error), headers_of(error))
        _take_cookies_back(refused)
        return refused
    _set_cookies(response, answer)
    return Tokens(
        access_token=answer.access_token, expires_in=answer.expires_in, refresh_expires_in=None, scope=answer.scope
    )


def _set_cookies(response: Response, answer: TokenAnswer) -> None:
    for name, value, life in (
        (ACCESS, answer.access_token, answer.expires_in),
        (REFRESH, answer.refresh_token or "", answer.refresh_expires_in or 0),
    ):
        response.headers.append("Set-Cookie", setting(name, value, max_age=life))


def _take_cookies_back(response: Response) -> None:
    for name in (ACCESS, REFRESH):
        response.headers.append("Set-Cookie", setting(name, "", max_age=0))


@router.post("/auth/ticket", summary="A ticket for a socket", status_code=201)
async def ticket(request: Request, principal: PageReader) -> Ticket:
    """Stands in `token=` of `/ws`, once, so that no token need stand in a URL. It is of the token's session and ends
    with it; asked for by a page, it is good for that page's origin alone."""
    services = services_of(request)
    await Allowance(services.limiter, TICKETS).take(principal.subject)
    issued, life = services.tickets.issue(principal, origin=origin_of(request.scope["headers"]))
    return Ticket(ticket=issued, expires_in=life)


async def token(request: Request) -> Response:
    """The token endpoint of RFC 6749. `grant_type`: `password`, `refresh_token`, `client_credentials`, token exchange.

    A client's secret comes by HTTP Basic or in the form, not both. Token exchange (RFC 8693): the token of an issuer of
    `GATEWAY_TRUSTED_ISSUERS` becomes a session here.
    """
    refuse_foreign_form(request)
    try:
        form = await oauth.read_form(request)
        answer = await oauth.grant(request, form)
    except oauth.TokenError as error:
        return oauth.refuse(error)
    body = tokens(answer).model_dump(exclude_none=True)
    if form["grant_type"] == oauth.EXCHANGE:
        body["issued_token_type"] = oauth.ACCESS_TOKEN  # RFC 8693 section 2.2.1
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
async def logout(request: Request, response: Response, principal: Leaver) -> None:
    """The session ends and its sockets close. A client has no session: its token ends. The cookies of a page are taken
    back, whether they still counted or not."""
    if any(cookie_of(request, name, alone=False) is not None for name in (ACCESS, REFRESH)):
        _take_cookies_back(response)
    if principal is None:
        return
    session = principal.claims.session
    target = Target(session=session) if session is not None else Target(token_id=principal.claims.token_id)
    with contextlib.suppress(NotFound):  # over already: that is what was asked for
        # What one ends of one's own is not among the revocations administrators look at.
        await services_of(request).revoker.revoke(target, reason=None, by=actor(request, principal), listed=False)


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
        principal.subject,
        now=now_of(request),
        idle=services_of(request).session_idle,
        limit=limit,
        cursor=cursor,
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


@router.get(
    "/.well-known/jwks.json",
    summary="Public keys (RFC 7517)",
    response_model=None,
    responses={200: {"description": "A JWK Set.", "content": {"application/json": {"schema": _KEY_SET}}}},
)
async def jwks(request: Request) -> Response:
    """What verifies access tokens. 404 where they are signed with a shared secret."""
    keys = services_of(request).keyring.jwks()
    if keys is None:
        raise NotFound("keys", "Tokens are signed with a shared secret: there is no public key.")
    # A new key is published before it signs, so a copy five minutes old is never behind.
    return Response(orjson.dumps(keys), media_type="application/json", headers={"Cache-Control": "public, max-age=300"})
