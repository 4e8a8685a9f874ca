"""The socket side of a client of ``/ws``: resumes, acknowledges, renews its token, reconnects. Prints nothing.

One task, no timers: a conversation waits for the next frame or its next deadline, whichever comes first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from gateway.client.errors import Stopped, Unavailable
from gateway.client.rules import Backoff, Frame, Position, retry_after_close
from gateway.closing import Retry

ACK_EVERY = 1.0
PONG_WITHIN = 10.0
GOODBYE = 5.0
"""Seconds for what a client still has to say: its last acknowledgement, its close frame."""
SETTLED = 10.0
"""Seconds a connection must have lived to count as a success."""


class Tokens(Protocol):
    """Where access tokens come from. Both raise Refused (final) or Unavailable."""

    renew_at: float

    async def token(self) -> str: ...

    async def renew(self) -> str: ...


class Ended(Exception):
    """One connection is over, and what comes next. ``wait``: seconds the gateway asked for, if it did.

    ``reason``: the slug of its close.
    """

    def __init__(self, retry: Retry, words: str, *, wait: float | None = None, reason: str = "") -> None:
        super().__init__(words)
        self.retry, self.wait, self.reason = retry, wait, reason


async def no_wait() -> None:
    """There is always room for who shows at once."""


class _Straight(connect):
    """A redirect is not followed: the token goes to the gateway the user named and to nobody else."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


@dataclass(slots=True, kw_only=True)
class Listener:
    """Listens until ``wanted`` notifications were shown (None: for ever).

    ``show`` gets each frame that is news, in order, and returns once it is out: only then is it acknowledged, or, if
    ``done`` is given, when ``done`` says so: the number up to which all is dealt with. ``room`` returns when another
    frame may be shown. ``moved`` is called when an acknowledgement was sent, ``note`` with a line about the connection
    itself. ``direct``: no proxy, whatever the environment says. ``tls``: another than the system's trust.
    """

    url: str
    tokens: Tokens
    show: Callable[[Frame], None]
    note: Callable[[str], None]
    moved: Callable[[], None] = lambda: None
    done: Callable[[], int] | None = None
    room: Callable[[], Awaitable[None]] = no_wait
    position: Position = field(default_factory=Position)
    floor: int = 0
    """A starting point given by hand: what lies up to it was not shown here, so it is not acknowledged either."""
    acking: bool = True
    wanted: int | None = None
    direct: bool = False
    tls: ssl.SSLContext | None = None
    backoff: Backoff = field(default_factory=Backoff)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    shown: int = 0
    expiries: int = 0
    """How often in a row, without a ``hello`` between, the gateway called the token expired."""

    async def run(self) -> None:
        """Return when ``wanted`` is reached. Raises Stopped, or Refused of a sign-in."""
        renew = False
        while self.wanted is None or self.shown < self.wanted:
            await self.room()
            began = self.clock()
            try:
                token = await (self.tokens.renew() if renew else self.tokens.token())
                renew = False
                await self._connect(token)
            except Unavailable as error:
                delay, words = max(self.backoff.next(), error.after), str(error)
            except Ended as end:
                if self.clock() - began >= SETTLED:
                    self.backoff.reset()
                renew = end.retry == "refresh"
                delay, words = self._delay(end), str(end)
            else:
                return
            self.note(f"{words}; again in {delay:.1f} s")
            await self.sleep(delay)

    def _delay(self, end: Ended) -> float:
        match end.retry:
            case "stop" | "bug":
                raise Stopped(str(end), bug=end.retry == "bug", reason=end.reason)
            case "refresh":
                self.expiries += 1
                return 0.0 if self.expiries == 1 else self.backoff.next()
            case "long_backoff":
                return self.backoff.long()
            case "after_ms" if end.wait is not None:
                return end.wait
        return self.backoff.next()

    async def _connect(self, token: str) -> None:
        """One socket, from its opening to its end. Returns when ``wanted`` is reached, else raises Ended."""
        query = self.position.query()
        tls: dict[str, Any] = {"ssl": self.tls} if self.tls is not None and self.url.startswith("https:") else {}
        opening = _Straight(
            "ws" + self.url.removeprefix("http") + "/ws" + (f"?{urlencode(query)}" if query else ""),
            subprotocols=[Subprotocol("notify.v1")],
            additional_headers={"Authorization": f"Bearer {token}"},
            compression=None,
            ping_interval=None,  # the conversation keeps the heartbeat every kind of client can keep
            close_timeout=GOODBYE,
            proxy=None if self.direct else True,
            **tls,
        )
        try:
            socket = await opening
        except InvalidStatus as error:
            raise _refusal(error.response.status_code) from None
        except InvalidURI:
            raise Stopped(f"{self.url} is not the address of a gateway") from None
        except (OSError, EOFError, InvalidHandshake) as error:
            raise Ended("backoff", f"no connection to {self.url} ({type(error).__name__})") from None
        conversation = Conversation(self, socket)
        try:
            await conversation.hold()
        except ConnectionClosed as closed:
            code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (None, "")
            words = f"the gateway closed: {code} {reason}".rstrip() if closed.rcvd else "the connection was lost"
            retry = retry_after_close(code, reason)
            raise Ended(retry, words, wait=conversation.until_due(), reason=reason) from None
        finally:
            await conversation.farewell()


def _refusal(status: int) -> Ended:
    words = f"the upgrade was refused with HTTP {status}"
    if status in (401, 403):
        return Ended("refresh", words)
    return Ended("long_backoff" if status == 429 or status >= 500 else "stop", words)


class Conversation:
    """One open socket: what was heard, and what is due when. All times on the listener's clock."""

    def __init__(self, listener: Listener, socket: ClientConnection) -> None:
        self._listener, self._socket, self._clock = listener, socket, listener.clock
        self._heard = self._clock()
        self._pinged: float | None = None
        self._heartbeat = 25.0
        self._acked = listener.position.after or 0
        self._acked_at = float("-inf")
        self._greeted = False
        self._renewed_at = listener.tokens.renew_at
        self._leave_at: float | None = None

    async def hold(self) -> None:
        """Until enough was shown. Raises Ended, ConnectionClosed, Refused."""
        while self._listener.wanted is None or self._listener.shown < self._listener.wanted:
            await self._keep()
            text: str | bytes | None = None
            reading = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(self._next() - self._clock(), 0)):
                    await self._listener.room()
                    reading = True
                    text = await self._socket.recv()
            if text is not None or not reading:  # who does not read cannot say that nothing was said
                self._heard, self._pinged = self._clock(), None
            if text is not None:
                self._frame(text)

    def _frame(self, text: str | bytes) -> None:
        listener = self._listener
        try:
            frame = json.loads(text)
            kind = frame["type"]
            news = listener.position.take(frame)
            if kind == "hello":
                self._greeted, listener.expiries = True, 0
                self._heartbeat = max(1.0, float(frame["heartbeat"]))
                self._acked = max(frame["cursor"], min(listener.floor, frame["after"]))
            elif kind == "reconnect":
                self._leave_at = self._clock() + max(0, frame["after_ms"]) / 1000
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Ended("bug", "the gateway sent a frame that is not of this protocol") from None
        if kind == "error":
            listener.note(f"the gateway refused a frame: {frame.get('code')} {frame.get('detail', '')}")
        elif news and kind not in ("ok", "pong"):
            listener.show(frame)
            listener.shown += kind == "notification"

    def _next(self) -> float:
        """When the next thing is due that is not a frame."""
        dues = [self._heard + self._heartbeat if self._pinged is None else self._pinged + PONG_WITHIN]
        if self._unacked():
            dues.append(self._acked_at + ACK_EVERY)
        elif self._listener.done is not None and self._settled() < (self._listener.position.after or 0):
            dues.append(self._clock() + ACK_EVERY)  # something is being dealt with
        if self._greeted:
            dues.append(self._renewed_at)
        if self._leave_at is not None:
            dues.append(self._leave_at)
        return min(dues)

    def _unacked(self) -> bool:
        return self._listener.acking and self._greeted and self._settled() > self._acked

    def _settled(self) -> int:
        return (self._listener.position.after or 0) if self._listener.done is None else self._listener.done()

    async def _keep(self) -> None:
        """Do what is due now."""
        now = self._clock()
        if self._leave_at is not None and now >= self._leave_at:
            raise Ended("after_ms", "the gateway asked for a new connection", wait=0.0)
        if self._pinged is not None and now >= self._pinged + PONG_WITHIN:
            self._socket.transport.abort()
            raise Ended("backoff", "the gateway does not answer")
        if self._pinged is None and now >= self._heard + self._heartbeat:
            self._pinged = now
            await self._send({"type": "ping"})
        if self._unacked() and now >= self._acked_at + ACK_EVERY:
            await self._ack()
        if self._greeted and now >= self._renewed_at:
            await self._renew()

    async def _ack(self, *, ref: str | None = None) -> None:
        self._acked, self._acked_at = self._settled(), self._clock()
        frame = {"type": "ack", "seq": self._acked}
        await self._send(frame if ref is None else {**frame, "ref": ref})
        self._listener.moved()

    async def _renew(self) -> None:
        """The deadline of this socket moves with a fresh token; the socket stays."""
        try:
            token = await self._listener.tokens.renew()
        except Unavailable as error:
            # The old token is good for a little longer; if nothing comes in time the gateway closes with token_expired.
            self._renewed_at = self._clock() + max(self._listener.backoff.next(), error.after, 1.0)
            return
        self._renewed_at = self._listener.tokens.renew_at
        await self._send({"type": "token", "token": token})

    async def _send(self, frame: Frame) -> None:
        await self._socket.send(json.dumps(frame))

    def until_due(self) -> float | None:
        """Seconds until the gateway wants to see us again, if it has said so."""
        return None if self._leave_at is None else max(0.0, self._leave_at - self._clock())

    async def farewell(self) -> None:
        """The last acknowledgement, known to be committed, then the close. Also on the way out of a Ctrl-C."""
        no_frame = (ValueError, AttributeError, RecursionError)
        with contextlib.suppress(ConnectionClosed, TimeoutError, OSError, *no_frame):
            async with asyncio.timeout(GOODBYE):
                if self._unacked():
                    await self._ack(ref="last")
                    while json.loads(await self._socket.recv()).get("ref") != "last":
                        pass  # what comes now was not shown, so it stays unacknowledged for the next time
        await self._socket.close()
