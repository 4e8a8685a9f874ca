"""What a node holds (I11): memory, descriptors, connections to PostgreSQL. Measures from outside, keeps no history."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from clusters import named
from faulty import Row
from plan import Site
from servers import Postgres
from wire import eventually_async

SHARE = 1.1
"""How much of what it held before a node may hold once all is healed."""
MEMORY = 24 << 20
FILES = 8
"""On top of that: a young process still grows, and devices come and go. Bytes, descriptors."""
CONNECTIONS = 11
"""To PostgreSQL, of one node: GATEWAY_DATABASE_CONNECTIONS, and one for revocations. A hard cap."""


@dataclass(frozen=True, slots=True)
class Held:
    """By node: bytes of resident memory, open descriptors, connections."""

    memory: dict[str, int]
    files: dict[str, int]
    connections: dict[str, int]

    def __str__(self) -> str:
        memory = max(self.memory.values()) >> 20
        return f"{memory}MB/{max(self.files.values())}fd/{max(self.connections.values(), default=0)}pg"

    def excess(self, before: Held) -> list[str]:
        """What is held beyond what was held ``before``."""
        told = []
        for name, bytes in self.memory.items():
            if bytes > before.memory[name] * SHARE + MEMORY:
                told.append(f"{name} holds {bytes >> 20} MB, held {before.memory[name] >> 20} MB")
        for name, count in self.files.items():
            if count > before.files[name] * SHARE + FILES:
                told.append(f"{name} has {count} descriptors open, had {before.files[name]}")
        return told + self.beyond_the_cap()

    def beyond_the_cap(self) -> list[str]:
        return [
            f"{name} has {count} connections to PostgreSQL, more than {CONNECTIONS}"
            for name, count in self.connections.items()
            if count > CONNECTIONS
        ]


async def held(sites: Sequence[Site], server: Postgres, url: str) -> Held:
    """Now. PostgreSQL has to answer."""
    counted = await server.ask(
        "SELECT application_name AS name, count(*) AS many FROM pg_stat_activity"
        f" WHERE datname = '{named(url)}' AND application_name LIKE 'gateway%' GROUP BY application_name"
    )
    nodes = {site.name: site.node for site in sites}
    plain = sum(row["many"] for row in counted if row["name"] == "gateway")  # which node's it is it does not say
    connections = {
        name: sum(row["many"] for row in counted if row["name"] == f"gateway {name}") + -(-plain // len(nodes))
        for name in nodes
    }
    return Held(
        {name: node.resident() for name, node in nodes.items()},
        {name: node.open_files() for name, node in nodes.items()},
        connections,
    )


async def given_back(before: Held, row: Row, sites: Sequence[Site], server: Postgres, url: str) -> None:
    """I11: within half a minute of the heal the nodes hold no more than before. Told in the row."""
    healed = time.monotonic()
    now = before

    async def back() -> bool:
        nonlocal now
        now = await held(sites, server, url)
        return not now.excess(before)

    try:
        await eventually_async(back, within=30, what="I11: what was taken is given back")
    except AssertionError as error:
        error.add_note("; ".join(now.excess(before)))
        raise
    row.also |= {"held": f"{before}>{now}", "given_back_s": round(time.monotonic() - healed, 1)}
