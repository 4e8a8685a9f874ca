"""Who is online, on a single node: a count a user. Knows nothing of other nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from gateway.model import PresenceInfo, PresenceSummary


class MemoryPresence:
    """Implements ``ports.Presence``. ``joined`` and ``left`` come once a connection."""

    def __init__(self) -> None:
        self._connections: Counter[str] = Counter()

    @asynccontextmanager
    async def keep(self) -> AsyncIterator[None]:
        yield

    def joined(self, user_id: str, session: str | None) -> None:
        self._connections[user_id] += 1

    def left(self, user_id: str, session: str | None) -> None:
        self._connections[user_id] -= 1
        if self._connections[user_id] <= 0:
            del self._connections[user_id]

    async def online(self, user_ids: Sequence[str]) -> Mapping[str, bool | None]:
        return {user_id: user_id in self._connections for user_id in user_ids}

    async def of(self, user_ids: Sequence[str]) -> Sequence[PresenceInfo]:
        return [PresenceInfo(user_id, user_id in self._connections) for user_id in user_ids]

    async def summary(self) -> PresenceSummary:
        return PresenceSummary(())
