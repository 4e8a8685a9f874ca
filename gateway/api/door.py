"""The way in for those who come in crowds: a few begin in each turn of the event loop. Signs nobody in.

When thousands sign in at once, or want their tickets, each costs a millisecond and all of them together seconds, in
which no push would be delivered. What is asked of this costs a fraction of that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

EACH_TURN = 2
"""Requests that begin in one turn of the loop, at all doors of one ``Pace``: about two milliseconds of work."""


class Pace:
    """Lets ``each_turn`` go on in a turn of the event loop, in the order in which they came."""

    def __init__(self, each_turn: int = EACH_TURN) -> None:
        self._each_turn = each_turn
        self._begun = 0  # in this turn
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def step(self) -> None:
        """Return when it is the caller's turn."""
        if self._begun < self._each_turn and not self._waiting:
            self._begin()
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        await mine  # whoever is cancelled here stays in the line as a future that is done, and is passed over

    def _begin(self) -> None:
        self._begun += 1
        if self._begun == 1:
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < self._each_turn:
            first = self._waiting.popleft()
            if not first.done():
                self._begin()
                first.set_result(None)


class Door:
    """An ASGI application before ``app``. While it is ``full`` every request is one for ``refusal`` instead, and what
    its body says is not read: somebody who would wait for their turn and be refused then is refused now."""

    def __init__(
        self, app: ASGIApp, *, pace: Pace, full: Callable[[Scope], bool] = lambda scope: False, refusal: ASGIApp
    ) -> None:
        self._app, self._pace, self._full, self._refusal = app, pace, full, refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._pace.step()
        await (self._refusal if self._full(scope) else self._app)(scope, receive, send)
