"""One open connection: what it is told (``telling.py``) and, here, what its client says. Lets nobody in by itself.

Handling a frame never waits: an ack is a value, and what must reach the database goes through one task at most.
"""

from __future__ import annotations

import asyncio
from collections import deque

from gateway import frames
from gateway.closing import INTERNAL_ERROR, RATE_LIMITED
from gateway.errors import CredentialsConflict, GatewayError, InsufficientScope
from gateway.limits import Bucket
from gateway.model import Principal, millis, rfc3339
from gateway.telling import Telling, log
from gateway.tickets import is_ticket
from gateway.ties import Ties

MOST_WAITING = 256
"""Client frames of one connection that wait for the database; more is a client that does not listen to ``error``."""


Written = frames.Ack | frames.Read | frames.Renew
"""What has to reach the database. Of tokens only a ticket does: that it was used is written down."""


class Connection(Telling):
    """Implements ``hub.Attached``, ``pulse.Beating`` and ``ports.Handled``."""

    __slots__ = ("_bucket", "_waiting", "_worker")

    def __init__(self, principal: Principal, *, ties: Ties, address: str | None, after: tuple[int, str] | None) -> None:
        super().__init__(principal, ties=ties, address=address, after=after)
        self._bucket: Bucket | None = None
        self._waiting: deque[Written] | None = None
        self._worker: asyncio.Task[None] | None = None

    def received(self, text: str | bytes) -> None:
        if self.closed_as is not None:
            return
        ties, at = self.ties, self.ties.monotonic()
        if self._bucket is None:
            self._bucket = Bucket(burst=ties.frame_burst, at=at)
        if self._bucket.take(1, rate=ties.frame_rate, burst=ties.frame_burst, at=at):
            ties.metrics.limited("frames")
            self.close(RATE_LIMITED)
            return
        try:
            frame = frames.parse(text)
        except frames.FrameError as error:
            self.say(frames.error(error.code, error.detail, error.ref))
            return
        if isinstance(frame, frames.Ping):
            self.say(frames.pong(frame.ref))
        elif isinstance(frame, frames.Renew) and not is_ticket(frame.token):
            self._renew(frame)
        else:
            self._enqueue(frame)

    def _renew(self, frame: frames.Renew) -> None:
        """A fresh token of the same session moves the deadline; a bad one leaves the old one standing."""
        try:
            said = self._renewed(self.ties.authn.principal(frame.token))
        except GatewayError as error:
            self.say(frames.error(error.code, error.detail, frame.ref))
            return
        if frame.ref is not None:
            self.say(frames.ok(frame.ref, **said))

    def _renewed(self, principal: Principal) -> dict[str, str]:
        """What ``ok`` says of it. Raises CredentialsConflict, InsufficientScope."""
        self._check_same(principal)
        if self.closed_as is None:  # else nobody ticks for it any more
            self.principal = principal
            self.ties.pulse.moved(self)
        return {"token_expires_at": rfc3339(self.deadline * 1000)}

    def _check_same(self, principal: Principal) -> None:
        new, old = principal.claims, self.claims
        if (new.subject, new.session) != (old.subject, old.session):
            raise CredentialsConflict("The token is of another session.")
        for scope in sorted(old.scopes - new.scopes):
            raise InsufficientScope(scope)

    def _enqueue(self, frame: Written) -> None:
        """Writes of one connection go in order, by at most one task; an ack that nobody asked about joins the last."""
        waiting = self._waiting
        if waiting is None:
            waiting = self._waiting = deque()
        last = waiting[-1] if waiting else None
        if isinstance(frame, frames.Ack) and isinstance(last, frames.Ack) and frame.ref is None and last.ref is None:
            waiting[-1] = max(last, frame, key=lambda ack: ack.seq)
            return
        if len(waiting) >= MOST_WAITING:
            self.close(RATE_LIMITED)
            return
        waiting.append(frame)
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work(), name="client-frames")

    def forget(self) -> None:
        """What the client said and is not written yet was about a log that is no more."""
        if self._waiting is not None:
            self._waiting.clear()

    async def _work(self) -> None:
        try:
            while self._waiting:
                frame = self._waiting.popleft()
                try:
                    said = await self._do(frame)
                except GatewayError as error:
                    self.say(frames.error(error.code, error.detail, frame.ref))
                else:
                    if frame.ref is not None:
                        self.say(frames.ok(frame.ref, **said))
            self._waiting = None
        except Exception:  # as in catching up: never silently deaf
            log.exception("a client frame failed")
            self.close(INTERNAL_ERROR)
        finally:
            self._worker = None

    async def _do(self, frame: Written) -> dict[str, str]:
        ties, user_id = self.ties, self.claims.subject
        if isinstance(frame, frames.Renew):
            ticket = ties.tickets.read(frame.token, origin=self.origin)
            self._check_same(ticket.principal)  # before it is spent
            return self._renewed(await ties.tickets.use(ticket))
        if isinstance(frame, frames.Ack):
            await ties.inbox.ack(user_id, session=self.claims.session or "", seq=frame.seq, now=millis(ties.clock()))
        else:
            await ties.publisher.mark_read(user_id, ids=frame.ids, up_to=frame.up_to)
        return {}
