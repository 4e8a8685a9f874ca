"""A node of which there is only the presence, for tests that want several over one Redis."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import Any

from wire import eventually_async

from gateway.presence.redis import RedisPresence


class PresenceNode:
    """One node on the machine's own clocks, in a hurry: a beat of 0.1 s, taken for dead after 1 s."""

    def __init__(self, url: str, name: str, **changed: Any) -> None:
        options: dict[str, Any] = {
            "node": name, "secret": b"secret", "clock": time.time, "monotonic": time.monotonic, "linger": 0.2,
            "beat": 0.1, "ttl": 1.0, **changed,
        }  # fmt: skip
        self.presence = RedisPresence(url, **options)
        self.name, self.stack = name, AsyncExitStack()

    async def start(self) -> PresenceNode:
        await self.stack.enter_async_context(self.presence.keep())
        return self

    async def stop(self) -> None:
        await self.stack.aclose()

    async def online(self, user_id: str = "ada") -> bool | None:
        return (await self.presence.online([user_id]))[user_id]

    async def sees(self, user_id: str, online: bool | None, *, within: float = 10.0) -> None:
        async def so() -> bool:
            return await self.online(user_id) is online

        await eventually_async(so, within=within, what=f"{user_id} is online: {online}")

    async def ready(self) -> PresenceNode:
        await self.sees("nobody", online=False)
        return self
