"""CFG-04: who can PUBLISH on our Redis can forge nothing: no notification, no revocation taken back."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from cluster import Cluster
from faulty import FastNode
from servers import Redis, short_directory
from wire import claims_of, eventually

from gateway.bus.wire import Codec
from gateway.model import Arrived, Entry, MarkedRead, Passing, RevocationsChanged, Signal, Withdrawn


@pytest.fixture
def redis() -> Iterator[Redis]:
    """Redis 6.2: plain channels, so that a stranger may ask which there are."""
    with short_directory("bus") as directory:
        server = Redis(directory).start()
        yield server
        server.stop()


def dropped(node: FastNode, reason: str) -> float:
    def told() -> str | None:
        answer = node.request("GET", "/metrics", token=node.admin)
        return answer.text if answer.status_code == 200 else None  # a node that is starved says 503 for a moment

    name = f'gateway_bus_messages_dropped_total{{reason="{reason}"}}'
    return next(
        (float(line.split()[1]) for line in eventually(told, what="its metrics").splitlines() if line.startswith(name)),
        0,
    )


async def test_CFG_04_what_a_stranger_publishes_is_dropped_and_counted_and_un_revokes_nobody(
    cluster: Cluster, redis: Redis
) -> None:
    one, two = cluster(2, redis=redis)
    user, banned = one.user(), one.user()
    shop = one.client_token()
    revoked = banned.token()
    device = await two.open(user.token())
    one.revoke(jti=claims_of(revoked)["jti"])
    eventually(lambda: two.request("GET", "/auth/me", token=revoked).status_code == 401, what="both know it")

    channels = [word for word in redis.command("PUBSUB", "CHANNELS", "gw:*").split(b"\r\n") if word.startswith(b"gw:")]
    assert len(channels) >= 2, "the user's and everybody's"
    liar = Codec(b"a guess of the secret, 32 bytes!", sender=b"stranger", clock=time.time, monotonic=time.monotonic)
    forged = Entry(1, "n-forged", '"title":"forged"', 1, 2)
    lies: list[Signal] = [
        Arrived(user.id, forged),
        Passing((user.id,), "n-passing", '"title":"forged"', 1),
        Withdrawn(user.id, 9, 0, "n-1", 5),
        MarkedRead(user.id, 9, 0, up_to=1),
        RevocationsChanged(),
    ]
    before = {node: dropped(node, "forged") for node in (one, two)}
    for channel in channels:
        for number, lie in enumerate(lies):
            message = liar.encode(channel, lie, stream=1, number=number)
            redis.command("PUBLISH", channel, message)
            redis.command("PUBLISH", channel, message[:20])
            redis.command("PUBLISH", channel, b'{"type":"unrevoke","jti":"*"}')
    eventually(lambda: dropped(two, "forged") >= before[two] + 2 * len(lies), what="node two has counted what it hears")
    eventually(lambda: dropped(one, "forged") > before[one], what="node one has counted")
    assert dropped(two, "garbage") > 0

    await device.quiet()
    one.push(shop, user_id=user.id, title="true")
    assert (await device.next("notification"))["title"] == "true"
    for node in (one, two):
        node.request("GET", "/auth/me", token=revoked, expect=401)
        assert await node.refusal(revoked) == (1008, "token_revoked")
