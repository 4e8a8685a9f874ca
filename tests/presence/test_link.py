"""The link to Redis, in the loop that the gateway runs in: however a connection breaks, it is one word."""

from __future__ import annotations

from typing import Any

import uvloop
from servers import Redis

from gateway.redis_link import Link, Unreached


def test_a_connection_that_is_gone_before_anybody_noticed_is_unreached_and_the_next_one_works(redis: Redis) -> None:
    async def told() -> tuple[str, list[Any]]:
        link = Link(redis.url())
        await link.send([("PING",)], within=5)
        (connection,) = link._client.connection_pool._available_connections
        # It is reset between the look at whether it is well and the writing, and nobody was told.
        write = connection.send_packed_command

        async def too_late(*what: Any, **how: Any) -> None:
            connection.send_packed_command = write
            connection._writer.transport.abort()
            await connection._writer.wait_closed()
            await write(*what, **how)

        connection.send_packed_command = too_late
        try:
            await link.send([("PING",)], within=5)
        except Unreached as error:
            why = str(error)
        else:
            why = "it was reached"
        again = await link.send([("PING",)], within=5)
        await link.close()
        return why, again

    why, again = uvloop.run(told())
    assert "closed" in why
    assert again == [True]
