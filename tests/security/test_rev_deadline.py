"""REV-09, RT-11: a socket ends with its token, and a fresh token of the same session moves it. Revokes nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from pushing import Listener, pushing
from wire import HS256_KEYS, Node, Socket, claims_of, eventually_async, forged, running


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("node"), signing_keys=HS256_KEYS, heartbeat=2) as node:
        yield node


def at(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


async def test_REV_09_a_socket_that_is_being_told_hears_nothing_of_what_came_after_its_token_ended(
    node: Node, shop: str
) -> None:
    user, bystander = node.user(), node.user()
    token, beside = user.token(), Listener(await node.open(bystander.token()))
    expires = int(time.time()) + 3
    device = Listener(await node.open(forged(token, exp=expires)))
    async with pushing(node, shop, user, bystander) as pusher:
        heard, close = await device.ended()
        ended, wall = time.monotonic(), time.time()
        await pusher.past(5)
    assert close == (1008, "token_expired")
    assert abs(wall - expires) <= 1
    assert heard, "pushes were on their way when it ended"
    assert not [number for number, begun in pusher.begun if begun > ended and number in heard]
    await beside.still_there()


async def test_REV_09_a_socket_ends_when_its_token_expires(node: Node) -> None:
    devices = []
    for _ in range(3):
        expires = int(time.time()) + 2
        devices.append((expires, await node.open(forged(node.user().token(), exp=expires))))

    async def end(expires: int, device: Socket) -> float:
        assert device.hello["token_expires_at"] == at(expires)
        assert await device.until_closed() == ([], (1008, "token_expired"))
        return time.time() - expires

    late = await asyncio.gather(*(end(*device) for device in devices))
    assert all(-1 <= seconds <= 1 for seconds in late), late


async def test_RT_11_a_fresh_token_of_the_session_moves_the_deadline_and_the_socket_stays(
    node: Node, shop: str
) -> None:
    user = node.user()
    signed_in = user.sign_in()
    expires = int(time.time()) + 2
    device = await node.open(forged(signed_in["access_token"], exp=expires))
    body = {"refresh_token": signed_in["refresh_token"]}
    fresh = node.request("POST", "/auth/refresh", json=body, expect=200).json()["access_token"]
    answer = await device.ask(type="token", token=fresh)
    assert (answer["type"], answer["token_expires_at"]) == ("ok", at(claims_of(fresh)["exp"]))
    assert node.connections(user)[0]["token_expires_at"] == answer["token_expires_at"]
    await eventually_async(lambda: time.time() > expires + 2, what="the old deadline is over")
    node.push(shop, user_id=user.id)
    await device.next("notification")
    last = int(time.time()) + 2
    assert (await device.ask(type="token", token=forged(fresh, exp=last)))["token_expires_at"] == at(last)
    assert await device.closed() == (1008, "token_expired"), "and it may be moved back"
    assert abs(time.time() - last) <= 1
