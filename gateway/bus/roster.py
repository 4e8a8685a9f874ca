"""Asking every node for its open connections, and who there is to ask. Sends nothing itself."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence

from gateway.bus.wire import Answer
from gateway.model import ConnectionInfo

PAGE = 1000
"""Connections in one message: well under a megabyte."""
MOST_ASKED = 10_000
"""Connections a node names, whoever asks."""


class Peers:
    """The other processes, by their heartbeats. ``lasting``: seconds one counts as there after its last.

    ``heard`` is the last time the own heartbeat came: while nothing comes, nobody is taken for gone.
    """

    def __init__(self, *, lasting: float) -> None:
        self._lasting = lasting
        self._seen: dict[bytes, tuple[str, float]] = {}
        self._heard = 0.0

    def heard(self, *, at: float) -> None:
        self._heard = at
        for sender in [s for s, (_, seen) in self._seen.items() if seen < at - self._lasting]:
            del self._seen[sender]

    def seen(self, sender: bytes, node: str, *, at: float) -> bool:
        """Whether it is new."""
        new = sender not in self._seen
        self._seen[sender] = (node, at)
        return new

    def gone(self, sender: bytes) -> None:
        self._seen.pop(sender, None)

    def living(self) -> dict[bytes, str]:
        """Name of the node by process."""
        return {sender: node for sender, (node, seen) in self._seen.items() if seen >= self._heard - self._lasting}


class Question:
    """One question on its way. ``answered`` is done when every process that was there has answered whole."""

    def __init__(self, asked: Iterable[bytes]) -> None:
        self.found: list[ConnectionInfo] = []
        self.open = set(asked)
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parts: dict[bytes, set[int]] = {}
        if not self.open:
            self.answered.set_result(None)

    def take(self, sender: bytes, answer: Answer) -> None:
        parts = self._parts.setdefault(sender, set())
        if answer.part in parts:
            return
        parts.add(answer.part)
        self.found += answer.connections
        if len(parts) >= answer.parts:
            self.open.discard(sender)
            if not self.open and not self.answered.done():
                self.answered.set_result(None)


class Questions:
    """The questions this process is waiting for, by number."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: dict[int, Question] = {}

    async def ask(self, peers: Iterable[bytes], send: Callable[[int], None], *, within: float) -> Question:
        """``send`` the question, and return it when all have answered or ``within`` seconds are over."""
        number, question = next(self._numbers), Question(peers)
        self._open[number] = question
        try:
            send(number)
            async with asyncio.timeout(within):
                await question.answered
        except TimeoutError:
            pass  # those in ``open`` have not answered
        finally:
            del self._open[number]
        return question

    def take(self, sender: bytes, answer: Answer) -> None:
        question = self._open.get(answer.number)
        if question is not None:
            question.take(sender, answer)


def answers(number: int, connections: Sequence[ConnectionInfo]) -> list[Answer]:
    """``connections`` in messages of bounded size."""
    pages = [connections[at : at + PAGE] for at in range(0, len(connections), PAGE)] or [()]
    return [Answer(number, part, len(pages), tuple(page)) for part, page in enumerate(pages)]
