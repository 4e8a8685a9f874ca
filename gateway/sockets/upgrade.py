"""From an upgrade request to a conversation about it. Decides nothing that an application could decide."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from gateway.sockets.framing import QUIET
from gateway.sockets.handshake import Conversation, Wire
from gateway.sockets.wire import problem


class Asked(NamedTuple):
    """An upgrade request as the HTTP protocol has read it; names of ``headers`` in lower case."""

    method: str
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    secure: bool
    server: tuple[str, int | None] | None
    client: tuple[str, int] | None


class BadRequest(Exception):
    """The upgrade request is no handshake; ``response`` says so."""

    def __init__(self, response: bytes) -> None:
        super().__init__("not a websocket handshake")
        self.response = response


def converse(
    wire: Wire,
    asked: Asked,
    *,
    config: Config,
    server_state: ServerState,
    app_state: dict[str, Any],
) -> Conversation:
    """Ask the application of ``config`` about the request, in a task of its own. Raises BadRequest."""
    response = check(asked.method, asked.target, asked.headers)
    path, _, query = asked.target.partition(b"?")
    scope: Scope = {
        "type": "websocket",
        "asgi": {"version": config.asgi_version, "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "wss" if asked.secure else "ws",
        "server": asked.server,
        "client": asked.client,
        "root_path": config.root_path,
        "path": config.root_path + unquote(path.decode("ascii")),
        "raw_path": config.root_path.encode("ascii") + path,
        "query_string": query,
        "headers": asked.headers,
        "subprotocols": [
            token.strip()
            for name, value in asked.headers
            if name == b"sec-websocket-protocol"
            for token in value.decode("latin-1").split(",")
        ],
        "state": app_state.copy(),
    }
    conversation = Conversation(wire, response, scope)
    task = asyncio.get_running_loop().create_task(conversation.run(config.loaded_app), name="websocket")
    conversation.task = task
    server_state.tasks.add(task)
    task.add_done_callback(server_state.tasks.discard)
    return conversation


_RULES = ServerProtocol(logger=QUIET)
"""Asked about each request by ``process_request``, which reads the request and keeps nothing; no bytes pass it."""


def check(method: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Response:
    """The answer that would accept this request. Raises BadRequest. No extension is ever negotiated."""
    try:
        fields = Headers([(name.decode("ascii"), value.decode("latin-1")) for name, value in headers])
        request = Request(target.decode("ascii"), fields, method, "HTTP/1.1")
    except UnicodeDecodeError:
        raise BadRequest(problem(400, "bad_request", "This is not a valid HTTP request.")) from None
    path = request.path.partition("?")[0]
    if len(fields.get_all("Host")) != 1:
        raise BadRequest(problem(400, "bad_request", "Exactly one Host field is required.", instance=path))
    if "Transfer-Encoding" in fields or fields.get("Content-Length", "0") != "0":
        raise BadRequest(problem(400, "bad_request", "An upgrade has no body.", instance=path))
    try:
        accept, _, _ = _RULES.process_request(request)
    except InvalidHandshake:
        raise BadRequest(_refusal(request, path)) from None
    return Response(
        101,
        "Switching Protocols",
        Headers([("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]),
    )


def _refusal(request: Request, path: str) -> bytes:
    """What the library would answer, as a problem."""
    core = ServerProtocol(logger=QUIET)
    response = core.accept(request)
    core.parser.close()  # it refers to the core and back: only the garbage collector would find them
    # RFC 6455 section 4.4: a version we do not speak is answered with the one we do.
    headers = [("sec-websocket-version", "13")]
    headers += [(name, response.headers[name]) for name in ("Allow", "Upgrade") if name in response.headers]
    status = response.status_code if response.status_code < 500 else 400
    return problem(status, "bad_handshake", "This is not a WebSocket handshake.", instance=path, headers=headers)
