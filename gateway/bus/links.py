"""Which server a channel is on: the only one there is, or one of the primaries of a cluster. Sends nothing itself."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from gateway.bus.line import Greeting, LineLost, Server, open_line
from gateway.bus.link import Link
from gateway.bus.wire import Codec

log = logging.getLogger("gateway.bus")

SURVEY_S = 1.0
"""Seconds between two looks at a cluster of which something is wrong."""

Slots = Sequence[tuple[int, int, str, int]]


class Links:
    """``seed`` is the server of the settings. ``make`` makes the link to a server, its number in this process given.

    In a cluster each primary has a link of its own, and the map is read again with every connection that is made, and
    for as long as something is wrong.
    """

    def __init__(self, seed: Server, *, make: Callable[[Server, int], Link], codec: Codec) -> None:
        self._seed, self._make, self._codec = seed, make, codec
        self._numbers = itertools.count(1)
        self._slots: Slots = ()
        self._owners: list[Link] = []
        self._tasks: dict[Link, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._taken: set[bytes] = set()
        self._look = asyncio.Event()
        self._links = [make(seed, next(self._numbers))]
        self.carrier = self._links[0]
        """The link of the channel that every node hears."""

    def __iter__(self) -> itertools.chain[Link]:
        return itertools.chain(self._links)

    @property
    def trouble(self) -> str | None:
        return next((link.trouble for link in self._links if link.trouble is not None), None)

    def of(self, channel: bytes) -> Link:
        return self._owners[key_slot(channel)] if self._owners else self.carrier

    def taken_away(self, channel: bytes) -> None:
        """A server gave up this channel: find out whose it is now."""
        self._taken.add(channel)
        self._look.set()

    async def run(self) -> None:
        """Keep every link connected, until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._group:
                for link in self._links:
                    self._start(link)
                await self._keep_looking()
        finally:
            self._group = None
            self._tasks.clear()

    def _start(self, link: Link) -> None:
        if self._group is not None:
            self._tasks[link] = self._group.create_task(link.run(), name=f"bus-{link.server.address}")

    async def _keep_looking(self) -> None:
        while True:
            try:
                async with asyncio.timeout(SURVEY_S * random.uniform(0.5, 1.0)):  # noqa: S311 - jitter
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()
            if self._taken or (self._slots and self.trouble is not None):
                try:
                    await self._survey()
                except Exception:  # a bug here must not end the links that work
                    log.exception("the servers of the bus could not be looked at")
                await asyncio.sleep(SURVEY_S / 2)

    async def _survey(self) -> None:
        """Ask whoever answers how the cluster is made up, and look for what was taken away."""
        servers = [link.server for link in self._links]
        random.shuffle(servers)
        for server in (*servers, self._seed):
            try:
                line, greeting = await open_line(server, name="gateway-survey")
            except LineLost:
                continue
            line.drop("not needed any more")
            self.greeted(greeting)
            break
        else:
            self._look.set()
            return
        taken, self._taken = self._taken, set()
        for channel in taken:
            self.of(channel).want(channel)

    def greeted(self, greeting: Greeting) -> None:
        """A server told what it is: if the cluster is another than before, the channels move to where they are now."""
        if not greeting.slots or not greeting.sharded or greeting.slots == self._slots:
            return
        if not self._slots:
            log.info("the bus is a cluster", extra={"primaries": len({slot[2:] for slot in greeting.slots})})
        self._slots = greeting.slots
        before = {(link.server.host, link.server.port): link for link in self._links}
        links: dict[tuple[str, int], Link] = {}
        for _, _, host, port in greeting.slots:
            if (host, port) not in links:
                server = replace(self._seed, host=host, port=port, path=None)
                links[host, port] = before.get((host, port)) or self._make(server, next(self._numbers))
        self._owners = [next(iter(links.values()))] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, host, port in greeting.slots:
            self._owners[first : last + 1] = [links[host, port]] * (last + 1 - first)
        self.carrier = self.of(self._codec.everybody)
        old, self._links = self._links, list(links.values())
        for link in self._links:
            link.clustered, link.carrying = True, link is self.carrier
            self._give_a_heartbeat(link)
            if link not in old:
                self._start(link)
        for link in {*old, *self._links}:
            for channel in link.wanted():
                self._move(channel, link)
        for link in set(old) - set(self._links):
            if link in self._tasks:
                self._tasks.pop(link).cancel()

    def _give_a_heartbeat(self, link: Link) -> None:
        """Each link beats on a channel of its own server: the one for everybody, or one that nobody else hears."""
        channels = (self._codec.link(tag) for tag in itertools.count())
        beat = self._codec.everybody if link is self.carrier else next(c for c in channels if self.of(c) is link)
        if beat != link.beat_channel:
            if link.beat_channel != self._codec.everybody:
                link.unwant(link.beat_channel)
            link.beat_channel = beat
        link.want(beat)

    def _move(self, channel: bytes, link: Link) -> None:
        owner = self.of(channel)
        if owner is not link:
            link.unwant(channel)
            owner.want(channel)
