"""Who is online, on a single node. Knows nothing of other nodes, and needs no task: time passes when somebody asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from gateway.model import NodePresence, PresenceInfo, PresenceSummary, millis
from gateway.ports import Clock
from gateway.presence.here import LINGER, Here


class MemoryPresence:
    """Implements ``ports.Presence``."""

    def __init__(self, *, node: str, clock: Clock, monotonic: Callable[[], float], linger: float = LINGER) -> None:
        self._node = node
        self._since = millis(clock())
        self._here = Here(clock=clock, monotonic=monotonic, linger=linger)

    @asynccontextmanager
    async def keep(self) -> AsyncIterator[None]:
        yield

    def joined(self, user_id: str, session: str | None) -> None:
        self._here.sweep()
        self._here.joined(user_id, session)

    def left(self, user_id: str, session: str | None) -> None:
        self._here.sweep()
        self._here.left(user_id, session)

    async def online(self, user_ids: Sequence[str]) -> Mapping[str, bool | None]:
        self._here.sweep()
        return {user_id: user_id in self._here.present for user_id in user_ids}

    async def of(self, user_ids: Sequence[str]) -> Sequence[PresenceInfo]:
        self._here.sweep()
        return [self._info(user_id) for user_id in user_ids]

    def _info(self, user_id: str) -> PresenceInfo:
        one = self._here.present.get(user_id)
        if one is None:
            return PresenceInfo(user_id, online=False)
        return PresenceInfo(
            user_id, online=True, since=one.since, devices=one.devices, connections=one.connections,
            nodes=(self._node,),
        )  # fmt: skip

    async def summary(self) -> PresenceSummary:
        return PresenceSummary((NodePresence(self._node, self._here.users, self._here.connections, self._since),))
