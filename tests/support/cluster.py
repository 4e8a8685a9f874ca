"""Several real gateways on one new PostgreSQL database, over one Redis or none. Breaks nothing by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from faulty import FastNode
from servers import Redis
from wire import HS256_KEYS, Node, eventually


class Cluster:
    """Called, it starts so many nodes. ``database`` makes a new one; ``place`` a directory of that name."""

    def __init__(self, database: Callable[[], str], place: Callable[[str], Path]) -> None:
        self._database, self._place = database, place
        self._started: list[FastNode] = []

    @classmethod
    @contextlib.contextmanager
    def opened(cls, database: Callable[[], str], place: Callable[[str], Path]) -> Iterator[Cluster]:
        """At the end of the block all that still run have to stop well and may not have failed inside."""
        cluster = cls(database, place)
        try:
            yield cluster
            for node in cluster._started:
                if node.process is not None and node.process.poll() is None:
                    assert node.stop() == 0
                    assert node.complaints() == []
        finally:
            for node in cluster._started:
                node.end()

    def __call__(self, count: int, *, redis: Redis | None = None, **settings: Any) -> list[FastNode]:
        """``count`` nodes that are ready and hear the bus, if there is one."""
        shared: dict[str, Any] = {"database_url": self._database(), "signing_keys": HS256_KEYS, **settings}
        if redis is not None:
            shared["redis_url"] = redis.url()
        nodes = []
        for number in range(count):
            nodes.append(FastNode(self._place(f"node{number}-"), node=f"n{number}", **shared))
            self._started.append(nodes[-1])
            nodes[-1].start(wait=False)
        for node in nodes:
            node.until_ready()
            if redis is not None:
                eventually(partial(hears_the_bus, node), what="the bus")
        return nodes


def hears_the_bus(node: Node) -> bool:
    return bool(node.request("GET", "/readyz").json() == {"status": "ready"})
