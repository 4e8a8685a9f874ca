"""Pushing, receipts, withdrawing (``/notifications``). Stores nothing itself, and knows no SQL.

A 2xx stands for a commit that has reached the disk; a 4xx stored nothing; a 5xx is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.api import pushes
from gateway.api.deps import guard, known, now_of, services_of
from gateway.api.problems import Refusal, members
from gateway.api.push_schemas import (
    BATCH,
    BATCH_EXAMPLE,
    EXAMPLE,
    ID_PARAMETER,
    KEY_PARAMETER,
    PASSED,
    PUSH_BODY,
    RECEIPT,
    REPLAYED,
    RESULTS,
    STORED,
    answers,
    takes,
)
from gateway.api.pushes import MAX_BATCH, Wanted, read_item, read_push
from gateway.api.routes import JSON, MAX_BATCH_BODY, MAX_BODY, LeanRoute, read_body
from gateway.api.strict import parse, pointer, strict_json
from gateway.errors import GatewayError, Invalid, NotFound
from gateway.model import ADMIN, PUSH, Appended, Principal, Receipt, Stored, rfc3339
from gateway.publish import Publisher, Push

router = APIRouter(tags=["notifications"], route_class=LeanRoute)
_SECURITY = [{"oauth2": [PUSH]}, {"bearer": []}]
_ABOUT_KEYS = {
    "Link": '<https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>; rel="describedby"'
}
"""Section 2.7 of that draft: who sends no key that is one is shown where it is written what one is."""


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key header. Raises Refusal 400 if it is not 1 to 255 visible ASCII characters."""
    found = [value for name, value in request.scope["headers"] if name == b"idempotency-key"]
    if not found:
        return None
    key = str(found[0].decode("latin-1"))
    if len(found) > 1 or pushes.KEY.fullmatch(key) is None:
        detail = f"An Idempotency-Key is one header field of 1 to {pushes.MAX_KEY} visible ASCII characters."
        raise Refusal(400, "idempotency_key_invalid", detail, headers=_ABOUT_KEYS)
    return key


async def push(request: Request) -> Response:
    """One notification: to a user (201), to several (200), or past the inbox to whoever is connected (202).

    201 and 200 are answered only after the commit has reached the disk. A repeat with the same `Idempotency-Key` and
    the same JSON within 24 hours gets the first answer again, and `Idempotency-Replayed: true`.
    """
    guard(request, PUSH)
    publisher = services_of(request).publisher
    key = idempotency_key(request)
    raw = await read_body(request, media_type=JSON, limit=MAX_BODY)
    sender = guard(request, PUSH).subject  # still: the body may have taken minutes
    wanted = read_push(strict_json(raw), key=key)
    await publisher.admit(sender, len(wanted.recipients) if wanted.recipients is not None else 1)
    if wanted.ttl == 0:
        return await _pass_by(request, sender, wanted)
    (result,) = await publisher.push_all(sender, [_push(wanted)])
    if isinstance(result, GatewayError):
        raise result
    headers = {"Idempotency-Replayed": "true"} if result.replayed else {}
    if wanted.many:
        return _json(200, {"results": [_item(one) for one in result.outcomes]}, headers)
    stored = result.outcomes[0]
    if stored.seq is None:
        raise NotFound("user")
    headers["Location"] = f"/notifications/{stored.id}"
    return _json(201, _stored(stored), headers)


async def push_batch(request: Request) -> Response:
    """Up to 1000 notifications, each to one user and each by itself: one bad item does not fail the others.

    The results stand in the order sent; one user's items get their `seq` in that order. An item with status 503 is
    unknown: send it again with its `idempotency_key`.
    """
    guard(request, PUSH)
    publisher = services_of(request).publisher
    if idempotency_key(request) is not None:
        raise Invalid(errors=[("header:Idempotency-Key", "a batch has no key; its items have idempotency_key")])
    raw = await read_body(request, media_type=JSON, limit=MAX_BATCH_BODY)
    # Two megabytes made to be slow take a second: nobody else waits for that.
    items = _items(raw) if len(raw) <= MAX_BODY else await asyncio.to_thread(_items, raw)
    sender = guard(request, PUSH).subject  # still: the body may have taken minutes
    await publisher.admit(sender, len(items))
    results: list[dict[str, Any]] = [members(item) if isinstance(item, Invalid) else {} for item in items]
    wanted = [(at, item) for at, item in enumerate(items) if isinstance(item, Wanted)]
    to_store = [(at, _push(item)) for at, item in wanted if item.ttl > 0]
    appended: Sequence[Appended | GatewayError] = ()
    if to_store:
        appended = await publisher.push_all(sender, [push for _, push in to_store])
    for (at, _), result in zip(to_store, appended, strict=True):
        results[at] = members(result) if isinstance(result, GatewayError) else _item(result.outcomes[0])
    if passing := [(at, item) for at, item in wanted if item.ttl == 0]:
        await _pass_items(publisher, sender, passing, results)
    # There is no header field per item: it is said when the whole batch had been stored before.
    replayed = bool(items) and len(to_store) == len(items)
    replayed = replayed and all(isinstance(one, Appended) and one.replayed for one in appended)
    return _json(200, {"results": results}, {"Idempotency-Replayed": "true"} if replayed else {})


def _items(raw: bytes) -> list[Wanted | Invalid]:
    """The items of a batch, each read by itself. Raises Invalid if it is no batch."""
    body, troubles = parse(raw)
    bad: dict[int, list[tuple[str, str]]] = {}
    for path, detail in troubles:
        if len(path) < 2 or path[0] != "notifications" or not isinstance(path[1], int):
            raise Invalid(errors=[(pointer(path), detail)])
        bad.setdefault(path[1], []).append((pointer(path[2:]), detail))
    if not isinstance(body, dict):
        raise Invalid(errors=[("", "has to be an object")])
    if unknown := [name for name in body if name != "notifications"]:
        raise Invalid(errors=[(pointer((name,)), "unknown field") for name in unknown[:20]])
    items = body.get("notifications")
    if not isinstance(items, list) or len(items) > MAX_BATCH:
        raise Invalid(errors=[("/notifications", f"has to be a list of at most {MAX_BATCH} notifications")])
    read: list[Wanted | Invalid] = []
    for at, item in enumerate(items):
        try:
            if at in bad:
                raise Invalid(errors=bad[at])
            read.append(read_item(item))
        except Invalid as error:
            read.append(error)
    return read


def _push(wanted: Wanted) -> Push:
    return Push(wanted.recipients or (), wanted.content, wanted.category, wanted.ttl, wanted.key, wanted.many)


async def _pass_by(request: Request, sender: str, wanted: Wanted) -> Response:
    services = services_of(request)
    if wanted.recipients is None or wanted.many:
        count = await services.publisher.online_count(wanted.recipients)
        id = services.publisher.pass_by(sender, wanted.recipients, wanted.content)
        return _json(202, {"id": id, "online_count": count})
    online = await services.publisher.online(wanted.recipients)
    id = services.publisher.pass_by(sender, wanted.recipients, wanted.content)
    return _json(202, {"id": id, "online": online.get(wanted.recipients[0])})


async def _pass_items(
    publisher: Publisher, sender: str, passing: Sequence[tuple[int, Wanted]], results: list[dict[str, Any]]
) -> None:
    """Pass these items on, and put what came of each at its place in ``results``."""
    online = await publisher.online([user_id for _, item in passing for user_id in item.recipients or ()])
    for at, item in passing:
        recipients = item.recipients or ()
        id = publisher.pass_by(sender, recipients, item.content)
        results[at] = {"status": 202, "id": id, "online": online.get(recipients[0])}


async def receipt(request: Request) -> Response:
    """The furthest a notification got on any device. Only for the client that sent it, or an admin."""
    principal = guard(request, PUSH)
    found = await _own(request, principal)
    return _json(
        200,
        {
            "id": found.id,
            "user_id": found.user_id,
            "seq": found.seq,
            "state": found.state,
            "created_at": rfc3339(found.created_at),
            "expires_at": rfc3339(found.expires_at),
            "acknowledged_at": rfc3339(found.acknowledged_at) if found.acknowledged_at is not None else None,
            "read_at": rfc3339(found.read_at) if found.read_at is not None else None,
        },
    )


async def withdraw(request: Request) -> Response:
    """Take a notification back: it leaves the inbox, and devices that show it hear that it did."""
    principal = guard(request, PUSH)
    id = known(request.path_params["id"], "notification")
    sender = None if principal.has(ADMIN) else principal.subject
    await services_of(request).publisher.withdraw(id, sender=sender)
    return Response(status_code=204)


async def _own(request: Request, principal: Principal) -> Receipt:
    id = known(request.path_params["id"], "notification")
    found = await services_of(request).inbox.receipt(id, now=now_of(request))
    if found.sender != principal.subject and not principal.has(ADMIN):
        raise NotFound("notification")  # whether it exists is nobody else's business
    return found


def _stored(stored: Stored) -> dict[str, Any]:
    return {
        "id": stored.id,
        "user_id": stored.user_id,
        "seq": stored.seq,
        "created_at": rfc3339(stored.created_at),
        "expires_at": rfc3339(stored.expires_at),
        "online": stored.online,
    }


def _item(stored: Stored) -> dict[str, Any]:
    if stored.seq is None:
        return {**members(NotFound("user")), "user_id": stored.user_id}
    return {"status": 201, **_stored(stored)}


def _json(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, media_type="application/json")


# -- the routes: the endpoints have no signature the OpenAPI document could read ----------------------------------

router.add_api_route(
    "/notifications",
    push,
    methods=["POST"],
    status_code=201,
    summary="Push a notification",
    responses={
        200: answers(RESULTS, "For `user_ids`: one result per user.", headers=REPLAYED),
        201: answers(STORED, "Stored: the commit has reached the disk.", headers=REPLAYED),
        202: answers(PASSED, "For `ttl` 0: passed on, stored nowhere."),
    },
    openapi_extra={
        "security": _SECURITY,
        "parameters": [KEY_PARAMETER],
        "requestBody": takes(PUSH_BODY, EXAMPLE),
    },
)
router.add_api_route(
    "/notifications/batch",
    push_batch,
    methods=["POST"],
    status_code=200,
    summary="Push many notifications",
    responses={200: answers(RESULTS, "One result per item, in the order sent.", headers=REPLAYED)},
    openapi_extra={
        "security": _SECURITY,
        "requestBody": takes(BATCH, BATCH_EXAMPLE),
    },
)
router.add_api_route(
    "/notifications/{id}",
    receipt,
    methods=["GET"],
    summary="What became of a notification",
    responses={200: answers(RECEIPT, "Its receipt.")},
    openapi_extra={"security": _SECURITY, "parameters": [ID_PARAMETER]},
)
router.add_api_route(
    "/notifications/{id}",
    withdraw,
    methods=["DELETE"],
    status_code=204,
    summary="Withdraw a notification",
    openapi_extra={"security": _SECURITY, "parameters": [ID_PARAMETER]},
)
