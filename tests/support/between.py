"""A port before a gateway that loses answers, or says to come again. Changes nothing that it passes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from wire import Node

UNAVAILABLE = b'{"status":503,"code":"store_unavailable","detail":"The database cannot be used now."}'
COME_AGAIN = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 2\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(UNAVAILABLE), UNAVAILABLE)
)


class Between:
    """Of the requests that begin with ``at``, the next ``come_again`` are answered 503 without being passed on.

    Of those after them, the next ``lose`` are passed on, and when the gateway has answered, the connection is cut.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.at = b"POST /notifications"
        self.lose = self.come_again = 0
        self.requests = 0
        """Those that began with ``at``."""
        self.url = ""

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        to, there = await asyncio.open_connection("127.0.0.1", self._port)
        losing = False

        async def back() -> None:
            while data := await to.read(65536):
                if losing:
                    break
                writer.write(data)
            writer.transport.abort()

        backwards = asyncio.create_task(back())
        try:
            while data := await reader.read(65536):
                if data.startswith(self.at):
                    self.requests += 1
                    if self.come_again:
                        self.come_again -= 1
                        writer.write(COME_AGAIN)
                        while await reader.read(65536):
                            pass  # what is left of the request
                        break
                    losing = self.lose > 0
                    self.lose -= losing
                there.write(data)
        except ConnectionError:
            pass  # the client's business
        finally:
            backwards.cancel()
            await asyncio.gather(backwards, return_exceptions=True)
            there.close()
            writer.close()


@contextlib.asynccontextmanager
async def between(node: Node) -> AsyncIterator[Between]:
    one = Between(node.port)
    meetings: set[asyncio.Task[None]] = set()

    def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        meetings.add(asyncio.create_task(one.meet(reader, writer)))

    server = await asyncio.start_server(met, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield one
    finally:
        server.close()
        for task in meetings:
            task.cancel()
        await asyncio.gather(*meetings, return_exceptions=True)
