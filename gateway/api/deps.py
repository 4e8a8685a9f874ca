"""What endpoints ask of a request: the services, who is calling, from where, which page. Knows no endpoint."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Query
from starlette.requests import Request

from gateway.cookies import ACCESS, REFRESH, presented
from gateway.errors import CredentialsConflict, NotFound, OriginRefused, TokenMissing, Unauthenticated
from gateway.model import ADMIN, INBOX, Actor, Principal, millis
from gateway.origins import origin_of

if TYPE_CHECKING:
    from gateway.services import Services

_ID = re.compile(r"[A-Za-z0-9._~-]{1,64}")


def services_of(request: Request) -> Services:
    """What the lifespan opened (``request.state.services``)."""
    services: Services = request.state.services
    return services


def now_of(request: Request) -> int:
    """Milliseconds since the epoch, by the gateway's clock."""
    return millis(services_of(request).clock())


# -- who is calling -----------------------------------------------------------------------------------------------


def bearer(request: Request) -> str | None:
    """The token of the one Authorization header (RFC 6750 section 2.1), None without any of that scheme.

    Raises CredentialsConflict if there are several headers. A token anywhere else than there is no token.
    """
    found = [value for name, value in request.scope["headers"] if name == b"authorization"]
    if not found:
        return None
    if len(found) > 1:
        raise CredentialsConflict
    scheme, _, token = found[0].strip().partition(b" ")
    if scheme.lower() != b"bearer":
        return None
    return token.strip().decode("latin-1") or None


def guard(request: Request, scope: str | None, *, by_cookie: bool = False) -> Principal:
    """The caller, who has ``scope`` (None: any). Raises Unauthenticated, InsufficientScope, RevocationsStale.

    The route asks before it reads the body, and it is asked again for the endpoint: a body may take minutes, and whose
    token was revoked or ran out meanwhile does nothing any more. ``by_cookie``: the access cookie counts too
    (OriginRefused if it may not); of another session than the token: CredentialsConflict.
    """
    authn = services_of(request).authn
    token = bearer(request)
    cookie = cookie_of(request, ACCESS, alone=token is None) if by_cookie else None
    if token is None and cookie is None:
        raise TokenMissing
    principal = authn.principal(token if token is not None else cookie)
    if token is not None and cookie is not None:
        other = authn.principal(cookie)
        if (other.subject, other.claims.session) != (principal.subject, principal.claims.session):
            raise CredentialsConflict
    request.scope["gateway.principal"] = principal
    if scope is not None:
        authn.require(principal, scope)
    return principal


def cookie_of(request: Request, name: str, *, alone: bool = True) -> str | None:
    """The cookie if it counts for this request (``cookies.presented``)."""
    scope = request.scope
    return presented(name, scope["headers"], scope["scheme"], services_of(request).origins, alone=alone)


def refuse_foreign_form(request: Request) -> None:
    """Raises OriginRefused for a form that the page of a foreign origin sends: a browser asks nobody before it does
    (a "simple request"), and each wrong password would count against the reader of that page."""
    scope, origins = request.scope, services_of(request).origins
    origin = origin_of(scope["headers"])
    if origins.allowed(origin, scope["scheme"], request.headers.get("host")):
        return
    if request.headers.get("sec-fetch-site") != "same-origin":  # behind a proxy whose scheme is not believed
        raise OriginRefused


Guard = Callable[[Request], Awaitable[Principal]]

GUARDS: dict[object, str | None] = {}
"""The dependencies below, and the scope each asks for: ``StrictRoute`` calls them first, the OpenAPI shows them."""


BY_COOKIE: set[object] = set()
"""Those of them that take a cookie as well."""


def _requires(scope: str | None, *, by_cookie: bool = False) -> Guard:
    async def principal(request: Request) -> Principal:
        return guard(request, scope, by_cookie=by_cookie)

    GUARDS[principal] = scope
    if by_cookie:
        BY_COOKIE.add(principal)
    return principal


SignedIn = Annotated[Principal, Depends(_requires(None))]
Reader = Annotated[Principal, Depends(_requires(INBOX))]
"""A user with a session: no client ever has the scope."""
PageReader = Annotated[Principal, Depends(_requires(INBOX, by_cookie=True))]
"""As ``Reader``; a page that signed in by cookie need not show its token."""
Administrator = Annotated[Principal, Depends(_requires(ADMIN))]


async def _leaving(request: Request) -> Principal | None:
    """Who signs out. A page whose access cookie is gone, as it is after some minutes, still has the other; None if
    neither counts any more, and so nobody is signed in."""
    scope, services = request.scope, services_of(request)
    if "gateway.principal" in scope:  # the route has asked already
        return scope["gateway.principal"]  # type: ignore[no-any-return]
    if bearer(request) is not None:
        return guard(request, None, by_cookie=True)
    access, refresh = cookie_of(request, ACCESS), cookie_of(request, REFRESH)
    if access is None and refresh is None:
        raise TokenMissing
    scope["gateway.principal"] = None
    with contextlib.suppress(Unauthenticated):
        if access is not None:
            return guard(request, None, by_cookie=True)
    with contextlib.suppress(Unauthenticated):
        if refresh is not None:
            by = {"address": address_of(request), "request_id": request_id_of(request)}
            answer = await services.login.refresh(refresh, **by)
            scope["gateway.principal"] = services.authn.principal(answer.access_token)
    return scope["gateway.principal"]  # type: ignore[no-any-return]


GUARDS[_leaving] = None
BY_COOKIE.add(_leaving)
Leaver = Annotated[Principal | None, Depends(_leaving)]


def address_of(request: Request) -> str | None:
    return request.client.host if request.client is not None else None


def request_id_of(request: Request) -> str | None:
    """The id ``Edge`` gave it."""
    return getattr(request.state, "request_id", None)


def actor(request: Request, principal: Principal) -> Actor:
    return Actor(principal.subject, address_of(request), request_id_of(request))


# -- what stands in a path or a query -----------------------------------------------------------------------------


def known(id: str, what: str) -> str:
    """``id`` as it stood in a path. One that cannot be anybody's is not taken to the store: NotFound(``what``)."""
    if _ID.fullmatch(id) is None:
        raise NotFound(what)
    return id


Limit = Annotated[int, Query(ge=1, le=200, description="Items on a page.")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the page before.")]
