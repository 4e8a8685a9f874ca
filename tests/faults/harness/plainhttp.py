"""HTTP/1.1 for a workload: one connection, one request at a time, a quarter of the cost of a client library. No TLS."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson


class Unanswered(Exception):
    """No whole answer came: what was asked for is unknown."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    fields: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


class Caller:
    """Keeps one connection to 127.0.0.1:``port`` open and makes a new one when it must. ``patience``: seconds."""

    def __init__(self, port: int, *, patience: float = 5.0) -> None:
        self.port, self.patience = port, patience
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, *, token: str | None = None, body: Any = None, **fields: str) -> Reply:
        """The answer. ``fields``: header fields, ``_`` for ``-``. Raises Unanswered; nothing is tried twice."""
        payload = b"" if body is None else orjson.dumps(body)
        lines = [f"{method} {path} HTTP/1.1", "Host: gateway.test", f"Content-Length: {len(payload)}"]
        if body is not None:
            lines.append("Content-Type: application/json")
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        try:
            async with asyncio.timeout(self.patience):
                return await self._exchange("\r\n".join([*lines, "", ""]).encode() + payload)
        except TimeoutError:
            self.close()
            raise Unanswered(f"no answer within {self.patience} s") from None
        except (OSError, EOFError, ValueError) as error:
            self.close()
            raise Unanswered(repr(error)) from None
        except asyncio.CancelledError:
            self.close()  # its answer would be taken for the next one's
            raise

    async def _exchange(self, request: bytes) -> Reply:
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines if ": " in line)}
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        if fields.get("connection") == "close":
            self.close()
        return Reply(int(first.split(" ")[1]), fields, body)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
