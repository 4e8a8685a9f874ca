"""A small ASGI application on the gateway's own server classes: what the protocol tests talk to.

Run as a program: ``echo_server.py '{"reject": "http"}'`` (values of WireLimits); prints its port once it is ready.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
from typing import Any
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from gateway import closing
from gateway.frames import Frame
from gateway.ports import Transport
from gateway.sockets.server import listening_socket, serve
from gateway.sockets.wire import WireLimits

OPEN: list[Echo] = []
LOST: list[str] = []
HEARD: list[str] = []
DRAINED = 0
KEPT = ("Conversation", "BoundedHttp", "ServerProtocol", "Request", "Parser", "SocketProtocol", "_Core")


class Echo:
    """Implements ports.Handled: says again what it hears, and does what it is told to."""

    def __init__(self) -> None:
        self.transport: Transport
        self.ended = 0

    def received(self, text: str | bytes) -> None:
        assert isinstance(text, str)
        HEARD.append(text[:100])
        if text == "raise":
            raise RuntimeError("a secret of the application")
        if text == "close":
            self.transport.close(closing.TOKEN_REVOKED, linger=5)
        elif text == "close twice":
            self.transport.close(closing.TOKEN_REVOKED, linger=5)
            self.transport.close(closing.DRAINING, linger=0.2)
            self.transport.write(self.transport.encode(Frame(b"after the close")))
        elif text == "fill":
            while self.transport.writable:
                self.transport.write(self.transport.encode(Frame(b"x" * 4000)))
        else:
            self.transport.write(self.transport.encode(Frame(text.encode())))

    def drained(self) -> None:
        global DRAINED
        DRAINED += 1

    def lost(self, why: closing.Close) -> None:
        self.ended += 1
        OPEN.remove(self)
        LOST.append(why.reason)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "http":
        await http(scope, receive, send)
    else:
        await websocket(scope, receive, send)


async def websocket(scope: Scope, receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "websocket.connect"
    path = scope["path"]
    if path == "/refuse":
        await send({"type": "websocket.close", "code": 1008, "reason": "token_invalid"})
    elif path == "/deny":
        await send({"type": "websocket.http.response.start", "status": 403, "headers": [(b"x-why", b"origin")]})
        await send({"type": "websocket.http.response.body", "body": b"not ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"you"})
    elif path == "/raise-before":
        raise RuntimeError("a secret of the application")
    elif path == "/return":
        pass
    elif path == "/never":
        await asyncio.Event().wait()
    elif path == "/scope":
        known = {name: repr(value) for name, value in scope.items() if name not in ("extensions", "state")}
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": json.dumps(known)})
    elif path in ("/plain", "/plain-raise"):
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            if message["text"] == "close":
                await send({"type": "websocket.close", "code": 4001, "reason": "as asked"})
            elif path == "/plain-raise":
                raise RuntimeError("a secret of the application")
            else:
                await send({"type": "websocket.send", "text": message["text"]})
        LOST.append(f"{message['code']} {message['reason']}".strip())
    else:
        await handed_over(scope, send)


async def handed_over(scope: Scope, send: Send) -> None:
    path, echo = scope["path"], Echo()
    if path == "/late":
        await asyncio.sleep(0.3)
    echo.transport = scope["extensions"]["gateway.connection"].hand_over(echo)
    OPEN.append(echo)
    echo.transport.write(b"\x81\x05early")  # before the 101: nothing may come of it
    if path == "/revoked":
        echo.transport.close(closing.TOKEN_REVOKED, linger=5)
    offered = scope["subprotocols"]
    chosen = "notify.v1" if "notify.v1" in offered else None
    await send({"type": "websocket.accept", "subprotocol": chosen})
    if path == "/raise-after":
        raise RuntimeError("a secret of the application")


async def http(scope: Scope, receive: Receive, send: Send) -> None:
    query = parse_qs(scope["query_string"].decode())
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] == "/slow":
        await asyncio.sleep(1.5)
    answer: Any = len(body)
    if scope["path"] == "/state":
        gc.collect() if "gc" in query else None
        answer = {
            "open": len(OPEN),
            "lost": LOST,
            "heard": HEARD[-20:],
            "drained": DRAINED,
            "pending": sum(echo.transport.pending() for echo in OPEN),
            "writable": [echo.transport.writable for echo in OPEN],
            "bytes": [echo.transport.heard for echo in OPEN],
            "addresses": [echo.transport.address for echo in OPEN],
            "tasks": [task.get_name() for task in asyncio.all_tasks()],
            "kept": sorted(name for thing in gc.get_objects() if (name := type(thing).__name__) in KEPT),
        }
    elif scope["path"] == "/close":
        for echo in OPEN:
            echo.transport.close(closing.TOKEN_REVOKED, linger=float(query["linger"][0]))
    elif scope["path"] == "/abort":
        for echo in OPEN:
            echo.transport.abort()
    elif scope["path"] == "/ping":
        for echo in OPEN:
            echo.transport.ping()
    text = json.dumps(answer).encode()
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def drain() -> None:
    for echo in OPEN:
        echo.transport.close(closing.DRAINING, linger=1)


def main() -> None:
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    sock = listening_socket("127.0.0.1", 0)

    def ready() -> None:
        sys.stdout.write(f"{sock.getsockname()[1]}\n")
        sys.stdout.flush()

    limits = WireLimits(**json.loads(sys.argv[1]))
    serve(application, sock=sock, limits=limits, drain=drain, forwarded_allow_ips="127.0.0.1", on_ready=ready)


if __name__ == "__main__":
    main()
