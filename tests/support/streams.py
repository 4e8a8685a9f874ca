"""A client of ``/events`` that reads as HTML section 9.2 says, and checks what every event of ours has to be."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any, NamedTuple, cast
from urllib.parse import urlencode

import wire
from websockets.asyncio.client import ClientConnection
from wire import DEADLINE, Node, Socket


class Event(NamedTuple):
    """One event as it was dispatched. ``id`` and ``retry``: None if the fields were not there."""

    name: str
    frame: dict[str, Any]
    id: str | None
    retry: int | None


class Stream(Socket):
    """As a ``Socket`` that nothing can be said on. ``last_id``: what an EventSource would send as ``Last-Event-ID``."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int, fields: dict[str, str]
    ) -> None:
        self.reader, self.writer, self.status, self.fields = reader, writer, status, fields
        self.hello: dict[str, Any] = {}
        self.last_id, self.retry, self.heartbeats = "", 0, 0
        self.loop = asyncio.get_running_loop()

    async def receive(self, *, within: float = DEADLINE) -> dict[str, Any]:
        return (await self.event(within=within)).frame

    async def event(self, *, within: float = DEADLINE) -> Event:
        """Raises EOFError at the end."""
        async with asyncio.timeout(within):
            fields = await self._block()
        self.retry = int(fields.get("retry", self.retry))
        if "data" not in fields:
            return await self.event(within=within)
        frame = json.loads(fields["data"])
        assert frame["type"] == fields["event"], fields
        if frame == {"type": "heartbeat"}:  # a sign of life, and no news
            assert "id" not in fields, fields
            self.heartbeats += 1
            return await self.event(within=within)
        if frame["type"] == "hello":
            self.hello = frame
        position = frame.get("seq") if frame["type"] == "notification" else frame.get("to")
        assert fields.get("id") == (None if position is None else f"{self.hello['epoch']}:{position}")
        self.last_id = fields.get("id", self.last_id)
        return Event(fields["event"], frame, fields.get("id"), int(fields["retry"]) if "retry" in fields else None)

    async def _block(self) -> dict[str, str]:
        """The fields up to the next blank line; none of them twice."""
        fields: dict[str, str] = {}
        while True:
            line = (await self.reader.readline()).decode()
            if not line.endswith("\n"):
                raise EOFError(line)
            assert "\r" not in line
            if line != "\n":
                name, _, value = line[:-1].partition(": ")
                assert name in {"event", "data", "id", "retry"} - fields.keys(), line
                fields[name] = value
            elif fields:
                return fields

    async def until_closed(self, *, within: float = DEADLINE) -> tuple[list[dict[str, Any]], tuple[int, str]]:
        """Every frame that still came, and what the last event said; 1006 if there was none."""
        frames: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(within):
                while (frame := await self.receive(within=within))["type"] != "close":
                    frames.append(frame)
                assert await self.reader.read() == b"", "the close is the last of it"
                self.writer.close()
        except (EOFError, ConnectionResetError):
            return frames, (1006, "")
        return frames, (frame["code"], frame["reason"])

    async def is_over(self) -> None:
        """Nothing more comes."""
        assert await asyncio.wait_for(self.reader.read(), DEADLINE) == b""

    async def close(self) -> None:
        self.writer.transport.abort()
        with suppress(OSError):
            await self.writer.wait_closed()  # or its loop ends first, and the collector finds it in another test


def asking(path: str = "/events", *lines: str, version: str = "1.1") -> bytes:
    """A request as a browser makes it, or not."""
    fields = {"host": "Host: gateway.test", "accept": "Accept: text/event-stream", "cache": "Cache-Control: no-cache"}
    fields |= {line.partition(":")[0].lower(): line for line in lines}
    return "\r\n".join([f"GET {path} HTTP/{version}", *fields.values(), "", ""]).encode("latin-1")


async def answered(
    node: Node,
    token: str | None = None,
    *,
    headers: dict[str, str] | None = None,
    version: str = "1.1",
    local: str = "127.0.0.1",
    **query: object,
) -> Stream:
    """The stream whose head has come, whatever it says. It is closed with the sockets of the test."""
    query = query if token is None else {"token": token, **query}
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port, local_addr=(local, 0), limit=1 << 20)
    path = f"/events?{urlencode(query)}" if query else "/events"
    lines = [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write(asking(path, f"Host: 127.0.0.1:{node.port}", *lines, version=version))
    try:
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE)).decode("latin-1")
    except BaseException:
        writer.transport.abort()
        raise
    first, *rest = head.removesuffix("\r\n\r\n").split("\r\n")
    pairs = [line.split(": ", 1) for line in rest]
    stream = Stream(reader, writer, int(first.split(" ")[1]), {name.lower(): value for name, value in pairs})
    wire._opened.append(cast("ClientConnection", stream))
    return stream


async def listen(node: Node, token: str | None, **more: Any) -> Stream:
    """A stream that has been accepted and has heard ``hello``."""
    stream = await answered(node, token, **more)
    assert (stream.status, stream.fields["content-type"]) == (200, "text/event-stream")
    await stream.next("hello")
    return stream


async def refusal(node: Node, token: str | None = None, **more: Any) -> tuple[int, str]:
    """Code and reason of the one event that answers a request which is refused."""
    headers = {**more.pop("headers", {}), "Connection": "close"}
    stream = await answered(node, token, headers=headers, **more)
    assert (stream.status, stream.fields["content-type"]) == (200, "text/event-stream")
    frames, close = await stream.until_closed()
    assert frames == [], "frames on a refused stream"
    return close


def ticket_of(node: Node, token: str, **headers: str) -> str:
    return str(node.request("POST", "/auth/ticket", token=token, headers=headers, expect=201).json()["ticket"])
