"""A loop that runs beside everything else for as long as a block does. Knows nothing of what the loop is for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

PAUSE = 1.0
"""Seconds from a failure to the next beginning."""

log = logging.getLogger("gateway")


@asynccontextmanager
async def in_background(name: str, loop: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run ``loop`` inside the block; it starts again a second after a bug has ended it."""

    async def keep() -> None:
        while True:
            try:
                await loop()
            except Exception:  # a bug in one loop must not silence it for the life of the process
                log.exception("the %s loop failed and is started again", name)
            await asyncio.sleep(PAUSE)

    task = asyncio.create_task(keep(), name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
