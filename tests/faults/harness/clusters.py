"""PostgreSQL as a row breaks it: killed or stopped as a whole, copied, examined. Puts no load on it, judges no history.

Whatever is done here to a server is done to its processes or by SQL of a stranger; the gateways are not asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
from faultproxy import Link
from faulty import FastNode
from plan import Site
from servers import Postgres, Redis
from wire import eventually, eventually_async

SAID = ("the database cannot be ", "news of revocations cannot be read")
"""What a node logs as an error when its database is broken, and rightly."""


async def start_nodes(
    launch: Callable[..., FastNode], urls: Sequence[str], redis: Redis, **settings: Any
) -> list[Site]:
    """One node for each of these database URLs, which may all be of one database."""
    nodes = [
        launch(wait=False, node=f"n{number}", database_url=url, redis_url=redis.url(), log_level="info", **settings)
        for number, url in enumerate(urls)
    ]
    for node in nodes:
        await asyncio.to_thread(node.until_ready)
    return [Site.of(f"n{number}", node) for number, node in enumerate(nodes)]


def bugs(sites: Iterable[Site]) -> list[str]:
    """What the nodes complain of, but for a database that somebody has broken."""
    return [
        line for site in sites for line in site.node.complaints() if not any(said in line for said in SAID)
    ]  # fmt: skip


def named(url: str) -> str:
    """The database a URL leads to."""
    return url.rpartition("/")[2]


def through(link: Link, url: str) -> str:
    """The same database, by way of ``link``."""
    return f"postgresql+asyncpg://postgres@127.0.0.1:{link.port}/{named(url)}"


@contextlib.asynccontextmanager
async def by_hand(server: Postgres, database: str) -> AsyncIterator[Any]:
    """A connection of a stranger."""
    connection = await asyncpg.connect(f"postgresql://postgres@127.0.0.1:{server.port}/{database}")
    try:
        yield connection
    finally:
        await connection.close()


# -- its processes ----------------------------------------------------------------------------------------------------


def processes(server: Postgres) -> list[int]:
    """The server's first process, and everything it has started."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return [server.pid, *(int(pid) for pid in children)]


def kill_all(server: Postgres) -> None:
    """SIGKILL to every process at once: none of them finishes what it was doing."""
    for pid in processes(server):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.kill()


@contextlib.contextmanager
def stopped(pids: Iterable[int]) -> Iterator[None]:
    """These stand still inside the block, their sockets open."""
    pids = list(pids)
    _signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(pids, signal.SIGCONT)


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Pair:
    """A server and the copy that may take its place. ``follow`` comes after the database is made."""

    def __init__(self, root: Path) -> None:
        for name in ("first", "second"):
            (root / name).mkdir()
        self.first = Postgres(root / "first", options={"wal_level": "replica", "max_wal_senders": "4"}).start()
        self.second = Postgres(root / "second", options={"hot_standby": "on"})
        self._upstream: dict[str, str] = {}

    def follow(self, *, synchronous: bool) -> None:
        """The copy begins to follow. ``synchronous``: from now on a commit waits until the copy has it too."""
        self.first.tool(
            "pg_basebackup", "-h", "127.0.0.1", "-p", str(self.first.port), "-U", "postgres", "-c", "fast",
            "-D", str(self.second.data), "-X", "stream", "--write-recovery-conf",
        )  # fmt: skip
        self.second.start()
        if synchronous:  # only now: the copy must not have it, or it waits for a copy of its own one day
            self.first.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
            self.first.sql("SELECT pg_reload_conf()")
        state = "sync" if synchronous else "async"
        asked = f"SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = '{state}'"
        eventually(lambda: self.first.sql(asked), what="the copy follows")

    def part(self) -> None:
        """The copy hears no more of the first server: not even what is on its way."""
        [self._upstream] = self.second.sql("SELECT current_setting('primary_conninfo') AS is")
        self.second.sql("ALTER SYSTEM SET primary_conninfo = ''")
        self.second.sql("SELECT pg_reload_conf()")
        eventually(lambda: not self.first.sql("SELECT 1 FROM pg_stat_replication"), what="they are parted")

    def rejoin(self) -> None:
        upstream = self._upstream["is"].replace("'", "''")
        self.second.sql(f"ALTER SYSTEM SET primary_conninfo = '{upstream}'")
        self.second.sql("SELECT pg_reload_conf()")

    def promote(self) -> None:
        self.second.tool("pg_ctl", "promote", "-D", str(self.second.data), "-w")

    def end(self) -> None:
        for server in (self.first, self.second):
            if server.running:
                server.resume()
                server.stop(how="immediate")


# -- whether it is sound (I14) ----------------------------------------------------------------------------------------

_HOLES = (
    "SELECT user_id, count(*), min(seq), max(seq) FROM inbox GROUP BY user_id"
    " HAVING count(*) <> max(seq) - min(seq) + 1"
)
_HEADS = (
    "SELECT user_id, head, stored, found.top, found.many FROM inboxes LEFT JOIN"
    " (SELECT user_id, max(seq) AS top, count(*) AS many FROM inbox GROUP BY user_id) AS found USING (user_id)"
    " WHERE head < coalesce(top, 0) OR stored <> coalesce(many, 0)"
)
_LOST = "SELECT user_id FROM inboxes WHERE head <> stored"
_OPEN = "SELECT pid, state, query FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"


async def examine(server: Postgres, url: str, *, whole: bool = False) -> None:
    """I14: every table and index is sound, and so are the numbers. ``whole``: nothing has left any inbox.

    Takes locks that a busy gateway would wait for: not under load.
    """
    database = named(url)
    done = await asyncio.to_thread(
        server.tool, "pg_amcheck", "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "--install-missing",
        "--heapallindexed", "--parent-check", database, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
    for question in (_HEADS, *((_HOLES, _LOST) if whole else ())):
        found = await server.ask(question, database=database)
        assert found == [], f"{question}: {found[:5]}"


async def nothing_left_open(server: Postgres) -> None:
    """No transaction stands open with nobody asking anything of it."""

    async def none() -> bool:
        return not await server.ask(_OPEN)

    await eventually_async(none, within=10, what="no transaction is left open")
