"""Somebody who asks the same thing again and again by the clock, on one open connection, while something else happens.

What an answer took counts from when the question was due. What came due while an answer was late is not asked
afterwards, but counts as if it had been and was answered with the late one: waiting behind it is late too.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from benchmarks.servers import CORES, LOAD_CORE
from benchmarks.talking import Refused, Wire

BEFORE_THE_LOAD = -10
"""Its niceness, where that is allowed: it shares a core with the load generator, whose turn is not the server's."""


@contextmanager
def on_load_core() -> Iterator[None]:
    """This thread, and what it starts, keeps off the server's core."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CORES[LOAD_CORE % len(CORES)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, everywhere)


class Prober:
    """In a ``with`` block: ``request`` every ``every`` seconds. ``took``: (due, seconds), due as ``time.monotonic``."""

    def __init__(self, port: int, request: bytes, *, every: float) -> None:
        self.took: list[tuple[float, float]] = []
        self.refused = 0
        self._port, self._request, self._every = port, request, every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prober")

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def between(self, begin: float, end: float) -> list[float]:
        """Seconds of those that were due in that time, in order of size."""
        return sorted(took for due, took in self.took if begin <= due <= end)

    def _run(self) -> None:
        with on_load_core(), Wire(self._port) as wire:
            with contextlib.suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BEFORE_THE_LOAD)
            due = time.monotonic()
            while not self._over.is_set():
                try:
                    wire.ask(self._request, expect=200)
                except Refused:
                    self.refused += 1
                due = self._answered(due, time.monotonic())
                time.sleep(max(0.0, due - time.monotonic()))

    def _answered(self, due: float, now: float) -> float:
        """Note this one, and those that were due meanwhile, as if they had been answered now. When the next is due."""
        while due <= now:
            self.took.append((due, now - due))
            due += self._every
        return due


def share(found: list[float], part: float) -> float:
    """The quantile ``part`` of a sorted list."""
    return found[int((len(found) - 1) * part)]
