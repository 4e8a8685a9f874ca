"""Revoking, and seeing who is signed in, online, and did what (``/admin``). Users and clients: ``admin.py``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request

from gateway.api.admin_schemas import (
    AuditList,
    AuditOut,
    ConnectionList,
    ConnectionOut,
    NewRevocation,
    PresenceList,
    PresenceOut,
    PresenceTotals,
    RevocationList,
    RevocationOut,
    Revoked,
)
from gateway.api.deps import Administrator, Cursor, Limit, actor, now_of, services_of
from gateway.api.routes import StrictRoute
from gateway.api.schemas import SessionList, SessionOut, instant
from gateway.errors import Invalid
from gateway.model import Target

router = APIRouter(prefix="/admin", tags=["admin"], route_class=StrictRoute)

OfUser = Annotated[str | None, Query(max_length=64, description="Of this user only.")]
Asked = Annotated[
    list[Annotated[str, Field(max_length=64)]], Query(min_length=1, max_length=100, description="Given 1 to 100 times.")
]
TARGETS = ("session", "user_id", "jti", "client_id")


@router.post("/revocations", summary="Revoke", status_code=201)
async def revoke(request: Request, principal: Administrator, body: NewRevocation) -> Revoked:
    """`session`: a lost device. `user_id`: every session signed in at or before `issued_before` (default now).
    `jti`: that access token and the sockets on it. `client_id`: its tokens issued up to now.

    When this is answered the sockets on this node are closed; the other nodes follow within the second.
    """
    target = _target(body, now=now_of(request))
    revocation, closed = await services_of(request).revoker.revoke(
        target, reason=body.reason, by=actor(request, principal)
    )
    return Revoked(id=revocation.id, connections_closed=closed)


def _target(body: NewRevocation, *, now: int) -> Target:
    given = [name for name in TARGETS if getattr(body, name) is not None]
    if len(given) != 1:
        raise Invalid(errors=[("", f"has exactly one of {', '.join(TARGETS)}")])
    issued_before: int | None = None
    if body.issued_before is not None:
        if body.user_id is None:
            raise Invalid(errors=[("/issued_before", "goes with user_id only")])
        issued_before = instant(body.issued_before)
        if issued_before > now:
            raise Invalid(errors=[("/issued_before", "lies in the future")])
    return Target(
        session=body.session,
        user_id=body.user_id,
        token_id=body.jti,
        client_id=body.client_id,
        issued_before=issued_before,
    )


@router.get("/revocations", summary="Revocations in force")
async def revocations(
    request: Request, principal: Administrator, limit: Limit = 50, cursor: Cursor = None
) -> RevocationList:
    """Newest first."""
    found, following = await services_of(request).revocation_log.list(now=now_of(request), limit=limit, cursor=cursor)
    return RevocationList(items=[RevocationOut.of(one) for one in found], next=following)


@router.get("/sessions", summary="Sessions")
async def sessions(
    request: Request, principal: Administrator, user_id: OfUser = None, limit: Limit = 50, cursor: Cursor = None
) -> SessionList:
    """Those that have not ended, expired or been idle for too long, newest first."""
    found, following = await services_of(request).sessions.list(
        user_id, now=now_of(request), idle=services_of(request).session_idle, limit=limit, cursor=cursor
    )
    current = principal.claims.session
    return SessionList(items=[SessionOut.of(one, current=current) for one in found], next=following)


@router.get("/connections", summary="Open connections")
async def connections(
    request: Request, principal: Administrator, user_id: OfUser = None, limit: Limit = 50, cursor: Cursor = None
) -> ConnectionList:
    """Of every node, by id. Redis carries the question: while it is away, only the connections of this node are
    listed, and `missing` names the others.
    """
    roster = await services_of(request).bus.connections(user_id, after=cursor, limit=limit + 1)
    page = roster.connections[:limit]
    following = page[-1].id if len(roster.connections) > limit else None
    return ConnectionList(items=[ConnectionOut.of(one) for one in page], next=following, missing=list(roster.missing))


@router.get("/presence", summary="Who is online")
async def presence(request: Request, principal: Administrator, user_id: Asked) -> PresenceList:
    """On any node, one item for each `user_id`, in their order. A user is online until a moment after the last
    connection has ended, and a user whom nobody knows is offline. What is told may be a few seconds old.
    """
    return PresenceList(items=[PresenceOut.of(one) for one in await services_of(request).presence.of(user_id)])


@router.get("/presence/summary", summary="How many are online")
async def presence_summary(request: Request, principal: Administrator) -> PresenceTotals:
    """The nodes that live, and the sums over them: a user with devices on two nodes counts on each."""
    return PresenceTotals.of(await services_of(request).presence.summary())


@router.get("/audit", summary="Who did what")
async def audit(request: Request, principal: Administrator, limit: Limit = 50, cursor: Cursor = None) -> AuditList:
    """Newest first. Nothing is ever changed or taken out."""
    found, following = await services_of(request).audit.list(limit=limit, cursor=cursor)
    return AuditList(items=[AuditOut.of(record) for record in found], next=following)
