"""PostgreSQL and Redis for several nodes: as an administrator would run them, unlike the tests'. Measures nothing."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.load import family_of
from benchmarks.servers import HERE, Server, node

sys.path.append(str(HERE.parent / "tests/support"))  # the tests' own servers; last, so that it hides nothing
from servers import Postgres, Redis

SERIOUS = {
    "fsync": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "effective_cache_size": "4GB",
}
"""Everything else as PostgreSQL comes: a commit waits for the disk."""


@dataclass(frozen=True, slots=True)
class Backends:
    postgres: Postgres
    redis: Redis

    def pin(self, core: int | None) -> None:
        """Both servers on this core, or again on any; what they start later too."""
        cores = set(range(os.cpu_count() or 1)) if core is None else {core}
        for pid in (*family_of(self.postgres.pid), self.redis.pid):
            os.sched_setaffinity(pid, cores)

    def fill(self, database: str, rows: Callable[[Connection], None]) -> None:
        asyncio.run(_run(self.postgres.url(database), rows))

    def prepare(self, database: str, rows: Callable[[Connection], None]) -> None:
        """A new database with the schema, by the gateway, and ``rows``."""
        with node("migrating", self.postgres.create(database)):
            pass
        self.fill(database, rows)
        self.postgres.sql("VACUUM ANALYZE", database=database)
        self.postgres.sql("CHECKPOINT")

    @contextmanager
    def nodes(
        self, count: int, database: str, *, core: int | None = None, **settings: str
    ) -> Iterator[tuple[Server, ...]]:
        """So many gateways over both; they hear each other when the block begins."""
        with ExitStack() as stack:
            url = self.postgres.url(database)
            started = tuple(
                stack.enter_context(
                    node(f"node-{number}", url, core=core, redis_url=self.redis.url(), node=f"n{number}", **settings)
                )
                for number in range(count)
            )
            for one in started:
                _until_it_hears_the_others(one)
            yield started


@contextmanager
def backends(directory: Path) -> Iterator[Backends]:
    """Raises RuntimeError if there is no such server on this machine."""
    with ExitStack() as stack:
        for name in ("postgres", "redis"):
            (directory / name).mkdir()
        postgres = Postgres(directory / "postgres", options=SERIOUS)
        redis = Redis(directory / "redis")
        stack.callback(postgres.stop)
        postgres.start()
        stack.callback(redis.stop)
        redis.start()
        yield Backends(postgres, redis)


async def _run(url: str, rows: Callable[[Connection], None]) -> None:
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(rows)
    finally:
        await engine.dispose()


def _until_it_hears_the_others(one: Server) -> None:
    for _ in range(500):
        with urllib.request.urlopen(f"http://127.0.0.1:{one.port}/readyz", timeout=5) as answer:
            if json.load(answer) == {"status": "ready"}:
                return
        time.sleep(0.02)
    raise SystemExit(f"{one.name} does not reach Redis")
