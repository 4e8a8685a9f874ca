"""Presence of several nodes through a real Redis: who is where, who moves, who dies, and what Redis may do to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fakes import Seconds
from freeport import free_port
from presences import PresenceNode as Node
from servers import Redis
from wire import eventually_async

from gateway.model import PresenceInfo
from gateway.presence import redis as asking
from gateway.presence import upkeep
from gateway.presence.roll import Roll
from gateway.presence.standing import Standing
from gateway.presence.written import Keys, Part
from gateway.redis_link import Command, Link, Unreached

Launch = Callable[..., Any]
KEYS = Keys.of(b"secret")


async def is_so(condition: Callable[[], Any], *, what: str = "condition") -> None:
    await eventually_async(condition, within=10, what=what)


async def ask(url: str, *command: str | bytes | int) -> Any:
    link = Link(url)
    try:
        return (await link.send([command], within=5))[0]
    finally:
        await link.close()


async def info(node: Node, user_id: str = "ada") -> PresenceInfo:
    (one,) = await node.presence.of([user_id])
    return one


# -- where somebody is --------------------------------------------------------------------------------------------


async def test_who_is_connected_anywhere_is_online_everywhere(either: Redis, launch: Launch) -> None:
    one, two = await launch(either.url(), "n1"), await launch(either.url(), "n2")
    one.presence.joined("ada", "s1")
    await two.sees("ada", online=True)
    two.presence.joined("ada", "s1")
    two.presence.joined("ada", "s2")
    since = (await info(one)).since

    async def both(node: Node) -> bool:
        return await info(node) == PresenceInfo(
            "ada", online=True, since=since, devices=2, connections=3, nodes=("n1", "n2")
        )

    await is_so(lambda: both(one), what="n1 knows of both")
    await is_so(lambda: both(two), what="n2 knows of both")
    one.presence.left("ada", "s1")
    two.presence.left("ada", "s1")
    two.presence.left("ada", "s2")
    await one.sees("ada", online=False)
    await two.sees("ada", online=False)
    assert await ask(either.url(), "EXISTS", KEYS.user("ada")) == 0


async def test_who_moves_to_another_node_was_never_away(redis: Redis, launch: Launch) -> None:
    clock = Seconds()
    one, two, three = [await launch(redis.url(), f"n{number}", clock=clock) for number in (1, 2, 3)]
    since = int(clock.now * 1000)
    one.presence.joined("ada", "s1")
    await two.sees("ada", online=True)
    clock.now += 60
    two.presence.joined("ada", "s1")
    one.presence.left("ada", "s1")

    async def only_there() -> bool:
        found = await info(three)
        assert (found.online, found.since) == (True, since)
        return found.nodes == ("n2",)

    await is_so(only_there, what="ada is on n2 only")
    assert (await info(two)).since == since


async def test_who_moves_because_a_node_stops_was_never_away(redis: Redis, launch: Launch) -> None:
    clock = Seconds()
    one, two = [await launch(redis.url(), f"n{number}", clock=clock, linger=5.0) for number in (1, 2)]
    since = int(clock.now * 1000)
    one.presence.joined("ada", "s1")
    await two.sees("ada", online=True)
    clock.now += 60
    one.presence.left("ada", "s1")
    await one.stop()

    async def noticed() -> bool:
        return [node.node for node in (await two.presence.summary()).nodes] == ["n2"]

    await is_so(noticed, what="n2 knows that n1 has stopped")
    assert await two.online() is False
    two.presence.joined("ada", "s1")

    async def kept() -> bool:
        return (await info(two)).since == since

    await is_so(kept, what="since is taken over")


async def test_what_a_node_that_stops_had_is_off_at_once(either: Redis, launch: Launch) -> None:
    await launch(either.url(), "the first")
    one, two = await launch(either.url(), "n1", beat=5.0, ttl=60.0), await launch(either.url(), "n2", beat=5.0)
    for number in range(1200):
        one.presence.joined(f"u{number}", "s")
    users = [f"u{number}" for number in range(1200)]

    async def all_of_them() -> bool:
        return set((await two.presence.online(users)).values()) == {True}

    await is_so(all_of_them, what="all are online")
    await one.stop()
    assert set((await two.presence.online(users)).values()) == {False}
    assert (await one.presence.online(["u1", "x"])) == {"u1": True, "x": None}


async def test_the_summary_has_every_node_that_lives(redis: Redis, launch: Launch) -> None:
    one, two = await launch(redis.url(), "n1"), await launch(redis.url(), "n2")
    one.presence.joined("ada", "s1")
    two.presence.joined("ada", "s1")
    two.presence.joined("bob", "s2")

    async def counts(node: Node, *expected: tuple[str, int, int]) -> bool:
        summary = await node.presence.summary()
        return summary.complete and [(n.node, n.users, n.connections) for n in summary.nodes] == list(expected)

    await is_so(lambda: counts(one, ("n1", 1, 1), ("n2", 2, 2)))
    await is_so(lambda: counts(two, ("n1", 1, 1), ("n2", 2, 2)))
    await two.stop()
    await is_so(lambda: counts(one, ("n1", 1, 1)))


async def test_two_gateways_on_one_redis_never_meet(redis: Redis, launch: Launch) -> None:
    one, other = await launch(redis.url(), "n1"), await launch(redis.url(), "n2", secret=b"another")
    two = await launch(redis.url(), "n3")
    one.presence.joined("ada", "s1")
    await two.sees("ada", online=True)
    assert await other.online() is False
    assert [node.node for node in (await other.presence.summary()).nodes] == ["n2"]


async def test_a_server_of_a_cluster_is_spoken_to_as_one(launch: Launch, tmp_path: Any) -> None:
    options = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    server = Redis(tmp_path, kind="valkey", options=options).start()
    try:
        assert await ask_plainly(server, "CLUSTER", "ADDSLOTSRANGE", "0", "16383") == b"+OK\r\n"
        one, two = await launch(server.url(), "n1"), await launch(server.url(), "n2")
        for number in range(50):
            one.presence.joined(f"u{number}", "s")
        for number in range(50):
            await two.sees(f"u{number}", online=True)
        await one.stop()
        await two.stop()
    finally:
        server.stop()


async def ask_plainly(server: Redis, *words: str) -> bytes:
    return await asyncio.to_thread(server.command, *words)


# -- nodes that die -----------------------------------------------------------------------------------------------


async def die(node: Node) -> None:
    """As SIGKILL does it: nothing is said any more."""
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == f"presence of {node.name}"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    node.presence._upkeep._sound = False  # so that it says no goodbye when the test is over


async def test_the_users_of_a_dead_node_are_gone_when_its_time_is_over(either: Redis, launch: Launch) -> None:
    one, two = await launch(either.url(), "n1", ttl=1.0), await launch(either.url(), "n2", ttl=1.0)
    one.presence.joined("ada", "s1")
    two.presence.joined("bob", "s1")
    await two.sees("ada", online=True)
    died = time.monotonic()
    await die(one)
    await two.sees("ada", online=False, within=3)
    assert time.monotonic() - died < 2
    assert await two.online("bob") is True
    assert [node.node for node in (await two.presence.summary()).nodes] == ["n2"]
    two.presence.joined("ada", "s1")  # what the dead one left behind is taken out on the next occasion

    async def clean() -> bool:
        return bool(await ask(either.url(), "HLEN", KEYS.user("ada")) == 1)

    await is_so(clean, what="the part of the dead node is gone")
    assert await ask(either.url(), "SCARD", KEYS.nodes) == 1


async def test_nothing_stays_in_redis_for_ever(redis: Redis, launch: Launch) -> None:
    one, two = await launch(redis.url(), "n1"), await launch(redis.url(), "n2")
    one.presence.joined("ada", "s1")
    await two.sees("ada", online=True)
    for key in await ask(redis.url(), "KEYS", "*"):
        assert await ask(redis.url(), "PTTL", key) > 0, key


async def test_a_node_that_was_stopped_for_long_counts_again_when_it_goes_on(redis: Redis, launch: Launch) -> None:
    """Its record has ended meanwhile, and others took out what it had written."""
    one, two = await launch(redis.url(), "n1"), await launch(redis.url(), "n2")
    one.presence.joined("ada", "s1")
    await two.sees("ada", online=True)
    await ask(redis.url(), "DEL", KEYS.record(one.presence._upkeep.instance))
    await ask(redis.url(), "DEL", KEYS.user("ada"))
    await two.sees("ada", online=True)
    assert await one.ready()


def test_a_url_that_is_none_is_known_before_anything_is_opened() -> None:
    with pytest.raises(ValueError, match="port"):
        Node("redis://127.0.0.1:port/0", "n1")


# -- what Redis may do --------------------------------------------------------------------------------------------


async def test_after_flushall_every_node_writes_all_its_users_again(either: Redis, launch: Launch) -> None:
    clock = Seconds()
    one, two = [await launch(either.url(), f"n{number}", clock=clock) for number in (1, 2)]
    users = [f"u{number}" for number in range(1234)]
    for user in users:
        one.presence.joined(user, "s")
    since = int(clock.now * 1000)
    clock.now += 60
    two.presence.joined("bob", "s")

    async def all_of_them() -> bool:
        answers = set((await two.presence.online(users)).values())
        assert False not in answers, "unknown, but never said to be offline"
        return answers == {True}

    await two.sees("u1233", online=True)
    await is_so(lambda: seen(two, users), what="all are online")
    await ask(either.url(), "FLUSHALL")
    await is_so(all_of_them, what="all are online again")
    await one.sees("bob", online=True)

    async def known_since() -> bool:
        found = {one.since for one in await two.presence.of(users)}
        assert found <= {since, None}, "unknown while Redis is slow, but never since another time"
        return found == {since}

    await is_so(known_since, what="and since when")
    await one.ready()
    await two.ready()


async def test_after_flushall_nobody_is_said_to_be_offline_before_all_had_time_to_write(
    redis: Redis, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await launch(redis.url(), "the first")
    one, two = await launch(redis.url(), "n1"), await launch(redis.url(), "n2", beat=1.0, ttl=10.0)
    await first.stop()
    one.presence.joined("ada", "s1")
    await two.sees("ada", online=True)
    before = two.presence._upkeep.instance

    async def held_up(commands: object, *, within: float) -> Any:
        raise Unreached("held up", late=False)

    with monkeypatch.context() as hold:
        hold.setattr(one.presence._link, "send", held_up)
        await ask(redis.url(), "FLUSHALL")
        assert await two.online() is None
        await is_so(lambda: two.presence._upkeep.instance not in (None, before), what="n2 has begun anew")
        three = await launch(redis.url(), "n3", wait=False)
        await is_so(lambda: three.presence._upkeep.instance, what="n3, which starts just now, has begun")
        for node in (two, three):
            assert await node.online() is None
            assert not (await node.presence.summary()).complete
    await two.sees("ada", online=True)


async def test_what_is_lost_while_a_node_begins_is_noticed_by_the_node_that_begins(
    redis: Redis, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has seen that others are there; then all is lost, and it is the first of a new roll without knowing it."""
    two = await launch(redis.url(), "n2")
    one = await launch(redis.url(), "n1", beat=5.0, ttl=20.0)  # it will not notice for long
    one.presence.joined("ada", "s1")
    await two.sees("ada", online=True)
    await two.stop()
    real = Standing.begin

    async def emptied_first(self: Standing, **given: Any) -> bool:
        monkeypatch.setattr(Standing, "begin", real)
        await ask(redis.url(), "FLUSHALL")
        return await real(self, **given)

    monkeypatch.setattr(Standing, "begin", emptied_first)
    three = await launch(redis.url(), "n3", beat=5.0, ttl=20.0, wait=False)
    await is_so(lambda: three.presence._upkeep.instance, what="n3 has begun")
    assert await three.online() is not False, "ada is connected to n1"
    four = await launch(redis.url(), "n4", wait=False)
    await is_so(lambda: four.presence._upkeep.instance, what="n4 has begun")
    assert await four.online() is not False


async def seen(node: Node, users: list[str]) -> bool:
    return set((await node.presence.online(users)).values()) == {True}


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("how", ["kill", "suspend"])
async def test_while_redis_is_silent_nobody_waits_and_then_all_is_well(either: Redis, launch: Launch, how: str) -> None:
    one, two = await launch(either.url(), "n1"), await launch(either.url(), "n2")
    one.presence.joined("ada", "s1")
    await two.sees("ada", online=True)
    either.kill() if how == "kill" else either.suspend()
    waited = []
    for _ in range(200):
        started = time.monotonic()
        assert await two.online() is None
        waited.append(time.monotonic() - started)
        await asyncio.sleep(0.005)  # noqa: TID251 - time passes for Redis, too
    assert sorted(waited)[-2] < 0.3
    assert sum(wait > 0.1 for wait in waited) <= 5, "nobody waits for what is known to be silent"
    assert await info(two) == PresenceInfo("ada", online=None)
    assert await one.online() is True
    summary = await two.presence.summary()
    assert (summary.complete, [node.node for node in summary.nodes]) == (False, ["n2"])
    one.presence.joined("bob", "s1")
    two.presence.joined("cyd", "s1")
    one.presence.left("ada", "s1")
    either.start() if how == "kill" else either.resume()
    await two.sees("bob", online=True)
    await one.sees("cyd", online=True)
    await two.sees("ada", online=False)


async def test_a_redis_that_is_gone_for_long_costs_no_memory(redis: Redis, launch: Launch) -> None:
    one = await launch(redis.url(), "n1", linger=0.0)
    redis.kill()

    async def given_up() -> bool:
        one.presence.joined("x", "s")
        one.presence.left("x", "s")
        return one.presence._upkeep._own is None

    await is_so(given_up, what="what was written counts as lost")
    for number in range(5000):
        one.presence.joined(f"u{number}", "s")
        one.presence.left(f"u{number}", "s")
    await one.sees("u1", online=None)
    assert not one.presence._here.present
    assert not one.presence._here._leaving
    assert not one.presence._upkeep._dirty


async def test_a_node_starts_and_stops_without_redis(redis: Redis, launch: Launch) -> None:
    redis.kill()
    one = await launch(redis.url(), "n1", wait=False)
    one.presence.joined("ada", "s1")
    assert await one.presence.online(["ada", "bob"]) == {"ada": True, "bob": None}
    started = time.monotonic()
    await one.stop()
    assert time.monotonic() - started < 2


async def test_a_node_stops_in_time_beside_a_redis_that_is_silent(redis: Redis, launch: Launch) -> None:
    one = await launch(redis.url(), "n1")
    redis.suspend()
    one.presence.joined("ada", "s1")
    started = time.monotonic()
    await one.stop()
    assert time.monotonic() - started < 3


async def test_connections_that_are_cut_are_made_again(redis: Redis, launch: Launch) -> None:
    one, two = await launch(redis.url(), "n1"), await launch(redis.url(), "n2")
    for number in range(20):
        one.presence.joined(f"u{number}", "s")
        await ask_plainly(redis, "CLIENT", "KILL", "TYPE", "normal")
        await two.sees(f"u{number}", online=True)


async def test_a_redis_that_lost_the_last_writes_is_noticed(redis: Redis, launch: Launch) -> None:
    """As after a failover to a replica that was behind: an older record stands, a user who joined is not written."""
    one, two = await launch(redis.url(), "n1", ttl=60.0), await launch(redis.url(), "n2")
    before = one.presence._upkeep.instance
    record = KEYS.record(before)
    older = await ask(redis.url(), "GET", record)
    one.presence.joined("ada", "s1")
    await two.sees("ada", online=True)
    await ask(redis.url(), "DEL", KEYS.user("ada"))
    await ask(redis.url(), "SET", record, older, "PX", 60_000)
    await is_so(lambda: one.presence._upkeep.instance not in (None, before), what="it begins anew")
    await two.sees("ada", online=True)

    async def counted_once() -> bool:
        summary = await two.presence.summary()
        return [(node.node, node.connections) for node in summary.nodes] == [("n1", 1), ("n2", 0)]

    await is_so(counted_once, what="n1 is there once")
    assert (await info(two)).connections == 1


async def test_a_key_that_redis_dropped_is_written_again(
    redis: Redis, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "RENEWED", 0.5)
    one, two = await launch(redis.url(), "n1"), await launch(redis.url(), "n2")
    for number in range(10):
        one.presence.joined(f"u{number}", "s")
    await two.sees("u9", online=True)
    for number in range(10):
        await ask(redis.url(), "DEL", KEYS.user(f"u{number}"))
    for number in range(10):
        await two.sees(f"u{number}", online=True)


async def test_what_is_done_late_does_no_harm(redis: Redis, launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that was given up on takes effect after all, when its user has left and the others were told so: the
    part of it that was on its way, without our record at its end."""
    one, two = await launch(redis.url(), "n1", linger=0.0, ttl=60.0), await launch(redis.url(), "n2", ttl=60.0)
    link, held = one.presence._link, list[Sequence[Command]]()
    send: Callable[..., Any] = link.send

    async def send_late(commands: Sequence[Command], *, within: float) -> Any:
        if not held and any(command[0] == "HSET" for command in commands):
            held.append(commands)
            raise Unreached("no answer", late=True)
        return await send(commands, within=within)

    monkeypatch.setattr(link, "send", send_late)
    one.presence.joined("ada", "s1")
    await is_so(lambda: held, what="a write is under way")
    one.presence.left("ada", "s1")
    one.presence.joined("bob", "s1")
    await two.sees("bob", online=True)
    await send(held[0][:-1], within=5)
    await two.sees("ada", online=False)
    assert await two.online("bob") is True


async def test_what_a_stranger_wrote_there_is_passed_over(redis: Redis, launch: Launch) -> None:
    one, two = await launch(redis.url(), "n1"), await launch(redis.url(), "n2")
    instance = one.presence._upkeep.instance
    for value in (b"", b"\xff", b"{}", b"[]", b'["x"]', b"[1,2]", b"null"):
        await ask(redis.url(), "HSET", KEYS.user("ada"), instance, value)
        assert await two.online() is False, value
    await ask(redis.url(), "HSET", KEYS.user("ada"), "stranger", Part(1, ("s",)).dump())
    await ask(redis.url(), "HSET", KEYS.user("ada"), b"\xff", b"x")
    assert await two.online() is False
    await ask(redis.url(), "SET", KEYS.user("bob"), "not a hash")
    assert await two.presence.online(["bob", "cyd"]) == {"bob": None, "cyd": False}
    one.presence.joined("bob", "s")
    one.presence.joined("cyd", "s")
    await two.sees("cyd", online=True)


async def test_a_redis_out_of_memory_is_not_believed(redis: Redis, launch: Launch) -> None:
    one, two = await launch(redis.url(), "n1"), await launch(redis.url(), "n2")
    await ask(redis.url(), "CONFIG", "SET", "maxmemory", "1")
    one.presence.joined("ada", "s1")
    await two.sees("ada", online=None)
    await one.sees("nobody", online=None)
    await ask(redis.url(), "CONFIG", "SET", "maxmemory", "0")
    await two.sees("ada", online=True)
    await one.ready()


async def test_a_lost_set_of_nodes_is_written_again(redis: Redis, launch: Launch) -> None:
    one = await launch(redis.url(), "n1")
    await ask(redis.url(), "DEL", KEYS.nodes)

    async def back() -> bool:
        return bool(await ask(redis.url(), "SMEMBERS", KEYS.nodes) == {(one.presence._upkeep.instance or "").encode()})

    await is_so(back, what="n1 is among the nodes")
    await one.ready()


async def test_a_server_that_says_nothing_of_itself_will_do(redis: Redis, launch: Launch) -> None:
    assert await ask(redis.url(), "ACL", "SETUSER", "shy", "on", "nopass", "~gw:*", "+@all", "-info", "-@dangerous")
    url = redis.url().replace("//", "//shy:secret@")
    one, two = await launch(url, "n1"), await launch(url, "n2")
    one.presence.joined("ada", "s1")
    await two.sees("ada", online=True)


async def test_what_the_server_refuses_is_not_known(
    redis: Redis, launch: Launch, caplog: pytest.LogCaptureFixture
) -> None:
    await ask(redis.url(), "ACL", "SETUSER", "poor", "on", ">word-nobody-may-see", "~other:*", "+@all")
    one = await launch(redis.url().replace("//", "//poor:word-nobody-may-see@"), "n1", wait=False)
    one.presence.joined("ada", "s1")
    await is_so(lambda: "NOPERM" in caplog.text or "permission" in caplog.text, what="the operator is told")
    assert await one.presence.online(["ada", "bob"]) == {"ada": True, "bob": None}
    assert "word-nobody" not in caplog.text


async def test_who_has_waited_too_long_for_others_is_answered(
    redis: Redis, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await launch(redis.url(), "n1")
    monkeypatch.setattr(asking, "ANSWERED_WITHIN", 0.0)
    assert await one.online() is None
    monkeypatch.undo()
    await one.sees("ada", online=False)


async def test_a_bug_in_the_upkeep_does_not_end_it(
    redis: Redis, launch: Launch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = await launch(redis.url(), "n1")
    with monkeypatch.context() as broken:
        broken.setattr(Roll, "take", None)
        await is_so(lambda: "the upkeep failed" in caplog.text, what="it is told")
        assert await one.online() is None
    one.presence.joined("ada", "s1")
    two = await launch(redis.url(), "n2")
    await two.sees("ada", online=True)
