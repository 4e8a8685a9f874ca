"""Several nodes on one PostgreSQL database and one Redis, each with its own way to Redis. Breaks nothing itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from faultproxy import Link, Links
from faulty import FastNode
from plan import Site
from servers import Redis
from wire import eventually_async


@dataclass(frozen=True, slots=True)
class Fleet:
    """``sites``: the nodes' own ports. ``ways``: the link of each node to Redis, in the order of ``nodes``."""

    nodes: Sequence[FastNode]
    sites: Sequence[Site]
    ways: Sequence[Link]
    redis: Redis

    def sites_by(self, links: Links) -> tuple[list[Site], list[Link]]:
        """A link before every node, for its clients."""
        fronts = [links.link(f"front{number}", node.port) for number, node in enumerate(self.nodes)]
        return [Site(site.name, site.node, front.port) for site, front in zip(self.sites, fronts, strict=True)], fronts

    async def hear(self, *, within: float = 10.0) -> None:
        """Until every node says that hints of the others reach it."""
        for node in self.nodes:
            await said(node, "ready", within=within)

    async def deaf(self, *, within: float = 8.0) -> None:
        """Until every node says that they do not."""
        for node in self.nodes:
            await said(node, "degraded", within=within)

    def complaints(self) -> list[str]:
        return [line for node in self.nodes for line in node.complaints()]


async def said(node: FastNode, status: str, *, within: float) -> None:
    """Until its /readyz says so."""

    async def it_does() -> bool:
        answer = await asyncio.to_thread(node.request, "GET", "/readyz")
        return bool(answer.json()["status"] == status)

    await eventually_async(it_does, within=within, what=f"{status} at {node.url}")


async def assemble(
    launch: Callable[..., FastNode],
    database: Callable[[], str],
    links: Links,
    redis: Redis,
    *,
    count: int = 3,
    **settings: object,
) -> Fleet:
    """``count`` nodes that hear each other."""
    url = await asyncio.to_thread(database)
    ways = [links.link(f"redis{number}", redis.port) for number in range(count)]
    nodes = [
        launch(
            wait=False, node=f"n{number}", database_url=url, redis_url=f"redis://127.0.0.1:{way.port}/0",
            **{"log_level": "info", **settings},
        )
        for number, way in enumerate(ways)
    ]  # fmt: skip
    for node in nodes:
        await asyncio.to_thread(node.until_ready)
    fleet = Fleet(nodes, [Site.of(f"n{number}", node) for number, node in enumerate(nodes)], ways, redis)
    await fleet.hear()
    return fleet


def metric(node: FastNode, name: str) -> float:
    """The value of one line of /metrics, its labels included as they stand there; 0 if it is not there."""
    text = node.request("GET", "/metrics", token=node.admin, expect=200).text
    return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)
