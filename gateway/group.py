"""Gathers what waits into one call: while one group is on its way, the next one gathers. No timer, no I/O of its own.

A lone caller waits for nothing; sixty-four callers at once pay for one round trip or one fsync together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Group(Generic[T, R]):
    """``run`` takes what has gathered, in order, and returns one result per item; an exception instance fails its item.

    An exception that ``run`` itself raises fails the whole group. At most ``limit`` items travel together, and no more
    than fit in ``weight`` (a single item may be heavier; it then travels alone).
    """

    __slots__ = ("_limit", "_measure", "_run", "_runner", "_waiting", "_weight")

    class Batch:
        """Items that were handed in together: one future for all of their results, in their order."""

        __slots__ = ("future", "left", "results")

        def __init__(self, size: int) -> None:
            self.future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
            self.results: list[Any] = [None] * size
            self.left = size

        def settle(self, place: int, result: object) -> None:
            self.results[place] = result
            self.left -= 1
            if not self.left and not self.future.done():  # else the caller went away; what was done stays done
                self.future.set_result(self.results)

    def __init__(
        self,
        run: Callable[[list[T]], Awaitable[Sequence[R | BaseException]]],
        *,
        limit: int = 500,
        weight: int = 2000,
        measure: Callable[[T], int] = lambda item: 1,
    ) -> None:
        self._run = run
        self._limit, self._weight, self._measure = limit, weight, measure
        self._waiting: deque[tuple[T, asyncio.Future[R] | Group.Batch, int]] = deque()
        self._runner: asyncio.Task[None] | None = None

    def submit(self, item: T) -> asyncio.Future[R]:
        """Join the group that is gathering. Cancelling the future abandons the answer, not the item."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future, 0))
        self._start()
        return future

    def submit_all(self, items: Sequence[T]) -> asyncio.Future[list[R | BaseException]]:
        """As ``submit`` for each, in order, with one future for all the results; it fails for none of them."""
        batch = Group.Batch(len(items))
        self._waiting.extend([(item, batch, place) for place, item in enumerate(items)])
        if items:
            self._start()
        else:
            batch.future.set_result([])
        return batch.future

    def _start(self) -> None:
        if self._runner is None:
            self._runner = asyncio.create_task(self._work(), name="group")

    async def settled(self) -> None:
        """Return when nothing is waiting or on its way."""
        while self._runner is not None:
            await asyncio.wait([self._runner])

    def _next(self) -> list[tuple[T, asyncio.Future[R] | Group.Batch, int]]:
        taken: list[tuple[T, asyncio.Future[R] | Group.Batch, int]] = []
        weight = 0
        while self._waiting and len(taken) < self._limit:
            weight += self._measure(self._waiting[0][0])
            if taken and weight > self._weight:
                break
            taken.append(self._waiting.popleft())
        return taken

    async def _work(self) -> None:
        try:
            while taken := self._next():
                try:
                    results: Sequence[R | BaseException] = await self._run([item for item, _, _ in taken])
                except Exception as error:  # the group's failure is each caller's, raised where they wait
                    results = [error] * len(taken)
                except asyncio.CancelledError:
                    self._waiting.extendleft(reversed(taken))  # let go below, with those that were still waiting
                    raise
                for (_, waiter, place), result in zip(taken, results, strict=True):
                    if isinstance(waiter, Group.Batch):
                        waiter.settle(place, result)
                    elif waiter.done():
                        continue  # the caller went away; what was done stays done
                    elif isinstance(result, BaseException):
                        waiter.set_exception(result)
                    else:
                        waiter.set_result(result)
        finally:
            self._runner = None
            for _, waiter, _ in self._waiting:  # only after a cancellation: nobody may be left waiting for ever
                (waiter.future if isinstance(waiter, Group.Batch) else waiter).cancel()
            self._waiting.clear()
