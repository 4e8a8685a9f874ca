"""The bus of many nodes: hints over Redis. Holds no truth, and is trusted with none.

This node hears its own signals in memory, at once; Redis carries them to the others. What is lost on the way costs
time: whoever may have missed something is told to look into the log again (``resync``), and the slow re-check finds the
rest. So nothing here waits for Redis, and nothing fails with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from gateway.bus.line import Greeting, Server
from gateway.bus.link import UNHEARD, Link
from gateway.bus.links import Links
from gateway.bus.outbox import Missed, Remedy
from gateway.bus.roster import MOST_ASKED, Peers, Questions, answers
from gateway.bus.wire import Answer, Ask, Beat, Bye, Codec, Message, Refused, What
from gateway.epoch import Epoch
from gateway.metrics import Metrics
from gateway.model import (
    Again,
    Arrived,
    ConnectionInfo,
    MarkedRead,
    Passing,
    RevocationsChanged,
    Roster,
    Signal,
    Withdrawn,
)
from gateway.ports import Clock, Receiver

log = logging.getLogger("gateway.bus")

BEAT_S = 1.5
ANSWER_S = 1.0
"""Seconds the other nodes have to name their connections."""
FAREWELL_S = 0.5
COMPLAIN_EVERY_S = 60.0


class RedisBus:
    """Implements ``ports.Bus`` over one server or a cluster.

    ``secret``: 32 bytes that all nodes of this gateway share, and nobody else: names of channels and the authenticity
    of messages come from it. ``epoch``: the log as this node knows it. ``beat``: seconds between heartbeats; a link is
    dead after three that are not heard.
    The constructor opens nothing. Raises ValueError for a URL that cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        node: str,
        secret: bytes,
        clock: Clock,
        monotonic: Callable[[], float],
        metrics: Metrics,
        epoch: Epoch,
        beat: float = BEAT_S,
    ) -> None:
        self._node, self._monotonic, self._metrics = node, monotonic, metrics
        self._me = os.urandom(8)
        self._codec = codec = Codec(secret, sender=self._me, clock=clock, monotonic=monotonic, epoch=epoch)
        self._missed = missed = Missed(more=lambda: self._links.carrier.wake())
        self._links = Links(
            Server.of(url),
            make=lambda server, number: Link(
                server, owner=self, codec=codec, node=node, stream=number, missed=missed, beat=beat
            ),
            codec=codec,
        )
        for channel in (codec.everybody, codec.node(self._me)):
            self._links.of(channel).want(channel)
        self._peers = Peers(lasting=(UNHEARD + 0.5) * beat)
        self._questions = Questions()
        self._receiver: Receiver | None = None
        self._watched: set[str] = set()
        self._still_heard: dict[str, None] = {}
        self._complained_at = float("-inf")
        metrics.watch_bus(lambda: self.trouble is None)

    # -- what the core asks of it ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def listen(self, receiver: Receiver) -> AsyncIterator[None]:
        self._receiver = receiver
        running = asyncio.create_task(self._links.run(), name="bus")
        try:
            yield
            await self._farewell()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            self._receiver = None

    async def _farewell(self) -> None:
        """What was published goes out before the last word, unless that takes long."""
        self._post(self._codec.everybody, Bye(), None)
        try:
            async with asyncio.timeout(FAREWELL_S):
                while self._links.trouble is None and not all(link.empty for link in self._links):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pass

    def publish(self, signals: Sequence[Signal]) -> None:
        self._deliver(signals)
        for signal in signals:
            try:
                self._carry(signal)
            except Exception:  # whoever published has committed: a bug here must not tell them that it failed
                log.exception("a signal could not be sent")
                self._missed.add(Again(None))

    def _carry(self, signal: Signal) -> None:
        codec = self._codec
        match signal:
            case RevocationsChanged():
                self._post(codec.everybody, signal, signal)
            case Passing(None, _, _, _):
                self._post(codec.everybody, signal, None)
            case Passing(tuple(user_ids), _, _, _):
                for user_id in user_ids:
                    self._post(codec.user(user_id), signal, None)
            case Again():
                self._post(codec.everybody, signal, signal)
            case Arrived() | MarkedRead() | Withdrawn():
                self._post(codec.user(signal.user_id), signal, Again((signal.user_id,)))

    def _post(self, channel: bytes, what: What, remedy: Remedy) -> None:
        self._links.of(channel).post(channel, what, remedy)

    def watch(self, user_id: str) -> None:
        self._watched.add(user_id)
        channel = self._codec.user(user_id)
        if self._links.of(channel).want(channel):
            if not self._still_heard:
                asyncio.get_running_loop().call_soon(self._name_still_heard)
            self._still_heard[user_id] = None

    def _name_still_heard(self) -> None:
        """Users who were watched again before the channel was given up: no confirmation will name them."""
        users, self._still_heard = tuple(self._still_heard), {}
        self._resync(users)

    def unwatch(self, user_id: str) -> None:
        self._watched.discard(user_id)
        channel = self._codec.user(user_id)
        self._links.of(channel).unwant(channel)

    @property
    def trouble(self) -> str | None:
        return self._links.trouble

    async def connections(self, user_id: str | None, *, after: str | None, limit: int) -> Roster:
        found = self._own_connections(user_id, after, limit)
        living = self._peers.living()
        if self._links.carrier.trouble is not None:
            return Roster(tuple(found), missing=tuple(sorted(living.values())))
        question = await self._questions.ask(
            living,
            lambda number: self._post(self._codec.everybody, Ask(number, user_id, after, limit), None),
            within=ANSWER_S,
        )
        found = sorted([*found, *question.found], key=lambda one: one.id)[:limit]
        return Roster(tuple(found), missing=tuple(sorted(living[sender] for sender in question.open)))

    def _own_connections(self, user_id: str | None, after: str | None, limit: int) -> Sequence[ConnectionInfo]:
        return () if self._receiver is None else self._receiver.connections(user_id, after=after, limit=limit)

    # -- what comes in ---------------------------------------------------------------------------------------------

    def greeted(self, link: Link, greeting: Greeting) -> None:
        self._links.greeted(greeting)

    def subscribed(self, link: Link, channels: Sequence[bytes]) -> None:
        users = []
        for channel in channels:
            if (user_id := self._codec.user_of(channel)) is not None:
                users.append(user_id)
            if channel == self._codec.everybody:
                self._deliver([RevocationsChanged()])  # the bell may have rung meanwhile
            if channel == link.beat_channel:
                link.beat()
        self._again(users)

    def taken_away(self, link: Link, channel: bytes) -> None:
        self._links.taken_away(channel)

    def sent(self, amount: int) -> None:
        self._metrics.bus_sent.inc(amount)

    def unsent(self, amount: int) -> None:
        self._metrics.bus_dropped("unsent", amount)

    def messages(self, link: Link, messages: Sequence[tuple[bytes, bytes]]) -> None:
        signals: list[Signal] = []
        for channel, data in messages:
            own = self._codec.own(data)
            if own and channel != link.beat_channel:
                continue
            try:
                message = self._codec.decode(channel, data)
            except Refused as refused:
                self._refused(refused.reason)
                if refused.late is not None and not own:
                    self._late(refused.late)
                continue
            what = message.what
            if own:
                if isinstance(what, Beat):
                    self._beaten(link)
            elif isinstance(what, Arrived | MarkedRead | Withdrawn | Passing | RevocationsChanged):
                signals.append(what)
            else:
                self._heard(message)
        if signals:
            self._metrics.bus_received.inc(len(signals))
            self._deliver(signals)

    def _refused(self, reason: str) -> None:
        self._metrics.bus_dropped(reason, 1)
        now = self._monotonic()
        if reason not in ("unknown", "replayed", "epoch") and now >= self._complained_at + COMPLAIN_EVERY_S:
            self._complained_at = now
            log.warning(
                "a message on the bus was refused: %s",
                "its time is more than a minute off, compare the clocks of the nodes" if reason == "stale" else reason,
            )

    def _late(self, what: What) -> None:
        """Believed only as far as looking costs: what it is about may have changed, now or long ago."""
        match what:
            case Arrived() | MarkedRead() | Withdrawn():
                self._again((what.user_id,))
            case Again(user_ids):
                self._again(user_ids)
            case RevocationsChanged():
                self._deliver([what])

    def _beaten(self, link: Link) -> None:
        link.beaten()
        if link is self._links.carrier:
            self._peers.heard(at=self._monotonic())

    def _heard(self, message: Message) -> None:
        match message.what:
            case Beat(node):
                if self._peers.seen(message.sender, node, at=self._monotonic()):
                    self._links.carrier.beat()  # it does not know this node either
            case Bye():
                self._peers.gone(message.sender)
            case Again(user_ids):
                self._again(user_ids)
            case Ask(number, user_id, after, limit):
                found = self._own_connections(user_id, after, min(limit, MOST_ASKED))
                for answer in answers(number, found):
                    self._post(self._codec.node(message.sender), answer, None)
            case Answer():
                self._questions.take(message.sender, message.what)

    # -- to this node's receiver -----------------------------------------------------------------------------------

    def _deliver(self, signals: Sequence[Signal]) -> None:
        if self._receiver is None:
            return
        try:
            self._receiver.signals(signals)
        except Exception:  # a bug in delivering must cost neither the publisher its answer nor the bus its connection
            log.exception("signals could not be delivered")

    def _again(self, user_ids: Sequence[str] | None) -> None:
        """Those of them who are watched here."""
        self._resync(None if user_ids is None else [user_id for user_id in user_ids if user_id in self._watched])

    def _resync(self, user_ids: Sequence[str] | None) -> None:
        if self._receiver is None or (user_ids is not None and not user_ids):
            return
        self._metrics.bus_resynced.inc(len(self._watched if user_ids is None else user_ids))
        try:
            self._receiver.resync(user_ids)
        except Exception:  # as above
            log.exception("a resync could not be delivered")
