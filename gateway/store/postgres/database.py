"""The connections to PostgreSQL: some that write, some that read, one for what everybody waits for. Knows no table.

Work runs in a transaction of its own and in a task of its own: a caller who is cancelled leaves neither an open
transaction nor a connection behind, and cannot split what commits.

A failure before COMMIT was sent means that nothing was kept: a lost connection or a deadlock is then tried again. After
that it is unknown, and said so: only whoever asked knows whether doing it twice is harmful.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import TypeVar

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.store.database import Durability, Work
from gateway.store.errors import StoreError
from gateway.store.finishing import Failing, UnderWay, What
from gateway.store.postgres import failing
from gateway.store.postgres.connecting import Lineage, engine, url_of
from gateway.store.postgres.failing import Meaning
from gateway.store.postgres.history import Moved

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds to wait for a free connection."""
ATTEMPTS = 6
FAILURES = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, StoreError, OSError, TimeoutError)
"""What a transaction can meet. The driver's own errors come as they are while a connection is being made."""

log = logging.getLogger("gateway.store")


class PostgresDatabase:
    """Implements ``store.database.Database``. ``connections``: at most so many, and one more for ``read_first``.

    ``lineage`` may refuse a connection by raising ``history.Moved``; one from before its mark changed is replaced.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int,
        waits_for_disk: bool | None,
        application: str = "gateway",
        lineage: Lineage | None = None,
        on_moved: Callable[[], None] = lambda: None,
    ) -> None:
        parsed = url_of(url)
        writers = max(1, connections // 2)
        self._on_moved = on_moved
        self._writers = engine(
            parsed, size=writers, isolation="READ COMMITTED", waits_for_disk=waits_for_disk, application=application,
            patience=PATIENCE, lineage=lineage,
        )  # fmt: skip
        self._readers = engine(
            parsed, size=max(1, connections - writers), isolation="REPEATABLE READ", read_only=True,
            application=application, patience=PATIENCE, lineage=lineage,
        )  # fmt: skip
        self._first = engine(
            parsed, size=1, isolation="AUTOCOMMIT", read_only=True, application=application, patience=PATIENCE,
            lineage=lineage,
        )  # fmt: skip
        self._under_way = UnderWay()
        self._failing = Failing()

    async def write(self, work: Work[T], *, grouped: bool = False) -> T:
        # What changes nothing, a key that was used before for one, succeeds in a database that cannot be written too.
        return await self._under_way.run(self._transaction(self._writers, work, "written", proves=False))

    async def read(self, work: Work[T]) -> T:
        return await self._under_way.run(self._transaction(self._readers, work, "read"))

    async def read_first(self, work: Work[T]) -> T:
        return await self._under_way.run(self._transaction(self._first, work, "read"))

    async def prove(self, work: Work[T]) -> T:
        return await self._under_way.run(self._transaction(self._writers, work, "written"))

    @property
    def refuses_writes(self) -> bool:
        return "written" in self._failing

    async def close(self) -> None:
        """Wait for what is under way and let go of every connection."""
        await self._under_way.finished()
        for pool in (self._writers, self._readers, self._first):
            await pool.dispose()

    async def _transaction(self, pool: AsyncEngine, work: Work[T], to_be: What, *, proves: bool = True) -> T:
        lost = 0
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - jitter
            try:
                result = await self._once(pool, work)
            except FAILURES as error:
                committing = isinstance(error, _CommitFailed)
                cause = error.cause if isinstance(error, _CommitFailed) else error
                if isinstance(cause, Moved):
                    self._on_moved()
                    raise self._failing.at(to_be, failing.text(cause)) from cause
                match failing.meaning(cause):
                    case Meaning.CALLERS:
                        raise cause from None
                    case Meaning.AGAIN:
                        continue  # also a commit that was refused so has kept nothing
                    case Meaning.GONE if not committing and not lost:
                        lost += 1  # the first one to notice that the server was restarted
                        continue
                    case _:
                        raise self._failing.at(to_be, failing.text(cause)) from cause
            if proves:
                self._failing.no_more(to_be)
            return result
        raise self._failing.at(to_be, "others were in the way each time")

    async def _once(self, pool: AsyncEngine, work: Work[T]) -> T:
        connection = await pool.connect()
        try:
            try:
                result = await connection.run_sync(work)
            except (TimeoutError, asyncio.CancelledError):
                await _throw_away(connection)
                raise
            try:
                await connection.commit()
            except FAILURES as error:
                await _throw_away(connection)
                raise _CommitFailed(error) from error
            return result
        finally:
            await connection.close()


class _CommitFailed(StoreError):
    """Whether it was committed is unknown, unless the database itself said that it was not."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


async def _throw_away(connection: AsyncConnection) -> None:
    """Cut it: one that does not answer would be waited for again in the rollback, for ever if the link is dead."""
    try:
        driver = (await connection.get_raw_connection()).driver_connection
        if driver is not None:
            driver.terminate()
        await connection.invalidate()
    except SQLAlchemyError:  # invalid already: that is what was wanted
        pass


def durable(durability: Durability, *, server: str) -> bool | None:
    """What ``synchronous_commit`` has to be made, where the server says ``server``; None: leave it as it is."""
    if durability == "relaxed":
        return False
    return True if server == "off" else None
