"""Who is online, on a single node: a count a user. Knows nothing of other nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence


class MemoryPresence:
    """Implements ``ports.Presence``. ``joined`` and ``left`` come once a connection."""

    def __init__(self) -> None:
        self._connections: Counter[str] = Counter()

    def joined(self, user_id: str) -> None:
        self._connections[user_id] += 1

    def left(self, user_id: str) -> None:
        self._connections[user_id] -= 1
        if self._connections[user_id] <= 0:
            del self._connections[user_id]

    async def online(self, user_ids: Sequence[str]) -> Mapping[str, bool | None]:
        return {user_id: user_id in self._connections for user_id in user_ids}
