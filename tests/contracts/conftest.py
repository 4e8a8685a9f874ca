"""The adapters that every contract test runs over, and a small world to act in. No assertions."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from stores import signing_in

from gateway.model import Actor, Append, Appended, Draft, Session, SignIn, Stored, User
from gateway.store.engine import Store, open_store

DAY = 24 * 3600 * 1000


@dataclass
class World:
    """Users, sessions and pushes in one line each. ``now`` moves only when a test moves it."""

    store: Store
    now: int = 1_700_000_000_000
    by: Actor = field(default_factory=lambda: Actor("u-admin", "192.0.2.1", "req-1"))
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def until(self) -> int:
        return self.now + 1_000_000

    async def user(self, id: str = "ann") -> User:
        return await self.store.users.create(
            id=id, username=f"name of {id}", role="user", password_hash=f"hash of {id}", by=self.by, now=self.now
        )

    async def session(self, user_id: str = "ann", *, id: str | None = None, limit: int = 100) -> Session:
        session, _ = await self.store.sessions.start(self.sign_in(user_id, id=id, limit=limit))
        return session

    def sign_in(
        self,
        user_id: str = "ann",
        *,
        id: str | None = None,
        limit: int = 100,
        hashes: frozenset[str] | None = None,
        identity: tuple[str, str] | None = None,
    ) -> SignIn:
        return signing_in(
            id or f"s{next(self.numbers)}",
            user_id,
            now=self.now,
            until=self.until,
            device="phone",
            limit=limit,
            hashes=hashes,
            identity=identity,
            by=Actor(user_id, "192.0.2.7", "req-2"),
        )

    def draft(
        self, user_id: str = "ann", *, ttl: int = DAY, text: str = '"title":"t"', category: str | None = None
    ) -> Draft:
        return Draft(f"n{next(self.numbers)}", user_id, text, category, self.now, self.now + ttl, online=True)

    async def append(
        self, *drafts: Draft, sender: str = "c~shop", key: tuple[str, bytes] | None = None, listed: bool = False
    ) -> Appended:
        return await self.store.inbox.append(Append(sender, drafts, key, listed))

    async def push(self, user_id: str = "ann", amount: int = 1, *, ttl: int = DAY, text: str = "x") -> list[Stored]:
        return [(await self.append(self.draft(user_id, ttl=ttl, text=text))).outcomes[0] for _ in range(amount)]

    async def counters(self, user_id: str = "ann") -> tuple[int, int, int]:
        """head, rev, unread"""
        state = (await self.store.inbox.states([user_id]))[user_id]
        return state.head, state.rev, state.unread


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite database: copying it is quicker than making one."""
    path = tmp_path_factory.mktemp("blank") / "gateway.db"

    async def make() -> None:
        async with open_store(f"sqlite+aiosqlite:///{path}"):
            pass

    asyncio.run(make())
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of every kind."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("blank"), tmp_path / "gateway.db")
        return f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
    return str(request.getfixturevalue("database")())


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    """Every adapter of the durable ports."""
    async with open_store(url, inbox_max=10) as opened:
        yield opened


@pytest.fixture
def world(store: Store) -> World:
    return World(store)
