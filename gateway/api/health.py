"""Whether the process lives, whether it can serve, and what it counts. Starts nothing and mends nothing."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.deps import Administrator, services_of
from gateway.api.problems import Refusal, respond
from gateway.api.routes import StrictRoute
from gateway.api.schemas import Answer
from gateway.metrics import EXPOSITION

router = APIRouter(tags=["operations"], route_class=StrictRoute)


class Alive(Answer):
    status: Literal["ok"] = "ok"


class Ready(Answer):
    status: Literal["ready"] = "ready"


class Degraded(Answer):
    status: Literal["degraded"] = "degraded"
    reasons: tuple[str, ...]


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="The process lives")
async def healthz() -> Alive:
    """Answered from memory: it says nothing about the database."""
    return Alive()


@router.get("/ws", include_in_schema=False, response_model=None)
async def not_an_upgrade() -> Response:
    """Somebody tries the socket with a browser's address line or curl: say what it wants (RFC 9110, 15.5.22)."""
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
    raise Refusal(426, "upgrade_required", "This is a WebSocket: connect with a WebSocket client.", headers=upgrade)


@router.head("/readyz", include_in_schema=False, response_model=None)
@router.get("/readyz", summary="It can serve", response_model=Ready | Degraded)
async def readyz(request: Request) -> Ready | Degraded | Response:
    """503 with the reasons while it cannot: the database or its schema, news of revocations, or it is shutting down.

    `degraded`: it serves, and keeps every promise but speed: hints from other nodes do not travel.
    """
    found = await services_of(request).readiness()
    if not found.reasons:
        return Degraded(reasons=found.degraded) if found.degraded else Ready()
    problem = {
        "type": "/problems/not_ready",
        "title": "Not ready",
        "status": 503,
        "detail": "This node cannot serve now.",
        "code": "not_ready",
        "reasons": list(found.reasons),
    }
    return respond(request, problem, {"Retry-After": "1"})


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_model=None,
    response_class=Response,  # not JSON, which the document would name beside the text
    responses={200: {"description": "The text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request, principal: Administrator) -> Response:
    """Of several workers each series has a label `worker`, whichever of them is asked."""
    return Response(await services_of(request).exposition(), media_type=EXPOSITION)
