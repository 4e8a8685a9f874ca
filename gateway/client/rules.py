"""The rules a client of ``/ws`` keeps, as values: when to come back, how far it is. No socket, no clock, no I/O.

Ported to another language, this page and ``listener.py`` are the receiving client.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.closing import BY_REASON, Retry

Frame = Mapping[str, Any]
SHOWN_IDS = 10_000
"""So many ids are remembered, so that after a reset of the numbers nothing is shown twice."""
_BY_CODE: Mapping[int, Retry] = {
    1002: "bug", 1003: "bug", 1007: "bug", 1008: "stop", 1009: "bug", 1012: "after_ms", 1013: "long_backoff",
}  # fmt: skip


def retry_after_close(code: int | None, reason: str) -> Retry:
    """What to do next, by the table of the protocol; an unknown reason goes by its code, an unknown code backs off."""
    known = BY_REASON.get(reason)
    if known is not None and known.code == code:
        return known.retry
    return _BY_CODE.get(code or 1006, "backoff")


@dataclass(slots=True)
class Backoff:
    """Full jitter: each wait is anywhere up to a ceiling that doubles from ``first`` to ``most`` seconds.

    Full, because after an outage all clients come back at once, and only chance keeps them apart.
    """

    random: Callable[[], float] = random.random
    first: float = 1.0
    most: float = 60.0
    failures: int = 0

    def next(self) -> float:
        ceiling = min(self.most, self.first * 2.0 ** min(self.failures, 16))
        self.failures += 1
        return self.random() * ceiling

    def long(self) -> float:
        """The wait of who was told there is no room: never short."""
        self.failures += 1
        return self.most * (0.5 + self.random() / 2)

    def reset(self) -> None:
        self.failures = 0


@dataclass(slots=True)
class Position:
    """How far this device has come, and in which log. ``after`` None: wherever the session's cursor is."""

    after: int | None = None
    epoch: str | None = None
    rev: int | None = None
    shown: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def query(self) -> dict[str, str]:
        given = {} if self.after is None else {"after": str(self.after)}
        return given if self.after is None or self.epoch is None else {**given, "epoch": self.epoch}

    def take(self, frame: Frame) -> bool:
        """Take a frame in; whether it is news to show. The ids shown survive a reset, the numbers do not."""
        match frame.get("type"):
            case "hello":
                self.after, self.epoch, self.rev = frame["after"], frame["epoch"], frame["rev"]
            case "notification":
                if frame["seq"] is not None:
                    self.after = frame["seq"]
                if frame["id"] in self.shown:
                    return False
                self.note(frame["id"])
            case "gap":
                self.after = frame["to"]
            case "read" | "withdrawn" | "changed":
                if self.rev is not None and frame["rev"] <= self.rev:
                    return False
                self.rev = frame["rev"]
                if frame["type"] == "withdrawn":
                    self.note(frame["id"])  # should it still arrive, it is not shown
        return True

    def note(self, id: str) -> None:
        """Should a notification of this id arrive, it is not shown."""
        self.shown[id] = None
        while len(self.shown) > SHOWN_IDS:
            self.shown.popitem(last=False)
