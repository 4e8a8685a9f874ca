"""What several suites ask of an open store. Opens none."""

from __future__ import annotations

from gateway.model import Actor, SignIn
from gateway.store.engine import Store

YEAR = 365 * 24 * 3600 * 1000


async def people(store: Store) -> int:
    """How many users there are, up to a thousand."""
    users, _ = await store.users.list(query=None, limit=1000, cursor=None)
    return len(users)


def signing_in(
    id: str,
    user_id: str,
    *,
    now: int,
    until: int,
    device: str | None = None,
    limit: int = 100,
    hashes: frozenset[str] | None = None,
    identity: tuple[str, str] | None = None,
    by: Actor | None = None,
) -> SignIn:
    """The session ``id`` of a user, for a year."""
    return SignIn(
        id=id,
        user_id=user_id,
        device=device,
        refresh_hash=b"hash 0",
        now=now,
        expires_at=now + YEAR,
        limit=limit,
        until=until,
        hashes=hashes,
        identity=identity,
        action="login",
        target=id,
        detail={"device": device},
        by=by or Actor(user_id),
    )
