"""The items of ``push_many``, rendered and cut into batches; and what their results say. Sends nothing."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.client.answers import Answer, result
from gateway.client.retrying import may_repeat
from gateway.client.values import Problem, Push, Result

MAX_ITEMS, MAX_BYTES = 1000, 2 * 1024 * 1024
"""Of one batch."""
_FRAME = b'{"notifications":[', b"]}"
ROOM = MAX_BYTES - sum(map(len, _FRAME))


@dataclass(frozen=True, slots=True)
class Item:
    """One of a batch, as it is sent. ``place``: among all that were given."""

    place: int
    user_id: str
    json: bytes
    key: str | None

    @classmethod
    def of(cls, place: int, push: Push) -> Item:
        fields = {name: getattr(push, name) for name in Push.__slots__}
        fields["idempotency_key"] = key = push.idempotency_key or new_key(fields)
        return cls(place, push.user_id, encoded(fields), key)

    def failed(self, problem: Problem, *, unknown: bool = False) -> Result:
        return Result(user_id=self.user_id, idempotency_key=self.key, problem=problem, unknown=unknown)

    def too_large(self) -> Result:
        detail = f"the item has {len(self.json)} bytes of JSON, and was not sent"
        return self.failed(Problem(status=413, code="payload_too_large", detail=detail))

    def comes_again(self, result: Result) -> bool:
        """Whether it is worth sending it again after ``result``."""
        problem, keyed = result.problem, self.key is not None
        return problem is not None and may_repeat(problem.status, unknown=result.unknown, repeatable=keyed)


def new_key(fields: Mapping[str, Any]) -> str | None:
    """What ``ttl`` 0 sends is stored nowhere and takes no key."""
    return None if fields.get("ttl") == 0 else secrets.token_hex(16)


def encoded(fields: Mapping[str, Any]) -> bytes:
    """As JSON without what is None. Raises TypeError or ValueError for what JSON cannot hold."""
    said = {name: value for name, value in fields.items() if value is not None}
    try:
        return json.dumps(said, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        return json.dumps(said, separators=(",", ":")).encode()  # half a surrogate pair: the gateway names the field


def results(items: Sequence[Item], answer: Answer, body: Mapping[str, Any]) -> list[Result]:
    """Of ``POST /notifications/batch``. Raises KeyError, TypeError or ValueError if it is none."""
    return [
        result(one, answer, user_id=item.user_id, key=item.key)
        for item, one in zip(items, body["results"], strict=True)
    ]  # fmt: skip


def body_of(batch: Sequence[Item]) -> bytes:
    return _FRAME[0] + b",".join(item.json for item in batch) + _FRAME[1]


def batches(items: Sequence[Item]) -> list[list[Item]]:
    """As few as hold them in order."""
    cut: list[list[Item]] = []
    size = 0
    for item in items:
        size += len(item.json) + 1
        if not cut or len(cut[-1]) == MAX_ITEMS or size > ROOM:
            cut.append([])
            size = len(item.json) + 1
        cut[-1].append(item)
    return cut
