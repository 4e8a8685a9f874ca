"""P2: rows with several nodes on one PostgreSQL and one Redis. Clients go from node to node all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from faulty import FastNode, Row
from plan import Plan, Site
from rows import Scene, run_row
from servers import Redis


async def test_P2_one_of_three_nodes_is_killed_and_its_clients_go_on_at_the_others(
    launch: Callable[..., FastNode], row: Row, database: Callable[[], str], valkey_server: Redis, tmp_path: Path
) -> None:
    url = await asyncio.to_thread(database)
    nodes = [
        launch(wait=False, node=f"n{number}", database_url=url, redis_url=valkey_server.url(), log_level="info")
        for number in range(3)
    ]
    for node in nodes:
        await asyncio.to_thread(node.until_ready)
    sites = [Site.of(f"n{number}", node) for number, node in enumerate(nodes)]

    async def kill_one(scene: Scene) -> None:
        with scene.fault("SIGKILL", dark=sites[:1]):
            nodes[0].kill()
            await scene.load.more(200)
            victim = scene.unrevoked.pop()
            await scene.load.revoke(victim)
            await scene.load.more(100)
        await asyncio.to_thread(nodes[0].start)

    await run_row(row, sites, during=kill_one, place=tmp_path, plan=Plan(users=6, rate=300, warm=300))
    for node in nodes:
        assert node.complaints() == []
