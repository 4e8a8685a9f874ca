"""What a workload is made of: how many of what, how fast, against which nodes. Numbers only, drawn from nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from faulty import FastNode


class Habit(Enum):
    """How a device listens. ``keeps``: it stores its position and passes it; else it trusts its acknowledgements."""

    ACKS = "acks"
    KEEPS = "keeps"
    SLOW = "slow"  # acknowledges, reads a few tens a second
    STALLS = "stalls"  # keeps its position, stops reading for a while now and then

    @property
    def keeps(self) -> bool:
        return self in (Habit.KEEPS, Habit.STALLS)

    @property
    def prompt(self) -> bool:
        return self in (Habit.ACKS, Habit.KEEPS)


HABITS = (Habit.ACKS, Habit.KEEPS, Habit.SLOW, Habit.STALLS)


@dataclass(frozen=True, slots=True)
class Site:
    """One way for clients to reach a node: its own port, or a link before it. Two sites may be of one node."""

    name: str
    node: FastNode
    port: int

    @classmethod
    def of(cls, name: str, node: FastNode, *, port: int | None = None) -> Site:
        return cls(name, node, node.port if port is None else port)


@dataclass(frozen=True, slots=True)
class Plan:
    """``rate``: notifications a second, all producers together. ``warm``: answered 2xx before the fault, ``after``:
    more of them once it is healed. ``victims``: devices that will be revoked; the first before the fault, the others by
    the row or, failing that, afterwards. ``leaves``: notifications after which a device goes elsewhere, on average; a
    difficult one five times as often, and it stays away for a while, so that something has expired when it is back.
    ``twins``: sessions that listen on two sockets at once, each with a habit of its own. ``nervous``: an ack is sent
    twice, and an older one after it.
    Seconds: ``patience`` of a request or an upgrade; ``silence`` after which a device asks whether anybody is there.
    """

    users: int = 4
    devices: int = 4
    victims: int = 2
    producers: int = 4
    rate: float = 150.0
    warm: int = 150
    after: int = 150
    leaves: int = 150
    twins: int = 0
    nervous: bool = False
    patience: float = 5.0
    silence: float = 2.0
    short_lived: float = 0.04
    taken_back: float = 0.02
    settled_within: float = 30.0
