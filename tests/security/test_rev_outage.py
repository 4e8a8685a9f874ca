"""REV-06: a revocation while Redis, or the database, is away: what is answered 2xx is committed and counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from cluster import Cluster, hears_the_bus
from freeport import free_port
from hostile import refused_over_http
from pushing import Listener, pushing
from servers import Redis, short_directory
from wire import HS256_KEYS, Node, Socket, claims_of, eventually, eventually_async

REVOKED = (1008, "token_revoked")


class Timed(Listener):
    """``over``: when (monotonic seconds) it was closed."""

    def __init__(self, socket: Socket) -> None:
        super().__init__(socket)
        self.over = float("inf")
        self._reading.add_done_callback(self._done)

    def _done(self, _: object) -> None:
        self.over = time.monotonic()


def misses_the_bus(node: Node) -> bool:
    return not hears_the_bus(node)


@pytest.fixture
def redis() -> Iterator[Redis]:
    """A server that the test may kill."""
    with short_directory("own-redis") as directory:
        server = Redis(directory).start()
        yield server
        server.stop()


async def test_REV_06_without_redis_a_revocation_ends_the_sockets_of_every_node_and_outlives_a_restart(
    cluster: Cluster, redis: Redis
) -> None:
    here, there = cluster(2, redis=redis)
    shop, user, bystander = here.client_token(), here.user(), here.user()
    by_session, by_jti, other = user.token(), user.token(), bystander.token()
    devices = [(node, token, Timed(await node.open(token))) for node in (here, there) for token in (by_session, by_jti)]
    beside = Listener(await there.open(other))
    redis.kill()
    for node in (here, there):
        eventually(partial(misses_the_bus, node), what="the loss of Redis is known")
    answered: dict[str, float] = {}
    async with pushing(there, shop, user, bystander) as pusher:
        await pusher.past(5)
        for token, target in (
            (by_session, {"session": claims_of(by_session)["sid"]}),
            (by_jti, {"jti": claims_of(by_jti)["jti"]}),
        ):
            answer = await asyncio.to_thread(here.revoke, **target)
            answered[token] = time.monotonic()
            assert answer["connections_closed"] == 1
        await eventually_async(lambda: time.monotonic() > answered[by_jti] + 1, what="a second has passed")
        await pusher.past(5)
    for node, token, device in devices:
        heard, close = await device.ended()
        assert close == REVOKED
        assert device.over - answered[token] < 1, "every node reads the database twice a second"
        late = {number for number, begun in pusher.begun if begun > answered[token] + (node is there)}
        assert len(late) >= 4
        assert not late & set(heard), "whatever holds the node up: it writes nothing on knowledge a second old"
        assert heard or node is here, "pushes were on their way when it was revoked"
    await beside.still_there()
    for token in (by_session, by_jti):
        refused_over_http(there, token, code="token_revoked")
    assert there.stop() == 0
    there.start()
    for token in (by_session, by_jti):
        refused_over_http(there, token, code="token_revoked")
        assert await there.refusal(token) == REVOKED
    await (await there.open(other)).close()


async def test_REV_06_what_could_not_be_committed_is_not_answered_2xx_and_revokes_nothing(
    start: Callable[..., Node],
) -> None:
    node = start(redis_url=f"redis://127.0.0.1:{free_port()}/0", signing_keys=HS256_KEYS)
    token = node.user().token()
    device = await node.open(token)
    database, away = node.directory / "gateway.db", node.directory / "away.db"
    body = {"session": claims_of(token)["sid"]}
    database.rename(away)
    try:
        answer = node.request("POST", "/admin/revocations", token=node.admin, json=body)
    finally:
        away.rename(database)
    assert answer.status_code == 503
    eventually(lambda: node.request("GET", "/inbox", token=token).status_code == 200, what="all is well again")
    await device.quiet()
    assert node.revoke(**body)["connections_closed"] == 1
    assert await device.closed() == REVOKED
