"""What endpoints ask of a request: the services, who is calling, from where, which page. Knows no endpoint."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Query
from starlette.requests import Request

from gateway.errors import CredentialsConflict, NotFound, TokenMissing
from gateway.model import ADMIN, INBOX, Actor, Principal, millis

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


def guard(request: Request, scope: str | None) -> Principal:
    """The caller, who has ``scope`` (None: any). Raises Unauthenticated, InsufficientScope, RevocationsStale.

    Verified once a request: the route asks before it reads the body, the endpoint gets the same principal again.
    """
    principal: Principal | None = request.scope.get("gateway.principal")
    authn = services_of(request).authn
    if principal is None:
        token = bearer(request)
        if token is None:
            raise TokenMissing
        principal = authn.principal(token)
        request.scope["gateway.principal"] = principal
    if scope is not None:
        authn.require(principal, scope)
    return principal


GUARDS: dict[object, str | None] = {}
"""The dependencies below, and the scope each asks for: ``StrictRoute`` calls them first, the OpenAPI shows them."""


def _requires(scope: str | None) -> Callable[[Request], Awaitable[Principal]]:
    async def principal(request: Request) -> Principal:
        return guard(request, scope)

    GUARDS[principal] = scope
    return principal


SignedIn = Annotated[Principal, Depends(_requires(None))]
Reader = Annotated[Principal, Depends(_requires(INBOX))]
"""A user with a session: no client ever has the scope."""
Administrator = Annotated[Principal, Depends(_requires(ADMIN))]


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
