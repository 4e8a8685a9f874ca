"""``GET /events`` as a route, and what the OpenAPI document says of it. It is answered by ``sockets/events.py``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api.refusals import answer
from gateway.frames import MAX_SEQ

_DESCRIPTION = """The frames of `/ws` as server-sent events (HTML, section 9.2); the event's name is the frame's `type`,
its data the frame: `hello`, `notification`, `gap`, `read`, `withdrawn`, `changed`, `reconnect`. A `notification` with a
`seq` and a `gap` have an `id`, `<epoch>:<seq>`, which a browser sends back as `Last-Event-ID` when it asks again. It
counts more than `after` and `epoch`. A `heartbeat` comes every `heartbeat` seconds (of `hello`): a page that has heard
nothing for ten seconds longer opens another source.

Everything that goes wrong is told as a `close` event, `{"code", "reason"}` as in a close frame, before the end; of a
request that is refused it is the only one. A ticket that was used before is `token_expired`: the page closes its
source, gets a ticket and opens another one. Acknowledge by `POST /inbox/ack`."""
_EXAMPLE = """retry: 1873

event: hello
data: {"type":"hello","epoch":"f3a1","head":7,"cursor":6,"after":6,"unread":1}

event: notification
id: f3a1:7
data: {"type":"notification","seq":7,"id":"n-1","title":"Order shipped"}

event: close
retry: 92210
data: {"type":"close","code":1008,"reason":"token_expired"}

"""


def _parameter(name: str, description: str, schema: dict[str, Any], *, where: str = "query") -> dict[str, Any]:
    return {"name": name, "in": where, "required": False, "description": description, "schema": schema}


_TEXT = {"type": "string"}
_PARAMETERS = [
    _parameter("token", "An access token or, for a page, a ticket. Once. Not needed with `Authorization`.", _TEXT),
    _parameter("after", "The `seq` this client kept.", {"type": "integer", "minimum": 0, "maximum": MAX_SEQ}),
    _parameter("epoch", "The epoch of `after`; neither goes without the other.", _TEXT),
    _parameter("Last-Event-ID", "`<epoch>:<seq>`, as an EventSource sends it.", _TEXT, where="header"),
]
_EVENT = {
    "type": "object",
    "description": "One event; the answer is any number of them.",
    "required": ["event", "data"],
    "properties": {
        "event": {**_TEXT, "description": "The `type` of the frame."},
        "data": {**_TEXT, "description": "The frame.", "contentMediaType": "application/json"},
        "id": {**_TEXT, "description": "`<epoch>:<seq>`."},
        "retry": {"type": "integer", "description": "Milliseconds."},
    },
}
_ANSWER = {
    "description": "A stream that has no end, or one `close` event.",
    "content": {"text/event-stream": {"schema": _EVENT, "example": _EXAMPLE}},
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: answer("It is no valid HTTP request.", ("bad_request",)),
    403: answer("The page is of another origin, or TLS is required.", ("origin_refused", "tls_required")),
    414: answer("The target is too long.", ("uri_too_long",)),
}


async def events(scope: Scope, receive: Receive, send: Send) -> None:
    """What the lifespan put there answers."""
    endpoint: ASGIApp = scope["state"]["events"]
    await endpoint(scope, receive, send)


class StreamRoute(APIRoute):
    """A route whose application is ``events``; FastAPI describes it and does nothing else."""

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.app = events


router = APIRouter(tags=["inbox"], route_class=StreamRoute)


@router.get(
    "/events",
    summary="Listen",
    description=_DESCRIPTION,
    response_class=Response,
    responses={200: _ANSWER, **_PROBLEMS},
    openapi_extra={"parameters": _PARAMETERS, "security": [{"oauth2": ["inbox"]}, {"bearer": []}, {"cookie": []}]},
)
async def listen() -> None:
    raise NotImplementedError  # ``StreamRoute`` does not call it
