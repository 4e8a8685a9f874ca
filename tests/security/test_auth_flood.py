"""AUTH-07: a flood of sign-ins leaves the sockets alone and costs bounded memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from callers import PROXIED, crowd, networks, statuses
from wire import Node, Socket

SOCKETS, LOGINS, PUSHES = 1000, 200, 10
ROOM = 2 * 19 * 2**20 + 60 * 2**20
"""Bytes: what the two that hash may take, and what the requests, their answers and the pushes cost."""


async def test_AUTH_07_two_hundred_sign_ins_at_once_take_nothing_from_a_thousand_sockets(
    start: Callable[..., Node],
) -> None:
    node = start(connections_per_user=SOCKETS, log_level="info", **PROXIED)
    user, shop = node.user(), node.client_token()
    token = user.token()
    sockets: list[Socket] = []
    while len(sockets) < SOCKETS:
        sockets += await asyncio.gather(*(node.open(token) for _ in range(50)))
    before = node.resident()
    peak = 0

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, node.resident())
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    async with crowd(node, connections=LOGINS + 10) as client:

        async def sign_in(at: str, password: str) -> int:
            body = {"username": user.username, "password": password}
            return (await client.post("/auth/login", json=body, headers={"X-Forwarded-For": at})).status_code

        async def push() -> None:
            for number in range(PUSHES):
                body = {"user_id": user.id, "title": f"n {number}"}
                headers = {"Authorization": f"Bearer {shop}"}
                assert (await client.post("/notifications", json=body, headers=headers)).status_code == 201
                assert (await client.get("/healthz")).status_code == 200

        places = networks(LOGINS)
        outcomes, _ = await asyncio.gather(
            asyncio.gather(*(sign_in(at, user.password if n % 2 else "wrong") for n, at in enumerate(places))),
            push(),
        )
    assert set(outcomes) <= {200, 401, 429, 503}, outcomes
    assert outcomes.count(200) + outcomes.count(401) >= 10, "those that fit are answered"
    assert outcomes.count(503) > 0, "more than fit came"

    async def all_of(socket: Socket) -> list[str]:
        return [frame["title"] for frame in await socket.notifications(PUSHES, within=60)]

    heard = await asyncio.gather(*(all_of(socket) for socket in sockets))
    assert all(titles == [f"n {number}" for number in range(PUSHES)] for titles in heard)
    watching.cancel()
    assert peak - before < ROOM, f"{(peak - before) / 2**20:.0f} MiB"
    assert len(statuses([node.request("GET", "/readyz")])) == 1
    assert node.request("GET", "/readyz").status_code == 200
