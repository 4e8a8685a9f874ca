"""Accepting: a few at a time, and of several processes that share a listening socket each its share. Serves nothing.

uvloop by itself takes all that wait, and four thousand who come back at once hold the loop for half a second. Left to
the kernel, the process that happens to wake first takes what there is, and of sockets that stay for days one
has most. A listening socket for each (SO_REUSEPORT) would be even, but what waits at one that has died or stands still
would wait with it. So all accept from one, and whoever holds more than its share lets the others go first.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import mmap
import socket
import time
from collections.abc import Callable
from functools import partial

EACH_TURN = 8
"""Connections that one that is alone takes in one turn of the loop."""
PATIENCE = 0.005
"""Seconds that one with more than its share leaves a connection to the others."""
AT_ONCE = 8
"""How many it then takes, if nobody did."""
SLACK, TOLERATED = 4, 1.05
"""More than the mean by less than this is no imbalance."""
FRESH = 1.0
"""Seconds without a word after which a process is dead, or stands still, and is not reckoned with."""

Address = tuple[str, int]
_SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_SHORTAGE_PAUSE = 1.0

log = logging.getLogger("gateway.sockets")


class Shares:
    """How many connections each of ``count`` processes holds: in memory that they share if it is made before a fork."""

    def __init__(self, count: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        # Two numbers a process: how many, and when that was said. Each has one writer; a torn read does no harm.
        self._cells = memoryview(mmap.mmap(-1, count * 16)).cast("d")
        self._monotonic = monotonic

    def of(self, number: int) -> Share:
        """That of the process ``number``, from 1."""
        return Share(self, number)

    def say(self, number: int, held: int) -> None:
        self._cells[number * 2 - 2], self._cells[number * 2 - 1] = held, self._monotonic()

    def mean(self) -> float:
        """Of those that have said it lately."""
        since = self._monotonic() - FRESH
        held = [self._cells[at] for at in range(0, len(self._cells), 2) if self._cells[at + 1] > since]
        return sum(held) / len(held) if held else 0.0


class Share:
    def __init__(self, shares: Shares, number: int) -> None:
        self._shares, self._number = shares, number

    def say(self, held: int) -> None:
        """To be called several times in FRESH seconds."""
        self._shares.say(self._number, held)

    def exceeded(self, held: int) -> bool:
        return held > self._shares.mean() * TOLERATED + SLACK


class Accepting:
    """Accepts from ``sock`` until closed. ``share``: None for one that is alone. ``held``: how many connections this
    process has; ``protocol`` makes one's, of this end's address and the other's."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        share: Share | None,
        held: Callable[[], int],
        protocol: Callable[[Address, Address], asyncio.Protocol],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._sock, self._share, self._held, self._protocol, self._loop = sock, share, held, protocol, loop
        self._opening: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None
        self._closed = False
        self.say()
        loop.add_reader(sock, self._readable)

    def say(self) -> None:
        """Let the others know how many connections there are here."""
        if self._share is not None:
            self._share.say(self._here())

    def close(self) -> None:
        """Accept nothing more. The socket itself stays open. May be called again, also when that is closed."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock)
        if self._later is not None:
            self._later.cancel()

    def _here(self) -> int:
        return self._held() + len(self._opening)

    def _readable(self) -> None:
        """A few connections, or one, and back to the loop: what they need is done before the next are taken."""
        if self._share is None:
            self._take_some(EACH_TURN)
        elif self._share.exceeded(self._here()):
            self._pause(PATIENCE, self._take_left)
        else:
            self._take()

    def _take_left(self) -> None:
        """What the others have left here, they have no time for."""
        self._resume()
        self._take_some(AT_ONCE)

    def _take_some(self, most: int) -> None:
        for _ in range(most):
            if not self._take():
                return

    def _take(self) -> bool:
        """Accept one; whether there may be another."""
        try:
            accepted, peer = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # another was quicker, or the peer has gone
            return False
        except OSError as error:
            if error.errno not in _SHORTAGE:
                raise
            log.error("no connection can be accepted for now: %s", error.strerror)
            self._pause(_SHORTAGE_PAUSE, self._resume)
            return False
        accepted.setblocking(False)
        task = self._loop.create_task(self._open(accepted, peer[:2]), name="accept")
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        self.say()
        return True

    async def _open(self, accepted: socket.socket, peer: Address) -> None:
        try:
            here: Address = accepted.getsockname()[:2]
            await self._loop.connect_accepted_socket(partial(self._protocol, here, peer), accepted)
        except OSError:  # the peer was quicker to leave than this to begin
            accepted.close()

    def _pause(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._sock)
        self._later = self._loop.call_later(seconds, then)

    def _resume(self) -> None:
        self._later = None
        self._loop.add_reader(self._sock, self._readable)
