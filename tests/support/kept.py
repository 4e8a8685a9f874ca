"""Failed sign-ins kept in a dictionary: the port ``Failures`` for tests whose subject is not the database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from gateway.errors import StoreUnavailable


class KeptFailures:
    """Every method lets others run before and after it acts. ``readable``, ``writable``: whether it can be had.
    ``answering``: what was read is on its way until this is set."""

    def __init__(self) -> None:
        self.rows: dict[bytes, int] = {}
        self.readable = self.writable = True
        self.reads = self.writes = 0
        self.answering = asyncio.Event()
        self.answering.set()

    async def until(self, keys: Sequence[bytes]) -> Mapping[bytes, int]:
        await _turn()
        if not self.readable:
            raise StoreUnavailable
        self.reads += 1
        found = {key: self.rows[key] for key in keys if key in self.rows}
        await _turn()
        await self.answering.wait()
        return found

    async def add(self, counts: Sequence[tuple[bytes, int, int]], *, now: int) -> None:
        await self._write()
        for key, step, full in counts:
            until = self.rows.get(key, 0)
            since = until if now <= until <= now + 2 * full else now
            self.rows[key] = min(since + step, now + full)
        await _turn()

    async def clear(self, keys: Sequence[bytes]) -> None:
        await self._write()
        for key in keys:
            self.rows.pop(key, None)

    async def purge(self, *, now: int, limit: int) -> int:
        empty = [key for key, until in self.rows.items() if until <= now][:limit]
        await self.clear(empty)
        return len(empty)

    async def _write(self) -> None:
        await _turn()
        if not self.writable:
            raise StoreUnavailable
        self.writes += 1


async def _turn() -> None:
    turned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turned.set_result, None)
    await turned
