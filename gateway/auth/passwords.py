"""Passwords ↔ Argon2id hashes, off the event loop and a bounded number at once: the only user of passlib. No policy
of who may sign in, no store.

One hash costs about 20 ms of a core and 19 MiB; the GIL is free meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from passlib.context import CryptContext
from passlib.hash import argon2

from gateway.auth.guessable import guessable
from gateway.errors import Invalid, TooManySignIns, Unavailable

MEMORY, TIME, PARALLELISM = 19_456, 2, 1
"""KiB, passes, lanes: the minimum of the OWASP Password Storage Cheat Sheet."""
SHORTEST, LONGEST = 8, 1024
"""Characters in a new password. Longer ones are refused at sign-in too: passlib raises beyond 4096."""
NICER = 15
"""Niceness of a thread that hashes, above the process's: a thirtieth of a core that the event loop wants too."""
WAITING = 64
"""How many may wait for a thread; who comes on top is told to come back."""

T = TypeVar("T")


class Passwords:
    """``hashers``: Argon2 computations at once. Call ``warm`` before the first sign-in and ``close`` at the end."""

    def __init__(self, hashers: int) -> None:
        self._context = CryptContext(
            schemes=["argon2"],
            argon2__type="ID",
            argon2__memory_cost=MEMORY,
            argon2__time_cost=TIME,
            argon2__parallelism=PARALLELISM,
        )
        self._pool = ThreadPoolExecutor(hashers, thread_name_prefix="argon2", initializer=_stand_back)
        self._places = threading.BoundedSemaphore(hashers + WAITING)
        self._dummy: str | None = None

    @property
    def full(self) -> bool:
        """Whether one more would be told to come back."""
        if not self._places.acquire(blocking=False):
            return True
        self._places.release()
        return False

    async def warm(self) -> None:
        """Load the back end and prepare the dummy, so that the first unknown user takes no longer than the second."""
        await self._off_loop(self._load)

    def close(self) -> None:
        """What is under way ends by itself; what waits is cancelled."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def check_new(self, password: str, *, username: str, pointer: str = "/password") -> None:
        """Whether ``password`` may be set for ``username``.

        Raises Invalid ``password_too_short``, ``password_too_long`` or ``password_common``.

        ``pointer``: where it stands in the request (RFC 6901). Nothing else is asked of it (NIST SP 800-63B).
        """
        if len(password) < SHORTEST:
            detail = f"A password has at least {SHORTEST} characters."
            raise Invalid(detail, code="password_too_short", errors=[(pointer, detail)])
        if len(password) > LONGEST:
            detail = f"A password has at most {LONGEST} characters."
            raise Invalid(detail, code="password_too_long", errors=[(pointer, detail)])
        if any("\ud800" <= character <= "\udfff" for character in password):
            detail = "A password is valid Unicode text."
            raise Invalid(detail, errors=[(pointer, detail)])
        if guessable(_typed(password), username=username):
            detail = "This password is one of the first that are guessed."
            raise Invalid(detail, code="password_common", errors=[(pointer, detail)])

    async def hash(self, password: str) -> str:
        """The Argon2id hash of ``password`` (see ``check_new``). Raises Unavailable when too many wait already."""
        return await self._off_loop(lambda: self._hash(password))

    async def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        """Whether ``password`` is the one of ``stored``, and a better hash if that one is weaker than ours.

        ``stored`` None (there is no such user) or unreadable is False, after the same work as a wrong password.
        Raises Unavailable when too many wait already.
        """
        return await self._off_loop(lambda: self._verify(password, stored))

    async def _off_loop(self, work: Callable[[], T]) -> T:
        if not self._places.acquire(blocking=False):
            raise TooManySignIns
        try:
            future = self._pool.submit(work)
        except RuntimeError:  # closed: the node is going down
            self._places.release()
            raise Unavailable from None
        # Released when the thread is done or the waiting item is cancelled, not when its caller goes away.
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)

    def _load(self) -> str:
        if self._dummy is None:
            self._dummy = self._hash(secrets.token_urlsafe())
        return self._dummy

    def _hash(self, password: str) -> str:
        hashed: str = self._context.hash(_typed(password))
        return hashed

    def _verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        if stored is None or len(password) > LONGEST or (ok := self._matches(password, stored)) is None:
            self._context.verify("", self._load())
            return False, None
        return ok, self._hash(password) if ok and _weaker(stored) else None

    def _matches(self, password: str, stored: str) -> bool | None:
        """None: ``stored`` is not a hash that can be read, or ``password`` no Unicode text."""
        try:
            return bool(self._context.verify(_typed(password), stored))
        except Exception:  # passlib raises ValueError, TypeError and its own; argon2 raises of its memory
            return None


def usual_hashers(workers: int, *, cores: int | None = None) -> int:
    """Argon2 computations at once in each of so many processes, unless it is set: each keeps a core to deliver with,
    and two are enough for a hundred sign-ins a second. ``cores``: those this process may use."""
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min(2, (cores - workers) // workers))


def _stand_back() -> None:
    """Let this thread have what the event loop leaves: where they share a core, a crowd that signs in would hold up
    every push. Linux keeps niceness by thread; elsewhere it is the process's, which is left alone."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICER)


def _typed(password: str) -> str:
    """As RFC 8265 section 4.2: the same password from a keyboard that composes its accents and one that does not."""
    return unicodedata.normalize("NFC", password)


def _weaker(stored: str) -> bool:
    # Not passlib's needs_update: that one also "upgrades" a hash that is stronger than ours.
    parsed = argon2.from_string(stored)
    return bool(parsed.type != "id" or parsed.version < 0x13 or parsed.memory_cost < MEMORY or parsed.rounds < TIME)
