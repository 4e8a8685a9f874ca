"""What one connection is told, from its hello to its end. Knows no HTTP and no ASGI; what the client says is not here.

A connection that is caught up costs no task. It is *offered* what happens and writes it when it is the next thing to
say and the transport can take it; otherwise it is behind, and one task reads the inbox after its cursor.
"""

from __future__ import annotations

import asyncio
import logging
import random

from gateway import frames
from gateway.closing import BY_REASON, INTERNAL_ERROR, TOKEN_REVOKED, Close
from gateway.errors import StoreUnavailable
from gateway.feed import Feed, Verdict
from gateway.frames import Frame
from gateway.model import Claims, ConnectionInfo, Principal, State, millis, rfc3339
from gateway.ports import Transport
from gateway.replay import replay
from gateway.ties import Ties

log = logging.getLogger("gateway.sockets")

CLOSE_LINGER = 5.0
REVOKED_LINGER = 0.5
"""Seconds between the close frame and the reset. A revoked client has to be gone within the second."""
MOST_UNSAID = 128
"""Answers kept back until hello; a client may burst 100 frames."""


class Telling:
    """The half of a connection that speaks: a feed, a transport, a deadline.

    ``start`` is called once, after the accept. ``after`` is the (seq, epoch) the client kept, or None; it is trusted
    only if it belongs to this log.
    """

    __slots__ = (
        "_after", "_catching_up", "_feed", "_rung", "_unsaid", "address", "closed_as", "gone", "number", "opened_at",
        "origin", "principal", "sent", "ties", "transport",
    )  # fmt: skip

    _numbers = iter(range(1, 2**63))

    def __init__(self, principal: Principal, *, ties: Ties, address: str | None, after: tuple[int, str] | None) -> None:
        self.number = next(Telling._numbers)
        self.principal = principal
        self.address = address
        self.origin: str | None = None
        self.transport: Transport  # set by hand_over, before anything can be offered
        self.opened_at = millis(ties.clock())
        self.closed_as: Close | None = None
        self.gone = False
        self.sent = 0
        self.ties = ties
        self._after = after
        self._feed: Feed | None = None
        self._catching_up: asyncio.Task[None] | None = None
        self._rung = False
        self._unsaid: list[Frame] | None = None

    @property
    def claims(self) -> Claims:
        return self.principal.claims

    @property
    def id(self) -> str:
        return f"{self.ties.node}-{self.number}"

    @property
    def deadline(self) -> int:
        """When its token expires, in seconds since the epoch."""
        return self.principal.claims.expires_at

    @property
    def behind(self) -> bool:
        return self._feed is None or self._feed.behind

    def info(self, node: str) -> ConnectionInfo:
        return ConnectionInfo(
            id=self.id, user_id=self.claims.subject, session=self.claims.session, node=node,
            transport=self.transport.kind, address=self.address, opened_at=self.opened_at,
            token_expires_at=self.deadline * 1000, behind=self.behind,
        )  # fmt: skip

    # -- its life ------------------------------------------------------------------------------------------------

    def attach(self, transport: Transport) -> None:
        """Registered before the second check of revocation: one in between would be missed otherwise."""
        self.transport = transport
        ties = self.ties
        if ties.hub.attach(self):
            ties.bus.watch(self.claims.subject)
        ties.presence.joined(self.claims.subject, self.claims.session)
        ties.pulse.attach(self)

    def _detach(self) -> None:
        ties = self.ties
        if ties.hub.detach(self):
            ties.bus.unwatch(self.claims.subject)
        ties.presence.left(self.claims.subject, self.claims.session)
        ties.pulse.detach(self)

    def start(self) -> None:
        """It has been accepted: say hello, then everything after the starting point."""
        if self.closed_as is None:
            self.ties.metrics.opened.inc()
            self._catch_up()

    def close(self, why: Close) -> None:
        """End it. It leaves the hub first, so no frame follows the close frame. Closing twice is harmless."""
        if self.closed_as is not None:
            return
        self.closed_as = why
        self._detach()
        if not self.transport.writable:
            self.transport.abort()  # a goodbye would queue behind what the peer does not read
        else:
            self.transport.close(why, linger=REVOKED_LINGER if _forbidden(why) else CLOSE_LINGER)

    def abort(self, why: Close) -> None:
        """End it without a goodbye."""
        if self.closed_as is None:
            self.closed_as = why
            self._detach()
        self.transport.abort()

    def lost(self, why: Close) -> None:
        """The transport is gone; called once."""
        self.gone = True
        if self.closed_as is None:
            self.closed_as = why
            self._detach()
        self.ties.metrics.closed(self.closed_as.reason)
        log.info("socket closed", extra={
            "user": self.claims.subject, "sid": self.claims.session, "connection": self.id, "address": self.address,
            "origin": self.origin, "code": self.closed_as.code, "reason": self.closed_as.reason,
        })  # fmt: skip

    # -- what it hears from the hub ------------------------------------------------------------------------------

    def offer(self, seq: int, frame: Frame) -> None:
        feed = self._feed
        if feed is None or self.closed_as is not None:
            self._rung = True
            return
        if not feed.behind and not (self.transport.writable and self.ties.revoker.fresh):
            feed.behind = True
        verdict = feed.offer(seq)
        if verdict is Verdict.WRITE:
            self.ties.metrics.written.inc()
            self._write(frame)
        elif verdict is Verdict.READ:
            self._catch_up()

    def offer_passing(self, frame: Frame) -> bool:
        feed = self._feed
        if feed is None or feed.behind or self.closed_as is not None:
            return False
        if written := self.transport.send(frame):
            self.sent += written
            return True
        return False

    def offer_state(self, rev: int, unread: int, frame: Frame) -> None:
        feed = self._feed
        if feed is None or self.closed_as is not None:
            self._rung = True
            return
        if not self.transport.writable:
            feed.behind = True
        verdict = feed.state(rev)
        if verdict is Verdict.WRITE:
            self._write(frame)
        elif verdict is Verdict.CHANGED:
            self._write(frames.changed(rev=rev, unread=unread))
        elif verdict is Verdict.READ:
            self._catch_up()

    def recheck(self, state: State | None) -> None:
        if self._feed is None or self.closed_as is not None:
            self._rung = True
            return
        if state is None:
            self._feed.behind = True
        if self._feed.behind or self._feed.heard(head=state.head if state else 0, rev=state.rev if state else 0):
            self._catch_up()

    def say(self, frame: Frame) -> None:
        """A frame that is not of the log (reconnect, pong, ok, error): dropped if the transport cannot take it."""
        if self.closed_as is not None:
            return
        if self._feed is None:  # a client may ask as soon as the socket is open, and hello comes first
            self._unsaid = [*(self._unsaid or ()), frame][:MOST_UNSAID]
        elif self.transport.writable:
            self._write(frame)

    def _write(self, frame: Frame) -> None:
        payload = self.transport.encode(frame)
        self.sent += len(payload)
        self.transport.write(payload)

    # -- catching up -------------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """One task, while there is something to read and the transport can take it."""
        if self._catching_up is not None or self.closed_as is not None:
            return
        if not self.transport.writable:
            self.ties.pulse.suspect(self)  # drained() comes back here
        else:
            self._catching_up = asyncio.get_running_loop().create_task(self._read_inbox(), name="catch-up")

    def drained(self) -> None:
        if self.closed_as is None and self.behind:
            self._catch_up()

    async def _read_inbox(self) -> None:
        arriving = self._feed is None
        try:
            while self.closed_as is None and self.transport.writable:
                try:
                    if not self.ties.revoker.fresh:
                        await self.ties.revoker.until_fresh()
                    async with self.ties.turns.turn(arriving=arriving):
                        if await self._read_once():
                            return
                except StoreUnavailable:
                    # The socket stays: what is stored is not lost, only later. Jitter, so that not all ask at once.
                    await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311
        except Exception:  # a socket must not go silent: whatever this was, the client hears 1011 and comes back
            log.exception("catching up failed")
            self.close(INTERNAL_ERROR)
        finally:
            self._catching_up = None
        if not self.transport.writable:
            self._catch_up()

    async def _read_once(self) -> bool:
        """Read and tell one page (or the opening). Whether the connection is caught up."""
        ties = self.ties
        user_id, session, now = self.claims.subject, self.claims.session or "", millis(ties.clock())
        feed = self._feed
        if feed is None:
            opening = await ties.inbox.opening(user_id, session=session, now=now)
            if self.closed_as is not None:
                return True
            if opening.ended_why is not None:
                self.close(BY_REASON.get(opening.ended_why, TOKEN_REVOKED))
                return True
            self._greet(opening.cursor, opening.state)
            if self._rung:
                return False  # what rang was committed while the opening was on its way, and may not be in it
            feed, state = self._feed, opening.state
            assert feed is not None  # noqa: S101 - _greet set it
        else:
            page = await ties.inbox.page(user_id, after=feed.after, now=now)
            if self.closed_as is not None or not ties.revoker.fresh:
                return False
            ties.metrics.caught_up.inc()
            self.sent += replay(feed.play(page), self.transport, ties.metrics)
            if not self.transport.writable:
                return False
            state = page.state
        verdict = feed.settle(state)
        if verdict is Verdict.CHANGED:
            self._write(frames.changed(rev=state.rev, unread=state.unread))
        return verdict is not Verdict.READ

    def _greet(self, cursor: int, state: State) -> None:
        """``hello``: where the log stands and where this connection starts in it (contract 4.4)."""
        ties, kept = self.ties, self._after
        trusted = kept is not None and kept[1] == ties.epoch.current and kept[0] <= state.head
        after = kept[0] if kept is not None and trusted else cursor
        self._feed = Feed(after=after, rev=state.rev)
        self._after = None
        self._write(
            frames.hello(
                {
                    "connection": self.id, "user": self.claims.subject, "session": self.claims.session,
                    "epoch": ties.epoch.current, "head": state.head, "rev": state.rev, "cursor": cursor, "after": after,
                    "reset": kept is not None and not trusted, "unread": state.unread, "heartbeat": ties.heartbeat,
                    "token_expires_at": rfc3339(self.deadline * 1000), "node": ties.node,
                }
            )
        )  # fmt: skip
        for frame in self._unsaid or ():
            self.say(frame)
        self._unsaid = None


def _forbidden(why: Close) -> bool:
    """Whether the peer may receive nothing more: then the goodbye is short."""
    return why.retry in ("stop", "refresh")
