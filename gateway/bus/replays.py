"""Which numbered messages were seen before, so that none counts twice. Reads no message and no clock."""

from __future__ import annotations

from array import array

WINDOW = 4096
"""How far messages of one stream may overtake each other. One connection keeps their order; this is for its end."""
MOST_STREAMS = 1024
REMEMBERED_S = 180.0
"""A stream silent for this long is forgotten: what it sent is no longer fresh, with a minute to spare."""


class Replays:
    """Which numbers of a stream were seen, exactly, in bounded memory. Numbers begin at 1.

    A slot keeps the highest number that fell into it, so a number seen once is never new again, however late.
    """

    def __init__(self) -> None:
        self._streams: dict[bytes, tuple[array[int], list[float]]] = {}

    def new(self, stream: bytes, number: int, *, at: float) -> bool:
        """Whether ``number`` of ``stream`` comes for the first time (one that lies too far back counts as seen).

        ``at``: seconds of any clock that goes on.
        """
        known = self._streams.get(stream)
        if known is None:
            self._forget(at)
            known = self._streams[stream] = (array("Q", [0]) * WINDOW, [at])
        slots, last = known
        last[0] = at
        slot = number % WINDOW
        if number <= slots[slot]:
            return False
        slots[slot] = number
        return True

    def _forget(self, at: float) -> None:
        """Those long silent: processes that are gone. And the one silent longest, if there are too many still."""
        for stream in [stream for stream, (_, last) in self._streams.items() if last[0] < at - REMEMBERED_S]:
            del self._streams[stream]
        if len(self._streams) >= MOST_STREAMS:
            del self._streams[min(self._streams, key=lambda stream: self._streams[stream][1][0])]
