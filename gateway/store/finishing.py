"""What every database keeps of the work it was given: what is under way, and what it cannot do now. Runs no SQL."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar

from gateway.errors import StoreUnavailable

T = TypeVar("T")
What = Literal["read", "written"]

log = logging.getLogger("gateway.store")


class UnderWay:
    """Work in tasks of its own: a caller who is cancelled leaves no transaction open, and cannot split what commits."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` returns or raises; it goes on if the caller goes away."""
        task = asyncio.create_task(work, name="store")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: whoever asked may have gone away, and a failure is no bug

    async def finished(self) -> None:
        """Return when nothing is left."""
        while self._tasks:
            await asyncio.wait(self._tasks)


class Failing:
    """What does not work now, told in the log once, and once when it works again.

    Reading and writing apart: on a full disk the one works, and every request would say that all is well again.
    """

    def __init__(self) -> None:
        self._what: set[What] = set()

    def __contains__(self, what: What) -> bool:
        return what in self._what

    def at(self, what: What, why: str) -> StoreUnavailable:
        """It could not be ``what`` (read, written). The exception to raise."""
        if what not in self._what:
            self._what.add(what)
            log.error("the database cannot be %s: %s", what, why)
        return StoreUnavailable()

    def no_more(self, what: What) -> None:
        if what in self._what:
            self._what.remove(what)
            log.info("the database can be %s again", what)
