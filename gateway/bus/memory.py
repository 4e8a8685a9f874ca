"""The bus of a single node: just a call. Carries nothing to anybody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from gateway.model import Roster, Signal
from gateway.ports import Receiver


class MemoryBus:
    """Implements ``ports.Bus``. Delivery is in order and before ``publish`` returns."""

    def __init__(self) -> None:
        self._receivers: list[Receiver] = []

    @asynccontextmanager
    async def listen(self, receiver: Receiver) -> AsyncIterator[None]:
        self._receivers.append(receiver)
        try:
            yield
        finally:
            self._receivers.remove(receiver)

    def publish(self, signals: Sequence[Signal]) -> None:
        for receiver in self._receivers:
            receiver.signals(signals)

    def watch(self, user_id: str) -> None:
        """Nothing to do: every signal passes here anyway."""

    def unwatch(self, user_id: str) -> None:
        """Nothing to do."""

    @property
    def trouble(self) -> str | None:
        return None

    async def connections(self, user_id: str | None, *, after: str | None, limit: int) -> Roster:
        found = [one for r in self._receivers for one in r.connections(user_id, after=after, limit=limit)]
        return Roster(tuple(sorted(found, key=lambda one: one.id)[:limit]))
