"""The server one writes first, to compare with: an endpoint that loops, one task a socket. Not part of the gateway.

With ``PEER_DATABASE`` (a path) it stores each notification through an ORM session and commits once per request before
it answers, on SQLite with WAL and ``synchronous=FULL``; without, it only passes on. Its tokens are checked by the
gateway's own ``Keyring``, so that a ratio says nothing about JSON Web Tokens.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field
from sqlalchemy import JSON, event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from gateway.auth.tokens import Keyring, parse_signing_keys
from gateway.errors import Unauthenticated
from gateway.model import Claims

keyring = Keyring(
    parse_signing_keys(os.environ["PEER_SIGNING_KEYS"]),
    issuer="notification-gateway",
    audience="notification-gateway",
    max_ttl=86_400,
    leeway=5,
)
database = os.environ.get("PEER_DATABASE")
# One connection: writers that find the file locked sleep and try again, which is slower than standing in line.
engine = create_async_engine(f"sqlite+aiosqlite:///{database}", pool_size=1, max_overflow=0) if database else None
sessions: async_sessionmaker[AsyncSession] | None = (
    async_sessionmaker(engine, expire_on_commit=False) if engine is not None else None
)


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "notifications"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(index=True)
    title: Mapped[str]
    body: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[float]


class Notification(BaseModel):
    user_id: str = Field(min_length=1, max_length=64)
    title: str = Field(min_length=1, max_length=200)
    body: str = Field("", max_length=4000)
    data: dict[str, Any] = {}


class Batch(BaseModel):
    notifications: list[Notification] = Field(max_length=1000)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    if engine is not None:

        @event.listens_for(engine.sync_engine, "connect")
        def pragmas(connection: Any, record: object) -> None:
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.close()

        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
    yield
    if engine is not None:
        await engine.dispose()


app = FastAPI(lifespan=lifespan)
sockets: defaultdict[str, set[WebSocket]] = defaultdict(set)
bearer = HTTPBearer()


def verified(token: str) -> Claims:
    return keyring.verify(token, now=time.time())


async def sender(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> Claims:
    try:
        claims = verified(credentials.credentials)
    except Unauthenticated as error:
        raise HTTPException(401) from error
    if "notifications:write" not in claims.scopes:
        raise HTTPException(403)
    return claims


@app.websocket("/ws")
async def ws(websocket: WebSocket, token: str) -> None:
    try:
        user = verified(token).subject
    except Unauthenticated:
        await websocket.close(1008)
        return
    await websocket.accept()
    sockets[user].add(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        sockets[user].discard(websocket)


async def _store(notifications: list[Notification]) -> list[int]:
    if sessions is None:
        return [0] * len(notifications)
    async with sessions() as session:
        rows = [Row(**n.model_dump(), created_at=time.time()) for n in notifications]
        session.add_all(rows)
        await session.commit()
        return [row.id for row in rows]


async def _send(id: int, notification: Notification) -> None:
    for websocket in list(sockets[notification.user_id]):
        await websocket.send_json({"type": "notification", "id": id, **notification.model_dump()})


@app.post("/notifications", status_code=201)
async def push(notification: Notification, claims: Annotated[Claims, Depends(sender)]) -> dict[str, Any]:
    [id] = await _store([notification])
    await _send(id, notification)
    return {"id": id, "user_id": notification.user_id}


@app.post("/notifications/batch")
async def push_many(batch: Batch, claims: Annotated[Claims, Depends(sender)]) -> dict[str, Any]:
    ids = await _store(batch.notifications)
    for id, notification in zip(ids, batch.notifications, strict=True):
        await _send(id, notification)
    return {"results": [{"status": 201, "id": id} for id in ids]}


@app.post("/everyone", status_code=202)
async def everyone(request: Request, claims: Annotated[Claims, Depends(sender)]) -> dict[str, Any]:
    """What is posted goes to every socket as it is, one after the other."""
    text = (await request.body()).decode()
    for websocket in [one for of_user in sockets.values() for one in of_user]:
        await websocket.send_text(text)
    return {"online_count": len(sockets)}


@app.post("/empty", status_code=201)
async def empty(notification: Notification, claims: Annotated[Claims, Depends(sender)]) -> dict[str, Any]:
    """A route that does nothing with what it has checked."""
    return {"user_id": notification.user_id}


@app.get("/readyz")
async def ready(request: Request) -> dict[str, str]:
    return {"status": "ready"}
