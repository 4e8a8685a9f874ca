"""What the bus says was missed is compared with the log: soon for those it names, slowly for everybody."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from fakes import principal
from wire import called_off, eventually_async

from gateway import relay as module
from gateway.errors import StoreUnavailable
from gateway.frames import Frame
from gateway.hub import Hub
from gateway.metrics import Metrics
from gateway.model import Arrived, Entry, Passing, Signal, State
from gateway.relay import RECHECK_SLICE, Relay


class Listening:
    """A connection that keeps what it was compared with."""

    address = None

    def __init__(self, user: str) -> None:
        self.claims = principal(user).claims
        self.compared: list[State | None] = []
        self.told: list[list[str]] = []

    def recheck(self, state: State | None) -> None:
        self.compared.append(state)

    def offer(self, seq: int, frame: Frame) -> None:
        self.told.append([str(seq)])

    def offer_passing(self, frame: Frame) -> bool:
        assert frame.ws == b"".join(part.ws for part in frame.parts)
        assert frame.sse("e") == b"".join(part.sse("e") for part in frame.parts)
        self.told.append([json.loads(part.json)["id"] for part in frame.parts])
        return True


class States:
    """``broken``: the database cannot be asked. ``held``: its answers are on their way until this is set."""

    def __init__(self) -> None:
        self.now: dict[str, State] = {}
        self.asked: list[Sequence[str]] = []
        self.broken = False
        self.held = asyncio.Event()
        self.held.set()

    async def states(self, user_ids: Sequence[str]) -> Mapping[str, State]:
        self.asked.append(list(user_ids))
        found = {user_id: self.now.get(user_id, State(0, 0, 0)) for user_id in user_ids}
        await self.held.wait()
        if self.broken:
            raise StoreUnavailable
        return found


class Node:
    def __init__(self) -> None:
        self.hub = Hub(node="n", per_user=10, per_address=0, most=10_000)
        self.states, self.rung, self.trouble, self.metrics = States(), 0, "", Metrics()
        self.relay = Relay(
            hub=self.hub, states=self.states, fresh=lambda: True, revocations_rung=self._ring, metrics=self.metrics,
            trouble=lambda: self.trouble or None,
        )  # fmt: skip

    def _ring(self) -> None:
        self.rung += 1

    def connect(self, user: str) -> Listening:
        one: Any = Listening(user)
        self.hub.attach(one)
        return one  # type: ignore[no-any-return]


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    yield node
    if node.relay._resyncing is not None:
        await called_off(node.relay._resyncing)


async def test_those_who_are_named_are_compared_with_the_log_and_nobody_else(node: Node) -> None:
    ada, ben = node.connect("ada"), node.connect("ben")
    other = node.connect("ada")
    node.states.now["ada"] = State(7, 2, 1)
    node.relay.resync(["ada", "who is not here"])
    await eventually_async(lambda: ada.compared)
    assert (ada.compared, other.compared, ben.compared) == ([State(7, 2, 1)], [State(7, 2, 1)], [])
    assert node.states.asked == [["ada"]]
    assert node.rung == 0


def passing(id: str, to: tuple[str, ...] | None = None, *, size: int = 10) -> Passing:
    return Passing(to, id, f'"title":"{"t" * size}"', 0)


async def test_a_burst_to_the_same_users_is_one_write_for_each_and_in_order(node: Node) -> None:
    ada, ben = node.connect("ada"), node.connect("ben")
    node.relay.signals([passing("a"), passing("b"), passing("c")])
    await eventually_async(lambda: ben.told)
    assert ada.told == ben.told == [["a", "b", "c"]]
    assert node.metrics.registry.get_sample_value("gateway_frames_written_total") == 6
    node.relay.signals([passing("d")])
    await eventually_async(lambda: len(ben.told) == 2)
    assert ada.told[1:] == ben.told[1:] == [["d"]]


async def test_what_goes_to_others_or_is_stored_keeps_its_place_in_the_order(node: Node) -> None:
    ada, ben = node.connect("ada"), node.connect("ben")
    stored = Arrived("ada", Entry(7, "n", '"title":"n"', 0, 1, None))
    burst: list[Signal] = [passing("a"), passing("b", ("ada",)), passing("c", ("ada",)), stored, passing("d")]
    node.relay.signals(burst)
    await eventually_async(lambda: len(ben.told) == 2)
    assert ada.told == [["a"], ["b", "c"], ["7"], ["d"]]
    assert ben.told == [["a"], ["d"]]


async def test_no_more_travels_together_than_a_transport_takes(node: Node) -> None:
    ada = node.connect("ada")
    each = module.TOGETHER // 2 - module.ENVELOPE - 20
    node.relay.signals([passing(str(n), size=each) for n in range(7)])
    await eventually_async(lambda: sum(map(len, ada.told)) == 7)
    assert ada.told == [["0", "1", "2"], ["3", "4", "5"], ["6"]]


async def test_many_calls_become_few_questions(node: Node) -> None:
    users = [f"u{n}" for n in range(RECHECK_SLICE + 10)]
    everybody = [node.connect(user) for user in users]
    for user in users:
        node.relay.resync([user])
        node.relay.resync([user])
    await eventually_async(lambda: all(one.compared for one in everybody))
    assert node.states.asked == [users[:RECHECK_SLICE], users[RECHECK_SLICE:]]


async def test_everybody_means_all_who_are_connected_and_the_revocations(node: Node) -> None:
    ada, ben = node.connect("ada"), node.connect("ben")
    node.relay.resync(None)
    await eventually_async(lambda: ada.compared and ben.compared)
    assert (node.states.asked, node.rung) == ([["ada", "ben"]], 1)


async def test_who_is_named_while_the_answer_is_on_its_way_is_asked_for_again(node: Node) -> None:
    ada = node.connect("ada")
    node.states.held.clear()
    node.relay.resync(["ada"])
    await eventually_async(lambda: node.states.asked)
    node.states.now["ada"] = State(1, 0, 1)  # committed after the question was answered
    node.relay.resync(["ada"])
    node.states.held.set()
    await eventually_async(lambda: len(ada.compared) == 2)
    assert ada.compared == [State(0, 0, 0), State(1, 0, 1)]


async def test_while_the_database_cannot_be_asked_it_is_tried_again_and_nobody_is_forgotten(node: Node) -> None:
    ada, ben = node.connect("ada"), node.connect("ben")
    node.states.broken = True
    node.relay.resync(["ada"])
    await eventually_async(lambda: node.states.asked)
    node.relay.resync(["ben"])
    assert (ada.compared, ben.compared) == ([], [])
    node.states.broken = False
    await eventually_async(lambda: ada.compared and ben.compared)


async def test_the_slow_recheck_compares_everybody_and_hurries_while_hints_do_not_travel(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECHECK_EVERY", 1000.0)
    monkeypatch.setattr(module, "RECHECK_EVERY_IN_TROUBLE", 0.1)
    ada = node.connect("ada")
    running = asyncio.create_task(node.relay.keep_rechecking())
    try:
        began = time.monotonic()
        node.trouble = "Redis is gone"
        await eventually_async(lambda: len(ada.compared) >= 3)
        assert time.monotonic() - began < 5.0
        node.trouble = ""
        await eventually_async(lambda: True)
        told = len(ada.compared)
        node.states.broken = True
        node.trouble = "gone again"  # in the middle of a pause of minutes
        await eventually_async(lambda: len(node.states.asked) > told + 1, what="the pause is cut short")
    finally:
        await called_off(running)


async def test_what_a_resync_still_owes_ends_with_the_recheck(node: Node) -> None:
    node.connect("ada")
    node.states.broken = True
    running = asyncio.create_task(node.relay.keep_rechecking())
    node.relay.resync(["ada"])
    await eventually_async(lambda: node.states.asked)
    await called_off(running)
    await eventually_async(lambda: node.relay._resyncing is None, what="no task is left behind")
