"""A gateway that plays scripts on its sockets: what a client does with what it hears. Serves no HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from gateway import closing

NOW = "2026-11-20T17:27:23.516Z"
Script = Callable[[ServerConnection], Awaitable[None]]


def hello(after: int = 0, **more: Any) -> dict[str, Any]:
    fields = {"type": "hello", "user": "42", "epoch": "e1", "head": 9, "rev": 0, "cursor": after, "after": after}
    return {**fields, "reset": False, "unread": 1, "heartbeat": 25, **more}


def notification(seq: int | None, id: str | None = None) -> dict[str, Any]:
    return {"type": "notification", "seq": seq, "id": id or f"n{seq}", "title": f"t{seq}", "created_at": NOW}


@dataclass
class Heard:
    shown: list[Mapping[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    received: list[dict[str, Any]] = field(default_factory=list)

    def seqs(self) -> list[int | None]:
        return [frame["seq"] for frame in self.shown if frame["type"] == "notification"]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [frame for frame in self.received if frame["type"] == kind]


@asynccontextmanager
async def scripted(*scripts: Script | int) -> AsyncIterator[tuple[str, Heard]]:
    """A gateway whose nth upgrade plays the nth script (or is refused with that HTTP status)."""
    heard = Heard()
    left = list(scripts)

    def upgrade(connection: ServerConnection, request: Request) -> Response | None:
        heard.requests.append(request)
        if not left:
            return connection.respond(HTTPStatus.NOT_FOUND, "the script is over")
        if isinstance(status := left[0], int):
            left.pop(0)
            response = connection.respond(HTTPStatus(status), "no")
            response.headers["Location"] = "/elsewhere"
            return response
        return None

    async def play(connection: ServerConnection) -> None:
        script = left.pop(0)
        assert callable(script)
        await script(connection)

    async with serve(play, "127.0.0.1", 0, process_request=upgrade, subprotocols=["notify.v1"]) as server:  # type: ignore[list-item]
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", heard


def says(heard: Heard, *frames: dict[str, Any], close: closing.Close | None = None, forever: bool = False) -> Script:
    """Send these frames, answer whatever carries a ref, then close (or wait for the client to)."""

    async def script(connection: ServerConnection) -> None:
        for frame in frames:
            await connection.send(json.dumps(frame))
        if close is not None:
            await connection.close(close.code, close.reason)
            return
        async for text in connection:
            frame = json.loads(text)
            heard.received.append(frame)
            if "ref" in frame:
                await connection.send(json.dumps({"type": "ok", "ref": frame["ref"]}))

    return script


@asynccontextmanager
async def playing(*make: Callable[[Heard], Script] | int) -> AsyncIterator[tuple[str, Heard]]:
    """Scripts that need to write down what they hear."""
    holder: list[Heard] = []

    def late(one: Callable[[Heard], Script]) -> Script:
        async def script(connection: ServerConnection) -> None:
            await one(holder[0])(connection)

        return script

    async with scripted(*[one if isinstance(one, int) else late(one) for one in make]) as (url, heard):
        holder.append(heard)
        yield url, heard


def plays(*frames: dict[str, Any], close: closing.Close | None = None) -> Callable[[Heard], Script]:
    return lambda heard: says(heard, *frames, close=close)
