"""N13: things that happen at once. Whoever connects while something is committed hears it at once, this way or that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import httpx2
from faulty import FastNode, Row
from wire import Socket, called_off

ROUNDS = 60
SOCKETS = 6


async def test_N13_what_is_committed_while_a_socket_opens_reaches_it_at_once(
    launch: Callable[..., FastNode], row: Row
) -> None:
    node = launch(log_level="info", connections_per_user=50)
    shop, user = node.client_token(), node.user()
    token = user.token()
    worst = 0.0

    async def push(http: httpx2.AsyncClient) -> None:
        await asyncio.sleep(row.rng.uniform(0, 0.05))
        reply = await http.post(
            f"{node.url}/notifications", json={"user_id": user.id, "title": "t"},
            headers={"Authorization": f"Bearer {shop}"},
        )  # fmt: skip
        assert reply.status_code == 201
        row.ok += 1

    async def arrive(number: int) -> Socket:
        """Connect, and hear everything up to the one that is pushed meanwhile: after it nothing comes to wake us."""
        socket = Socket(await node.raw(token))
        began, at = time.monotonic(), (await socket.next("hello"))["after"]
        while at < number:
            # The slow re-check, which finds whatever was lost, comes after twenty seconds: this must not wait for it.
            at = (await socket.next("notification", within=3))["seq"]
            row.received += 1
        nonlocal worst
        worst = max(worst, time.monotonic() - began)
        return socket

    async def crowd(http: httpx2.AsyncClient) -> None:
        """Readers beside it, so that an opening is on its way for longer than an instant."""
        while True:
            await http.get(f"{node.url}/inbox?limit=200", headers={"Authorization": f"Bearer {token}"})

    async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
        crowding = [asyncio.create_task(crowd(http)) for _ in range(6)]
        for number in range(1, ROUNDS + 1):
            row.attempted += 1
            row.faults += SOCKETS
            arriving = asyncio.gather(*[arrive(number) for _ in range(SOCKETS)])
            await asyncio.gather(arriving, push(http))
            sockets = arriving.result()
            await sockets[0].send(type="ack", seq=number)  # or every arrival would have the whole log before it
            await asyncio.gather(*[socket.close() for socket in sockets])
        await called_off(*crowding)
    row.also["slowest"] = round(worst, 3)
    row.judge()
    assert node.complaints() == []
