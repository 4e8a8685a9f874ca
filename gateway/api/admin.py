"""Users and clients (``/admin``). Who may revoke, look at sessions or read the audit: ``oversight.py``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.admin_schemas import (
    ClientList,
    ClientOut,
    ClientWithSecret,
    NewClient,
    NewUser,
    PasswordReset,
    UserChange,
    UserList,
    UserOut,
)
from gateway.api.deps import Administrator, Cursor, Limit, actor, known, now_of, services_of
from gateway.api.routes import StrictRoute
from gateway.login import new_client_secret
from gateway.model import CLIENT_SCOPES, new_id

router = APIRouter(prefix="/admin", tags=["admin"], route_class=StrictRoute)


@router.get("/users", summary="Users")
async def users(
    request: Request,
    principal: Administrator,
    query: Annotated[str | None, Query(max_length=64, description="Found in id or username, ignoring case.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> UserList:
    """By id."""
    found, following = await services_of(request).users.list(query=query or None, limit=limit, cursor=cursor)
    return UserList(items=[UserOut.of(user) for user in found], next=following)


@router.post("/users", summary="Create a user", status_code=201)
async def create_user(request: Request, response: Response, principal: Administrator, body: NewUser) -> UserOut:
    """The id is the creator's or generated; that of a deleted user is never given again."""
    services = services_of(request)
    password_hash = await services.login.hash_new(body.password, username=body.username)
    user = await services.users.create(
        id=body.id or new_id(services.clock()),
        username=body.username,
        role=body.role or "user",
        password_hash=password_hash,
        by=actor(request, principal),
        now=now_of(request),
    )
    response.headers["Location"] = f"/admin/users/{user.id}"
    return UserOut.of(user)


@router.get("/users/{id}", summary="A user")
async def user(request: Request, principal: Administrator, id: str) -> UserOut:
    return UserOut.of(await services_of(request).users.get(known(id, "user")))


@router.patch("/users/{id}", summary="Disable a user, change the role")
async def change_user(request: Request, principal: Administrator, id: str, body: UserChange) -> UserOut:
    """Disabling ends the sessions, and so does a changed role: no token keeps a scope its user has lost."""
    services = services_of(request)
    after, bans = await services.users.update(
        known(id, "user"),
        role=body.role,
        disabled=body.disabled,
        by=actor(request, principal),
        now=now_of(request),
        until=services.revoker.until(),
    )
    services.revoker.apply(bans)
    return UserOut.of(after)


@router.delete("/users/{id}", summary="Delete a user", status_code=204, response_class=Response)
async def delete_user(request: Request, principal: Administrator, id: str) -> None:
    """The sessions end and the inbox goes."""
    services = services_of(request)
    bans = await services.users.delete(
        known(id, "user"), by=actor(request, principal), now=now_of(request), until=services.revoker.until()
    )
    services.revoker.apply(bans)


@router.put("/users/{id}/password", summary="Reset a password", status_code=204, response_class=Response)
async def reset_password(request: Request, principal: Administrator, id: str, body: PasswordReset) -> None:
    """Every session of the user ends."""
    services = services_of(request)
    user = await services.users.get(known(id, "user"))  # before the costly hash
    password_hash = await services.login.hash_new(body.password, username=user.username)
    bans = await services.users.set_password(
        id,
        password_hash=password_hash,
        keep_session=None,
        by=actor(request, principal),
        now=now_of(request),
        until=services.revoker.until(),
    )
    services.revoker.apply(bans)


@router.get("/clients", summary="Clients")
async def clients(request: Request, principal: Administrator, limit: Limit = 50, cursor: Cursor = None) -> ClientList:
    """The backend services that may push."""
    found, following = await services_of(request).clients.list(limit=limit, cursor=cursor)
    return ClientList(items=[ClientOut.of(client) for client in found], next=following)


@router.post("/clients", summary="Create a client", status_code=201)
async def create_client(request: Request, principal: Administrator, body: NewClient) -> ClientWithSecret:
    """The secret is shown this once."""
    services = services_of(request)
    secret, secret_hash = new_client_secret()
    client = await services.clients.create(
        client_id=f"c~{new_id(services.clock())}",
        name=body.name,
        scopes=frozenset(body.scopes or CLIENT_SCOPES),
        secret_hash=secret_hash,
        by=actor(request, principal),
        now=now_of(request),
    )
    return ClientWithSecret.made(client, secret=secret)


@router.post("/clients/{client_id}/rotate", summary="Rotate a client's secret")
async def rotate_client(request: Request, principal: Administrator, client_id: str) -> ClientWithSecret:
    """The old secret is dead at once. Tokens got with it live on until they expire, unless they are revoked."""
    secret, secret_hash = new_client_secret()
    client = await services_of(request).clients.rotate(
        known(client_id, "client"), secret_hash=secret_hash, by=actor(request, principal), now=now_of(request)
    )
    return ClientWithSecret.made(client, secret=secret)


@router.delete("/clients/{client_id}", summary="Delete a client", status_code=204, response_class=Response)
async def delete_client(request: Request, principal: Administrator, client_id: str) -> None:
    """Its tokens die with it."""
    services = services_of(request)
    bans = await services.clients.delete(
        known(client_id, "client"),
        by=actor(request, principal),
        now=now_of(request),
        until=services.revoker.until(),
    )
    services.revoker.apply(bans)
