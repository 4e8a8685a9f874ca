"""How a request's body is read: its type, its size, its JSON, in that order. Two kinds of route; no endpoint of ours.

``StrictRoute`` is FastAPI's route with our reading in front: who is asking is settled first, the size is bounded while
the body comes in, and pydantic sees what ``strict_json`` made. ``LeanRoute`` calls the endpoint with the request and
nothing else: no dependency is solved and nothing is validated for it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, cast

from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.api.deps import GUARDS, Guard
from gateway.api.problems import Refusal
from gateway.api.strict import strict_json
from gateway.errors import Invalid

MAX_BODY = 64 * 1024
MAX_BATCH_BODY = 2 * 1024 * 1024

JSON = b"application/json"
FORM = b"application/x-www-form-urlencoded"


async def read_body(request: Request, *, media_type: bytes, limit: int) -> bytes:
    """The whole body. Raises Refusal: 415 if it says to be anything else, 413 before more than ``limit`` is kept."""
    declared: int | None = None
    types = []
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            types.append(value)
        elif name == b"content-length" and value.isdigit():
            declared = int(value[:20])
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise _unsupported(media_type)
    if len(types) != 1 or not _is(types[0], media_type):
        raise _unsupported(media_type)
    if declared is not None and declared > limit:
        raise _too_large(limit)
    message = await request.receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and message["type"] == "http.request":
        if len(body) > limit:
            raise _too_large(limit)
        return body
    gathered = bytearray()
    while True:
        if message["type"] != "http.request":
            raise ClientDisconnect
        gathered += message.get("body", b"")
        if len(gathered) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return bytes(gathered)
        message = await request.receive()


async def _is_empty(request: Request) -> bool:
    """Whether it has no body. One of no declared type that has one is left to ``read_body``, which refuses it."""
    if any(name == b"content-type" for name, _ in request.scope["headers"]):
        return False
    message = await request.receive()
    if message["type"] != "http.request":
        raise ClientDisconnect
    return not message.get("body") and not message.get("more_body", False)


def _is(content_type: bytes, media_type: bytes) -> bool:
    """Whether it is that type in UTF-8; both are case-insensitive (RFC 9110 section 8.3)."""
    if content_type == media_type:
        return True
    essence, *parameters = content_type.lower().split(b";")
    if essence.strip() != media_type:
        return False
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"charset" and value.strip().strip(b'"') not in (b"utf-8", b"utf8"):
            return False
    return True


def _unsupported(media_type: bytes) -> Refusal:
    detail = f"The body has to be {media_type.decode()} in UTF-8, not compressed."
    return Refusal(415, "unsupported_media_type", detail, headers={"Accept": media_type.decode()})


def _too_large(limit: int) -> Refusal:
    # The rest of the body is still on its way: nothing sensible can follow it on this connection.
    return Refusal(413, "payload_too_large", f"The body is larger than {limit} bytes.", headers={"Connection": "close"})


class StrictRoute(APIRoute):
    """A route whose JSON body is read by ``strict_json``, after its guards have let the caller in."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        guards = [cast("Guard", one.call) for one in self.dependant.dependencies if one.call in GUARDS]
        takes_body = self.body_field is not None
        may_lack = self.body_field is not None and not self.body_field.field_info.is_required()

        async def handler(request: Request) -> Response:
            for guard in guards:
                await guard(request)
            for name, value in request.query_params.multi_items() if request.scope["query_string"] else ():
                if "\0" in value:  # as in a body: PostgreSQL cannot even look for it
                    raise Invalid(errors=[(f"query:{name}", "NUL cannot be taken")])
            if takes_body and may_lack and await _is_empty(request):
                request._body = b""
            elif takes_body:
                raw = await read_body(request, media_type=JSON, limit=MAX_BODY)
                # Where Starlette keeps them: FastAPI then asks for both and reads nothing itself.
                request._body, request._json = raw, strict_json(raw)
            return await handle(request)

        return handler


class LeanRoute(APIRoute):
    """A route for the fast lane: ``endpoint(request) -> Response``, whatever it needs it reads itself."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)

        # Two exit stacks and an exception wrapper a request lie in the usual app; ExceptionMiddleware is enough.
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)

        self.app = app
