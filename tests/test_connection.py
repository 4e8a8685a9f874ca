"""What one connection is told: everything, once, in order; and what it may say."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from fakes import MemoryLog, Seconds, Wire, make_ties, principal

from gateway.closing import DRAINING, RATE_LIMITED, TOKEN_REVOKED
from gateway.connection import Connection
from gateway.drain import Drain
from gateway.model import Opening, Passing, Signal, State
from gateway.publish import Push
from gateway.relay import SLICE, Relay
from gateway.ties import Ties
from gateway.turns import Turns


async def settle() -> None:
    """Let every task that can run, run."""
    for _ in range(30):
        await asyncio.sleep(0)  # noqa: TID251 - lets the loop turn, waits for no time


def connect(
    ties: Ties, *, room: int = 10**9, after: tuple[int, str] | None = None, session: str = "s1"
) -> tuple[Connection, Wire]:
    wire = Wire(room)
    connection = Connection(principal(session=session), ties=ties, address=None, after=after)
    wire.on_drained = connection.drained
    connection.attach(wire)
    connection.start()
    return connection, wire


class Counters:
    """What ``Inbox.states`` says of a memory log."""

    def __init__(self, log: Any) -> None:
        self._log = log

    async def states(self, user_ids: Sequence[str]) -> Mapping[str, State]:
        return {user_id: self._log.states[user_id] for user_id in user_ids}


def relay_of(ties: Ties) -> Relay:
    return Relay(
        hub=ties.hub, states=Counters(ties.inbox), fresh=lambda: ties.revoker.fresh, revocations_rung=lambda: None,
        metrics=ties.metrics,
    )  # fmt: skip


async def push(ties: Ties, count: int = 1) -> None:
    for number in range(count):
        await ties.publisher.push_all("c~x", [Push(("ada",), f'"title":"{number}"', None, 60)])


def told(wire: Wire, *types: str) -> list[Any]:
    return [frame.get("seq", frame) for frame in wire.frames if frame["type"] in (types or ("notification",))]


async def test_hello_comes_first_then_what_was_stored_then_what_arrives() -> None:
    ties = make_ties(MemoryLog("ada"))
    async with ties.bus.listen(relay_of(ties)):
        await push(ties, 2)
        _, wire = connect(ties)
        await settle()
        await push(ties)
    assert wire.frames[0]["type"] == "hello"
    assert (wire.frames[0]["head"], wire.frames[0]["after"], wire.frames[0]["reset"]) == (2, 0, False)
    assert told(wire) == [1, 2, 3]


class SlowOpening(MemoryLog):
    """Its opening has been read and is still on its way while other things happen."""

    def __init__(self, *users: str) -> None:
        super().__init__(*users)
        self.arrives = asyncio.Event()

    async def opening(self, user_id: str, *, session: str, now: int) -> Opening:
        opening = await super().opening(user_id, session=session, now=now)
        await self.arrives.wait()
        return opening


@pytest.mark.parametrize("rung_by", ["arrival", "state", "resync"])
async def test_what_is_committed_while_the_opening_is_on_its_way_is_told_too(rung_by: str) -> None:
    log = SlowOpening("ada")
    ties = make_ties(log)
    async with ties.bus.listen(relay_of(ties)):
        connection, wire = connect(ties)
        await settle()
        unheard = make_ties(log)  # nobody here is told of what it publishes
        await push(ties if rung_by == "arrival" else unheard, 3)
        await (ties if rung_by == "state" else unheard).publisher.mark_read("ada", up_to=1)
        if rung_by == "resync":
            relay_of(ties).resync(None)
        log.arrives.set()
        await settle()
    assert wire.frames[0]["head"] == 0
    assert told(wire) == [1, 2, 3]
    assert told(wire, "changed") == [{"type": "changed", "rev": 1, "unread": 0}]
    assert not connection.behind


async def test_what_the_client_asks_before_hello_is_answered_after_it() -> None:
    log = SlowOpening("ada")
    connection, wire = connect(make_ties(log))
    await settle()
    connection.received('{"type":"ping","ref":1}')
    connection.received('{"type":"ack","seq":0,"ref":2}')
    await settle()
    assert wire.frames == []
    log.arrives.set()
    await settle()
    assert [frame["type"] for frame in wire.frames] == ["hello", "pong", "ok"]
    assert [frame.get("ref") for frame in wire.frames] == [None, 1, 2]


async def test_a_position_of_another_epoch_or_beyond_the_head_is_not_trusted() -> None:
    ties = make_ties(MemoryLog("ada"))
    await push(ties, 3)
    hellos = []
    for after in ((2, "e"), (2, "another"), (4, "e")):
        _, wire = connect(ties, after=after)
        await settle()
        hellos.append((wire.frames[0]["after"], wire.frames[0]["reset"], told(wire)))
    assert hellos == [(2, False, [3]), (0, True, [1, 2, 3]), (0, True, [1, 2, 3])]


async def test_a_session_that_is_over_hears_only_the_close() -> None:
    log = MemoryLog("ada")
    log.ended["s1"] = "token_revoked"
    _, wire = connect(make_ties(log))
    await settle()
    assert (wire.frames, wire.ended) == ([], [TOKEN_REVOKED])


async def test_nothing_follows_a_close_frame() -> None:
    ties = make_ties(MemoryLog("ada"))
    async with ties.bus.listen(relay_of(ties)):
        connection, wire = connect(ties)
        await settle()
        connection.close(TOKEN_REVOKED)
        await push(ties)
        connection.received('{"type":"ping"}')
        await settle()
    assert (wire.ended, told(wire), len(ties.hub)) == ([TOKEN_REVOKED], [], 0)


async def test_one_that_does_not_read_is_aborted_instead_of_told_goodbye() -> None:
    ties = make_ties(MemoryLog("ada"))
    connection, wire = connect(ties, room=1)
    await settle()
    connection.close(TOKEN_REVOKED)
    assert wire.ended == ["aborted"]


async def test_a_stale_node_writes_no_notification_until_news_are_fresh() -> None:
    clock = Seconds()
    ties = make_ties(MemoryLog("ada"), clock=clock)
    async with ties.bus.listen(relay_of(ties)):
        _, wire = connect(ties)
        await settle()
        ties.revoker._memory._read_at = clock.now - 1.001
        await push(ties, 3)
        await settle()
        assert told(wire) == []
        await ties.revoker.poll()
        await settle()
    assert told(wire) == [1, 2, 3]


async def test_a_node_that_goes_stale_in_the_middle_of_a_long_list_writes_no_more_of_it() -> None:
    clock = Seconds()
    ties = make_ties(MemoryLog("ada"), clock=clock)
    relay = relay_of(ties)
    wires = [connect(ties, session=f"s{n}")[1] for n in range(SLICE + 1)]
    await settle()
    relay.signals([Passing(None, "p", '"title":"now"', 0)])
    for _ in range(20):
        if sum(len(told(wire)) for wire in wires) < SLICE:
            await asyncio.sleep(0)  # noqa: TID251 - lets the loop turn, waits for no time
    ties.revoker._memory._read_at = clock.now - 1.001
    await settle()
    assert sum(len(told(wire)) for wire in wires) == SLICE


async def test_pushes_past_the_inbox_that_come_faster_than_they_go_out_do_not_pile_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.relay.MOST_PASSING", 500)
    ties = make_ties(MemoryLog("ada"))
    relay = relay_of(ties)
    _, wire = connect(ties)
    for n in range(SLICE):
        connect(ties, session=f"s{n}")
    await settle()
    relay.signals([Passing(None, f"p{n}", '"title":"now"', 0) for n in range(100)])
    assert len(relay._queue) == 2
    await push(ties)
    async with ties.bus.listen(relay):
        await push(ties)
        await settle()
    assert [frame.get("id") for frame in wire.frames if frame.get("seq", 0) is None] == ["p0", "p1"]
    assert told(wire)[-2:] == [1, 2]
    relay.signals([Passing(None, "p100", '"title":"now"', 0)])
    await settle()
    assert wire.frames[-1]["id"] == "p100"


class Lossy:
    """A bus that loses, doubles and reorders what is published."""

    def __init__(self, relay: Relay, dice: random.Random) -> None:
        self._relay, self._dice, self._held = relay, dice, list[Signal]()

    def publish(self, signals: list[Signal]) -> None:
        for signal in signals:
            self._held += [signal] * self._dice.choice((0, 1, 1, 1, 2))
        self._dice.shuffle(self._held)
        let_go = self._dice.randrange(len(self._held) + 1)
        now, self._held = self._held[:let_go], self._held[let_go:]
        self._relay.signals(now)

    def watch(self, user_id: str) -> None: ...

    def unwatch(self, user_id: str) -> None: ...


@pytest.mark.parametrize("seed", range(60))
async def test_a_slow_client_on_a_lossy_bus_hears_everything_once(seed: int) -> None:
    dice = random.Random(seed)
    log = MemoryLog("ada")
    log.rows = dice.choice((1, 2, 100))
    ties = make_ties(log)
    relay = relay_of(ties)
    bus: Any = Lossy(relay, dice)
    ties = make_ties(log, bus=bus, hub=ties.hub)
    ties.publisher._bus = bus
    relay = relay_of(ties)
    bus._relay = relay
    wires = [connect(ties, room=dice.choice((2, 3, 10**9)), session=f"s{n}")[1] for n in range(3)]
    for _ in range(40):
        action = dice.random()
        if action < 0.6:
            await push(ties)
        elif action < 0.7:
            await ties.publisher.mark_read("ada", up_to=1)
        elif action < 0.75 and log.entries["ada"]:
            await ties.publisher.withdraw(dice.choice(list(log.entries["ada"].values())).id, sender=None)
        else:
            dice.choice(wires).take(dice.randrange(1, 4))
        if dice.random() < 0.5:
            await settle()
    for _ in range(120):  # all read again, and the slow re-check comes by
        for wire in wires:
            wire.take()
        await settle()
        for connection in ties.hub.of("ada"):
            connection.recheck(log.states["ada"])
        await settle()
    state: State = log.states["ada"]
    for wire in wires:
        covered: list[int] = []
        revs = [wire.frames[0]["rev"]]
        for frame in wire.frames[1:]:
            if frame["type"] == "notification":
                covered.append(frame["seq"])
            elif frame["type"] == "gap":
                covered.extend(range(frame["from"], frame["to"] + 1))
            else:
                revs.append(frame["rev"])
        assert covered == list(range(1, state.head + 1)), seed
        assert revs == sorted(set(revs)), seed
        assert revs[-1] == state.rev, seed


# -- what the client says ----------------------------------------------------------------------------------------


async def ask(ties: Ties, **frame: Any) -> list[dict[str, Any]]:
    connection, wire = connect(ties)
    await settle()
    before = len(wire.frames)
    connection.received(json.dumps(frame))
    await settle()
    return wire.frames[before:]


async def test_an_ack_moves_the_cursor_and_answers_only_if_asked() -> None:
    log = MemoryLog("ada")
    ties = make_ties(log)
    await push(ties, 3)
    assert await ask(ties, type="ack", seq=2) == []
    assert log.cursors == {"s1": 2}
    assert await ask(ties, type="ack", seq=1, ref="r") == [{"type": "ok", "ref": "r"}]
    assert log.cursors == {"s1": 2}
    [error] = await ask(ties, type="ack", seq=4, ref=7)
    assert (error["type"], error["code"], error["ref"]) == ("error", "ack_out_of_range", 7)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "invalid_json"),
        ("[]", "invalid_frame"),
        ('"ack"', "invalid_frame"),
        ("[" * 10_000, "invalid_json"),
        ('{"type":"sing"}', "unknown_type"),
        ('{"seq":1}', "invalid_frame"),
        ('{"type":"ack"}', "invalid_frame"),
        ('{"type":"ack","seq":true}', "invalid_frame"),
        ('{"type":"ack","seq":-1}', "invalid_frame"),
        ('{"type":"ack","seq":1.0}', "invalid_frame"),
        ('{"type":"ack","seq":9007199254740992}', "invalid_frame"),
        ('{"type":"read"}', "invalid_frame"),
        ('{"type":"read","ids":[]}', "invalid_frame"),
        ('{"type":"read","ids":[1]}', "invalid_frame"),
        ('{"type":"read","ids":["a"],"up_to":1}', "invalid_frame"),
        ('{"type":"token"}', "invalid_frame"),
        ('{"type":"token","token":"x"}', "token_invalid"),
        ('{"type":"ping","ref":{}}', "invalid_frame"),
    ],
)
async def test_a_frame_that_cannot_be_taken_gets_an_error_and_the_socket_stays(text: str, code: str) -> None:
    connection, wire = connect(make_ties(MemoryLog("ada")))
    await settle()
    connection.received(text)
    await settle()
    assert (wire.frames[-1]["type"], wire.frames[-1]["code"], wire.ended) == ("error", code, [])


async def test_unknown_fields_are_ignored() -> None:
    assert await ask(make_ties(MemoryLog("ada")), type="ping", colour="red", ref=1) == [{"type": "pong", "ref": 1}]


async def test_a_client_that_talks_too_much_is_closed() -> None:
    clock = Seconds()
    connection, wire = connect(make_ties(MemoryLog("ada"), clock=clock))
    await settle()
    for _ in range(100):
        connection.received('{"type":"ping"}')
    assert wire.ended == []
    clock.now += 1  # ten more
    for _ in range(11):
        connection.received('{"type":"ping"}')
    assert wire.ended == [RATE_LIMITED]


async def test_what_a_client_said_of_a_log_that_is_no_more_is_not_written() -> None:
    class Slow(MemoryLog):
        asked = 0

        async def ack(self, user_id: str, *, session: str, seq: int, now: int) -> None:
            self.asked += 1
            await gate.wait()

    gate, log = asyncio.Event(), Slow("ada")
    ties = make_ties(log)
    connection, wire = connect(ties)
    await settle()
    for ref in ("1", "2", "3"):
        connection.received(json.dumps({"type": "ack", "seq": 0, "ref": ref}))
    await settle()
    Drain(hub=ties.hub, grace=1.0, monotonic=Seconds()).send_away()
    gate.set()
    await settle()
    assert (log.asked, wire.ended) == (1, [DRAINING])


async def test_who_was_here_and_fell_behind_does_not_wait_for_all_who_have_just_come() -> None:
    ties = make_ties(MemoryLog("ada"), turns=Turns(1))
    stayed, wire = connect(ties)
    await settle()
    async with ties.turns.turn(arriving=True):  # somebody else's
        coming = [connect(ties, session=f"new{n}")[1] for n in range(5)]
        await settle()
        await push(ties, 2)  # nobody is told: only who reads knows
        stayed.recheck(State(2, 0, 2))
        await settle()
        assert [frame["type"] for frame in wire.frames] == ["hello"]
        assert not any(other.frames for other in coming)
    for _ in range(1000):
        if told(wire):
            break
        await asyncio.sleep(0)  # noqa: TID251 - to the moment at which it has read
    assert sum(bool(other.frames) for other in coming) <= 2
    await settle()
    assert [told(other) for other in (wire, *coming)] == [[1, 2]] * 6
