"""``Subscription``: a user's notifications as an asynchronous iterator, acknowledged as dealt with. Speaks no protocol.

The connection is a task of its own (``listener.py``), so it is kept while a notification is being dealt with.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self

import httpx2

from gateway.client.addresses import gateway_url, is_local
from gateway.client.errors import Refused, Stopped, Unavailable
from gateway.client.listener import Listener
from gateway.client.rules import Backoff, Frame, Position
from gateway.client.signin import Account, open_http
from gateway.client.values import Notification

WAITING = 100
"""Notifications that may wait to be dealt with; then no more is read, and the gateway's inbox keeps the rest."""


class Subscription:
    """One device of a user: ``async with Subscription(…) as subscription: async for notification in subscription: …``.

    A notification is dealt with when the loop comes for the next one, or when ``done`` is called: then it is
    acknowledged, and not before. What the body raised at, broke off at, or had not begun with, comes again in the same
    session; in a new one, unless another device of the user has acknowledged it. Lost connections, restarts of the
    gateway and expiring tokens are not noticed. A notification comes once; after a crash between dealing with it and
    its acknowledgement it comes again, with the same ``id``.

    Raises, from the loop: Stopped when the gateway ended it for good (``code`` says why: ``token_revoked``, …),
    Refused when it did not let the user in. One loop at a time.

    ``on_refresh_token`` hears every new refresh token: kept, and given as ``refresh_token`` to the next
    ``Subscription``, it goes on in the same session, without the password. Without it, leaving the block signs out.
    ``position``: an earlier ``position``, kept for this user; else the gateway knows where the session, or another of
    the user's devices, was. ``on_frame`` hears every other frame of the protocol (``hello``, ``gap``, ``read``, …),
    ``on_note`` what becomes of the connection, in words.
    """

    def __init__(
        self,
        url: str,
        *,
        username: str,
        password: str | Callable[[], str],
        device: str = "gateway.client",
        refresh_token: str | None = None,
        on_refresh_token: Callable[[str], None] | None = None,
        position: tuple[int, str] | None = None,
        on_frame: Callable[[Frame], None] = lambda frame: None,
        on_note: Callable[[str], None] = lambda words: None,
        tls: ssl.SSLContext | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._url, self._tls = gateway_url(url), tls
        self._stays = on_refresh_token is not None
        self._position = Position() if position is None else Position(after=position[0], epoch=position[1])
        self._http = open_http(self._url, tls=tls, transport=transport)
        self._account = Account(
            self._http,
            username=username,
            password=(lambda: password) if isinstance(password, str) else password,
            device=device,
            kept=refresh_token,
            changed=on_refresh_token or (lambda token: None),
            clock=clock,
        )
        self._listener = Listener(
            url=self._url,
            tokens=self._account,
            show=self._show,
            note=on_note,
            position=self._position,
            done=self._done,
            room=self._room,
            direct=is_local(self._url),
            tls=tls,
            backoff=Backoff(random=random),
            clock=clock,
            sleep=sleep,
        )
        self._on_frame = on_frame
        self._waiting: deque[tuple[str | None, Notification]] = deque()
        """With the epoch that each ``seq`` belongs to."""
        self._current: tuple[str | None, Notification] | None = None
        self._task: asyncio.Task[None] | None = None
        self._news, self._taken = asyncio.Event(), asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._listener.run(), name="gateway.client")
        self._task.add_done_callback(lambda task: self._news.set())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.exception()  # told to the loop, if there was one
        if not self._stays:
            with contextlib.suppress(Refused, Unavailable):  # it ends by itself when it idles
                await self._account.leave()
        await self._http.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Notification:
        if self._task is None:
            raise RuntimeError("a Subscription is entered with 'async with'")
        self.done()
        while True:
            if self._task.done():
                self._task.result()
                raise Stopped("the subscription is closed")
            if self._waiting:
                self._current = self._waiting.popleft()
                self._taken.set()
                notification = self._current[1]
                if notification.id not in self._position.shown:
                    return notification
                self._current = None  # dealt with under another number, or withdrawn meanwhile
            else:
                self._news.clear()
                await self._news.wait()

    def done(self) -> None:
        """The notification at hand is dealt with: for who breaks out of the loop after the work. Else the loop says
        it."""
        if self._current is not None:
            self._position.note(self._current[1].id)
            self._current = None

    @property
    def position(self) -> tuple[int, str] | None:
        """``(seq, epoch)`` up to which all is dealt with; None before the first connection."""
        return None if self._position.epoch is None else (self._done(), self._position.epoch)

    # -- what the listener asks ----------------------------------------------------------------------------------

    def _show(self, frame: Frame) -> None:
        if frame["type"] != "notification":
            self._on_frame(frame)
            return
        try:
            notification = Notification.of(frame)
        except (KeyError, TypeError, ValueError):
            raise Stopped("the gateway sent a notification that is none", bug=True) from None
        # Known as shown only when it is dealt with: if the log begins anew before that, its copy has to come too.
        self._position.shown.pop(notification.id, None)
        self._waiting.append((self._position.epoch, notification))
        self._news.set()

    def _done(self) -> int:
        after = self._position.after or 0
        at_hand = [] if self._current is None else [self._current]
        for epoch, notification in itertools.chain(at_hand, self._waiting):
            settled = notification.id in self._position.shown
            if epoch == self._position.epoch and notification.seq is not None and not settled:
                return min(notification.seq - 1, after)
        return after

    async def _room(self) -> None:
        while len(self._waiting) >= WAITING:
            self._taken.clear()
            await self._taken.wait()
