"""Which tokens no longer count, and whether that knowledge is fresh enough to write. In memory; no I/O, no clock.

Fed by ``revoke.py`` from the database; asked at every bearer request, every upgrade and before every delivery.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.closing import BY_REASON, TOKEN_REVOKED, Close
from gateway.model import Ban, Claims

FRESH_FOR = 1.0
"""Seconds after the start of the last successful read during which this node may write notifications (contract 8)."""


class Revocations:
    """The denylist of this node. ``now``: ms since the epoch. ``at``: seconds on a monotonic clock."""

    def __init__(self) -> None:
        self._sessions: dict[str, Ban] = {}
        self._tokens: dict[str, Ban] = {}
        self._clients: dict[str, Ban] = {}
        self._all: Ban | None = None
        # By all they say: after a failover a number may be given again, to another rule.
        self._bans: dict[Ban, None] = {}
        self._read_at = float("-inf")

    def __len__(self) -> int:
        return len(self._bans)

    def add(self, bans: Iterable[Ban]) -> list[Ban]:
        """Take these in; the ones that were new, in order. Adding twice is harmless."""
        new = []
        for ban in bans:
            if ban in self._bans:
                continue
            self._bans[ban] = None
            new.append(ban)
            if ban.kind == "session":
                self._sessions[ban.subject] = _lasting(self._sessions.get(ban.subject), ban)
            elif ban.kind == "token":
                self._tokens[ban.subject] = _lasting(self._tokens.get(ban.subject), ban)
            elif ban.kind == "client":
                self._clients[ban.subject] = _later(self._clients.get(ban.subject), ban)
            else:
                self._all = _later(self._all, ban)
        return new

    def verdict(self, claims: Claims) -> Close | None:
        """How a connection with these claims must end, or None while they count."""
        ban = self._tokens.get(claims.token_id)
        if ban is None and claims.session is not None:
            ban = self._sessions.get(claims.session)
        if ban is None and claims.session is None:
            ban = _cut(self._clients.get(claims.client_id), claims)
        if ban is None:
            ban = _cut(self._all, claims)
        return None if ban is None else BY_REASON.get(ban.why, TOKEN_REVOKED)

    def cut(self, client_id: str) -> int:
        """Tokens of this client issued at or before this second do not count (0: no such rule)."""
        bans = [ban for ban in (self._clients.get(client_id), self._all) if ban is not None]
        return max((ban.cut or 0 for ban in bans), default=0)

    def forget(self, *, now: int) -> None:
        """Drop rules whose tokens have all expired by themselves."""
        over = [ban for ban in self._bans if ban.until <= now]
        for ban in over:
            del self._bans[ban]
            for table in (self._sessions, self._tokens, self._clients):
                if table.get(ban.subject) is ban:
                    del table[ban.subject]
            if self._all is ban:
                self._all = None

    def refreshed(self, *, at: float) -> None:
        """A read that *began* at ``at`` (monotonic seconds) has been taken in."""
        self._read_at = max(self._read_at, at)

    def fresh(self, *, at: float) -> bool:
        return at - self._read_at <= FRESH_FOR


def _lasting(one: Ban | None, other: Ban) -> Ban:
    """The one that stands longer: what the command line writes outlasts what a node writes."""
    return other if one is None or other.until >= one.until else one


def _later(one: Ban | None, other: Ban) -> Ban:
    return other if one is None or (other.cut or 0) >= (one.cut or 0) else one


def _cut(ban: Ban | None, claims: Claims) -> Ban | None:
    return ban if ban is not None and claims.issued_at <= (ban.cut or 0) else None
