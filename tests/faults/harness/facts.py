"""A history put in order for its judges: who asked for what, what became of it, who heard it when. Judges nothing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property

from history import (
    Acked,
    Answered,
    Closed,
    Dialled,
    Fault,
    Gapped,
    Given,
    History,
    Invoked,
    Listed,
    Opened,
    Received,
    Refused,
    Revoked,
    SignedIn,
    Stated,
    Withdrew,
)


@dataclass(slots=True)
class Intent:
    """One op from its first asking on. ``done``: when the first 2xx came; ``refused``: a definite no came."""

    op: str
    kind: str
    users: tuple[str, ...]
    digest: str
    invoked: int
    attempts: list[Invoked] = field(default_factory=list)
    answers: list[Answered] = field(default_factory=list)

    @property
    def agreed(self) -> Answered | None:
        return next((answer for answer in self.answers if answer.outcome == "ok"), None)

    @property
    def refused(self) -> bool:
        return any(answer.outcome == "fail" for answer in self.answers)


@dataclass(frozen=True, slots=True)
class Accepted:
    """One notification that was answered 2xx."""

    intent: Intent
    answer: Answered
    given: Given


@dataclass(slots=True)
class Visit:
    """One connection, from its hello to its end. ``told``: what covers its numbers, in the order it came."""

    opened: Opened
    dialled: Dialled | None
    told: list[Received | Gapped] = field(default_factory=list)
    stated: list[Stated] = field(default_factory=list)
    closed: Closed | None = None


@dataclass(slots=True)
class Device:
    signed_in: SignedIn
    visits: list[Visit] = field(default_factory=list)
    acked: list[Acked] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    heard: dict[str, int] = field(default_factory=dict)
    """id → when it was first received."""
    again: int = 0
    """How often something came that had come before."""


class Facts:
    """Built once; everything else is looked up."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.end = max((event.at for event in history.events), default=0)
        self.intents: dict[str, Intent] = {}
        self.devices: dict[str, Device] = {one.device: Device(one) for one in history.of(SignedIn)}
        self.visits: dict[str, Visit] = {}
        self.acked: dict[str, list[Acked]] = defaultdict(list)
        """session → what it acknowledged; several sockets may be of one session."""
        self.listed: dict[str, list[Listed]] = defaultdict(list)
        self.withdrawn: set[str] = {one.id for one in history.of(Withdrew)}
        self.revoked: dict[str, list[Revoked]] = defaultdict(list)
        self._requests()
        self._sockets()
        for one in history.of(Listed):
            self.listed[one.user].append(one)
        for ban in history.of(Revoked):
            self.revoked[ban.session].append(ban)

    def _requests(self) -> None:
        for event in self.history.events:
            if isinstance(event, Invoked):
                intent = self.intents.setdefault(
                    event.op, Intent(event.op, event.kind, event.users, event.digest, event.at)
                )
                intent.attempts.append(event)
            elif isinstance(event, Answered):
                self.intents[event.op].answers.append(event)

    def _sockets(self) -> None:
        dialled: dict[str, Dialled] = {}
        for event in self.history.events:
            if isinstance(event, Dialled):
                dialled[event.connection] = event
            elif isinstance(event, Opened):
                visit = self.visits[event.connection] = Visit(event, dialled.get(event.connection))
                self.devices[event.device].visits.append(visit)
            elif isinstance(event, Received | Gapped):
                self.visits[event.connection].told.append(event)
                if isinstance(event, Received):
                    device = self.devices[event.device]
                    device.again += event.id in device.heard
                    device.heard.setdefault(event.id, event.at)
            elif isinstance(event, Stated):
                self.visits[event.connection].stated.append(event)
            elif isinstance(event, Closed) and event.connection in self.visits:
                self.visits[event.connection].closed = event
            elif isinstance(event, Acked):
                self.devices[event.device].acked.append(event)
                self.acked[event.session].append(event)
            elif isinstance(event, Refused):
                self.devices[event.device].refused.append(event)

    @cached_property
    def heard(self) -> dict[str, dict[str, int]]:
        """session → id → when any of its sockets first received it: what one acknowledged, another is not sent."""
        heard: dict[str, dict[str, int]] = defaultdict(dict)
        for device in self.devices.values():
            mine = heard[device.signed_in.session]
            for id, at in device.heard.items():
                mine[id] = min(at, mine.get(id, at))
        return heard

    @cached_property
    def accepted(self) -> list[Accepted]:
        """Everything that was answered 2xx, by the first such answer."""
        return [
            Accepted(intent, answer, given)
            for intent in self.intents.values()
            if (answer := intent.agreed) is not None
            for given in answer.given
        ]

    @cached_property
    def wanted(self) -> dict[str, Intent]:
        """digest → op. Every op of a run has content of its own."""
        return {intent.digest: intent for intent in self.intents.values()}

    @cached_property
    def first_seen(self) -> dict[str, int]:
        """id → when anybody received it first."""
        seen: dict[str, int] = {}
        for device in self.devices.values():
            for id, at in device.heard.items():
                seen[id] = min(at, seen.get(id, at))
        return seen

    @cached_property
    def epochs(self) -> set[str]:
        return {one.epoch for one in self.history.of(Opened)} | {one.epoch for one in self.history.of(Listed)}

    @cached_property
    def healed(self) -> int:
        """When the last fault ended."""
        return max((one.at for one in self.history.of(Fault) if one.phase == "stop"), default=0)

    def head(self, user: str) -> int:
        return max((one.head for one in self.listed[user]), default=0)

    def revoked_at(self, session: str) -> tuple[int, int, str] | None:
        """When the revocation was asked for, when it counted (at the latest the end of the run), and on which node."""
        events = self.revoked.get(session)
        if not events:
            return None
        counted = next((one for one in events if one.outcome == "ok"), None)
        return events[0].at, counted.at if counted else self.end, counted.node if counted else ""

    def gone(self, accepted: Accepted, *, inbox_max: int) -> bool:
        """Whether it may rightly be missing: expired, taken back, or beyond the inbox limit."""
        given = accepted.given
        return (
            given.id in self.withdrawn
            or given.expires <= self.end
            or (len(self.epochs) == 1 and given.seq <= self.head(given.user) - inbox_max)
        )
