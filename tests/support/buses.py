"""Ears for a bus, and buses on a real server with a heartbeat quick enough for a test. No assertions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from freeport import free_port
from prometheus_client import generate_latest
from redis.crc import key_slot
from servers import Kind, Redis, short_directory
from wire import eventually_async

from gateway.bus.redis import RedisBus
from gateway.epoch import Epoch
from gateway.metrics import Metrics
from gateway.model import Arrived, ConnectionInfo, Entry, Signal
from gateway.ports import Bus

SECRET = b"s" * 32
KINDS: Sequence[Kind] = ("redis", "valkey")


async def a_moment(seconds: float = 0.02) -> None:
    """The pace of a load, not a wait for something."""
    await asyncio.sleep(seconds)


def arrived(user_id: str, seq: int, *, content: str = '"title":"t"') -> Arrived:
    return Arrived(user_id, Entry(seq, f"n{seq}", content, 1, 2))


def connection(id: str, user_id: str = "ada", *, node: str = "n") -> ConnectionInfo:
    return ConnectionInfo(id, user_id, "s1", node, "websocket", "192.0.2.1", 1, 2, behind=False)


@dataclass
class Ear:
    """Implements ``ports.Receiver``."""

    heard: list[Signal] = field(default_factory=list)
    resyncs: list[tuple[str, ...] | None] = field(default_factory=list)
    open: list[ConnectionInfo] = field(default_factory=list)

    def signals(self, signals: Sequence[Signal]) -> None:
        self.heard += signals

    def resync(self, user_ids: Iterable[str] | None) -> None:
        self.resyncs.append(None if user_ids is None else tuple(user_ids))

    def connections(self, user_id: str | None, *, after: str | None, limit: int) -> Sequence[ConnectionInfo]:
        found = [one for one in self.open if user_id in (None, one.user_id) and (after is None or one.id > after)]
        return sorted(found, key=lambda one: one.id)[:limit]

    def told_again(self, user_id: str) -> int:
        """How often this user was to be looked at again."""
        return sum(1 for users in self.resyncs if users is None or user_id in users)

    def seqs(self, user_id: str) -> list[int]:
        return [one.entry.seq for one in self.heard if isinstance(one, Arrived) and one.user_id == user_id]


@dataclass
class Here:
    """One node's end: its bus, its ear, its counters."""

    bus: Bus
    ear: Ear
    metrics: Metrics

    async def up(self, *, within: float = 10.0) -> None:
        await eventually_async(lambda: self.bus.trouble is None, within=within, what="the bus is up")

    async def watching(self, *user_ids: str) -> None:
        """Watch these, until they are heard."""
        before = {user_id: self.ear.told_again(user_id) for user_id in user_ids}
        for user_id in user_ids:
            self.bus.watch(user_id)
        await eventually_async(
            lambda: all(self.ear.told_again(user_id) > before[user_id] for user_id in user_ids), what="all are heard"
        )

    async def hears(self, *signals: Signal, within: float = 10.0) -> None:
        await eventually_async(lambda: all(one in self.ear.heard for one in signals), within=within, what="it is heard")

    def dropped(self, reason: str) -> float:
        value = self.metrics.registry.get_sample_value("gateway_bus_messages_dropped_total", {"reason": reason})
        return value or 0.0

    def exposition(self) -> str:
        return generate_latest(self.metrics.registry).decode()


@contextlib.asynccontextmanager
async def listening(
    url: str,
    *,
    node: str = "a",
    secret: bytes = SECRET,
    beat: float = 0.2,
    up: bool = True,
    ahead: float = 0.0,
    epoch: Epoch | None = None,
) -> AsyncIterator[Here]:
    """A bus at ``url``. ``up``: wait until it is. ``ahead``: seconds by which its clock is wrong."""
    metrics = Metrics()
    bus = RedisBus(
        url,
        node=node,
        secret=secret,
        clock=lambda: time.time() + ahead,
        monotonic=time.monotonic,
        metrics=metrics,
        epoch=epoch or Epoch(),
        beat=beat,
    )
    here = Here(bus, Ear(), metrics)
    async with bus.listen(here.ear):
        if up:
            await here.up()
        yield here


@contextlib.contextmanager
def serving(kind: str, *, options: Sequence[str] = ()) -> Iterator[Redis]:
    with short_directory(f"bus-{kind}") as root:
        server = Redis(root, kind=cast("Any", kind), options=options).start()
        try:
            yield server
        finally:
            server.stop()


def _begin(server: Redis, *, clustered: bool = False) -> None:
    """Somebody else may take a free port before the server does."""
    given = tuple(server.options)
    for left in reversed(range(5)):
        if clustered:
            server.options = (
                *given, "--cluster-enabled", "yes", "--cluster-require-full-coverage", "no",
                "--cluster-node-timeout", "2000", "--cluster-port", str(free_port()),
            )  # fmt: skip
        try:
            server.start()
            return
        except RuntimeError:
            if not left:
                raise
            server.port = free_port()


class Cluster:
    """Three primaries, each with a third of the slots."""

    def __init__(self, root: Path, *, size: int = 3) -> None:
        self.servers: list[Redis] = []
        for n in range(size):
            directory = root / str(n)
            directory.mkdir()
            self.servers.append(Redis(directory, kind="valkey"))

    async def start(self) -> Cluster:
        for server in self.servers:
            _begin(server, clustered=True)
        size, slots = len(self.servers), 16384
        bounds = [n * slots // size for n in range(size + 1)]
        for n, server in enumerate(self.servers):
            server.command("CLUSTER", "ADDSLOTSRANGE", str(bounds[n]), str(bounds[n + 1] - 1))
            server.command("CLUSTER", "SET-CONFIG-EPOCH", str(n + 1))
        first = self.servers[0]
        for server in self.servers[1:]:
            server.command("CLUSTER", "MEET", "127.0.0.1", str(first.port), str(first.options[-1]))
        await eventually_async(lambda: all(self.whole(server) for server in self.servers), what="the cluster is whole")
        return self

    def whole(self, server: Redis) -> bool:
        told = server.command("CLUSTER", "INFO")
        return b"cluster_state:ok" in told and b"cluster_slots_ok:16384" in told and b"known_nodes:3" in told

    def id_of(self, server: Redis) -> str:
        return server.command("CLUSTER", "MYID").split(b"\r\n")[1].decode()

    def owner(self, channel: bytes) -> Redis:
        """Who has the slot of this channel now, as the first server that lives knows it."""
        slot = key_slot(channel)
        alive = next(server for server in self.servers if server.running)
        ids = {self.id_of(server): server for server in self.servers if server.running}
        for line in alive.command("CLUSTER", "NODES").decode().splitlines():
            words = line.split()
            for span in words[8:]:
                first, _, last = span.partition("-")
                if not span.startswith("[") and int(first) <= slot <= int(last or first) and words[0] in ids:
                    return ids[words[0]]
        raise AssertionError(f"nobody has slot {slot}")

    def stop(self) -> None:
        for server in self.servers:
            server.stop()
