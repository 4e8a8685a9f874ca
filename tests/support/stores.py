"""What several suites ask of an open store. Opens none."""

from __future__ import annotations

from gateway.store.engine import Store


async def people(store: Store) -> int:
    """How many users there are, up to a thousand."""
    users, _ = await store.users.list(query=None, limit=1000, cursor=None)
    return len(users)
