"""One Redis server: a line to speak on, a line to hear on, and a heartbeat that goes round through both.

It connects again for as long as it runs, and says so each time: whoever hears nothing must know it. What a message
means is not its business, nor which channels there are.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from gateway.bus.line import Greeting, Line, LineLost, Reply, Server, command, failed, open_line
from gateway.bus.outbox import Item, Missed, Outbox, Remedy
from gateway.bus.subscriptions import GROUP, Subscriptions
from gateway.bus.wire import Beat, Codec, What

log = logging.getLogger("gateway.bus")

FLUSH_S = 0.5
"""Seconds one pipeline may take. Then the line counts as broken, and what others miss is only remembered."""
MOST_PAUSE_S = 2.0
UNHEARD = 3
"""Heartbeats in a row, sent and not heard, that make a link dead. Counted, not timed: a process that was stopped does
not take its healthy connections for dead when it goes on."""
_ROLE = command(b"ROLE")
_MESSAGE = (b"message", b"smessage")
_SUBSCRIBED = (b"subscribe", b"ssubscribe")
_UNSUBSCRIBED = (b"unsubscribe", b"sunsubscribe")


class Owner(Protocol):
    """Whose link it is. Called on the event loop; never waits, never raises."""

    def greeted(self, link: Link, greeting: Greeting) -> None:
        """A connection was made, to what the greeting says."""

    def messages(self, link: Link, messages: Sequence[tuple[bytes, bytes]]) -> None:
        """(channel, bytes) of all that came in one read."""

    def subscribed(self, link: Link, channels: Sequence[bytes]) -> None:
        """From now on these are heard; what was sent before was missed."""

    def taken_away(self, link: Link, channel: bytes) -> None:
        """The server unsubscribed this one by itself: it has moved to another."""

    def sent(self, amount: int) -> None:
        """The server has taken this many commands."""

    def unsent(self, amount: int) -> None:
        """Messages were lost that nothing makes up for."""


class Link:
    """``stream`` numbers the links of a process. ``beat``: seconds between heartbeats. ``missed`` is shared by all
    links; the one that is ``carrying`` what is for everybody tells them."""

    def __init__(
        self, server: Server, *, owner: Owner, codec: Codec, node: str, stream: int, missed: Missed, beat: float
    ) -> None:
        self.server, self.stream = server, stream
        self.trouble: str | None = f"{server.address}: not connected yet"
        self.carrying = True
        self.clustered = False
        self.beat_channel = codec.everybody
        self._owner, self._codec, self._node, self._missed, self._every = owner, codec, node, missed, beat
        self._outbox = Outbox(missed=missed, unsent=owner.unsent)
        self._subscriptions = Subscriptions()
        self._number = 0
        self._speaking: Line | None = None
        self._hearing: Line | None = None
        self._sharded = False
        self._something = asyncio.Event()
        self._asking = False
        self._unheard = 0
        self._silent = 0
        self._failures = 0
        self._complained = False

    # -- what is wanted of it ----------------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        """Whether messages can be handed to the server now. That somebody hears them is what ``trouble`` is about."""
        return self._speaking is not None

    @property
    def empty(self) -> bool:
        return not self._outbox and not self._missed

    def post(self, channel: bytes, what: What, remedy: Remedy) -> None:
        """Send ``what`` with the next pipeline. Without a connection it costs no more than remembering ``remedy``."""
        if self._speaking is None:
            self._outbox.lose((Item(b"", remedy),))
            return
        self._outbox.add(self._item(channel, what, remedy))
        self._something.set()

    def wake(self) -> None:
        """Somebody has missed something."""
        self._something.set()

    def want(self, channel: bytes) -> bool:
        """Hear ``channel`` from soon on. Whether it is heard already; else ``Owner.subscribed`` will name it."""
        heard = self._subscriptions.want(channel)
        self._ask_soon()
        return heard

    def unwant(self, channel: bytes) -> None:
        self._subscriptions.unwant(channel)
        self._ask_soon()

    def wanted(self) -> Sequence[bytes]:
        return self._subscriptions.wanted()

    def beat(self) -> None:
        self._unheard += 1
        self.post(self.beat_channel, Beat(self._node), None)
        if self._speaking is not None:
            self._outbox.add(Item(_ROLE, None))

    def beaten(self) -> None:
        """The own heartbeat came round."""
        self._unheard = self._failures = 0
        if self.trouble is not None:
            self.trouble = None
            if self._complained:
                log.info("the bus is back: hints travel again", extra={"server": self.server.address})
            self._complained = False

    async def run(self) -> None:
        """Until it is cancelled; then its connections are gone."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep(self._speak), name="bus-speak")
                group.create_task(self._keep(self._hear), name="bus-hear")
                group.create_task(self._keep_beating(), name="bus-beat")
        finally:
            self._outbox.lose_all()

    # -- connections --------------------------------------------------------------------------------------------

    async def _keep(self, use: Callable[[Line], Awaitable[None]]) -> None:
        while True:
            try:
                line, greeting = await open_line(self.server, name=f"gateway-{self._node}")
                try:
                    self._sharded = greeting.sharded
                    self._owner.greeted(self, greeting)
                    await use(line)
                finally:
                    line.drop("not used any more")
            except LineLost as lost:
                self._troubled(str(lost))
            except Exception:  # a bug must not leave this node deaf or dumb for the life of the process
                log.exception("the bus failed and connects again")
                self._troubled("an error in the gateway, see the log")
            self._failures += 1
            longest = min(MOST_PAUSE_S, 0.05 * 2 ** min(self._failures, 10))
            await asyncio.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    def _troubled(self, why: str) -> None:
        self.trouble = why if why.startswith(self.server.address) else f"{self.server.address}: {why}"
        if not self._complained:
            log.warning("hints between nodes are late: %s", self.trouble)
        self._complained = True

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            self._silent += 1
            if self._hearing is not None and self._silent > UNHEARD:
                self._hearing.drop("nothing comes any more, not even the own heartbeat")
            elif self._hearing is not None and self._speaking is not None and self._unheard >= UNHEARD:
                self._unheard = 0
                self._hearing.drop("the own heartbeat does not come back")
                self._speaking.drop("the own heartbeat does not come back")
            else:
                self.beat()

    # -- speaking -----------------------------------------------------------------------------------------------

    async def _speak(self, line: Line) -> None:
        line.closed.add_done_callback(lambda _: self._something.set())
        self._speaking = line
        self._unheard = 0
        self.beat()
        try:
            while not line.closed.done():
                await self._something.wait()
                self._something.clear()
                while batch := self._batch():
                    await self._flush(line, batch)
            raise LineLost(line.why)
        finally:
            self._speaking = None
            self._outbox.lose_all()

    def _batch(self) -> list[Item]:
        batch = self._outbox.take()
        if self.carrying and self._missed and not self._outbox:  # when it piles up, it is no time for more
            batch += [self._item(self._codec.everybody, what, what) for what in self._missed.take()]
        return batch

    async def _flush(self, line: Line, batch: Sequence[Item]) -> None:
        try:
            replies = await line.call(b"".join([item.payload for item in batch]), replies=len(batch), within=FLUSH_S)
        except BaseException:  # cancelled too: whoever is told for nothing only looks once more
            self._outbox.lose(batch)
            raise
        complaint: str | None = None
        for item, reply in zip(batch, replies, strict=True):
            if item.payload is _ROLE:
                complaint = complaint or _not_a_primary(reply)
            elif why := failed(reply):
                complaint = why
                self._outbox.lose((item,))
        if complaint is not None:
            raise LineLost(complaint)
        self._owner.sent(len(batch))

    def _item(self, channel: bytes, what: What, remedy: Remedy) -> Item:
        self._number += 1
        data = self._codec.encode(channel, what, stream=self.stream, number=self._number)
        return Item(command(b"SPUBLISH" if self._sharded else b"PUBLISH", channel, data), remedy)

    # -- hearing ------------------------------------------------------------------------------------------------

    async def _hear(self, line: Line) -> None:
        self._subscriptions.begin()
        line.listen(self._came)
        self._hearing = line
        self._silent = 0
        self._ask()
        try:
            await line.closed
        finally:
            self._hearing = None
        raise LineLost(line.why)

    def _ask_soon(self) -> None:
        """All that is wanted in one turn of the loop is asked for together."""
        if not self._asking and self._hearing is not None:
            self._asking = True
            asyncio.get_running_loop().call_soon(self._ask)

    def _ask(self) -> None:
        self._asking = False
        if self._hearing is None:
            return
        subscribe, unsubscribe = self._subscriptions.next()
        prefix = b"S" if self._sharded else b""
        # A cluster takes channels of one slot only in one command; there is hardly ever more than one of them.
        group = 1 if self.clustered else GROUP
        for word, channels in ((b"SUBSCRIBE", subscribe), (b"UNSUBSCRIBE", unsubscribe)):
            if channels:
                groups = (channels[at : at + group] for at in range(0, len(channels), group))
                self._hearing.send(b"".join([command(prefix + word, *some) for some in groups]))

    def _came(self, replies: Sequence[Reply]) -> None:
        self._silent = 0
        messages: list[tuple[bytes, bytes]] = []
        news: list[bytes] = []
        answered = False
        for reply in replies:
            if type(reply) is not list or len(reply) != 3:
                if self._hearing is not None:
                    self._hearing.drop(failed(reply) or "an answer that fits no question")
                continue
            kind, channel, data = reply
            if kind in _MESSAGE:
                messages.append((channel, data))
            elif kind in _SUBSCRIBED:
                answered = True
                if self._subscriptions.confirmed(channel):
                    news.append(channel)
            elif kind in _UNSUBSCRIBED:
                answered = True
                if self._subscriptions.left(channel):
                    self._owner.taken_away(self, channel)
        if messages:
            self._owner.messages(self, messages)
        if news:
            self._owner.subscribed(self, news)
        if answered:
            self._ask()


def _not_a_primary(reply: Reply) -> str | None:
    """A replica takes messages and passes them to nobody but those who are connected to itself. Who may not ask is
    let pass."""
    if failed(reply) or not isinstance(reply, list) or not reply or reply[0] == b"master":
        return None
    return f"the server is a {reply[0].decode(errors='replace')}, not the primary"
