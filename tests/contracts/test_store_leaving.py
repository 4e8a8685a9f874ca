"""How notifications leave an inbox, what their receipts say then, and that every counter stays exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection

from gateway.errors import NotFound
from gateway.model import Withdrawn
from gateway.store import inbox, leaving

if TYPE_CHECKING:
    from tests.contracts.conftest import World

DAY = 24 * 3600 * 1000


async def test_a_withdrawn_one_is_gone_and_its_receipt_says_so(world: World) -> None:
    await world.user()
    first, second = await world.push(amount=2)
    await world.store.inbox.mark_read("ann", ids=[first.id], now=world.now)
    taken = await world.store.inbox.withdraw(first.id, sender="c~shop", now=world.now)
    assert taken == Withdrawn("ann", rev=2, unread=1, id=first.id, seq=1)
    taken = await world.store.inbox.withdraw(second.id, sender=None, now=world.now)
    assert taken == Withdrawn("ann", rev=3, unread=0, id=second.id, seq=2)
    receipt = await world.store.inbox.receipt(first.id, now=world.now)
    assert (receipt.state, receipt.seq, receipt.sender, receipt.read_at) == ("withdrawn", 1, "c~shop", world.now)
    assert await world.counters() == (2, 3, 0)


async def test_only_its_sender_withdraws_it(world: World) -> None:
    await world.user()
    (stored,) = await world.push()
    for _ in range(2):
        with pytest.raises(NotFound):
            await world.store.inbox.withdraw(stored.id, sender="c~other", now=world.now)
        await world.store.inbox.withdraw(stored.id, sender="c~shop", now=world.now)
    with pytest.raises(NotFound):
        await world.store.inbox.withdraw("never", sender=None, now=world.now)


async def test_withdrawing_what_has_left_changes_nothing(world: World) -> None:
    await world.user()
    (stored,) = await world.push(ttl=1000)
    assert await world.store.inbox.withdraw(stored.id, sender=None, now=world.now + 1000) is None
    await world.store.inbox.expire(now=world.now + 1000, limit=10)
    assert await world.store.inbox.withdraw(stored.id, sender=None, now=world.now + 1000) is None
    assert (await world.store.inbox.receipt(stored.id, now=world.now + 1000)).state == "expired"
    assert await world.counters() == (1, 0, 0)


async def test_a_hidden_one_counts_as_read_or_else_as_acknowledged(world: World) -> None:
    await world.user()
    first, second = await world.push(amount=2)
    await world.store.inbox.mark_read("ann", ids=[first.id], now=world.now)
    hidden = await world.store.inbox.hide("ann", first.id, now=world.now + 5)
    assert (hidden.rev, hidden.unread) == (2, 1)
    await world.store.inbox.hide("ann", second.id, now=world.now + 5)
    assert (await world.store.inbox.receipt(first.id, now=world.now)).state == "read"
    receipt = await world.store.inbox.receipt(second.id, now=world.now)
    assert (receipt.state, receipt.acknowledged_at) == ("acknowledged", world.now + 5)
    assert await world.counters() == (2, 3, 0)
    with pytest.raises(NotFound):
        await world.store.inbox.hide("ann", first.id, now=world.now)


async def test_nobody_hides_what_is_somebody_elses(world: World) -> None:
    await world.user("ann")
    await world.user("bob")
    (stored,) = await world.push("bob")
    with pytest.raises(NotFound):
        await world.store.inbox.hide("ann", stored.id, now=world.now)
    assert await world.counters("bob") == (1, 0, 1)


async def test_expired_ones_leave_without_a_change_of_state(world: World) -> None:
    await world.user("ann")
    await world.user("bob")
    session = await world.session("ann")
    a = await world.push("ann", 4, ttl=1000)
    await world.push("ann")
    await world.push("bob", 2, ttl=2000)
    await world.store.inbox.ack("ann", session=session.id, seq=2, now=world.now)
    await world.store.inbox.mark_read("ann", ids=[a[0].id], now=world.now)
    assert await world.store.inbox.expire(now=world.now + 999, limit=10) == 0
    assert await world.store.inbox.expire(now=world.now + 1000, limit=3) == 3
    assert await world.store.inbox.expire(now=world.now + 1000, limit=3) == 1
    assert await world.counters("ann") == (5, 1, 1)
    assert await world.counters("bob") == (2, 0, 2)
    states = [(await world.store.inbox.receipt(s.id, now=world.now)).state for s in a]
    assert states == ["read", "acknowledged", "expired", "expired"]


async def test_a_receipt_tells_of_expiry_before_the_sweep_comes_by(world: World) -> None:
    await world.user()
    (stored,) = await world.push(ttl=1000)
    assert (await world.store.inbox.receipt(stored.id, now=world.now + 999)).state == "stored"
    assert (await world.store.inbox.receipt(stored.id, now=world.now + 1000)).state == "expired"


async def test_the_oldest_beyond_the_limit_leave(world: World) -> None:
    await world.user("ann")
    await world.user("bob")
    stored = [(await world.append(world.draft("ann"))).outcomes[0] for _ in range(14)]
    await world.push("bob", 3)
    await world.store.inbox.withdraw(stored[13].id, sender=None, now=world.now)
    assert await world.store.inbox.trim(["ann", "bob", "nobody"], keep=10, now=world.now) == 3
    page = await world.store.inbox.page("ann", after=0, now=world.now)
    assert [entry.seq for entry in page.entries] == list(range(4, 14))
    assert await world.counters("ann") == (14, 1, 10)
    assert (await world.store.inbox.receipt(stored[0].id, now=world.now)).state == "stored"
    assert await world.store.inbox.trim(["ann"], keep=10, now=world.now) == 0


async def test_a_large_surplus_leaves_too(world: World) -> None:
    await world.user()
    await world.append(*(world.draft() for _ in range(2300)))
    assert await world.store.inbox.trim(["ann"], keep=5, now=world.now) == 2295
    assert await world.counters() == (2300, 0, 5)


async def test_receipts_and_keys_are_purged_when_nobody_can_ask_for_them(world: World) -> None:
    await world.user()
    (stored,) = await world.push()
    await world.append(world.draft(), key=("k", b"1"))
    await world.store.inbox.withdraw(stored.id, sender=None, now=world.now)
    assert await world.store.inbox.purge(now=world.now + DAY - 1, limit=10) == 0
    assert await world.store.inbox.purge(now=world.now + DAY, limit=10) == 1  # the key
    assert await world.store.inbox.purge(now=world.now + 7 * DAY - 1, limit=10) == 0
    assert await world.store.inbox.purge(now=world.now + 7 * DAY, limit=10) == 1
    with pytest.raises(NotFound):
        await world.store.inbox.receipt(stored.id, now=world.now)


async def test_a_deleted_user_leaves_receipts_and_no_inbox(world: World) -> None:
    await world.user()
    (stored,) = await world.push()
    await world.store.users.delete("ann", by=world.by, now=world.now, until=world.until)
    assert (await world.store.inbox.receipt(stored.id, now=world.now)).state == "stored"
    assert await world.store.inbox.states(["ann"]) == {}
    assert (await world.append(world.draft("ann"))).outcomes[0].seq is None


async def test_a_trim_of_many_users_holds_only_some_of_them_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever pushes to the others need not wait for all of it."""
    users = [f"u{n}" for n in range(5)]
    for id in users:
        await world.user(id)
        await world.push(id, amount=3)
    held: list[int] = []
    trim = leaving.trim

    def noted(connection: Connection, user_ids: Sequence[str], **more: Any) -> int:
        held.append(len(user_ids))
        return trim(connection, user_ids, **more)

    monkeypatch.setattr(leaving, "trim", noted)
    monkeypatch.setattr(inbox, "TRIM_USERS", 2)
    assert await world.store.inbox.trim(users, keep=1, now=world.now) == 10
    assert held == [2, 2, 1]
