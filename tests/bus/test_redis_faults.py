"""A Redis that dies, stalls, throws its clients out or is told lies: hints come later, and none is lost unnoticed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial

import pytest
from buses import KINDS, Ear, Here, a_moment, arrived, listening, serving
from freeport import free_port
from servers import Redis
from wire import called_off, eventually_async

from gateway.bus.line import Server
from gateway.bus.link import Link
from gateway.bus.redis import RedisBus
from gateway.bus.wire import Beat, Codec
from gateway.epoch import Epoch
from gateway.model import Passing, RevocationsChanged

BEAT = 0.2
BACK = 10.0
"""Seconds after the fault in which everything is as before (the bar of the fault rows)."""


_seqs = itertools.count(1_000_000)


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Redis]:
    with serving(request.param) as server:
        yield server


@dataclass
class Pair:
    """Two nodes of one gateway; ben watches ada."""

    server: Redis
    secret: bytes
    a: Here
    b: Here

    async def travels(self) -> None:
        """A hint goes from one to the other; it may take some, for a connection may be gone and nobody knows yet."""

        def heard() -> bool:
            self.a.bus.publish([arrived("ada", next(_seqs))])
            return self.b.ear.seqs("ada")[-1:] > [first]

        first = next(_seqs)
        await self.a.up(within=BACK)
        await self.b.up(within=BACK)
        await eventually_async(heard, within=BACK, what="a hint travels")

    def publish_raw(self, channel: bytes, data: bytes) -> None:
        self.server.command("SPUBLISH" if self.server.kind == "valkey" else "PUBLISH", channel, data)


@contextlib.asynccontextmanager
async def pair_on(server: Redis) -> AsyncIterator[Pair]:
    secret = os.urandom(32)
    async with (
        listening(server.url(), node="a", secret=secret, beat=BEAT) as a,
        listening(server.url(), node="b", secret=secret, beat=BEAT) as b,
    ):
        await b.watching("ada")
        yield Pair(server, secret, a, b)


@pytest.fixture
async def pair(server: Redis) -> AsyncIterator[Pair]:
    async with pair_on(server) as pair:
        yield pair


async def complains(here: Here, of: str) -> None:
    await eventually_async(lambda: of in (here.bus.trouble or ""), what=of)


def link_of(here: Here) -> Link:
    assert isinstance(here.bus, RedisBus)
    return here.bus._links.carrier


# -- the server ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_killed_and_started_again_it_carries_as_before_and_names_who_missed_something(kind: str) -> None:
    with serving(kind) as server:
        async with pair_on(server) as pair:
            for _ in range(3):
                server.kill()
                before = pair.b.ear.told_again("ada")
                began = time.monotonic()
                pair.a.bus.publish([arrived("ada", 1), arrived("bob", 1)])
                assert time.monotonic() - began < 0.1
                await eventually_async(lambda: pair.a.bus.trouble, what="the trouble is known")
                server.start()
                await pair.travels()
                assert pair.b.ear.told_again("ada") > before
                assert pair.b.ear.told_again("bob") == sum(users is None for users in pair.b.ear.resyncs)


async def test_stopped_and_continued(pair: Pair) -> None:
    pair.server.suspend()
    try:
        began = time.monotonic()
        pair.a.bus.publish([arrived("ada", 1)])
        assert time.monotonic() - began < 0.1
        await eventually_async(lambda: pair.a.bus.trouble, within=2.0, what="publishing finds out within half a second")
        await eventually_async(lambda: pair.b.bus.trouble, within=5.0, what="so does who only listens")
        began = time.monotonic()
        for seq in range(2, 20_000):
            pair.a.bus.publish([arrived("ada", seq)])
        assert time.monotonic() - began < 2.0
        asked = await pair.a.bus.connections(None, after=None, limit=10)
        assert asked.missing == ("b",), "it was there when it was last heard"
        before = pair.b.ear.told_again("ada")
    finally:
        pair.server.resume()
    await pair.travels()
    await eventually_async(lambda: pair.b.ear.told_again("ada") > before, within=BACK, what="ada is named")


@pytest.mark.parametrize("which", ["pubsub", "normal"])
async def test_thrown_out_again_and_again_no_loss_goes_unnoticed(pair: Pair, which: str) -> None:
    """Every signal was heard, or its user was named after it was published."""
    b = pair.b.ear
    published: dict[int, int] = {}

    async def throw_out() -> None:
        while True:
            await eventually_async(partial(_killed, pair.server, which))
            await a_moment(0.2)  # or nothing would come through in between

    async def publish() -> None:
        for seq in range(1, 1501):
            published[seq] = len(b.resyncs)
            pair.a.bus.publish([arrived("ada", seq)])
            if seq % 10 == 0:
                await a_moment()

    killer = asyncio.create_task(throw_out())
    try:
        await publish()
    finally:
        await called_off(killer)
    await pair.travels()

    def unnoticed() -> list[int]:
        heard = set(b.seqs("ada"))
        last_named = max((n for n, users in enumerate(b.resyncs) if users is None or "ada" in users), default=-1)
        return [seq for seq, resyncs in published.items() if seq not in heard and last_named < resyncs]

    await eventually_async(lambda: not unnoticed(), within=BACK, what="whoever missed something is named")
    lost = set(published) - set(b.seqs("ada"))
    assert lost, "nothing was lost: this has shown nothing"
    assert len(lost) < len(published), "nothing came through"


def _killed(server: Redis, which: str) -> bool:
    return not server.command("CLIENT", "KILL", "TYPE", which, "SKIPME", "yes").startswith(b":0")


async def test_a_link_that_works_is_left_alone(pair: Pair) -> None:
    lines = [(link_of(here)._speaking, link_of(here)._hearing) for here in (pair.a, pair.b)]
    await a_moment(12 * BEAT)
    assert lines == [(link_of(here)._speaking, link_of(here)._hearing) for here in (pair.a, pair.b)]
    assert pair.b.ear.told_again("ada") == 1


async def test_what_the_server_refuses_is_made_up_for(server: Redis) -> None:
    """As when a channel has moved to another server of a cluster, or somebody changes the rules."""
    secret = os.urandom(32)
    server.command("ACL", "SETUSER", "a", "on", ">p", "+@all", "allchannels")
    codec = Codec(secret, sender=b"a stray.", clock=time.time, monotonic=time.monotonic)
    async with (
        listening(f"redis://a:p@127.0.0.1:{server.port}/0", node="a", secret=secret, beat=BEAT) as a,
        listening(server.url(), node="b", secret=secret, beat=BEAT) as b,
    ):
        await b.watching("cy")
        server.command("ACL", "SETUSER", "a", "resetchannels", b"&" + codec.everybody)
        a.bus.publish([arrived("cy", 1)])
        await eventually_async(lambda: b.ear.told_again("cy") == 2, within=BACK, what="cy is named")
        assert b.ear.seqs("cy") == []


async def test_flushed_or_out_of_memory_it_carries_on(pair: Pair) -> None:
    pair.server.command("FLUSHALL")
    await pair.travels()
    pair.server.command("CONFIG", "SET", "maxmemory", "1")
    try:
        assert b"OOM" in pair.server.command("SET", "k", "v"), "there is memory left"
        for _ in range(5):
            await pair.travels()
        assert pair.a.bus.trouble is None
    finally:
        pair.server.command("CONFIG", "SET", "maxmemory", "0")
        pair.server.command("FLUSHALL")


async def test_who_reads_too_slowly_is_thrown_out_and_looks_again(pair: Pair) -> None:
    pair.server.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 1mb 1")
    line = link_of(pair.b)._hearing
    assert line is not None
    assert line._transport is not None
    before = pair.b.ear.told_again("ada")
    line._transport.pause_reading()
    for seq in range(4000):
        pair.a.bus.publish([arrived("ada", seq, content="x" * 10_000)])
        if seq % 50 == 0:
            await a_moment()
    with contextlib.suppress(RuntimeError):  # the silence of the own heartbeat may have been noticed first
        line._transport.resume_reading()
    await eventually_async(lambda: line.closed.done(), within=BACK, what="it is thrown out")
    await pair.travels()
    assert pair.b.ear.told_again("ada") > before


async def test_a_line_on_which_nothing_comes_is_made_anew(pair: Pair) -> None:
    """As after a link that was cut without a word: no error, no end, only silence."""
    line = link_of(pair.b)._hearing
    assert line is not None
    assert line._transport is not None
    before = pair.b.ear.told_again("ada")
    line._transport.pause_reading()
    await eventually_async(lambda: pair.b.bus.trouble, within=20 * BEAT, what="the silence is noticed")
    pair.a.bus.publish([arrived("ada", 1)])
    await pair.travels()
    assert pair.b.ear.told_again("ada") > before


async def test_silence_is_noticed_also_while_nothing_can_be_said(pair: Pair) -> None:
    """As when the whole network is gone: once it is back, nobody has to find out first that a line is dead."""
    link = link_of(pair.b)
    speaking, hearing, server = link._speaking, link._hearing, link.server
    assert speaking is not None
    assert hearing is not None
    assert hearing._transport is not None
    hearing._transport.pause_reading()
    link.server = Server("127.0.0.1", free_port())
    speaking.drop("cut")
    await eventually_async(hearing.closed.done, within=20 * BEAT, what="the line is given up")
    link.server = server
    await pair.travels()


async def test_a_heartbeat_that_does_not_come_back_is_noticed_though_others_are_heard(pair: Pair) -> None:
    """As after a failover that one of the two lines did not follow."""
    link = link_of(pair.a)
    kept, link.beat_channel = link.beat_channel, b"somewhere else"
    await complains(pair.a, "the own heartbeat does not come back")
    link.beat_channel = kept
    await pair.travels()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_became_a_replica_is_no_bus(kind: str) -> None:
    with serving(kind) as server:
        async with pair_on(server) as pair:
            server.command("REPLICAOF", "127.0.0.1", str(free_port()))
            await eventually_async(lambda: "not the primary" in (pair.a.bus.trouble or ""), what="it is noticed")
            server.command("REPLICAOF", "NO", "ONE")
            await pair.travels()


# -- signing in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrong_password_is_said_and_never_shown(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with serving(kind) as server:
        server.command("CONFIG", "SET", "requirepass", "right-secret")
        for sign_in, complaint in (
            (":wrong-secret@", "WRONGPASS"),
            ("", "NOAUTH"),
            ("nobody:right-secret@", "WRONGPASS"),
        ):
            async with listening(f"redis://{sign_in}127.0.0.1:{server.port}/0", up=False) as here:
                await complains(here, complaint)
                assert "secret" not in (here.bus.trouble or "")
        async with listening(f"redis://:right-secret@127.0.0.1:{server.port}/3"):
            pass
    assert "secret" not in caplog.text
    assert "hints between nodes are late" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
async def test_a_user_who_may_do_little_else_is_enough_and_one_who_may_not_publish_is_told(kind: str) -> None:
    sharded = "+spublish +ssubscribe +sunsubscribe" if kind == "valkey" else ""
    with serving(kind) as server:
        rules = f"on >p resetchannels &gw:* -@all +publish +subscribe +unsubscribe {sharded} +command".split()
        server.command("ACL", "SETUSER", "little", *rules)
        server.command("ACL", "SETUSER", "less", "on", ">p", "resetchannels", "&other:*", "+@all")
        async with listening(f"redis://little:p@127.0.0.1:{server.port}/0"):
            pass
        async with listening(f"redis://less:p@127.0.0.1:{server.port}/0", up=False) as here:
            await complains(here, "NOPERM")


# -- strangers -------------------------------------------------------------------------------------------------------


async def test_what_a_stranger_publishes_is_refused_and_counted(pair: Pair) -> None:
    codec = Codec(pair.secret, sender=b"a stray.", clock=time.time, monotonic=time.monotonic)
    strange = Codec(b"not the secret" * 2, sender=b"a stray.", clock=time.time, monotonic=time.monotonic)
    old = Codec(pair.secret, sender=b"a stray.", clock=lambda: time.time() - 61, monotonic=time.monotonic)
    ada = codec.user("ada")
    good = codec.encode(ada, arrived("ada", 5), stream=1, number=1)
    passing = codec.encode(codec.everybody, Passing(None, "p", '"title":"t"', 5), stream=1, number=2)
    for data in (b"", b"hello", b"x" * 5000, os.urandom(300)):
        pair.publish_raw(ada, data)
        pair.publish_raw(codec.everybody, data)
    pair.publish_raw(ada, strange.encode(ada, arrived("ada", 6), stream=1, number=1))
    pair.publish_raw(ada, old.encode(ada, arrived("ada", 7), stream=2, number=1))
    pair.publish_raw(codec.everybody, good)  # taken from another channel
    pair.publish_raw(codec.everybody, strange.encode(codec.everybody, Beat("x"), stream=1, number=1))
    before = len(pair.b.ear.heard)
    for _ in range(5):
        pair.publish_raw(ada, good)
        pair.publish_raw(codec.everybody, passing)
    await pair.b.hears(arrived("ada", 5), Passing(None, "p", '"title":"t"', 5))
    await pair.travels()
    new = pair.b.ear.heard[before:]
    assert len([one for one in new if isinstance(one, Passing)]) == 1
    assert pair.b.ear.seqs("ada").count(5) == 1
    assert not {6, 7} & set(pair.b.ear.seqs("ada"))
    assert pair.b.dropped("replayed") == 8
    assert pair.b.dropped("stale") == 1
    assert pair.b.dropped("forged") >= 3
    assert pair.b.dropped("garbage") >= 4
    assert pair.a.bus.trouble is pair.b.bus.trouble is None


async def test_what_a_node_says_of_another_log_is_looked_up_and_not_believed(server: Redis) -> None:
    """A failover that one node has heard of and the other not yet: their number 1 is not the same notification."""
    secret = os.urandom(32)
    async with (
        listening(server.url(), node="a", secret=secret, beat=BEAT, epoch=Epoch("the new one")) as a,
        listening(server.url(), node="b", secret=secret, beat=BEAT, epoch=Epoch("the old one")) as b,
    ):
        await b.watching("ada")
        before = b.ear.told_again("ada")
        a.bus.publish([arrived("ada", 1), RevocationsChanged()])
        await eventually_async(lambda: b.ear.told_again("ada") > before, what="ada is looked up")
        await b.hears(RevocationsChanged())
        assert b.ear.seqs("ada") == []
        assert b.dropped("epoch") == 1


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
async def test_between_nodes_whose_clocks_differ_hints_become_questions(server: Redis, ahead: float) -> None:
    """So it is too with what a process reads that was stopped for longer than messages are believed."""
    secret = os.urandom(32)
    async with (
        listening(server.url(), node="a", secret=secret, beat=BEAT, ahead=ahead) as a,
        listening(server.url(), node="b", secret=secret, beat=BEAT) as b,
    ):
        await b.watching("ada")
        a.bus.publish([arrived("ada", 1), arrived("bob", 1), Passing(("ada",), "p", "", 1)])
        await eventually_async(lambda: b.ear.told_again("ada") == 2, what="ada is looked at again")
        b.ear.heard.clear()
        a.bus.publish([Passing(None, "q", "", 1), RevocationsChanged()])
        await b.hears(RevocationsChanged())
        assert b.ear.heard == [RevocationsChanged()]
        assert b.ear.resyncs == [("ada",), ("ada",)]
        assert b.bus.trouble is None
        assert b.dropped("stale") >= 4


async def test_the_counters_of_the_bus_are_told(pair: Pair) -> None:
    await pair.travels()
    told = pair.b.exposition()
    assert "gateway_bus_up 1.0" in told
    assert pair.a.metrics.registry.get_sample_value("gateway_bus_messages_sent_total")
    assert pair.b.metrics.registry.get_sample_value("gateway_bus_signals_received_total")
    assert pair.b.metrics.registry.get_sample_value("gateway_bus_resyncs_total") == 1.0


class Broken(Ear):
    def signals(self, signals: object) -> None:
        raise RuntimeError("a bug")

    resync = signals  # type: ignore[assignment]


async def test_a_bug_in_delivering_costs_neither_the_publisher_nor_the_connection(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(pair.b.bus, RedisBus)
    pair.b.bus._receiver, kept = Broken(), pair.b.bus._receiver
    line = link_of(pair.b)._hearing
    pair.b.bus.publish([arrived("ada", 1)])
    pair.a.bus.publish([arrived("ada", 2)])
    await eventually_async(lambda: caplog.text.count("could not be delivered") >= 2, what="it is logged")
    pair.b.bus._receiver = kept
    await pair.travels()
    assert link_of(pair.b)._hearing is line
