"""A revocation counts when it is committed, closes here before it is answered, and is read from the database anyway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from fakes import MemoryLog, Seconds, Wire, make_ties, principal

from gateway.bus.memory import MemoryBus
from gateway.closing import TOKEN_REVOKED, USER_DISABLED
from gateway.connection import Connection
from gateway.errors import StoreUnavailable
from gateway.hub import Hub
from gateway.janitor import CLOCK_MAY_JUMP, Janitor
from gateway.metrics import Metrics
from gateway.model import Actor, Ban, Revocation, Target
from gateway.revocations import FRESH_FOR, Revocations
from gateway.revoke import PAGE, Revoker


class Log:
    def __init__(self) -> None:
        self.bans: list[Ban] = []
        self.down = False
        self.asked: list[int] = []

    def write(self, subject: str, why: str = "token_revoked", until: int = 10**15) -> Ban:
        ban = Ban(len(self.bans) + 1, "session", subject, "ada", None, until, why)
        self.bans.append(ban)
        return ban

    async def since(self, number: int, *, now: int, limit: int | None = None) -> Sequence[Ban]:
        if self.down:
            raise StoreUnavailable
        self.asked.append(number)
        return [ban for ban in self.bans if ban.number > number][:limit]

    async def revoke(self, target: Target, **more: Any) -> Revocation:
        ban = self.write(target.session or "")
        return Revocation("r", target, None, "root", 0, 0, (ban,))


def make() -> tuple[Revoker, Log, Hub, Seconds]:
    log, clock = Log(), Seconds()
    hub = Hub(node="n", per_user=9, per_address=0, most=9)
    store: Any = log
    revoker = Revoker(
        store=store, memory=Revocations(), hub=hub, bus=MemoryBus(), clock=clock, monotonic=clock, access_ttl=900
    )
    return revoker, log, hub, clock


def listener(hub: Hub, session: str) -> Wire:
    wire, ties = Wire(), make_ties(MemoryLog("ada"), hub=hub)
    Connection(principal(session=session), ties=ties, address=None, after=None).attach(wire)
    return wire


async def test_the_matching_sockets_are_closed_before_it_is_answered_and_no_others() -> None:
    revoker, _, hub, _ = make()
    lost, kept = listener(hub, "s1"), listener(hub, "s2")
    _, closed = await revoker.revoke(Target(session="s1"), reason=None, by=Actor("root"))
    assert (closed, lost.ended, kept.ended) == (1, [TOKEN_REVOKED], [])


async def test_what_others_wrote_is_read_and_closes_with_its_own_reason() -> None:
    revoker, log, hub, _ = make()
    wire = listener(hub, "s1")
    log.write("s1", why="user_disabled")
    await revoker.poll()
    assert wire.ended == [USER_DISABLED]
    await revoker.poll()
    assert log.asked == [0, 1]  # each is read once


async def test_a_node_that_cannot_read_is_stale_after_a_second_and_fresh_again_when_it_can() -> None:
    revoker, log, _, clock = make()
    assert not revoker.fresh
    await revoker.poll()
    clock.now += FRESH_FOR
    assert revoker.fresh
    clock.now += 0.01
    assert not revoker.fresh
    log.down = True
    with pytest.raises(StoreUnavailable):
        await revoker.poll()
    assert not revoker.fresh
    log.down = False
    await revoker.poll()
    assert revoker.fresh


async def test_freshness_counts_from_the_start_of_the_read() -> None:
    revoker, log, _, clock = make()
    answer = log.since

    async def slow(number: int, *, now: int, limit: int | None = None) -> Sequence[Ban]:
        clock.now += 5
        return await answer(number, now=now, limit=limit)

    log.since = slow  # type: ignore[method-assign] # the one answer that takes its time
    await revoker.poll()
    assert not revoker.fresh


async def test_many_are_read_page_by_page_and_count_as_read_when_all_are() -> None:
    revoker, log, hub, clock = make()
    first, last = listener(hub, "s0"), listener(hub, f"s{2 * PAGE}")
    for number in range(2 * PAGE + 1):
        log.write(f"s{number}")
    answer = log.since

    async def slow(number: int, *, now: int, limit: int | None = None) -> Sequence[Ban]:
        assert limit == PAGE
        assert not revoker.fresh
        clock.now += FRESH_FOR
        return await answer(number, now=now, limit=limit)

    log.since = slow  # type: ignore[method-assign]
    await revoker.poll()
    assert (first.ended, last.ended, log.asked) == ([TOKEN_REVOKED], [TOKEN_REVOKED], [0, PAGE, 2 * PAGE])
    assert revoker.fresh, "since the last read began"


async def test_a_ban_outlives_every_token_it_is_aimed_at() -> None:
    revoker, _, _, clock = make()
    assert revoker.until() >= (clock.now + 900 + 30) * 1000


class Sweeper:
    """An inbox, sessions and revocations of which a number of rows is due."""

    def __init__(self, **due: int) -> None:
        self.due = due
        self.trimmed: list[Sequence[str]] = []
        self.down = False

    def _take(self, kind: str, limit: int) -> int:
        if self.down:
            raise StoreUnavailable
        taken = min(limit, self.due.get(kind, 0))
        self.due[kind] = self.due.get(kind, 0) - taken
        return taken

    async def expire(self, *, now: int, limit: int) -> int:
        return self._take("expired", limit)

    async def trim(self, user_ids: Sequence[str], *, keep: int, now: int) -> int:
        self._take("trimmed", 0)
        self.trimmed.append(user_ids)
        return len(user_ids)

    async def purge(self, *, limit: int, now: int = 0, before: int = 0, idle: int = 0) -> int:
        return self._take("purged", limit)


async def test_the_janitor_goes_on_until_nothing_is_due_and_trims_whom_it_was_told_of() -> None:
    work: Any = Sweeper(expired=1200, purged=700)
    denylist, clock = Revocations(), Seconds()
    ended = int(clock.now * 1000) - CLOCK_MAY_JUMP
    denylist.add([Ban(1, "session", "old", "ada", None, ended, "token_revoked")])
    denylist.add([Ban(2, "session", "over", "ada", None, ended + 1, "token_revoked")])
    janitor = Janitor(
        inbox=work, sessions=work, revocations=work, tickets=work, failures=work,
        denylist=denylist, clock=clock, metrics=Metrics(), keep=10, idle=10**9,
    )  # fmt: skip
    janitor.overfull(["bob", "ada", "bob"])
    await janitor.sweep()
    assert (work.due["expired"], work.due["purged"], work.trimmed, len(denylist)) == (0, 0, [["ada", "bob"]], 1)
    janitor.overfull(["cid"])
    work.down = True
    with pytest.raises(StoreUnavailable):
        await janitor.sweep()
    work.down = False
    await janitor.sweep()
    assert work.trimmed[-1] == ["cid"]  # not forgotten with the round that failed
