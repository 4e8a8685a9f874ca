"""What goes to a gateway and what comes back, as typed values. No HTTP, no errors to raise, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Priority = Literal["low", "normal", "high"]
State = Literal["scheduled", "stored", "acknowledged", "read", "expired", "withdrawn"]


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with a request. ``pointer``: an RFC 6901 pointer into the body, ``header:name`` or
    ``query:name``."""

    pointer: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What a gateway said instead of yes (RFC 9457). ``status`` 0: nothing was said. Programs look at ``code``."""

    status: int
    code: str
    detail: str
    errors: tuple[FieldError, ...] = ()
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One notification to one user: an item of ``push_many``. What is None is left to the gateway.

    ``ttl`` in seconds, 0 to 90 days; 0 is shown to who is connected now and stored nowhere. ``idempotency_key`` None:
    one is made, and the ``Result`` has it.
    """

    user_id: str
    title: str
    body: str | None = None
    data: Mapping[str, Any] | None = None
    category: str | None = None
    priority: Priority | None = None
    ttl: int | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a notification for one user: stored (``seq``), passed on (``ttl`` 0), or not (``problem``).

    ``unknown``: the problem leaves open whether it was stored. Sent again with the same ``idempotency_key`` it is one.
    ``online``: whether any device of the user was connected then; None when that could not be known.
    """

    id: str | None = None
    user_id: str | None = None
    seq: int | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    online: bool | None = None
    idempotency_key: str | None = None
    problem: Problem | None = None
    unknown: bool = False

    @property
    def ok(self) -> bool:
        return self.problem is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """The answer to one push. Which fields are set goes by the target, as in the HTTP interface.

    ``user_id``: ``id``, ``seq``, ``created_at``, ``expires_at``, ``online``. ``user_ids``: ``results``, one for each
    user in order. ``ttl`` 0: ``id`` with ``online``, or for several ``online_count``. ``replayed``: the key had been
    answered before.
    """

    id: str | None = None
    user_id: str | None = None
    seq: int | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    online: bool | None = None
    online_count: int | None = None
    results: tuple[Result, ...] = ()
    replayed: bool = False
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """How far a notification got on any device of its user. A gateway that is newer may know more states."""

    id: str
    user_id: str
    seq: int | None
    state: State | str
    created_at: datetime
    expires_at: datetime
    acknowledged_at: datetime | None
    read_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One notification as it arrives. ``seq`` None: ``ttl`` was 0, and it is stored nowhere."""

    id: str
    seq: int | None
    title: str
    created_at: datetime
    body: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    category: str | None = None
    priority: Priority | str = "normal"
    expires_at: datetime | None = None
    read_at: datetime | None = None
    topic: str | None = None

    @classmethod
    def of(cls, frame: Mapping[str, Any]) -> Notification:
        """Of a ``notification`` frame. Raises KeyError, ValueError or TypeError if it is none."""
        created_at = datetime.fromisoformat(frame["created_at"])
        known: dict[str, Any] = {name: frame[name] for name in _OF_A_FRAME if frame.get(name) is not None}
        known |= {name: instant(frame.get(name)) for name in ("expires_at", "read_at")}
        return cls(id=frame["id"], seq=frame["seq"], title=frame["title"], created_at=created_at, **known)


_OF_A_FRAME = ("body", "data", "category", "priority", "topic")


def instant(text: str | None) -> datetime | None:
    """An RFC 3339 time, or None for what is not there. Raises ValueError, TypeError."""
    return None if text is None else datetime.fromisoformat(text)
