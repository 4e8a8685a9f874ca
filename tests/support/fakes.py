"""Small working stand-ins for what a connection leans on: a log, a wire and a clock. Nothing here records calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.authn import Authn
from gateway.bus.memory import MemoryBus
from gateway.closing import Close
from gateway.epoch import Epoch
from gateway.errors import Conflict, TokenInvalid
from gateway.hub import Hub
from gateway.limiting.memory import MemoryLimiter
from gateway.metrics import Metrics
from gateway.model import (
    Append,
    Appended,
    Claims,
    Entry,
    MarkedRead,
    Opening,
    Page,
    Principal,
    State,
    Stored,
    Withdrawn,
)
from gateway.ports import EncodedFrame, Inbox
from gateway.ports import Revocations as RevocationLog
from gateway.presence.memory import MemoryPresence
from gateway.publish import Publisher
from gateway.pulse import Pulse
from gateway.revocations import Revocations
from gateway.revoke import Revoker
from gateway.tickets import Tickets
from gateway.ties import Ties


class Seconds:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Wire:
    """A transport that takes ``room`` frames and then stops until ``take`` makes room again."""

    kind: str = "fake"

    def __init__(self, room: int = 10**9) -> None:
        self.address: str | None = "127.0.0.1"
        self.heard = 0
        self.room, self.queued = room, 0
        self.frames: list[dict[str, Any]] = []
        self.ended: list[Close | str] = []
        self.on_drained: Callable[[], None] = lambda: None

    @property
    def writable(self) -> bool:
        return self.queued < self.room

    def encode(self, frame: EncodedFrame) -> bytes:
        return frame.json

    def write(self, *payloads: bytes) -> None:
        assert not self.ended, f"written after the end: {payloads!r}"
        self.queued += len(payloads)
        self.frames += [json.loads(payload) for payload in payloads]

    def send(self, frame: EncodedFrame) -> int:
        if not self.writable:
            return 0
        payloads = [self.encode(part) for part in frame.parts]
        self.write(*payloads)
        return sum(map(len, payloads))

    def take(self, frames: int = 10**9) -> None:
        blocked = not self.writable
        self.queued = max(0, self.queued - frames)
        if blocked and self.writable:
            self.on_drained()

    def ping(self) -> None: ...

    def pending(self) -> int:
        return self.queued

    def close(self, why: Close, *, linger: float) -> None:
        self.ended.append(why)

    def abort(self) -> None:
        self.ended.append("aborted")


class MemoryLog:
    """The inboxes of a few users: the part of ``ports.Inbox`` that connections and pushes use."""

    def __init__(self, *users: str) -> None:
        self.entries: dict[str, dict[int, Entry]] = {user: {} for user in users}
        self.states = {user: State(0, 0, 0) for user in users}
        self.cursors: dict[str, int] = {}
        self.ended: dict[str, str] = {}
        self.rows = 100

    def append(self, request: Append) -> Any:
        return self._append(request)

    def append_all(self, requests: Sequence[Append]) -> Any:
        return self._append_all(requests)

    async def _append_all(self, requests: Sequence[Append]) -> list[Appended]:
        return [await self._append(request) for request in requests]

    async def _append(self, request: Append) -> Appended:
        outcomes = []
        for draft in request.drafts:
            if draft.user_id not in self.states:
                outcomes.append(Stored(draft.user_id, draft.id, None, draft.created_at, draft.expires_at, None))
                continue
            before = self.states[draft.user_id]
            seq = before.head + 1
            self.states[draft.user_id] = State(seq, before.rev, before.unread + 1)
            entry = Entry(seq, draft.id, draft.content, draft.created_at, draft.expires_at)
            self.entries[draft.user_id][seq] = entry
            outcomes.append(Stored(draft.user_id, draft.id, seq, draft.created_at, draft.expires_at, draft.online))
        return Appended(tuple(outcomes))

    async def opening(self, user_id: str, *, session: str, now: int) -> Opening:
        return Opening(self.cursors.get(session, 0), self.states[user_id], self.ended.get(session))

    async def page(self, user_id: str, *, after: int, now: int) -> Page:
        log, state = self.entries[user_id], self.states[user_id]
        rows = tuple(log[seq] for seq in sorted(log) if seq > after)[: self.rows]
        return Page(rows, rows[-1].seq if len(rows) == self.rows else state.head, state)

    async def ack(self, user_id: str, *, session: str, seq: int, now: int) -> None:
        if seq > self.states[user_id].head:
            raise Conflict("ack_out_of_range", "beyond the head")
        self.cursors[session] = max(self.cursors.get(session, 0), seq)

    async def mark_read(
        self, user_id: str, *, ids: Sequence[str] = (), up_to: int | None = None, now: int
    ) -> MarkedRead:
        before = self.states[user_id]
        self.states[user_id] = State(before.head, before.rev + 1, 0)
        return MarkedRead(user_id, before.rev + 1, 0, tuple(ids), up_to)

    async def withdraw(self, id: str, *, sender: str | None, now: int) -> Withdrawn:
        for user_id, log in self.entries.items():
            for seq, entry in log.items():
                if entry.id == id:
                    del log[seq]
                    before = self.states[user_id]
                    self.states[user_id] = State(before.head, before.rev + 1, before.unread - 1)
                    return Withdrawn(user_id, before.rev + 1, before.unread - 1, id, seq)
        raise AssertionError(id)


class NoTokens:
    """A keyring of no keys: tests of connections bring principals, not tokens."""

    def verify(self, raw: str, *, now: float) -> Claims:
        raise TokenInvalid

    def __contains__(self, kid: str) -> bool:
        return True


class MemoryTickets:
    """Which tickets were used, here."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    async def use(self, id: str, *, until: int) -> bool:
        first = id not in self.used
        self.used.add(id)
        return first

    async def purge(self, *, now: int, limit: int) -> int:
        return 0


class NoRevocations:
    async def since(self, number: int, *, now: int, limit: int | None = None) -> Sequence[Any]:
        return []


def principal(user: str = "ada", *, session: str = "s1", expires_at: int = 2_000_000) -> Principal:
    return Principal(Claims(user, "c~gateway", frozenset({"inbox"}), session, f"j-{session}", 999_000, expires_at))


def make_ties(log: MemoryLog, *, clock: Seconds | None = None, **changed: Any) -> Ties:
    """Everything a connection needs, real where it is pure, with ``log`` as the inbox."""
    seconds = clock or Seconds()
    metrics, bus = Metrics(), MemoryBus()
    presence = MemoryPresence(node="n", clock=seconds, monotonic=seconds)
    denylist = Revocations()
    denylist.refreshed(at=float("inf"))
    hub = Hub(node="n", per_user=100, per_address=0, most=10_000)
    revocations: Any = NoRevocations()
    store: RevocationLog = revocations
    revoker = Revoker(store=store, memory=denylist, hub=hub, bus=bus, clock=seconds, monotonic=seconds, access_ttl=900)
    keyring: Any = NoTokens()
    anything: Any = log
    inbox: Inbox = anything
    publisher = Publisher(
        inbox=inbox, bus=bus, presence=presence, clock=seconds, metrics=metrics, limiter=MemoryLimiter(seconds),
        rate=0, overfull=lambda users: None,
    )  # fmt: skip
    authn = Authn(keyring, denylist, seconds, seconds)
    fields: Mapping[str, Any] = {
        "node": "n", "epoch": Epoch("e"), "heartbeat": 25, "frame_rate": 10, "frame_burst": 100, "hub": hub,
        "pulse": Pulse(heartbeat=25, clock=seconds), "inbox": inbox, "publisher": publisher,
        "authn": authn, "tickets": Tickets(key=bytes(32), authn=authn, used=MemoryTickets(), clock=seconds),
        "revoker": revoker, "presence": presence, "bus": bus,
        "metrics": metrics, "clock": seconds, "monotonic": seconds, **changed,
    }  # fmt: skip
    return Ties(**fields)
