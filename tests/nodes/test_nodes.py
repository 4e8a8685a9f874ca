"""What several nodes promise together: whoever is connected anywhere hears what is said anywhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from faulty import FastNode
from wire import Socket, User, called_off, eventually, eventually_async, forged


def at(node: FastNode, user: User) -> User:
    """The same user, met at another node."""
    return User(node, user.id, user.username, user.password)


def refused(node: FastNode, token: str) -> bool:
    return node.request("GET", "/auth/me", token=token).status_code == 401


async def test_what_is_posted_anywhere_reaches_the_connections_everywhere_once_and_in_order(
    nodes: list[FastNode],
) -> None:
    users = [nodes[0].user() for _ in range(4)]
    token = nodes[1].client_token()
    sockets = {(user.id, n): await node.open(at(node, user).token()) for user in users for n, node in enumerate(nodes)}
    posted: dict[str, list[str]] = {user.id: [] for user in users}
    for number in range(30):
        user = users[number % 4]
        posted[user.id].append(nodes[number % 3].push(token, user_id=user.id, title=str(number))["id"])
    together = nodes[2].batch(token, *({"user_id": user.id, "title": "batch"} for user in users for _ in range(5)))
    for answer in together:
        posted[answer["user_id"]].append(answer["id"])
    for (user_id, _), socket in sockets.items():
        heard = await socket.notifications(len(posted[user_id]))
        assert [frame["id"] for frame in heard] == posted[user_id]
        assert [frame["seq"] for frame in heard] == list(range(1, len(heard) + 1))
        await socket.quiet()


async def test_a_client_moves_from_node_to_node_with_its_cursor_and_misses_nothing(nodes: list[FastNode]) -> None:
    user, token = nodes[0].user(), nodes[0].client_token()
    access = user.token()
    stop = asyncio.Event()
    posted: list[str] = []

    async def produce() -> None:
        while not stop.is_set():
            node = nodes[len(posted) % 3]
            answer = await asyncio.to_thread(node.push, token, user_id=user.id, title="t")
            posted.append(answer["id"])

    producing = asyncio.create_task(produce())
    heard: list[str] = []
    position, epoch = 0, ""
    try:
        for move in range(12):
            kept: dict[str, Any] = {"after": position, "epoch": epoch} if epoch else {}
            socket = await nodes[move % 3].open(access, **kept)
            assert socket.hello["reset"] is False
            epoch = socket.hello["epoch"]
            for _ in range(1 + move % 5):
                frame = await socket.next("notification")
                assert frame["seq"] == position + 1
                position = frame["seq"]
                heard.append(frame["id"])
            await socket.close()
    finally:
        stop.set()
        await producing
    socket = await nodes[0].open(access, after=position, epoch=epoch)
    heard += [frame["id"] for frame in await socket.notifications(len(posted) - len(heard))]
    assert heard == posted


async def test_an_ack_and_a_read_at_one_node_are_known_at_the_others(nodes: list[FastNode]) -> None:
    user, token = nodes[0].user(), nodes[0].client_token()
    access = user.token()
    one, other = await nodes[0].open(access), await nodes[1].open(access)
    ids = [nodes[2].push(token, user_id=user.id)["id"] for _ in range(3)]
    for socket in (one, other):
        await socket.notifications(3)
    assert (await one.ask(type="ack", seq=2))["type"] == "ok"
    assert (await nodes[2].open(access)).hello["cursor"] == 2
    await one.send(type="read", ids=[ids[0]])
    told = await other.next("read")
    assert (told["ids"], told["unread"]) == ([ids[0]], 2)
    nodes[2].request("DELETE", f"/notifications/{ids[1]}", token=token, expect=204)
    assert (await other.next("withdrawn"))["id"] == ids[1]


async def test_ttl_0_reaches_sockets_on_other_nodes(nodes: list[FastNode]) -> None:
    user, token = nodes[0].user(), nodes[0].client_token()
    socket = await nodes[1].open(user.token())

    async def arrives() -> bool:
        nodes[0].push(token, user_id=user.id, ttl=0, expect=202)
        try:
            return (await socket.next("notification", within=0.5))["seq"] is None
        except TimeoutError:
            return False

    await eventually_async(arrives, what="a passing notification")
    nodes[2].push(nodes[0].admin, everyone=True, ttl=0, expect=202)
    assert (await socket.next("notification"))["seq"] is None


async def test_online_is_true_across_nodes_and_false_when_nobody_is(nodes: list[FastNode]) -> None:
    user, token = nodes[0].user(), nodes[0].client_token()
    # Nobody is called offline before a new node has had the time to hear of all the others.
    eventually(lambda: nodes[0].push(token, user_id=user.id)["online"] is False, what="offline is known at n0")
    socket = await nodes[1].open(user.token())
    eventually(lambda: nodes[0].push(token, user_id=user.id)["online"] is True, what="online is known at n0")
    shown = nodes[2].request("GET", f"/admin/presence?user_id={user.id}", token=nodes[0].admin, expect=200).json()
    assert (shown["items"][0]["online"], shown["items"][0]["nodes"], shown["items"][0]["devices"]) == (True, ["n1"], 1)
    many = nodes[0].push(token, user_ids=[user.id, "nobody"], ttl=0, title="t", expect=202)
    assert many["online_count"] == 1
    await socket.close()
    eventually(lambda: nodes[0].push(token, user_id=user.id)["online"] is False, what="gone is known at n0")


async def test_every_node_shows_the_connections_and_sessions_of_all(nodes: list[FastNode]) -> None:
    user = nodes[0].user()
    sockets = [await node.open(at(node, user).token()) for node in nodes]
    for node in nodes:

        def all_three(node: FastNode = node) -> list[dict[str, Any]] | None:
            found = node.connections(user)
            return found if len(found) == 3 else None

        shown = eventually(all_three, what="three")
        assert {one["node"] for one in shown} == {"n0", "n1", "n2"}
        assert {one["id"] for one in shown} == {socket.hello["connection"] for socket in sockets}
        sessions = node.request("GET", f"/admin/sessions?user_id={user.id}", token=nodes[0].admin, expect=200).json()
        assert len(sessions["items"]) == 3
    # In pages, one after the other, none twice.
    seen, cursor = [], ""
    while True:
        path = f"/admin/connections?user_id={user.id}&limit=1" + (f"&cursor={cursor}" if cursor else "")
        page = nodes[1].request("GET", path, token=nodes[0].admin, expect=200).json()
        seen += [one["id"] for one in page["items"]]
        if page["next"] is None:
            break
        cursor = page["next"]
    assert sorted(seen) == sorted(socket.hello["connection"] for socket in sockets)


async def test_a_revocation_closes_the_sockets_of_every_node_and_shuts_every_door(nodes: list[FastNode]) -> None:
    user = nodes[0].user()
    tokens = [at(node, user).token() for node in nodes]
    sockets = [await node.open(token) for node, token in zip(nodes, tokens, strict=True)]
    nodes[0].revoke(user_id=user.id)
    began = time.monotonic()
    for socket in sockets:
        assert await socket.closed(within=5) == (1008, "token_revoked")
    assert time.monotonic() - began < 5
    for node in nodes:
        for token in tokens:
            eventually(partial(refused, node, token), within=2, what="refused")
            assert await node.refusal(token) == (1008, "token_revoked")


async def test_one_key_used_at_every_node_at_once_is_one_notification(nodes: list[FastNode]) -> None:
    user, token = nodes[0].user(), nodes[0].client_token()
    socket = await nodes[1].open(user.token())
    with ThreadPoolExecutor(12) as threads:
        answers = list(
            threads.map(
                lambda n: nodes[n % 3].push(token, user_id=user.id, headers={"Idempotency-Key": "once"}), range(12)
            )
        )
    assert len({answer["id"] for answer in answers}) == 1
    await socket.notifications(1)
    await socket.quiet()


async def test_a_user_who_is_disabled_at_one_node_is_out_everywhere(nodes: list[FastNode]) -> None:
    user = nodes[0].user()
    socket = await nodes[2].open(user.token())
    nodes[0].request("PATCH", f"/admin/users/{user.id}", token=nodes[0].admin, json={"disabled": True}, expect=200)
    assert await socket.closed(within=5) == (1008, "user_disabled")


async def test_a_token_of_a_deleted_session_is_refused_at_a_node_that_starts_later(
    nodes: list[FastNode],
) -> None:
    """The denylist is read whole at the start: a restart forgives nothing."""
    user = nodes[0].user()
    token = user.token()
    nodes[0].revoke(user_id=user.id)
    late = nodes[2]
    assert late.stop() == 0
    late.start()
    assert late.request("GET", "/auth/me", token=token).status_code == 401
    assert await late.refusal(token) == (1008, "token_revoked")


async def test_a_token_that_another_gateway_signed_is_refused(nodes: list[FastNode]) -> None:
    good = nodes[0].user().token()
    bad = forged(good, iss="somebody else")
    for node in nodes:
        assert node.request("GET", "/auth/me", token=bad).status_code == 401
        assert node.request("GET", "/auth/me", token=good).status_code == 200


async def test_without_redis_everything_still_arrives(start: Callable[..., list[FastNode]]) -> None:
    one, other = start(2, redis=None)
    user, token = one.user(), one.client_token()
    socket = await other.open(user.token())
    sent = [one.push(token, user_id=user.id)["id"] for _ in range(5)]
    assert [frame["id"] for frame in await socket.notifications(5, within=10)] == sent
    one.revoke(user_id=user.id)
    assert await socket.closed(within=3) == (1008, "token_revoked")


async def test_a_new_epoch_closes_every_socket_and_no_old_number_counts(
    start: Callable[..., list[FastNode]],
) -> None:
    one, other = start(2, redis=None)
    user, token = one.user(), one.client_token()
    socket = await other.open(user.token())
    one.push(token, user_id=user.id)
    position = (await socket.next("notification", within=10))["seq"]
    code, out, err = one.command("new-epoch", "--yes")
    assert (code, out) == (0, ""), err
    assert (await socket.closed(within=5))[0] in (1008, 1012)
    one.forget_admin()
    eventually(partial(refused, one, token), within=3, what="tokens are dead")
    hello = (await other.open(user.token(), after=position, epoch=socket.hello["epoch"])).hello
    assert hello["reset"] is True
    assert hello["epoch"] != socket.hello["epoch"]


async def hears(socket: Socket, ids: set[str]) -> None:
    while ids:
        ids.discard((await socket.next("notification"))["id"])


async def test_a_crowd_over_three_nodes_hears_a_batch_to_all(nodes: list[FastNode]) -> None:
    users = [nodes[0].user() for _ in range(12)]
    token = nodes[0].client_token()
    sockets = [await nodes[n % 3].open(at(nodes[n % 3], user).token()) for n, user in enumerate(users)]
    answer = nodes[1].request(
        "POST", "/notifications", token=token, json={"user_ids": [u.id for u in users], "title": "all"}, expect=200
    )
    ids = {result["user_id"]: result["id"] for result in answer.json()["results"]}
    tasks = [asyncio.create_task(hears(s, {ids[u.id]})) for s, u in zip(sockets, users, strict=True)]
    try:
        await asyncio.wait_for(asyncio.gather(*tasks), 10)
    finally:
        await called_off(*tasks)
