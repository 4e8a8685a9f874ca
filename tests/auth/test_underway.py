"""AUTH-06: sign-ins in any order. Hundreds of small worlds, each made of one seed, in which everything that is awaited
ends when the seed says so, and what has failed is counted a second time by what the limits promise."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pytest

from gateway import attempts as attempts_module
from gateway import underway
from gateway.attempts import Attempts, places
from gateway.errors import StoreUnavailable, TooManyAttempts, TooManySignIns
from gateway.underway import UnderWay, Visit

SEEDS = range(int(os.environ.get("ATTEMPTS_SEEDS") or 120))
LIMIT, WIDER, WAITING = 3, 2, 6
WINDOW = 60_000
ADDRESSES = [f"10.0.{network}.{host}" for network in range(2) for host in range(3)]
ACCOUNTS = ["ann", "bob", "eve"]
ELSEWHERE = "203.0.113.7"
Key = tuple[str, ...]


class Broken(Exception):
    """What went wrong in the midst of an attempt."""


@dataclass(eq=False)
class Gate:
    """Something awaited. ``what``: read, verify, add, added, clear."""

    what: str
    opened: asyncio.Future[None]


@dataclass(eq=False)
class Visitor:
    number: int
    account: str
    address: str
    right: bool
    state: Literal["outside", "verifying", "ending", "gone"] = "outside"
    outcome: str = ""
    visit: Visit | None = None
    stood: dict[bytes, int] = field(default_factory=dict)
    """By line, how many had come when they were first seen there."""
    task: asyncio.Task[None] = field(init=False)

    @property
    def counts(self) -> dict[Key, int]:
        """What they count for, and how many failures fit there."""
        _, network = places(self.address)
        return {
            ("address", self.address): LIMIT,
            ("network", network): LIMIT * WIDER,
            ("account", self.account): LIMIT,
            ("pair", self.account, network): 1,
        }


class World:
    """``Attempts`` over a store whose every answer is let go by hand, and what the model knows of both. The store may
    read before or after an answer was due, commit what nobody waits for any more, and fail."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = 1_800_000_000_000
        self.gates: list[Gate] = []
        self.rows: dict[bytes, int] = {}
        self.failed: list[tuple[int, Visitor]] = []
        self.forgiven: set[tuple[int, Key]] = set()
        self.visitors: list[Visitor] = []
        self.admitted: list[Visitor] = []
        self.passed: list[tuple[Visitor, Visitor]] = []
        self.moved = False
        self.broken = self.chance.choice([0.0, 0.0, 0.1])
        self.cancelling = self.chance.choice([0, 1, 3])
        self.moving = self.chance.choice([0, 0, 1])
        self.rightly = self.chance.choice([0.1, 0.5, 0.9])
        self.attempts = Attempts(self, secret=b"s", limit=LIMIT, window=WINDOW // 1000, clock=lambda: self.now / 1000)
        self.under_way = self.attempts._under_way
        self.noted(self.under_way)

    def noted(self, under_way: UnderWay) -> None:
        """Who came with which visit; and nobody gets a place while another waits at the same address or network who
        stood there before they came."""
        room, place = under_way.room, under_way._place

        async def noting(visit: Visit) -> None:
            next(one for one in self.visitors if one.task is asyncio.current_task()).visit = visit
            await room(visit)

        def placing(visit: Visit) -> None:
            mine = next(one for one in self.visitors if one.visit is visit)
            for one in self.visitors:
                line = one.visit.line if one.visit else None
                if (
                    line is not None
                    and line in visit.keys[:2]
                    and one.stood.get(line, len(self.visitors)) <= mine.number
                ):
                    self.passed.append((one, mine))
            place(visit)

        under_way.room, under_way._place = noting, placing  # type: ignore[method-assign]

    # -- the store ------------------------------------------------------------------------------------------------

    async def gate(self, what: str) -> None:
        gate = Gate(what, asyncio.get_running_loop().create_future())
        self.gates.append(gate)
        try:
            await gate.opened
        finally:
            self.gates.remove(gate)

    async def until(self, keys: Sequence[bytes]) -> Mapping[bytes, int]:
        early = self.chance.random() < 0.5
        found = {key: self.rows[key] for key in keys if key in self.rows}
        await self.gate("read")
        return found if early else {key: self.rows[key] for key in keys if key in self.rows}

    async def add(self, counts: Sequence[tuple[bytes, int, int]], *, now: int) -> None:
        try:
            await self.gate("add")
        finally:  # it commits even if nobody waits for it any more
            for key, step, full in counts:
                since = max(now, self.rows.get(key, 0))
                self.rows[key] = min(since + step, now + full)
        await self.gate("added")

    async def clear(self, keys: Sequence[bytes]) -> None:
        await self.gate("clear")
        for key in keys:
            self.rows.pop(key, None)

    async def purge(self, *, now: int, limit: int) -> int:
        raise AssertionError("not asked for")

    # -- the model ------------------------------------------------------------------------------------------------

    def room(self, key: Key, quota: int, *, beside: int) -> bool:
        """Whether one more failure fits there, should as many fail now as are under way beside it."""
        until, step = 0, WINDOW // quota
        for number, (at, visitor) in enumerate(self.failed):
            if key in visitor.counts and (number, key) not in self.forgiven:
                until = min(max(at, until) + step, at + WINDOW)
        return max(0, until - self.now) + (beside + 1) * step <= WINDOW

    def may_be_verified(self, mine: Visitor) -> bool:
        under_way = [one for one in self.visitors if one.state == "verifying" and one is not mine]
        fits = {
            key[0]: self.room(key, quota, beside=sum(key in one.counts for one in under_way))
            for key, quota in mine.counts.items()
        }
        return fits["address"] and fits["network"] and (fits["account"] or fits["pair"])

    # -- who signs in ---------------------------------------------------------------------------------------------

    def arrive(self, account: str, address: str, *, right: bool) -> Visitor:
        visitor = Visitor(len(self.visitors), account, address, right)
        self.visitors.append(visitor)
        visitor.task = asyncio.create_task(self.visit(visitor))
        return visitor

    async def visit(self, mine: Visitor) -> None:
        try:
            async with self.attempts.of_account(mine.account, mine.address) as attempt:
                assert self.may_be_verified(mine), f"{mine} is one too many"
                mine.state = "verifying"
                self.admitted.append(mine)
                try:
                    await self.gate("verify")
                    mine.state = "ending"
                    if mine.right:
                        await attempt.succeeded()
                        self.forgive(mine)
                    else:
                        self.failed.append((self.now, mine))
                        await attempt.failed()
                finally:
                    mine.state = "ending"
                mine.outcome = "in" if mine.right else "out"
        except TooManyAttempts as refusal:
            mine.outcome = refusal.policy
        except TooManySignIns:
            mine.outcome = "crowded"
            assert self.under_way.waiting == WAITING
        except (StoreUnavailable, Broken):
            mine.outcome = "broken"
        finally:
            mine.state = "gone"

    def forgive(self, mine: Visitor) -> None:
        account_and_pair = [key for key in mine.counts if key[0] in ("account", "pair")]
        self.forgiven |= {(number, key) for number in range(len(self.failed)) for key in account_and_pair}

    # -- what happens ---------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Until nothing goes on but what stands at a gate, or in a line."""
        for _ in range(8):
            turned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(turned.set_result, None)
            await turned
        self.look()

    def look(self) -> None:
        lines = self.under_way._lines
        standing = [waiter for line in lines.values() for waiter in line]
        assert len(standing) <= self.under_way.waiting <= WAITING
        assert all(self.under_way.at(key) > 0 for key in lines), "nobody will ever wake them"
        for line in lines.values():
            first = line[0]
            if not self.moved:  # time makes room that nobody tells of
                assert self.under_way._in_the_way(first.barriers, first.until), "somebody waits for nothing"
        holding = [one for one in self.visitors if one.state in ("verifying", "ending")]
        asking = sum(gate.what == "read" for gate in self.gates)
        places = sum(self.under_way._places.values())
        assert 4 * len(holding) <= places <= 4 * (len(holding) + asking), "a place too many, or too few"
        for one in self.visitors:
            if one.visit and one.visit.line is not None:
                one.stood.setdefault(one.visit.line, len(self.visitors))

    def open(self, gate: Gate, *, broken: float) -> None:
        if self.chance.random() >= broken or gate.what == "add":
            gate.opened.set_result(None)
        elif gate.what == "verify":
            gate.opened.set_exception(Broken())
        else:
            gate.opened.set_exception(StoreUnavailable())

    async def step(self) -> None:
        live = [one for one in self.visitors if not one.task.done()]
        arriving = 6 if len(live) < 20 else 0
        actions = ["arrive", "open", "cancel", "time"]
        action = self.chance.choices(actions, [arriving, 8, self.cancelling, self.moving])[0]
        if action == "arrive":
            address = self.chance.choice(ADDRESSES[: self.chance.choice([1, 6])])
            self.arrive(self.chance.choice(ACCOUNTS), address, right=self.chance.random() < self.rightly)
        elif action == "open" and (shut := [gate for gate in self.gates if not gate.opened.done()]):
            self.open(self.chance.choice(shut), broken=self.broken)
        elif action == "cancel" and live:
            self.chance.choice(live).task.cancel()
        elif action == "time" and not any(gate.what in ("add", "added") for gate in self.gates):
            self.now += self.chance.choice([1, WINDOW // LIMIT, WINDOW])
            self.moved = True
        if self.chance.random() < 0.8:  # else the next thing happens in the same turn
            await self.settle()

    async def end(self) -> None:
        """All that is left is answered, and nothing breaks any more: everybody is served, or refused."""
        await self.settle()
        for _ in range(100 * len(self.visitors)):
            if not self.gates:
                break
            self.open(self.chance.choice(self.gates), broken=0)
            await self.settle()
        assert [one for one in self.visitors if not one.task.done()] == []
        kept = self.under_way._places, self.under_way._lines, self.under_way.waiting, self.attempts._looks
        assert not any(kept), f"{kept} is left"
        for one in self.visitors:
            if not one.task.cancelled():
                one.task.result()
        passed = [(one, other) for one, other in self.passed if one.outcome not in ("", "broken")]
        assert self.moved or not passed, f"somebody has passed who stood there before they came: {passed}"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts_module, "WIDER", WIDER)
    monkeypatch.setattr(underway, "WAITING", WAITING)


async def test_in_whatever_order_things_happen_nobody_is_one_too_many_or_forgotten() -> None:
    outcomes: set[str] = set()
    for seed in SEEDS:
        world = World(seed)
        try:
            for _ in range(100):
                await world.step()
            await world.end()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        outcomes |= {one.outcome for one in world.visitors}
    assert outcomes >= {"in", "out", "broken", "crowded", "sign-in-address", "sign-in-network", "sign-in-account"}


async def test_in_whatever_order_things_happen_the_owner_is_let_in_from_elsewhere() -> None:
    for seed in SEEDS:
        world = World(seed)
        world.broken = world.cancelling = 0
        for _ in range(world.chance.randrange(100)):
            await world.step()
        owner = world.arrive(world.chance.choice(ACCOUNTS), ELSEWHERE, right=True)
        while owner.state != "gone":
            await world.settle()
            assert not owner.stood, f"seed {seed}"
            if world.gates:
                world.open(world.gates[-1], broken=0)
        assert owner.outcome == "in", f"seed {seed}"
        await world.end()
