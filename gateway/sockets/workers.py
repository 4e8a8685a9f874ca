"""Several processes that do the same work: begun, watched, replaced, ended together. Knows no application, no server.

The parent forks and then only waits. It runs no event loop and no thread, so a child begins with nothing but imports,
which all of them share in memory. What a child has to say comes through a pipe; it is told things by signal.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import math
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gateway.sockets.forking import NotStarted, Post, fork

LEAVE, HURRY = signal.SIGUSR1, signal.SIGUSR2
"""To a worker, beside SIGTERM (drain): drain without listening, others do · wait no longer for clients."""
SETTLED = 10.0
"""Seconds after which a worker's end is bad luck; before that it may be a rule, and the next one waits."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
START_WITHIN = 120.0
"""Seconds a successor has to become ready, or the old worker stays."""
HURRIED = 10.0
"""Seconds from a second request to stop until SIGKILL."""

_WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

log = logging.getLogger("gateway.workers")


@dataclass(slots=True, eq=False)
class _Worker:
    number: int
    pid: int
    pipe: int
    began: float
    heard: bytes = b""
    ready: bool = False
    refused: NotStarted | None = None
    kill_at: float = math.inf


@dataclass(slots=True)
class _Place:
    worker: _Worker | None = None
    failures: int = 0
    due: float = 0.0
    """When the next worker may begin."""


class Workers:
    """``count`` processes that run ``work``; its return is a worker's end, ``NotStarted`` its refusal to begin.

    SIGTERM and SIGINT end all of them, a second one hurries them, and after ``stop_within`` seconds they are killed.
    SIGHUP replaces one after the other, the new one ready before the old one is told to leave. One that dies is begun
    again. ``on_ready`` is called once, when all are; ``on_stop`` before they are told to stop; ``told`` with what
    ``Post.tell`` was given.
    """

    def __init__(
        self,
        work: Callable[[Post], None],
        *,
        count: int,
        stop_within: float,
        on_ready: Callable[[], None] = lambda: None,
        on_stop: Callable[[], None] = lambda: None,
        told: Callable[..., None] = lambda *_: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work, self._stop_within, self._monotonic = work, stop_within, monotonic
        self._on_ready, self._on_stop, self._told = on_ready, on_stop, told
        self._places = {number: _Place() for number in range(1, count + 1)}
        self._living: dict[int, _Worker] = {}
        self._up = self._stopping = False
        self._to_replace: list[int] = []
        self._successor: _Worker | None = None
        self._leaving: _Worker | None = None
        self._terminal = os.isatty(2)
        self._wake: tuple[int, int] = (-1, -1)

    def run(self) -> None:
        """Until told to stop, and all have. Raises NotStarted if not all of them begin."""
        gc.collect()
        gc.freeze()  # a collection in a child would write to every page it shares
        with self._signals():
            try:
                while not self._stopping or self._living:
                    self._begin_due()
                    self._replace()
                    self._listen()
                    self._bury()
                    self._kill_overdue()
            finally:
                self._end_all()

    # -- beginning ---------------------------------------------------------------------------------------------------

    def _begin_due(self) -> None:
        """Those whose time has come. At the start the first goes alone: what refuses it would refuse all of them."""
        first = self._places[1].worker
        for number, place in self._places.items():
            if self._stopping or (not self._up and number > 1 and not (first and first.ready)):
                return
            if place.worker is None and self._monotonic() >= place.due:
                place.worker = self._fork(number)
                if place.worker is None:
                    self._put_off(place)
        if not self._up and all(place.worker and place.worker.ready for place in self._places.values()):
            self._up = True
            self._on_ready()

    def _fork(self, number: int) -> _Worker | None:
        """Its next worker; None if there cannot be one now."""
        inherited = (*self._wake, *(worker.pipe for worker in self._living.values()))
        try:
            pid, pipe = fork(self._work, number=number, blocked=_WATCHED, close=inherited)
        except OSError as error:
            if not self._up:
                raise NotStarted(f"no process for worker {number}: {error.strerror}", code=1) from None
            log.error("there is no process for worker %d: %s", number, error.strerror)
            return None
        worker = self._living[pid] = _Worker(number, pid, pipe, self._monotonic())
        return worker

    # -- hearing -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Every signal wakes the loop, which reads its number: no handler does any work."""
        self._wake = os.pipe()
        for end in self._wake:
            os.set_blocking(end, False)
        handlers = {number: signal.signal(number, lambda *_: None) for number in _WATCHED}
        waker = signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(waker)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for end in self._wake:
                os.close(end)

    def _listen(self) -> None:
        """Wait for a signal, a worker's word, or the next thing that is due."""
        dues = [worker.kill_at for worker in self._living.values()]
        if self._up and not self._stopping:
            dues += [place.due for place in self._places.values() if place.worker is None]
        left = min(dues, default=math.inf) - self._monotonic()
        poll = select.poll()
        speaking = {worker.pipe: worker for worker in self._living.values()}
        for descriptor in (self._wake[0], *speaking):
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(None if left == math.inf else max(0.0, left) * 1000 + 1):
            if (worker := speaking.get(descriptor)) is not None:
                self._hear(worker)
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._wake[0], 4096):
                self._heed(number)

    def _hear(self, worker: _Worker) -> None:
        with contextlib.suppress(BlockingIOError):
            while part := os.read(worker.pipe, 65536):
                worker.heard += part
        *lines, worker.heard = worker.heard.split(b"\n")
        for line in lines:
            match json.loads(line):
                case ["ready"]:
                    worker.ready = True
                case ["told", *words]:
                    self._told(*words)
                case ["refused", words, code]:
                    worker.refused = NotStarted(words, code=code)

    def _heed(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif number == signal.SIGHUP and self._terminal and not os.isatty(2):
            self._stop()  # it is the terminal that has hung up
        elif number == signal.SIGHUP and self._up and not self._stopping:
            log.info("replacing every worker, one after the other")
            self._to_replace = list(self._places)

    # -- replacing ---------------------------------------------------------------------------------------------------

    def _replace(self) -> None:
        """One step on: the successor takes the place, or the next one begins."""
        successor = self._successor
        if self._stopping or self._leaving is not None:
            return
        if successor is not None and successor.ready:
            place = self._places[successor.number]
            self._leaving, place.worker, self._successor = place.worker, successor, None
            successor.kill_at = math.inf
            if self._leaving is not None:
                self._send(self._leaving, LEAVE, within=self._stop_within)
        elif successor is None and self._to_replace:
            number = self._to_replace.pop(0)
            if self._places[number].worker is not None:  # else a new one begins there anyway
                self._successor = self._fork(number)
                if self._successor is None:
                    self._to_replace.clear()
                else:
                    self._successor.kill_at = self._monotonic() + START_WITHIN

    # -- ending ------------------------------------------------------------------------------------------------------

    def _bury(self) -> None:
        for worker in list(self._living.values()):
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                self._hear(worker)  # its last words
                os.close(worker.pipe)
                del self._living[pid]
                self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: _Worker, code: int) -> None:
        place, now = self._places[worker.number], self._monotonic()
        how = {"worker": worker.number, "pid": worker.pid, "status": code}
        if self._stopping or worker is self._leaving:
            self._leaving = None
            log.log(logging.WARNING if code else logging.INFO, "a worker has ended", extra=how)
        elif worker is self._successor:
            self._successor = None
            self._to_replace.clear()
            log.error("a new worker did not start; the others stay: %s", worker.refused or "see above", extra=how)
        elif not self._up:
            raise worker.refused or NotStarted("the gateway did not start", code=1)
        else:
            place.worker = None
            if self._successor is not None and self._successor.number == worker.number:
                place.worker, self._successor = self._successor, None
                place.worker.kill_at = math.inf
            elif worker.ready and now - worker.began >= SETTLED:
                place.failures, place.due = 0, now
            else:
                self._put_off(place)
            why = f": {worker.refused}" if worker.refused else ""
            log.warning("a worker has ended, another takes its place%s", why, extra=how)

    def _put_off(self, place: _Place) -> None:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**place.failures)
        place.failures, place.due = min(place.failures + 1, 20), self._monotonic() + pause

    def _stop(self) -> None:
        again, self._stopping = self._stopping, True
        if not again:
            self._on_stop()
        for worker in self._living.values():
            if not again:
                self._send(worker, signal.SIGTERM, within=self._stop_within)
            else:
                self._send(worker, HURRY if worker.ready else signal.SIGKILL, within=HURRIED)

    def _send(self, worker: _Worker, number: signal.Signals, *, within: float) -> None:
        """``number`` now, SIGKILL if that has not ended it ``within`` seconds."""
        worker.kill_at = min(worker.kill_at, self._monotonic() + within)
        os.kill(worker.pid, number)  # not waited for yet, so the number is still its own

    def _kill_overdue(self) -> None:
        for worker in self._living.values():
            if self._monotonic() >= worker.kill_at:
                worker.kill_at = math.inf
                log.warning("worker %d did not end in time and is killed", worker.number, extra={"pid": worker.pid})
                os.kill(worker.pid, signal.SIGKILL)

    def _end_all(self) -> None:
        """Whatever has happened here, no worker outlives it."""
        for worker in self._living.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(worker.pid, 0)
            os.close(worker.pipe)
        self._living.clear()
