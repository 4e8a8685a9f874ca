"""From an upgrade request to a conversation about it, in turn. Decides nothing that an application could decide."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from typing import Protocol as Seam
from urllib.parse import unquote

from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.utils import accept_key

from gateway.sockets.admission import Admission
from gateway.sockets.framing import QUIET
from gateway.sockets.handshake import OVERLOADED_EXTENSION, Conversation, Wire
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


class Answered(Wire, Seam):
    """The protocol, as an upgrade sees it."""

    def conversing(self, conversation: Conversation) -> None:
        """From now on it is spoken about here."""


class Upgrade:
    """One upgrade request, from before it is read until its turn comes and the application is asked about it.

    Until then it is what was read: what costs time, to look into it and to ask, is done when it begins.
    """

    __slots__ = ("_admission", "_app_state", "_asked", "_config", "_server_state", "_wire")

    def __init__(
        self, admission: Admission, *, config: Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        self._admission = admission
        self._config, self._server_state, self._app_state = config, server_state, app_state
        self._wire: Answered
        self._asked: Asked

    def ask(self, wire: Answered, asked: Asked) -> None:
        """In its turn; if there are too many before it, the application is asked to refuse it, at once."""
        self._wire, self._asked = wire, asked
        if not self._admission.enter(self):
            self._refuse()

    def begin(self) -> None:
        """Implements ``admission.Waiting``."""
        conversation = self._conversation()
        if conversation is None:
            self._admission.over()
        else:
            self._start(conversation).add_done_callback(lambda task: self._admission.over())

    def give_up(self) -> bool:
        """It has waited for too long. Whether its refusal is on its way."""
        waited = self._admission.leave(self)
        if waited:
            self._refuse()
        return waited

    def unasked(self) -> Conversation | None:
        """What would have begun in its turn, for a server that stops before. None: it was no handshake, and is told."""
        self._admission.leave(self)
        return self._conversation()

    def gone(self, code: int, reason: str) -> None:
        """The peer is away."""
        if self._admission.leave(self):
            self._wire.forget()

    def _refuse(self) -> None:
        conversation = self._conversation(OVERLOADED_EXTENSION)
        if conversation is not None:
            self._start(conversation)

    def _conversation(self, *extensions: str) -> Conversation | None:
        """None if the request is no handshake, which is then answered, or if it was closed while it waited."""
        try:
            accept = check(self._asked.method, self._asked.target, self._asked.headers)
        except BadRequest as error:
            self._wire.deny(error.response)
        if not self._wire.undecided:
            self._wire.forget()  # it refers to this and back: only the garbage collector would find them
            return None
        return Conversation(self._wire, accept, self._scope(), *extensions)

    def _start(self, conversation: Conversation) -> asyncio.Task[None]:
        self._wire.conversing(conversation)
        task = asyncio.get_running_loop().create_task(conversation.run(self._config.loaded_app), name="websocket")
        conversation.task = task
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)
        return task

    def _scope(self) -> Scope:
        asked, config = self._asked, self._config
        path, _, query = asked.target.partition(b"?")
        return {
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
            "state": self._app_state.copy(),
        }


_RULES = ServerProtocol(logger=QUIET)
"""Asked about a request by ``process_request``, which reads the request and keeps nothing; no bytes pass it."""
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_LOOKED_AT = frozenset(
    {b"host", b"upgrade", b"connection", b"sec-websocket-key", b"sec-websocket-version"}
    | {b"origin", b"sec-websocket-protocol", b"content-length", b"transfer-encoding"}
)
_PROTOCOLS = re.compile(rb"[A-Za-z0-9._-]+(?:, ?[A-Za-z0-9._-]+){0,9}")


def check(method: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> str:
    """What Sec-WebSocket-Accept has to say to this request (RFC 6455 section 4.2.2). Raises BadRequest.

    No extension is ever negotiated. What the library takes ten times as long to say about a handshake as browsers and
    clients send it is said first; about any other it is asked.
    """
    return _plain(method, target, headers) or _by_the_rules(method, target, headers)


def _plain(method: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """The same of a handshake without anything unusual; None for every other request, right or wrong."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _LOOKED_AT:
            if name in found:
                return None
            found[name] = value
        elif not name.isascii():
            return None
    found.pop(b"origin", None)  # which may come once
    if not _PROTOCOLS.fullmatch(found.pop(b"sec-websocket-protocol", b"none")):
        return None
    if len(found) != 5 or method != "GET" or not target.isascii():
        return None
    try:
        _, key = found[b"host"], found[b"sec-websocket-key"]
        version, upgrade, connection = found[b"sec-websocket-version"], found[b"upgrade"], found[b"connection"]
    except KeyError:
        return None
    tokens = [token.strip() for token in connection.lower().split(b",")]
    if version != b"13" or upgrade.lower() != b"websocket" or b"upgrade" not in tokens or not _KEY.fullmatch(key):
        return None
    return accept_key(key.decode("ascii"))


def _by_the_rules(method: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> str:
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
        return _RULES.process_request(request)[0]
    except InvalidHandshake:
        raise BadRequest(_refusal(request, path)) from None


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
