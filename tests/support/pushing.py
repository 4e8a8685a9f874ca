"""Pushing without a pause, and sockets that are read all the time: what came after a moment that ended something."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator

import httpx2
from wire import Node, Socket, User, called_off, eventually_async


class Pushing:
    """Pushes to these users without a pause; knows which request was begun when."""

    def __init__(self, node: Node, token: str, user_ids: list[str]) -> None:
        self._node, self._token, self._user_ids = node, token, user_ids
        self.begun: list[tuple[int, float]] = []
        self._over = asyncio.Event()

    async def run(self) -> None:
        headers = {"Authorization": f"Bearer {self._token}"}
        async with httpx2.AsyncClient(base_url=self._node.url, headers=headers, timeout=30, verify=False) as client:
            for number in itertools.count():
                if self._over.is_set():
                    return
                self.begun.append((number, time.monotonic()))
                body = {"user_ids": self._user_ids, "title": str(number)}
                answer = await client.post("/notifications", json=body)
                assert answer.status_code == 200, answer.text

    async def past(self, count: int) -> None:
        """Return when so many more have been begun."""
        goal = len(self.begun) + count
        await eventually_async(lambda: len(self.begun) >= goal, what="the pushing goes on")

    def end(self) -> None:
        self._over.set()


@contextlib.asynccontextmanager
async def pushing(node: Node, token: str, *users: User) -> AsyncIterator[Pushing]:
    pusher = Pushing(node, token, [user.id for user in users])
    task = asyncio.create_task(pusher.run())
    try:
        yield pusher
    finally:
        pusher.end()
        await task


class Listener:
    """A socket that is read all the time."""

    def __init__(self, socket: Socket) -> None:
        self._reading = asyncio.create_task(socket.until_closed(within=60))
        self._socket = socket

    async def ended(self) -> tuple[list[int], tuple[int, str]]:
        """The titles it heard until it was closed, and how."""
        frames, close = await asyncio.wait_for(self._reading, 15)
        return [int(frame["title"]) for frame in frames], close

    async def still_there(self) -> None:
        """Fails if it has been closed, or does not answer."""
        assert not self._reading.done()
        await called_off(self._reading)
        assert (await self._socket.ask(type="ping"))["type"] == "pong"
