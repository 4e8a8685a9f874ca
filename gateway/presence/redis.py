"""Who is online on all nodes, through Redis. It holds no truth: what is lost there, the nodes write again.

Asking never waits long: users of this node are known here, the others are asked for together, and while Redis is
silent nobody asks it but the upkeep. Writing is ``upkeep.py``, reading ``roll.py``, the form of it ``written.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from gateway.group import Group
from gateway.model import NodePresence, PresenceInfo, PresenceSummary, millis
from gateway.ports import Clock
from gateway.presence.here import LINGER, Here
from gateway.presence.roll import Roll, Written
from gateway.presence.standing import Standing
from gateway.presence.upkeep import Upkeep
from gateway.presence.written import Keys
from gateway.redis_link import Link, Unreached

ASKED_WITHIN = 0.15
ANSWERED_WITHIN = 0.2
"""Seconds. The second is longer: an asker may have to wait for those who asked before."""
TOGETHER = 1000
"""Users asked for in one round trip."""

Found = tuple[Written | None, bool]
"""What is written of a user, and whether one of whom nothing is written is offline."""
UNKNOWN: Found = (None, False)


class RedisPresence:
    """Implements ``ports.Presence``. ``secret`` tells one gateway from another on the same Redis.

    ``beat``: seconds between two signs of life of this node. ``ttl``: a node that gave none for so long is dead; it
    takes the others up to a beat more to notice. ``linger``: a user is gone so long after the last connection.
    """

    def __init__(
        self,
        url: str,
        *,
        node: str,
        secret: bytes,
        clock: Clock,
        monotonic: Callable[[], float],
        linger: float = LINGER,
        beat: float = 2.0,
        ttl: float = 12.0,
    ) -> None:
        self._node, self._since = node, millis(clock())
        self._link = Link(url)
        keys = Keys.of(secret)
        self._roll = Roll(self._link, keys)
        self._here = Here(clock=clock, monotonic=monotonic, linger=linger, changed=self._changed)

        def begin() -> Standing:
            return Standing(
                self._link, keys, self._here, node=node, since=self._since, ttl=ttl, monotonic=monotonic
            )  # fmt: skip

        self._upkeep = Upkeep(
            self._link, keys, self._roll, self._here, begin=begin, monotonic=monotonic, beat=beat
        )  # fmt: skip
        self._asked: Group[str, Found] = Group(self._ask, limit=TOGETHER, weight=TOGETHER)

    def _changed(self, user_id: str) -> None:
        self._upkeep.changed(user_id)

    @asynccontextmanager
    async def keep(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._upkeep.run(), name=f"presence of {self._node}")
        try:
            yield
        finally:
            try:
                await self._upkeep.end(task)
                await self._asked.settled()
            finally:
                await self._link.close()

    def joined(self, user_id: str, session: str | None) -> None:
        self._here.sweep()
        self._here.joined(user_id, session)

    def left(self, user_id: str, session: str | None) -> None:
        self._here.sweep()
        self._here.left(user_id, session)

    async def online(self, user_ids: Sequence[str]) -> Mapping[str, bool | None]:
        self._here.sweep()
        answer: dict[str, bool | None] = {user_id: user_id in self._here.present or None for user_id in user_ids}
        others = [user_id for user_id, known in answer.items() if known is None]
        for user_id, (written, certain) in zip(others, await self._find(others), strict=True):
            if written is not None and any(written.elsewhere()):
                answer[user_id] = True
            elif written is not None and certain:
                answer[user_id] = False
        return answer

    async def of(self, user_ids: Sequence[str]) -> Sequence[PresenceInfo]:
        found = await self._find(user_ids)
        self._here.sweep()
        return [self._info(user_id, *one) for user_id, one in zip(user_ids, found, strict=True)]

    def _info(self, user_id: str, written: Written | None, certain: bool) -> PresenceInfo:
        here = self._here.present.get(user_id)
        elsewhere = list(written.elsewhere()) if written is not None else []
        if here is None and not elsewhere:
            return PresenceInfo(user_id, online=False if written is not None and certain else None)
        since = [part.since for _, part in elsewhere]
        sessions = [session for _, part in elsewhere for session in part.sessions]
        nodes = {record.node for record, _ in elsewhere}
        if here is not None:
            since.append(here.since)
            sessions += here.sessions
            nodes.add(self._node)
        return PresenceInfo(
            user_id, online=True, since=min(since), devices=len(set(sessions)), connections=len(sessions),
            nodes=tuple(sorted(nodes)),
        )  # fmt: skip

    async def summary(self) -> PresenceSummary:
        own = NodePresence(self._node, self._here.users, self._here.connections, self._since)
        if self._upkeep.instance is None:
            return PresenceSummary((own,), complete=False)
        others = [NodePresence(one.node, one.users, one.connections, one.since) for one in self._roll.living]
        return PresenceSummary(
            tuple(sorted((own, *others), key=lambda one: (one.node, one.since))), complete=self._roll.whole
        )

    async def _find(self, user_ids: Sequence[str]) -> Sequence[Found]:
        if not user_ids or self._upkeep.instance is None:
            return [UNKNOWN] * len(user_ids)
        try:
            async with asyncio.timeout(ANSWERED_WITHIN):
                found = await self._asked.submit_all(user_ids)
        except TimeoutError:
            return [UNKNOWN] * len(user_ids)
        return [one if isinstance(one, tuple) else UNKNOWN for one in found]

    async def _ask(self, user_ids: list[str]) -> Sequence[Found]:
        own = self._upkeep.instance
        if own is None:  # since these began to wait
            return [UNKNOWN] * len(user_ids)
        try:
            async with asyncio.timeout(ASKED_WITHIN):  # there may be two round trips
                stands, found = await self._roll.read(user_ids, own=own, within=ASKED_WITHIN)
        except TimeoutError:
            self._upkeep.doubt("it answers too slowly", slow=True)
            return [UNKNOWN] * len(user_ids)
        except Unreached as error:
            self._upkeep.doubt(str(error), slow=error.late)
            return [UNKNOWN] * len(user_ids)
        if not stands:
            self._upkeep.doubt("what was written is lost")
        certain = stands and self._roll.whole
        return [(one, certain) for one in found]
