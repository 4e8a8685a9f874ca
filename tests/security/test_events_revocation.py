"""REV on ``/events``: a revocation, an expiry, ends a stream of events as it ends a socket. Nobody signs in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from cluster import Cluster
from faulty import flood
from pushing import Listener, pushing
from rawpeer import Raw
from streams import Stream, asking, listen, refusal
from wire import HS256_KEYS, Node, claims_of, eventually, eventually_async, forged, running

from tests.security.test_rev_handshake import HeldNode
from tests.security.test_rev_scope import AIMS, REVOKED, until_now
from tests.security.test_rev_stalled import descriptors


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("node"), signing_keys=HS256_KEYS) as node:
        yield node


async def hears(node: Node, stream: Stream, user_id: str) -> None:
    """It is open: what is pushed now comes next."""
    stored = await asyncio.to_thread(node.push, node.admin, user_id=user_id)
    assert (await stream.next("notification"))["id"] == stored["id"]


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_REV_01_REV_02_what_its_holder_revokes_ends_the_stream_on_events(node: Node, kind: str) -> None:
    user = node.user()
    mine, other = user.sign_in(), user.token()
    stream, spared = await listen(node, mine["access_token"]), await listen(node, other)
    began = time.monotonic()
    await asyncio.to_thread(node.request, "POST", "/auth/revoke", data={"token": mine[kind]}, expect=200)
    assert await stream.until_closed() == ([], REVOKED)
    assert time.monotonic() - began < 1
    assert await refusal(node, mine["access_token"]) == REVOKED
    await hears(node, spared, user.id)


@pytest.mark.parametrize("aim", list(AIMS))
async def test_REV_03_every_matching_stream_is_closed_before_the_answer_and_no_other_on_events(
    node: Node, shop: str, aim: str
) -> None:
    user, bystander = node.user(), node.user()
    first = user.sign_in()
    token = first["access_token"]
    body = {"refresh_token": first["refresh_token"]}
    again = node.request("POST", "/auth/refresh", json=body, expect=200).json()["access_token"]
    moment = until_now()
    second = user.token()
    hit = {"session": {token, again}, "jti": {token}, "user": {token, again, second},
           "issued before": {token, again}}[aim]  # fmt: skip
    opened = [(one, Listener(await listen(node, one))) for one in (token, again, second) for _ in range(2)]
    beside = await listen(node, bystander.token())
    async with pushing(node, shop, user) as pusher:
        await pusher.past(5)
        answer = await asyncio.to_thread(node.revoke, **AIMS[aim](user, claims_of(token), moment))
        answered = time.monotonic()
        assert answer["connections_closed"] == 2 * len(hit)
        await pusher.past(5)
    too_late = {number for number, begun in pusher.begun if begun > answered}
    assert len(too_late) >= 4
    for one, listener in opened:
        if one in hit:
            heard, close = await listener.ended()
            assert close == REVOKED
            assert heard, "pushes were on their way when it was revoked"
            assert not set(heard) & too_late
            assert await refusal(node, one) == REVOKED
    connections = node.connections(user)
    assert len(connections) == 2 * (3 - len(hit)), "the others are still open"
    await hears(node, beside, bystander.id)


async def test_REV_03_the_streams_of_another_node_end_within_a_second_on_events(cluster: Cluster) -> None:
    here, there = cluster(2)
    user = here.user()
    token, other = user.token(), user.token()
    stream, spared = await listen(there, token), await listen(there, other)
    await asyncio.to_thread(here.revoke, session=claims_of(token)["sid"])
    answered = time.monotonic()
    assert await stream.until_closed() == ([], REVOKED)
    assert time.monotonic() - answered < 1
    assert await refusal(there, token) == REVOKED
    await spared.close()


def test_REV_04_the_descriptor_of_a_stalled_reader_is_gone_within_two_seconds_on_events(node: Node) -> None:
    user, bystander = node.user(), node.user()
    peers = []
    for token in (tokens := [user.token(), bystander.token()]):
        raw = Raw(node.port, receive_buffer=4096)
        raw.send(asking(f"/events?token={token}"))
        assert raw.response()[0] == 200
        peers.append(raw)
    for one in (user, bystander):
        flood(node, node.admin, one.id, 200)
        eventually(lambda one=one: [c["behind"] for c in node.connections(one)] == [True], what="it is behind")  # type: ignore[misc]
    assert node.revoke(session=claims_of(tokens[0])["sid"])["connections_closed"] == 1
    eventually(lambda: descriptors(node, peers[:1]) == [], within=2, what="the descriptor is gone")
    assert len(descriptors(node, peers[1:])) == 1, "just as stalled, and not revoked"
    for raw in peers:
        raw.shut()


async def test_REV_05_what_is_revoked_between_check_and_registration_never_delivers_on_events(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    node = HeldNode(tmp_path_factory.mktemp("held")).start()
    try:
        user = node.user()
        token, good = user.token(), user.token()
        with node.holding():
            left = Raw(node.port).send(asking(f"/events?token={token}"))
            await eventually_async(node.waiting.exists, what="the request stands still")
            left.shut()
        with node.holding():
            opening = asyncio.create_task(refusal(node, token))
            await eventually_async(node.waiting.exists, what="the request stands still")
            answer = await asyncio.to_thread(node.revoke, jti=claims_of(token)["jti"])
            assert answer["connections_closed"] == 0, "it was not registered: nobody could find it"
            await asyncio.to_thread(node.push, node.admin, user_id=user.id)
        assert await opening == REVOKED
        assert node.connections(user) == []
        stream = await listen(node, good)
        assert (await stream.next("notification"))["seq"] == 1, "whom nobody revoked is let in"
        await stream.close()
        assert node.stop() == 0
    finally:
        node.kill()
    assert "Traceback" not in node.log_text()


async def test_REV_06_what_was_revoked_stays_revoked_after_kill_9_on_events(node: Node) -> None:
    user = node.user()
    lost, good = user.token(), user.token()
    node.revoke(session=claims_of(lost)["sid"])
    node.kill()
    node.start()
    assert await refusal(node, lost) == REVOKED
    await hears(node, await listen(node, good), user.id)


async def test_REV_09_a_stream_ends_when_its_token_expires_and_hears_nothing_after_it_on_events(
    node: Node, shop: str
) -> None:
    user, bystander = node.user(), node.user()
    expires = int(time.time()) + 2
    stream = Listener(await listen(node, forged(user.token(), exp=expires)))
    beside = await listen(node, bystander.token())
    async with pushing(node, shop, user) as pusher:
        heard, close = await stream.ended()
        ended, wall = time.monotonic(), time.time()
        await pusher.past(5)
    assert close == (1008, "token_expired")
    assert abs(wall - expires) <= 1
    assert heard, "pushes were on their way when it ended"
    assert not [number for number, begun in pusher.begun if begun > ended and number in heard]
    await hears(node, beside, bystander.id)
