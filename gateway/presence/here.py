"""Who is connected on this node: sessions, since when, and the moment of grace after leaving. Knows no other node.

No I/O, no task, no timer: whoever asks calls ``sweep`` first, and those whose time has come are gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gateway.model import millis
from gateway.ports import Clock

LINGER = 5.0


@dataclass(slots=True)
class Present:
    """One user. ``sessions`` has one for each connection; while the user is ``leaving``, that of the last one.

    ``since``: ms since the epoch. ``leaving``: when the user counts as gone, on the monotonic clock; None: connected.
    """

    since: int
    sessions: tuple[str | None, ...]
    leaving: float | None = None

    @property
    def devices(self) -> int:
        return len(set(self.sessions))

    @property
    def connections(self) -> int:
        return len(self.sessions)


class Here:
    """``changed`` is called, on the event loop, with each user of whom something is different now.

    A user whose last connection has left stays as before for ``linger`` seconds: one who comes back within them was
    never away, and nothing of it is told.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        monotonic: Callable[[], float],
        linger: float,
        changed: Callable[[str], None] = lambda user_id: None,
    ) -> None:
        self._clock, self._monotonic, self._changed = clock, monotonic, changed
        self.linger = linger
        self.present: dict[str, Present] = {}
        self.connections = 0
        self._connected = 0
        self._leaving: deque[tuple[float, str]] = deque()

    @property
    def users(self) -> int:
        """How many have a connection open."""
        return self._connected

    def joined(self, user_id: str, session: str | None) -> None:
        self.connections += 1
        one = self.present.get(user_id)
        if one is None:
            self.present[user_id] = Present(millis(self._clock()), (session,))
            self._connected += 1
        elif one.leaving is not None:
            one.leaving = None
            self._connected += 1
            if one.sessions == (session,):
                return
            one.sessions = (session,)
        else:
            one.sessions = (*one.sessions, session)
        self._changed(user_id)

    def left(self, user_id: str, session: str | None) -> None:
        """Of a connection that never joined: nothing."""
        one = self.present.get(user_id)
        if one is None or one.leaving is not None or session not in one.sessions:
            return
        self.connections -= 1
        if len(one.sessions) == 1:
            self._connected -= 1
            one.leaving = self._monotonic() + self.linger
            self._leaving.append((one.leaving, user_id))
            return
        place = one.sessions.index(session)
        one.sessions = one.sessions[:place] + one.sessions[place + 1 :]
        self._changed(user_id)

    def sweep(self) -> None:
        """Those whose time has come are gone."""
        while self._leaving and self._leaving[0][0] <= self._monotonic():
            at, user_id = self._leaving.popleft()
            one = self.present.get(user_id)
            if one is not None and one.leaving == at:  # else it came back, and may have left again later
                del self.present[user_id]
                self._changed(user_id)

    @property
    def next_gone(self) -> float | None:
        """When, on the monotonic clock, there may be something to sweep."""
        return self._leaving[0][0] if self._leaving else None
