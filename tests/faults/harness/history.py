"""What a run did and saw, one event after the other on one clock. Does nothing and judges nothing.

``at`` is nanoseconds of monotonic time since the run began. An ``op`` is one notification asked for under one key: a
push to one user, to several, or one item of a batch. A ``device`` is one session; a ``connection`` one socket of it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import orjson

SECOND = 1_000_000_000
Outcome = Literal["ok", "fail", "unknown"]
Kind = Literal["one", "many", "batch"]


class Given(NamedTuple):
    """What one answer said about one user: under which id and number. ``expires``: on the clock of the history."""

    user: str
    id: str
    seq: int
    expires: int


class Item(NamedTuple):
    seq: int
    id: str
    digest: str


@dataclass(frozen=True, slots=True)
class Event:
    at: int


@dataclass(frozen=True, slots=True)
class SignedIn(Event):
    """``prompt``: it reads as fast as it can, so what it hears late was sent late."""

    device: str
    user: str
    session: str
    prompt: bool


@dataclass(frozen=True, slots=True)
class Invoked(Event):
    """A POST went out with this op in it: ``index``-th item of ``request``, for the ``attempt``-th time (from 1)."""

    op: str
    request: str
    index: int
    attempt: int
    node: str
    kind: Kind
    users: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Answered(Event):
    """``fail``: a definite no, nothing was stored. ``unknown``: 5xx, or no answer at all (status 0)."""

    op: str
    attempt: int
    node: str
    outcome: Outcome
    status: int
    given: tuple[Given, ...] = ()
    replayed: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Withdrew(Event):
    """``asked``, then how it ended. From the asking on it may be gone."""

    id: str
    outcome: Literal["asked"] | Outcome


@dataclass(frozen=True, slots=True)
class Dialled(Event):
    """An upgrade is asked for. ``after``, ``epoch``: the position that the device claims, if it keeps one."""

    device: str
    session: str
    connection: str
    node: str
    after: int | None = None
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class Opened(Event):
    """hello."""

    device: str
    session: str
    user: str
    connection: str
    node: str
    epoch: str
    head: int
    rev: int
    cursor: int
    after: int
    reset: bool


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """No socket came of it: the close that answered, or code 0 if nobody did."""

    device: str
    session: str
    connection: str
    node: str
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Received(Event):
    device: str
    user: str
    connection: str
    epoch: str
    seq: int
    id: str
    digest: str


@dataclass(frozen=True, slots=True)
class Gapped(Event):
    """``first`` to ``last`` will not come."""

    device: str
    user: str
    connection: str
    epoch: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Stated(Event):
    """The state of the inbox changed: a read, withdrawn or changed frame."""

    device: str
    user: str
    connection: str
    rev: int


@dataclass(frozen=True, slots=True)
class Acked(Event):
    """``confirmed``: the gateway said ok to it; else it was only sent."""

    device: str
    session: str
    user: str
    epoch: str
    seq: int
    confirmed: bool


@dataclass(frozen=True, slots=True)
class Closed(Event):
    """``ours``: the client ended it. Code 1006: without a close frame."""

    device: str
    session: str
    connection: str
    code: int
    reason: str
    ours: bool


@dataclass(frozen=True, slots=True)
class Revoked(Event):
    """``asked``, then ``ok``: from here on the second counts. ``node``: which one answered ("" the command line)."""

    session: str
    node: str
    outcome: Literal["asked", "ok", "unknown"]


@dataclass(frozen=True, slots=True)
class Fault(Event):
    """``dark``: nodes that can neither store nor serve while it lasts, so that a 2xx or a green /readyz is a lie.
    ``deaf``: nodes that hear no hints of others meanwhile; /readyz has to say *degraded*."""

    name: str
    phase: Literal["start", "stop"]
    dark: tuple[str, ...] = ()
    deaf: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Probed(Event):
    """/readyz was asked (``at``: the answer; ``asked``: before). Status 0: no answer."""

    node: str
    status: int
    asked: int
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class Listed(Event):
    """An inbox as the API tells it, whole, after all is over."""

    node: str
    user: str
    epoch: str
    head: int
    rev: int
    items: tuple[Item, ...]


E = TypeVar("E", bound=Event)
KINDS: tuple[type[Event], ...] = (
    *(SignedIn, Invoked, Answered, Withdrew, Dialled, Opened, Refused, Received, Gapped, Stated, Acked, Closed),
    *(Revoked, Fault, Probed, Listed),
)
_BY_NAME = {kind.__name__: kind for kind in KINDS}


class History:
    """The events of one run, in the order in which they were noted. ``seed``: what the run was drawn from."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.events: list[Event] = []
        self._began = time.monotonic_ns()
        self._wall = time.time_ns() - self._began

    @property
    def now(self) -> int:
        return time.monotonic_ns() - self._began

    def at(self, rfc3339: str) -> int:
        """A wall time of this machine on the clock of the history."""
        return int(datetime.fromisoformat(rfc3339).timestamp() * SECOND) - self._wall - self._began

    def note(self, event: E) -> E:
        self.events.append(event)
        return event

    def of(self, kind: type[E]) -> Iterator[E]:
        return (event for event in self.events if isinstance(event, kind))

    def dump(self, path: Path) -> Path:
        """As lines of JSON, for a person to look through; ``load`` reads them back."""
        with path.open("wb") as file:
            file.write(orjson.dumps({"seed": self.seed}) + b"\n")
            for event in self.events:
                members = {one.name: getattr(event, one.name) for one in fields(event)}
                file.write(orjson.dumps({"event": type(event).__name__, **members}, default=tuple) + b"\n")
        return path

    @classmethod
    def load(cls, path: Path) -> History:
        first, *lines = path.read_bytes().splitlines()
        history = cls(orjson.loads(first)["seed"])
        history.events = [_event(orjson.loads(line)) for line in lines]
        return history


def _event(members: dict[str, Any]) -> Event:
    kind = _BY_NAME[members.pop("event")]
    for name, value in members.items():
        if isinstance(value, list):
            made: type[Given | Item] | None = {"given": Given, "items": Item}.get(name)
            members[name] = tuple(value if made is None else [made(*one) for one in value])
    return kind(**members)


def digest(members: Mapping[str, Any]) -> str:
    """What a sender said, as one short word: equal exactly if the content is."""
    said = [members.get(name) for name in ("title", "body", "data", "category", "priority")]
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()[:24]
