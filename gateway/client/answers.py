"""An HTTP answer → the value it stands for, or the error. Sends nothing, and knows no HTTP library."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from gateway.client.errors import (
    Forbidden,
    GatewayError,
    Invalid,
    NotFound,
    RateLimited,
    Refused,
    Unauthorized,
    Unavailable,
)
from gateway.client.values import FieldError, Problem, Pushed, Receipt, Result, instant

T = TypeVar("T")
LONGEST_WAIT = 3600.0
_KINDS: Mapping[int, type[Refused]] = {401: Unauthorized, 403: Forbidden, 404: NotFound, 422: Invalid}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Names of ``headers`` are looked up in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing came back. ``unsent``: because nothing went out either."""

    words: str
    unsent: bool


def read(answer: Answer | Silence, *, url: str) -> dict[str, Any]:
    """The JSON object of a 2xx, empty if it has no body. Raises Refused, or Unavailable for silence, 429 and 5xx."""
    if isinstance(answer, Silence):
        raise Unavailable(answer.words, unknown=not answer.unsent)
    try:
        body = json.loads(answer.content) if answer.content else {}
    except (ValueError, RecursionError):
        body = None
    if 200 <= answer.status < 300 and isinstance(body, dict):
        return body
    raise _error(answer, body if isinstance(body, dict) else {}, url=url)


def _error(answer: Answer, problem: Mapping[str, Any], *, url: str) -> GatewayError:
    status = answer.status
    code = str(problem.get("code") or problem.get("error") or "")
    detail = str(problem.get("detail") or problem.get("error_description") or f"HTTP {status}")
    request_id, errors = answer.headers.get("x-request-id"), _field_errors(problem)
    if status == 429 or status >= 500:
        kind = RateLimited if status == 429 else Unavailable
        return kind(
            detail,
            after=_seconds(answer),
            unknown=status != 429,
            code=code,
            status=status,
            errors=errors,
            request_id=request_id,
        )
    if not problem:
        return stranger(status, url=url)
    return _KINDS.get(status, Refused)(detail, code=code, status=status, errors=errors, request_id=request_id)


def stranger(status: int, *, url: str) -> Refused:
    error = Refused(f"this does not look like a gateway: HTTP {status} from {url}", status=status)
    error.unknown = 200 <= status < 300
    return error


def _field_errors(problem: Mapping[str, Any]) -> tuple[FieldError, ...]:
    errors = problem.get("errors")
    found = [one for one in errors if isinstance(one, dict)] if isinstance(errors, list) else []
    return tuple(FieldError(str(one.get("pointer", "")), str(one.get("detail", ""))) for one in found)


def _seconds(answer: Answer) -> float:
    """Of ``Retry-After`` (RFC 9110, section 10.2.3): seconds from a gateway, from a proxy before it perhaps a date.

    That counts from the ``Date`` of the same answer: the clock of this machine may be wrong.
    """
    value = answer.headers.get("retry-after", "")
    if value.isdecimal():
        return min(float(value), LONGEST_WAIT)
    try:
        until, now = (parsedate_to_datetime(text) for text in (value, answer.headers.get("date", "")))
        return min(max((until - now).total_seconds(), 0.0), LONGEST_WAIT)
    except (OverflowError, TypeError, ValueError):
        return 0.0


def understood(make: Callable[[], T], answer: Answer, *, url: str) -> T:
    """What ``make`` makes of a 2xx. Raises Refused if it is not what a gateway answers."""
    try:
        return make()
    except (KeyError, TypeError, ValueError):
        raise stranger(answer.status, url=url) from None


def pushed(answer: Answer, body: Mapping[str, Any], key: str | None) -> Pushed:
    """Of ``POST /notifications``. Raises KeyError, TypeError or ValueError if it is none."""
    replayed = answer.headers.get("idempotency-replayed") == "true"
    if answer.status == 200:
        each = tuple(result(one, answer) for one in body["results"])
        return Pushed(results=each, replayed=replayed, idempotency_key=key)
    return Pushed(
        **_stored(body), online_count=body.get("online_count"), replayed=replayed, idempotency_key=key
    )  # fmt: skip


def result(one: Mapping[str, Any], answer: Answer, *, user_id: str | None = None, key: str | None = None) -> Result:
    """Of one item of ``results``. Raises KeyError, TypeError or ValueError if it is none."""
    status = one["status"]
    if 200 <= status < 300:
        return Result(**{"user_id": user_id, **_stored(one)}, idempotency_key=key)
    problem = Problem(
        status=status,
        code=str(one.get("code", "")),
        detail=str(one.get("detail", "")),
        errors=_field_errors(one),
        request_id=answer.headers.get("x-request-id"),
    )
    user_id = one.get("user_id", user_id)
    return Result(user_id=user_id, idempotency_key=key, problem=problem, unknown=status >= 500)


def _stored(one: Mapping[str, Any]) -> dict[str, Any]:
    times = {name: instant(one.get(name)) for name in ("created_at", "expires_at")}
    told = {name: one[name] for name in ("user_id", "seq", "online") if name in one}
    return {"id": one["id"], **told, **times}


def receipt(body: Mapping[str, Any]) -> Receipt:
    """Of ``GET /notifications/{id}``. Raises KeyError, TypeError or ValueError if it is none."""
    return Receipt(
        id=body["id"],
        user_id=body["user_id"],
        seq=body["seq"],
        state=body["state"],
        created_at=datetime.fromisoformat(body["created_at"]),
        expires_at=datetime.fromisoformat(body["expires_at"]),
        acknowledged_at=instant(body.get("acknowledged_at")),
        read_at=instant(body.get("read_at")),
    )
