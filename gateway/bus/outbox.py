"""What waits to be sent over one link, in bounded memory, and who has missed something. Sends nothing itself.

What cannot be sent is not kept, only *whose* it was: they are told to look again once somebody can be told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from gateway.model import Again, RevocationsChanged

MOST_MESSAGES = 50_000
MOST_BYTES = 16 << 20
BATCH_MESSAGES = 2_000
BATCH_BYTES = 1 << 20
"""What travels as one pipeline: a server that is well takes it in a few milliseconds."""
MOST_MISSED = 10_000
"""Users remembered by name; with more it is everybody."""
NAMED_TOGETHER = 500

Remedy = Again | RevocationsChanged | None
"""What makes up for a message that was lost. None: nothing does, it was worth something only at once."""


class Item(NamedTuple):
    payload: bytes
    remedy: Remedy


class Missed:
    """Who has to be told to look again. ``more`` is called when somebody is."""

    def __init__(self, *, more: Callable[[], None]) -> None:
        self._more = more
        self._users: dict[str, None] = {}
        self._everybody = False
        self._bell = False

    def __bool__(self) -> bool:
        return self._everybody or self._bell or bool(self._users)

    def add(self, remedy: Again | RevocationsChanged) -> None:
        if isinstance(remedy, RevocationsChanged):
            self._bell = True
        elif self._everybody or remedy.user_ids is None:
            self._everybody = True
        else:
            self._users.update(dict.fromkeys(remedy.user_ids))
            self._everybody = len(self._users) > MOST_MISSED
        if self._everybody:
            self._users.clear()
        self._more()

    def take(self) -> Sequence[Again | RevocationsChanged]:
        """What to send; from now on nobody has missed anything. What fails again is added again."""
        told: list[Again | RevocationsChanged] = [RevocationsChanged()] if self._bell else []
        if self._everybody:
            told.append(Again(None))
        users = tuple(self._users)
        told += [Again(users[at : at + NAMED_TOGETHER]) for at in range(0, len(users), NAMED_TOGETHER)]
        self._users.clear()
        self._everybody = self._bell = False
        return told


class Outbox:
    """A queue. ``unsent`` is told how many messages were lost for which there is no remedy."""

    def __init__(self, *, missed: Missed, unsent: Callable[[int], None]) -> None:
        self._missed, self._unsent = missed, unsent
        self._items: deque[Item] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item) -> None:
        """Queue it, or lose it if too much waits already."""
        if len(self._items) >= MOST_MESSAGES or self._bytes >= MOST_BYTES:
            self.lose([item])
            return
        self._items.append(item)
        self._bytes += len(item.payload)

    def take(self) -> list[Item]:
        """The next pipeline, oldest first."""
        batch: list[Item] = []
        size = 0
        while self._items and len(batch) < BATCH_MESSAGES and size < BATCH_BYTES:
            item = self._items.popleft()
            batch.append(item)
            size += len(item.payload)
        self._bytes -= size
        return batch

    def lose(self, items: Iterable[Item]) -> None:
        """These were not sent, or nobody knows."""
        unsent = 0
        for item in items:
            if item.remedy is None:
                unsent += 1
            else:
                self._missed.add(item.remedy)
        if unsent:
            self._unsent(unsent)

    def lose_all(self) -> None:
        items, self._items, self._bytes = self._items, deque(), 0
        self.lose(items)
