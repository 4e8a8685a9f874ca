"""What every connection of a node shares: one record, so that each of them holds one reference. Does nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.authn import Authn
from gateway.epoch import Epoch
from gateway.hub import Hub
from gateway.metrics import Metrics
from gateway.ports import Bus, Clock, Inbox, Presence
from gateway.publish import Publisher
from gateway.pulse import Pulse
from gateway.revoke import Revoker
from gateway.tickets import Tickets
from gateway.turns import Turns


@dataclass(frozen=True, slots=True)
class Ties:
    """``heartbeat``: seconds between two pings. ``frame_rate``: client frames per second, ``frame_burst`` at once."""

    node: str
    epoch: Epoch
    heartbeat: int
    frame_rate: float
    frame_burst: int
    hub: Hub
    pulse: Pulse
    inbox: Inbox
    publisher: Publisher
    authn: Authn
    tickets: Tickets
    revoker: Revoker
    presence: Presence
    bus: Bus
    metrics: Metrics
    clock: Clock
    monotonic: Callable[[], float]
    turns: Turns = field(default_factory=Turns)
