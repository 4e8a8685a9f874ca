"""G7, T1: the clocks of PostgreSQL and of the nodes differ. No deadline is taken from a clock but the node's own.

The server's clock is moved for real, by a shim before the C library; the nodes' clocks are values, as everywhere.
"""

from __future__ import annotations

import ast
import asyncio
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clocks import Clock
from clusters import by_hand, examine, start_nodes
from faulty import FastNode, Row
from plan import Plan
from rows import Scene, run_row
from servers import Postgres, Redis, short_directory
from wire import ROOT

from gateway.model import Actor, Append, Draft
from gateway.store.engine import open_store

HOUR = 3600
MINUTES = 5 * 60_000
NOW = 1_700_000_000_000
BY = Actor("a")


@pytest.fixture
def displaced(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """A server whose clock is ``request.param`` seconds ahead."""
    with short_directory("clock") as directory:
        clock = Clock(directory)
        clock.set(request.param)
        (directory / "pg").mkdir()
        server = Postgres(directory / "pg", environment=clock.environment)
        yield server.start()
        server.stop(how="immediate")


@pytest.mark.nightly
@pytest.mark.parametrize("displaced", [HOUR, -HOUR], indirect=True, ids=["an hour ahead", "an hour behind"])
async def test_G7_a_server_whose_clock_is_an_hour_off_expires_nothing_early_and_keeps_nothing_longer(
    launch: Callable[..., FastNode], row: Row, displaced: Postgres, valkey_server: Redis, tmp_path: Path
) -> None:
    url = await asyncio.to_thread(displaced.create, "gw")
    sites = await start_nodes(launch, [url, url], valkey_server)

    async def another_hour(scene: Scene) -> None:
        async with by_hand(displaced, "gw") as stranger:
            shown = float(await stranger.fetchval("SELECT extract(epoch FROM now())"))
        assert abs(abs(shown - time.time()) - HOUR) < 60, "the clock was not moved"
        with scene.fault("another hour"):
            await scene.load.more(150)

    # A few live for seconds: those must go, and nothing else.
    await run_row(row, sites, during=another_hour, place=tmp_path, plan=Plan(short_lived=0.1))
    await examine(displaced, url)
    for site in sites:
        assert site.node.complaints() == []


async def test_T1_numbers_and_expiry_follow_the_order_of_commits_and_the_time_that_is_asked_about(
    database: Callable[[], str],
) -> None:
    """Two nodes, one five minutes ahead, the other as much behind."""
    url = await asyncio.to_thread(database)
    async with open_store(url) as ahead, open_store(url) as behind:
        await ahead.users.create(id="ann", username="ann", role="user", password_hash="x", by=BY, now=NOW + MINUTES)
        for number in range(6):
            node, now = ((ahead, NOW + MINUTES), (behind, NOW - MINUTES))[number % 2]
            draft = Draft(f"n{number}", "ann", '"title":"t"', None, now, now + 2 * MINUTES)
            appended = await node.inbox.append(Append("c~shop", (draft,)))
            assert appended.outcomes[0].seq == number + 1
        # Whoever's clock it is, an entry is there until its own deadline, and a number that is over is told as such.
        page = await behind.inbox.page("ann", after=0, now=NOW - MINUTES)
        assert [entry.seq for entry in page.entries] == [1, 2, 3, 4, 5, 6]
        page = await ahead.inbox.page("ann", after=0, now=NOW + MINUTES)
        assert ([entry.seq for entry in page.entries], page.upto) == ([1, 3, 5], 6)


_CLOCKS = re.compile(
    r"\b(now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday|unixepoch|julianday|strftime)\(|"
    r"\b(current_timestamp|current_date|current_time|localtime|localtimestamp)\b",
    re.IGNORECASE,
)
_ALLOWED = {"gateway/store/postgres/history.py": 1}
"""The name of a new epoch, and the line about it in the audit: nothing is compared with either."""


def test_G7_no_statement_asks_the_database_for_the_time() -> None:
    """In the store and the migrations: in text, or as ``func.now()``."""
    found: dict[str, int] = {}
    for path in sorted([*(ROOT / "gateway" / "store").rglob("*.py"), *(ROOT / "migrations").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            asks = (
                (isinstance(node, ast.Constant) and isinstance(node.value, str) and _CLOCKS.search(node.value))
                or (isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "func"
                and _CLOCKS.search(f"{node.attr}("))
            )  # fmt: skip
            if asks:
                name = str(path.relative_to(ROOT))
                found[name] = found.get(name, 0) + 1
    assert found == _ALLOWED
