"""One child process: how it is forked, what it inherits, its line to the parent. Watches nobody."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1

log = logging.getLogger("gateway.workers")


class NotStarted(Exception):
    """A worker refused to start; the text is for the operator. ``code``: the exit status this is worth."""

    def __init__(self, words: str, *, code: int) -> None:
        super().__init__(words)
        self.code = code


class Post:
    """What a worker knows of its place, and its line to the parent. ``number`` counts from 1."""

    def __init__(self, number: int, pipe: int) -> None:
        self.number, self._pipe = number, pipe

    def ready(self) -> None:
        """Say that it does its work now."""
        self._say("ready")

    def tell(self, *words: str) -> None:
        """Have the parent's ``told`` called with these."""
        self._say("told", *words)

    def refuse(self, error: NotStarted) -> None:
        self._say("refused", str(error), error.code)

    def _say(self, *what: str | int) -> None:
        line = json.dumps(what).encode() + b"\n"
        with contextlib.suppress(OSError):  # the parent is gone, and this process with it in a moment
            while line:
                line = line[os.write(self._pipe, line) :]


def fork(
    work: Callable[[Post], None], *, number: int, blocked: Iterable[signal.Signals], close: Iterable[int]
) -> tuple[int, int]:
    """A child that does ``work`` and dies with this process; its pid, and the pipe it speaks through.

    ``blocked``: signals this process has handlers of its own for. ``close``: what the child has no use for. Raises
    OSError if there can be no more processes or files.
    """
    parent, libc = os.getpid(), _libc()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    sys.stdout.flush()  # or the child would say it again
    # One that came between the fork and the child's own handlers would be handled as if the child were the parent.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        pid = os.fork()
        if pid == 0:
            _become(work, Post(number, writer), parent=parent, libc=libc, mask=mask, close=(reader, *close))
    except OSError:
        os.close(reader)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(writer)
    return pid, reader


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _become(
    work: Callable[[Post], None], post: Post, *, parent: int, libc: Any, mask: Iterable[int], close: Iterable[int]
) -> NoReturn:
    """In the child. It never returns: nothing the parent has begun is the child's to end."""
    code = 1
    try:
        with contextlib.suppress(AttributeError):  # only Linux has it: elsewhere a parent that is killed leaves orphans
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            signal.set_wakeup_fd(-1)
            for descriptor in close:
                os.close(descriptor)
            # A terminal sends these two to every process: what they mean is for the parent to say.
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            for number in (signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            work(post)
            code = 0
    except NotStarted as error:
        post.refuse(error)
        code = error.code
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else 1
    except BaseException:  # the edge of the process: none of it may reach the code above, which is the parent's
        log.exception("worker %d failed", post.number)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
