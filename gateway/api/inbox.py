"""A user's own inbox over HTTP (``/inbox``). No event stream here, and nothing a client could see of anybody else's."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.deps import Reader, known, now_of, services_of
from gateway.api.routes import StrictRoute
from gateway.api.schemas import Acknowledge, MarkRead, ReadState
from gateway.errors import Conflict, Invalid
from gateway.frames import MAX_SEQ, entry_json

router = APIRouter(prefix="/inbox", tags=["inbox"], route_class=StrictRoute)

_ENTRY = {"$ref": "#/components/schemas/Notification"}
_LISTING = {"$ref": "#/components/schemas/Inbox"}

Position = Annotated[int | None, Query(ge=0, le=MAX_SEQ)]


@router.get(
    "",
    summary="My notifications",
    response_model=None,
    responses={200: {"description": "A page.", "content": {"application/json": {"schema": _LISTING}}}},
)
async def listing(
    request: Request,
    principal: Reader,
    after: Annotated[Position, Query(description="Only what lies after this seq, oldest first.")] = None,
    before: Annotated[Position, Query(description="Only what lies before this seq.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    unread: Annotated[bool, Query(description="Only what is not read.")] = False,
    category: Annotated[str | None, Query(min_length=1, max_length=64)] = None,
) -> Response:
    """Newest first without `after`, oldest first with it. `next` is the position to go on from, in the same
    direction; a `seq` missing between two items is gone."""
    services = services_of(request)
    page = await services.inbox.listing(
        principal.subject,
        after=after,
        before=before,
        limit=limit,
        unread=unread,
        category=category,
        now=now_of(request),
    )
    state = page.state
    counters = {
        "head": state.head,
        "rev": state.rev,
        "epoch": services.epoch.current,
        "unread": state.unread,
        "next": page.next,
    }
    # The entries are JSON already, rendered when they were pushed: they are put together, not parsed again.
    items = b",".join([entry_json(entry) for entry in page.entries])
    body = b'{"items":[' + items + b"]," + orjson.dumps(counters)[1:]
    return Response(body, media_type="application/json")


@router.post("/read", summary="Mark as read")
async def read(request: Request, principal: Reader, body: MarkRead) -> ReadState:
    """`ids`, or everything up to and with `up_to`. All the user's connections hear it."""
    if (body.ids is None) == (body.up_to is None):
        raise Invalid(errors=[("", "has either ids or up_to")])
    marked = await services_of(request).publisher.mark_read(
        principal.subject, ids=tuple(body.ids or ()), up_to=body.up_to
    )
    return ReadState(unread=marked.unread, rev=marked.rev)


@router.post("/ack", summary="Acknowledge", status_code=204, response_class=Response)
async def acknowledge(request: Request, principal: Reader, body: Acknowledge) -> None:
    """Everything up to `seq` has reached this session. The cursor never moves back; beyond the head it is refused."""
    services = services_of(request)
    if body.epoch != services.epoch.current:
        # A number from another history of the log must never be taken for one of this.
        raise Conflict("epoch_mismatch", "The epoch is not that of this inbox: forget the numbers kept with it.")
    session = principal.claims.session
    if session is not None:  # always: the scope inbox comes with one
        await services.inbox.ack(principal.subject, session=session, seq=body.seq, now=now_of(request))


@router.get(
    "/{id}",
    summary="One notification",
    response_model=None,
    responses={200: {"description": "As in a page.", "content": {"application/json": {"schema": _ENTRY}}}},
)
async def entry(request: Request, principal: Reader, id: str) -> Response:
    found = await services_of(request).inbox.entry(principal.subject, known(id, "notification"), now=now_of(request))
    return Response(entry_json(found), media_type="application/json")


@router.delete("/{id}", summary="Hide a notification", status_code=204, response_class=Response)
async def hide(request: Request, principal: Reader, id: str) -> None:
    """Out of one's own inbox, on all devices. Its sender's receipt goes on saying what it said."""
    await services_of(request).publisher.hide(principal.subject, known(id, "notification"))
