"""Who opens a socket: what the request presents as token, ticket or cookie → one Principal. Spends no ticket."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Scope

from gateway.cookies import ACCESS, presented
from gateway.errors import CredentialsConflict, TokenMissing
from gateway.model import Principal
from gateway.origins import Origins, origin_of
from gateway.tickets import Ticket, is_ticket
from gateway.ties import Ties


def identify(ties: Ties, origins: Origins, scope: Scope, tokens: Sequence[str]) -> tuple[Principal, Ticket | None]:
    """Whose socket it is to be, and the ticket that is yet to be used, if one came.

    ``tokens``: every ``token=`` of the query; it may stand there once, and be a ticket. A token in Authorization and a
    cookie may come beside it, all of one session (contract section 4). Memory only. Raises TokenMissing,
    CredentialsConflict, OriginRefused, and what ``Authn.principal`` and ``Tickets.read`` raise.
    """
    if len(tokens) > 1:
        raise CredentialsConflict
    headers, principals, ticket = scope["headers"], list[Principal](), None
    for token in filter(None, tokens):
        if is_ticket(token):
            ticket = ties.tickets.read(token, origin=origin_of(headers))
            principals.append(ticket.principal)
        else:
            principals.append(ties.authn.principal(token))
    principals += [ties.authn.principal(token) for token in _bearers(scope)]
    cookie = presented(ACCESS, headers, scope.get("scheme", "ws"), origins, alone=not principals)
    if cookie is not None:
        principals.append(ties.authn.principal(cookie))
    if not principals:
        raise TokenMissing
    first, *others = principals
    if any((one.subject, one.claims.session) != (first.subject, first.claims.session) for one in others):
        raise CredentialsConflict
    return first, ticket


def _bearers(scope: Scope) -> list[str]:
    found = []
    for name, value in scope["headers"]:
        if name.lower() == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer" and token.strip():
                found.append(token.strip())
    return found
