"""From the bytes of an upgrade request to a conversation about it. Decides nothing that an application could decide."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState
from websockets.exceptions import HeaderLineTooLong, RequestLineTooLong, TooManyHeaders
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from gateway.sockets.framing import QUIET
from gateway.sockets.handshake import Conversation, Wire
from gateway.sockets.wire import problem


class BadRequest(Exception):
    """The upgrade request is no handshake; ``response`` says so."""

    def __init__(self, response: bytes) -> None:
        super().__init__("not a websocket handshake")
        self.response = response


def converse(
    wire: Wire,
    head: bytes,
    transport: asyncio.Transport,
    *,
    config: Config,
    server_state: ServerState,
    app_state: dict[str, Any],
) -> Conversation:
    """Ask the application of ``config`` about the request, in a task of its own. Raises BadRequest."""
    request, response = parse_head(head)
    path, _, query = request.path.partition("?")
    scope: Scope = {
        "type": "websocket",
        "asgi": {"version": config.asgi_version, "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "wss" if is_ssl(transport) else "ws",
        "server": get_local_addr(transport),
        "client": get_remote_addr(transport),
        "root_path": config.root_path,
        "path": config.root_path + unquote(path),
        "raw_path": config.root_path.encode("ascii") + path.encode("ascii"),
        "query_string": query.encode("ascii"),
        "headers": [
            (name.lower().encode("ascii"), value.encode("latin-1")) for name, value in request.headers.raw_items()
        ],
        "subprotocols": [
            token.strip() for value in request.headers.get_all("Sec-WebSocket-Protocol") for token in value.split(",")
        ],
        "state": app_state.copy(),
    }
    conversation = Conversation(wire, response, scope)
    task = asyncio.get_running_loop().create_task(conversation.run(config.loaded_app), name="websocket")
    conversation.task = task
    server_state.tasks.add(task)
    task.add_done_callback(server_state.tasks.discard)
    return conversation


def parse_head(head: bytes) -> tuple[Request, Response]:
    """The request and the answer that would accept it. Raises BadRequest. No extension is ever negotiated."""
    core = ServerProtocol(logger=QUIET)
    try:
        return _parse(core, head)
    finally:
        core.parser.close()  # it refers to the core and back: only the garbage collector would find them


def _parse(core: ServerProtocol, head: bytes) -> tuple[Request, Response]:
    core.receive_data(head)
    events = core.events_received()
    if not events or not isinstance(events[0], Request):
        error = core.handshake_exc
        if isinstance(error, RequestLineTooLong):
            raise BadRequest(problem(414, "uri_too_long", "The request target is too long."))
        if isinstance(error, HeaderLineTooLong | TooManyHeaders):
            raise BadRequest(problem(431, "headers_too_large", "The header fields are too large."))
        raise BadRequest(problem(400, "bad_request", "This is not a valid HTTP request."))
    request = events[0]
    path = request.path.partition("?")[0]
    if len(request.headers.get_all("Host")) != 1:
        raise BadRequest(problem(400, "bad_request", "Exactly one Host field is required.", instance=path))
    response = core.accept(request)
    if response.status_code != 101:
        # RFC 6455 section 4.4: a version we do not speak is answered with the one we do.
        headers = [("sec-websocket-version", "13")]
        headers += [(name, response.headers[name]) for name in ("Allow", "Upgrade") if name in response.headers]
        status = response.status_code if response.status_code < 500 else 400
        raise BadRequest(
            problem(status, "bad_handshake", "This is not a WebSocket handshake.", instance=path, headers=headers)
        )
    return request, response
