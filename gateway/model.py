"""The nouns of the gateway as frozen dataclasses. Words only: no I/O, no rules that need a clock or a store.

Every ``*_at`` is an ``int``: milliseconds since the Unix epoch, UTC. ``rfc3339`` is how one is written outside.
Token times (``iat``, ``exp``) are whole seconds, as RFC 7519 NumericDate.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

Role = Literal["user", "admin"]
INBOX, PUSH, ADMIN = "inbox", "notifications:write", "admin"
SCOPES_OF_ROLE: Mapping[str, frozenset[str]] = {
    "user": frozenset({INBOX}),
    "admin": frozenset({INBOX, PUSH, ADMIN}),
}
CLIENT_SCOPES = frozenset({PUSH})
GATEWAY_CLIENT = "c~gateway"
"""``client_id`` of a user's sign-in (RFC 9068 requires the claim)."""

SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
"""A caller's X-Request-Id that is taken over, so that a trace can go through; for any other there is a fresh one."""

USER_ID = r"^([A-Za-z0-9_-]|\.[A-Za-z0-9_-]|\.\.[A-Za-z0-9._-])[A-Za-z0-9._-]*$"
"""What the id of a user is made of. Not ``.`` and ``..``: in a path they lead elsewhere (RFC 3986 section 5.2.4)."""
MAX_USER_ID = 64
_USER_ID, _CLIENT_ID = re.compile(USER_ID), re.compile(r"c~[0-9a-f]{32}")


def is_user_id(text: str) -> bool:
    return len(text) <= MAX_USER_ID and _USER_ID.fullmatch(text) is not None


def is_client_id(text: str) -> bool:
    """Whether ``new_id`` can have made it: every client's is ``c~`` and one of those."""
    return _CLIENT_ID.fullmatch(text) is not None


_spare: list[str] = []
"""Random tails of ids to come: a system call for each costs more than everything else about it."""
os.register_at_fork(after_in_child=_spare.clear)  # or parent and child would give the same


def new_id(now: float | None = None) -> str:
    """A fresh opaque id of 32 characters: 48 bits of time, 80 random ones, in hexadecimal. From any thread.

    Ids that begin with the time keep the index on them append-mostly; nothing relies on their order.
    """
    while True:
        try:
            tail = _spare.pop()
        except IndexError:
            block = os.urandom(10 * 256).hex()
            _spare.extend([block[at : at + 20] for at in range(0, len(block), 20)])
        else:
            return f"{int((time.time() if now is None else now) * 1000):012x}{tail}"


def millis(seconds: float) -> int:
    """Seconds since the epoch as the milliseconds every ``*_at`` is kept in."""
    return int(seconds * 1000)


@lru_cache(maxsize=1024)  # a batch says the same two of all its items
def rfc3339(at: int) -> str:
    """``at`` (milliseconds) as an RFC 3339 UTC date-time with milliseconds: ``2026-11-20T16:05:00.123Z``."""
    seconds, thousandths = divmod(at, 1000)
    day, second = divmod(seconds, 86_400)
    minutes, second = divmod(second, 60)
    return f"{_date(day)}T{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}.{thousandths:03d}Z"


@lru_cache(maxsize=4096)
def _date(day: int) -> str:
    """``day``: days since the epoch. A page of an inbox is written with two times a row, nearly all of few days."""
    return f"{datetime.fromtimestamp(day * 86_400, UTC):%Y-%m-%d}"


@dataclass(frozen=True, slots=True)
class User:
    id: str
    username: str
    role: Role
    disabled: bool
    created_at: int


@dataclass(frozen=True, slots=True)
class Client:
    """A backend service that sends. ``client_id`` begins ``c~``, so it can never be a user's id."""

    client_id: str
    name: str
    scopes: frozenset[str]
    created_at: int
    rotated_at: int | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in of a user on one device. ``expires_at``: the absolute end, however often it is refreshed."""

    id: str
    user_id: str
    device: str | None
    address: str | None
    created_at: int
    refreshed_at: int
    expires_at: int
    cursor: int
    ended_at: int | None = None
    ended_why: str | None = None


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified access token says. Times in seconds. ``session`` is None for a client's token.

    ``kid``: the key that signed it, the same text in all tokens of that key.
    """

    subject: str
    client_id: str
    scopes: frozenset[str]
    session: str | None
    token_id: str
    issued_at: int
    expires_at: int
    kid: str = ""


@dataclass(frozen=True, slots=True)
class Principal:
    """Claims that also passed the check of revocations. Only ``authn`` makes one: holding it is being signed in."""

    claims: Claims

    @property
    def subject(self) -> str:
        return self.claims.subject

    def has(self, scope: str) -> bool:
        return scope in self.claims.scopes


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it, from where, in which request: what an audit row needs."""

    id: str
    address: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """A session that is to start, what was verified before, and its audit row. ``now``: when it began. ``until``: of
    the bans of sessions that are too many. ``hashes``: of which the stored one has to be. ``identity``: issuer and
    subject, who have to be the user."""

    id: str
    user_id: str
    device: str | None
    refresh_hash: bytes = field(repr=False)
    now: int
    expires_at: int
    limit: int
    until: int
    hashes: frozenset[str] | None = field(default=None, repr=False)
    identity: tuple[str, str] | None = None
    action: str
    target: str
    detail: Mapping[str, object]
    by: Actor


@dataclass(frozen=True, slots=True)
class SigningKey:
    """``material``: PEM text for RS256/ES256, the secret itself for HS256. It signs from ``signs_from`` on (ms)."""

    kid: str
    algorithm: str
    material: str = field(repr=False)
    signs_from: int = 0


# -- the inbox ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Draft:
    """One notification about to be stored for one user.

    ``content`` is the sender's part rendered once: the members ``"title":…,"body":…,"data":…,
    "category":…,"priority":…`` of a JSON object, without its braces.
    ``category`` stands beside it only so that a listing can filter.
    """

    id: str
    user_id: str
    content: str
    category: str | None
    created_at: int
    expires_at: int
    online: bool | None = None


@dataclass(frozen=True, slots=True)
class Append:
    """One atomic unit of storing: the drafts of one request, or of one item of a batch.

    ``key`` is the sender's idempotency key with the fingerprint of what was asked (``None``: no key). All drafts, the
    key and the answer commit together or not at all. ``listed``: asked for as a list of users, whose answer is a 2xx,
    and so remembered, even if none of them exists.
    """

    sender: str
    drafts: tuple[Draft, ...]
    key: tuple[str, bytes] | None = None
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """What a sender is told of one draft. ``seq`` is None when the user is unknown: then nothing was stored for it."""

    user_id: str
    id: str
    seq: int | None
    created_at: int
    expires_at: int
    online: bool | None


@dataclass(frozen=True, slots=True)
class Appended:
    """``replayed``: the key had been used before for the same request, and these are the first answer's outcomes."""

    outcomes: tuple[Stored, ...]
    replayed: bool = False
    overfull: tuple[str, ...] = ()
    """Users whose inbox is now beyond the limit: the janitor looks at these."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a user's inbox."""

    seq: int
    id: str
    content: str
    created_at: int
    expires_at: int
    read_at: int | None = None


@dataclass(frozen=True, slots=True)
class State:
    """The counters of one inbox, from one snapshot. ``acked``: the highest seq any device ever acknowledged."""

    head: int
    rev: int
    unread: int


@dataclass(frozen=True, slots=True)
class Page:
    """What lies after a position, oldest first. Every number up to ``upto`` that is not in ``entries`` will not come.

    ``upto`` is the last entry's seq when more may follow, else the head of ``state``, which was read in the same
    snapshot: a number above it was not looked for and is nobody's gap.
    """

    entries: tuple[Entry, ...]
    upto: int
    state: State


@dataclass(frozen=True, slots=True)
class Opening:
    """What a connection must know before its ``hello``. ``ended_why``: close reason of a session that is over."""

    cursor: int
    state: State
    ended_why: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of ``GET /inbox``. ``next``: the seq to go on from (``after`` ascending, else ``before``), or None."""

    entries: tuple[Entry, ...]
    state: State
    next: int | None


ReceiptState = Literal["scheduled", "stored", "acknowledged", "read", "expired", "withdrawn"]


@dataclass(frozen=True, slots=True)
class Receipt:
    id: str
    user_id: str
    sender: str
    seq: int | None
    state: ReceiptState
    created_at: int
    expires_at: int
    acknowledged_at: int | None
    read_at: int | None


# -- what travels over the bus -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arrived:
    """A notification was committed to its user's log."""

    user_id: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class Passing:
    """A ``ttl: 0`` notification: stored nowhere. ``user_ids`` None means everyone connected."""

    user_ids: tuple[str, ...] | None
    id: str
    content: str
    created_at: int


@dataclass(frozen=True, slots=True)
class MarkedRead:
    """The read state of an inbox changed: ``ids``, or everything up to ``up_to``. ``changed``: whether anything did."""

    user_id: str
    rev: int
    unread: int
    ids: tuple[str, ...] = ()
    up_to: int | None = None
    changed: bool = True


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """One notification was taken back by its sender or hidden by its user."""

    user_id: str
    rev: int
    unread: int
    id: str
    seq: int


@dataclass(frozen=True, slots=True)
class RevocationsChanged:
    """A bell: read the new revocations now instead of at the next poll."""


@dataclass(frozen=True, slots=True)
class Again:
    """Something about these users (None: about everybody) may have been missed: look into the log."""

    user_ids: tuple[str, ...] | None


Signal = Arrived | Passing | MarkedRead | Withdrawn | RevocationsChanged | Again


# -- revocation --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Policy:
    """A rate limit: ``burst`` at once, refilled at ``rate`` per second. The name stands in headers and metrics."""

    name: str
    rate: float
    burst: float


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a revocation is aimed at: exactly one of the four. ``issued_before`` (ms) goes with ``user_id`` only."""

    session: str | None = None
    user_id: str | None = None
    token_id: str | None = None
    client_id: str | None = None
    issued_before: int | None = None


@dataclass(frozen=True, slots=True)
class Ban:
    """One rule of the denylist that every node keeps in memory.

    ``kind``: ``session`` and ``token`` name one sid or jti; ``client`` kills that client's tokens issued at or before
    ``cut`` (seconds); ``all`` kills every token issued at or before ``cut`` (a restore). After ``until`` (ms) nothing
    it kills can still be valid and it is forgotten. ``why`` is the close reason its sockets hear.
    """

    number: int
    kind: Literal["session", "token", "client", "all"]
    subject: str
    user_id: str | None
    cut: int | None
    until: int
    why: str


@dataclass(frozen=True, slots=True)
class Revocation:
    """A revocation as an admin sees it. ``bans``: what it came to. ``written``: False if it was there already."""

    id: str
    target: Target
    reason: str | None
    actor: str
    created_at: int
    until: int
    bans: tuple[Ban, ...] = ()
    written: bool = True


@dataclass(frozen=True, slots=True)
class AuditRecord:
    number: int
    at: int
    actor: str
    action: str
    target: str | None
    detail: Mapping[str, Any]
    address: str | None
    request_id: str | None


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """One open connection as an admin sees it."""

    id: str
    user_id: str
    session: str | None
    node: str
    transport: str
    address: str | None
    opened_at: int
    token_expires_at: int
    behind: bool


@dataclass(frozen=True, slots=True)
class Roster:
    """Open connections of many nodes, by id. ``missing``: nodes that are there and did not answer in time."""

    connections: tuple[ConnectionInfo, ...]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PresenceInfo:
    """One user, as far as all nodes together know. ``since``: when the user came online, however many devices changed.

    ``devices`` counts sessions, ``connections`` open sockets; ``online`` None: it cannot be known now.
    """

    user_id: str
    online: bool | None
    since: int | None = None
    devices: int = 0
    connections: int = 0
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodePresence:
    """What one node has open: users with a connection there, and connections. ``since``: when the node began."""

    node: str
    users: int
    connections: int
    since: int


@dataclass(frozen=True, slots=True)
class PresenceSummary:
    """Every node that lives. ``complete``: whether the others could be asked; if not, only this node is in it."""

    nodes: tuple[NodePresence, ...]
    complete: bool = True
