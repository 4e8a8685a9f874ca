"""Commit, then ring; what must be heard is rung whatever becomes of who asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from fakes import MemoryLog, Seconds, make_ties

from gateway.errors import Invalid, Limited, StoreUnavailable
from gateway.limiting.memory import MemoryLimiter
from gateway.metrics import Metrics
from gateway.model import (
    Again,
    Append,
    Appended,
    Arrived,
    Entry,
    MarkedRead,
    NodePresence,
    Passing,
    PresenceSummary,
    Signal,
    Stored,
    Withdrawn,
)
from gateway.presence.memory import MemoryPresence
from gateway.publish import Publisher, Push


class Ear:
    def __init__(self) -> None:
        self.heard: list[Signal] = []

    def publish(self, signals: Sequence[Signal]) -> None:
        self.heard += signals


def make(log: Any, *, rate: int = 0) -> tuple[Publisher, Ear, Seconds, list[str]]:
    ear, clock, full = Ear(), Seconds(), list[str]()
    bus: Any = ear
    presence = MemoryPresence(node="n", clock=clock, monotonic=clock)
    publisher = Publisher(
        inbox=log, bus=bus, presence=presence, clock=clock, metrics=Metrics(),
        limiter=MemoryLimiter(clock), rate=rate,
        overfull=full.extend,
    )  # fmt: skip
    return publisher, ear, clock, full


def push(*users: str) -> Push:
    return Push(users, '"title":"t"', None, 60)


async def test_what_was_committed_is_announced_in_order() -> None:
    publisher, ear, _, _ = make(MemoryLog("ada", "bob"))
    results = await publisher.push_all("c~x", [push("ada"), push("ada", "bob", "ghost")])
    assert all(isinstance(result, Appended) for result in results)
    assert [(signal.user_id, signal.entry.seq) for signal in ear.heard if isinstance(signal, Arrived)] == [
        ("ada", 1), ("ada", 2), ("bob", 1),
    ]  # fmt: skip


class SlowLog(MemoryLog):
    """Commits when it is told to."""

    def __init__(self, *users: str) -> None:
        super().__init__(*users)
        self.gate = asyncio.Event()

    async def _append_all(self, requests: Sequence[Append]) -> list[Appended]:
        await self.gate.wait()
        return await super()._append_all(requests)


async def test_a_caller_who_goes_away_while_it_commits_leaves_nobody_unrung() -> None:
    log = SlowLog("ada")
    publisher, ear, _, _ = make(log)
    asking = asyncio.create_task(publisher.push_all("c~x", [push("ada")]))
    for _ in range(5):
        await asyncio.sleep(0)  # noqa: TID251 - lets the loop turn
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    log.gate.set()
    for _ in range(5):
        await asyncio.sleep(0)  # noqa: TID251 - lets the loop turn
    assert len(ear.heard) == 1


class Scripted:
    def __init__(self, *results: Any) -> None:
        self.results = results

    def append_all(self, requests: Sequence[Append]) -> Any:
        async def answer() -> list[Any]:
            return list(self.results)

        return answer()


async def test_an_item_that_failed_is_its_own_result() -> None:
    stored = Stored("ada", "id", 1, 0, 10**15, None)
    mismatch = Invalid(code="idempotency_mismatch")
    publisher, ear, _, full = make(Scripted(Appended((stored,), overfull=("ada",)), mismatch))
    results = await publisher.push_all("c~x", [push("ada"), push("ada")])
    assert results[1] is mismatch
    assert (len(ear.heard), full) == (1, ["ada"])


async def test_after_a_replay_everybody_looks_into_the_log() -> None:
    """The first answer of the database may have been lost on its way, and with it the announcement."""
    stored = Stored("ada", "first", 7, 5, 10**15, None)
    publisher, ear, _, _ = make(Scripted(Appended((stored,), replayed=True)))
    await publisher.push_all("c~x", [push("ada")])
    assert ear.heard == [Again(("ada",))]


async def test_a_bug_of_the_store_is_not_passed_off_as_an_answer() -> None:
    publisher, _, _, _ = make(Scripted(KeyError("bug")))
    with pytest.raises(KeyError):
        await publisher.push_all("c~x", [push("ada")])
    publisher, _, _, _ = make(Scripted(StoreUnavailable()))
    [result] = await publisher.push_all("c~x", [push("ada")])
    assert isinstance(result, StoreUnavailable)


async def test_a_sender_pays_for_each_notification_and_is_told_when_to_come_back() -> None:
    publisher, _, clock, _ = make(MemoryLog(), rate=10)
    await publisher.admit("c~x", 10)
    await publisher.admit("c~y", 1)
    with pytest.raises(Limited) as limited:
        await publisher.admit("c~x", 5)
    assert (limited.value.quota, limited.value.window, limited.value.retry_after) == (10, 1, 0.5)
    clock.now += 0.5
    await publisher.admit("c~x", 5)
    clock.now += 1
    await publisher.admit("c~x", 1000)  # larger than the bucket: admitted when it is full, and paid for
    clock.now += 99
    with pytest.raises(Limited):
        await publisher.admit("c~x", 1)
    clock.now += 1
    await publisher.admit("c~x", 1)


async def test_the_fast_lane_stores_nothing() -> None:
    log = MemoryLog("ada")
    publisher, ear, clock, _ = make(log)
    id = publisher.pass_by("c~x", ("ada",), '"title":"t"')
    assert ear.heard == [Passing(("ada",), id, '"title":"t"', int(clock.now * 1000))]
    assert log.entries["ada"] == {}


async def test_changes_of_state_are_rung_only_if_something_changed() -> None:
    log = MemoryLog("ada")
    publisher, ear, _, _ = make(log)
    await publisher.push_all("c~x", [push("ada")])
    ear.heard.clear()
    marked = await publisher.mark_read("ada", up_to=1)
    assert ear.heard == [marked]
    await publisher.withdraw(log.entries["ada"][1].id, sender=None)
    assert isinstance(ear.heard[-1], Withdrawn)

    class Unchanged(MemoryLog):
        async def mark_read(self, user_id: str, **what: Any) -> MarkedRead:
            return MarkedRead(user_id, 1, 0, changed=False)

        async def withdraw(self, id: str, **who: Any) -> Any:
            return None

    publisher, ear, _, _ = make(Unchanged("ada"))
    await publisher.mark_read("ada", up_to=0)
    await publisher.withdraw("gone", sender=None)
    assert ear.heard == []


async def test_long_lists_are_delivered_in_slices_and_in_order() -> None:
    from gateway.relay import SLICE, Relay

    users = [f"u{n}" for n in range(3 * SLICE)]
    ties = make_ties(MemoryLog(*users))
    told: list[str] = []

    class Listener:
        address = None

        def __init__(self, user: str) -> None:
            from fakes import principal

            self.claims = principal(user).claims

        def offer(self, seq: int, frame: Any) -> None:
            told.append(f"{self.claims.subject}:{seq}")

        def offer_passing(self, frame: Any) -> bool:
            told.append(f"{self.claims.subject}:-")
            return True

    listeners: list[Any] = [Listener(user) for user in users]
    for listener in listeners:
        ties.hub.attach(listener)
    relay = Relay(
        hub=ties.hub, states=ties.inbox, fresh=lambda: True, revocations_rung=lambda: None, metrics=ties.metrics
    )
    async with ties.bus.listen(relay):
        ties.publisher.pass_by("c~x", None, '"title":"t"')
        assert told == []  # a wide one never goes out in the caller's own turn
        await asyncio.sleep(0)  # noqa: TID251 - one turn
        ties.bus.publish([Arrived("u0", Entry(1, "id", '"title":"t"', 0, 0))])
        assert "u0:1" not in told  # what is later waits behind what is under way
        for _ in range(10):
            await asyncio.sleep(0)  # noqa: TID251 - lets the loop turn
    assert told == [*(f"{user}:-" for user in users), "u0:1"]


class Known:
    """What all nodes together know."""

    def __init__(self, online: dict[str, bool | None], summary: PresenceSummary) -> None:
        self._online, self._summary = online, summary

    async def online(self, user_ids: Sequence[str]) -> dict[str, bool | None]:
        return {user_id: self._online.get(user_id) for user_id in user_ids}

    async def summary(self) -> PresenceSummary:
        return self._summary


async def test_who_is_online_is_counted_on_all_nodes_or_not_at_all() -> None:
    def publisher(**summary: Any) -> Publisher:
        nodes = (NodePresence("n1", 2, 3, 0), NodePresence("n2", 5, 5, 0))
        known: Any = Known({"ada": True, "bob": True, "cid": False}, PresenceSummary(nodes, **summary))
        clock: Any = Seconds()
        nothing: Any = MemoryLog()
        return Publisher(
            inbox=nothing, bus=known, presence=known, clock=clock, metrics=Metrics(),
            limiter=MemoryLimiter(clock), rate=0,
            overfull=lambda user_ids: None,
        )  # fmt: skip

    assert await publisher().online_count(["ada", "bob", "cid"]) == 2
    assert await publisher().online_count(["ada", "unknown"]) is None
    assert await publisher().online_count(None) == 7
    assert await publisher(complete=False).online_count(None) is None
