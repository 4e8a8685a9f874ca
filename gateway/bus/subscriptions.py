"""Which channels one connection is to hear, and what has to be asked for that. Pure: sends nothing, knows no user.

A server answers in the order it was asked, so what was asked last decides; an earlier answer that looks the same is
harmless, for it only makes somebody look once more.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Final

GROUP = 500
"""Channels of one command."""
UNDER_WAY = 4 * GROUP
"""Channels asked for and not yet confirmed. What others publish must not wait behind fifty thousand of them."""

_WANTED: Final = 1
_ASKED: Final = 2
_HEARD: Final = 4


class Subscriptions:
    def __init__(self) -> None:
        self._state: dict[bytes, int] = {}
        self._dirty: OrderedDict[bytes, None] = OrderedDict()  # a dict's first key takes longer with every one taken
        self._leaving: Counter[bytes] = Counter()
        self._under_way = 0

    def __len__(self) -> int:
        return sum(1 for state in self._state.values() if state & _WANTED)

    def want(self, channel: bytes) -> bool:
        """Whether it is heard already; else ``confirmed`` will say so."""
        state = self._state.get(channel, 0)
        self._state[channel] = state | _WANTED
        if state & _HEARD:
            return True
        self._dirty[channel] = None
        return False

    def unwant(self, channel: bytes) -> None:
        state = self._state.get(channel, 0) & ~_WANTED
        if state:
            self._state[channel] = state
            self._dirty[channel] = None
        else:
            self._state.pop(channel, None)
            self._dirty.pop(channel, None)

    def wanted(self) -> Sequence[bytes]:
        return [channel for channel, state in self._state.items() if state & _WANTED]

    def begin(self) -> None:
        """A new connection: the server knows nothing of what was asked before."""
        self._state = {channel: _WANTED for channel, state in self._state.items() if state & _WANTED}
        self._dirty = OrderedDict.fromkeys(self._state)
        self._leaving.clear()
        self._under_way = 0

    def next(self) -> tuple[list[bytes], list[bytes]]:
        """(to subscribe, to unsubscribe): as many as may be asked for now. They count as asked."""
        subscribe: list[bytes] = []
        unsubscribe: list[bytes] = []
        while self._dirty and self._under_way < UNDER_WAY:
            channel, _ = self._dirty.popitem(last=False)
            state = self._state.get(channel, 0)
            if state & _WANTED and not state & _ASKED:
                self._state[channel] = state | _ASKED
                subscribe.append(channel)
            elif state & _ASKED and not state & _WANTED:
                del self._state[channel]
                self._leaving[channel] += 1
                unsubscribe.append(channel)
            else:
                continue
            self._under_way += 1
        return subscribe, unsubscribe

    def confirmed(self, channel: bytes) -> bool:
        """The server says it is subscribed. Whether that is news that somebody waits for."""
        self._under_way -= 1
        state = self._state.get(channel, 0)
        if not state & _ASKED:
            return False
        self._state[channel] = state | _HEARD
        return bool(state & _WANTED)

    def left(self, channel: bytes) -> bool:
        """The server says it is not subscribed. Whether nobody asked for that: the channel was taken away.

        It is not asked for again before somebody says ``want``.
        """
        if channel in self._leaving:
            self._under_way -= 1
            self._leaving[channel] -= 1
            if not self._leaving[channel]:
                del self._leaving[channel]
            return False
        state = self._state.get(channel, 0)
        if not state & _ASKED:
            return False
        if not state & _WANTED:
            del self._state[channel]
            return False
        self._state[channel] = _WANTED
        return True
