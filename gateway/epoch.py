"""The name of the log, as this node knows it. Asks no database.

It changes under a running node only when the numbers of the log no longer count: a restore, a failover.
"""

from __future__ import annotations

from collections.abc import Callable


class Epoch:
    """``current`` is read wherever a number of the log is judged."""

    def __init__(self, name: str = "") -> None:
        self.current = name
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        """``listener`` is called after each change but the first name."""
        self._listeners.append(listener)

    def became(self, name: str) -> None:
        before, self.current = self.current, name
        if before and before != name:
            for listener in self._listeners:
                listener()
