"""What the reading and marking half of ``Inbox`` promises, over every adapter."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from gateway.errors import Conflict, Invalid, NotFound
from gateway.model import Actor, Entry, State, Target

if TYPE_CHECKING:
    from tests.contracts.conftest import World

DAY = 24 * 3600 * 1000


def seqs(entries: tuple[Entry, ...]) -> list[int]:
    return [entry.seq for entry in entries]


# -- pages -------------------------------------------------------------------------------------------------------


async def test_a_page_holds_what_lies_after_a_position_oldest_first(world: World) -> None:
    await world.user()
    await world.push(amount=5)
    page = await world.store.inbox.page("ann", after=2, now=world.now)
    assert seqs(page.entries) == [3, 4, 5]
    assert page.upto == 5
    assert page.state == State(head=5, rev=0, unread=5)


async def test_a_page_is_bounded_in_rows_and_says_how_far_it_looked(world: World) -> None:
    await world.user()
    await world.append(*(world.draft() for _ in range(205)))
    page = await world.store.inbox.page("ann", after=0, now=world.now)
    assert (len(page.entries), page.upto, page.state.head) == (100, 100, 205)
    page = await world.store.inbox.page("ann", after=100, now=world.now)
    assert (len(page.entries), page.upto) == (100, 200)
    page = await world.store.inbox.page("ann", after=200, now=world.now)
    assert (seqs(page.entries), page.upto) == ([201, 202, 203, 204, 205], 205)


async def test_a_page_of_exactly_the_limit_reaches_the_head(world: World) -> None:
    await world.user()
    await world.append(*(world.draft() for _ in range(100)))
    page = await world.store.inbox.page("ann", after=0, now=world.now)
    assert (len(page.entries), page.upto) == (100, 100)


async def test_a_page_is_bounded_in_bytes_but_never_empty_when_something_is_there(world: World) -> None:
    await world.user()
    await world.push(amount=3, text="x" * 30_000)
    await world.push(text="y" * 100_000)
    await world.push()
    found = []
    after = 0
    for _ in range(4):
        page = await world.store.inbox.page("ann", after=after, now=world.now)
        found.append((seqs(page.entries), page.upto))
        after = page.upto
    assert found == [([1, 2], 2), ([3], 3), ([4], 4), ([5], 5)]


async def test_bytes_are_counted_as_utf_8(world: World) -> None:
    await world.user()
    await world.push(amount=2, text="\U0001f600" * 10_000)
    page = await world.store.inbox.page("ann", after=0, now=world.now)
    assert seqs(page.entries) == [1]


async def test_upto_covers_numbers_that_will_not_come(world: World) -> None:
    await world.user()
    stored = await world.push(amount=5)
    await world.store.inbox.withdraw(stored[4].id, sender=None, now=world.now)
    await world.store.inbox.withdraw(stored[1].id, sender=None, now=world.now)
    page = await world.store.inbox.page("ann", after=0, now=world.now)
    assert (seqs(page.entries), page.upto) == ([1, 3, 4], 5)


@pytest.mark.parametrize("seed", range(5))
async def test_whoever_walks_the_pages_meets_everything_once_and_no_false_gap(world: World, seed: int) -> None:
    chance = random.Random(seed)
    await world.user()
    there: dict[int, str] = {}
    for _ in range(4):
        sizes = [chance.choice([1, 300, 9_000, 65_535, 65_536, 65_537, 90_000]) for _ in range(chance.randint(1, 150))]
        if chance.random() < 0.5:
            sizes = [size % 1000 for size in sizes]
        appended = await world.append(
            *(world.draft(text="x" * size, ttl=chance.choice([5, 50, 50, 50])) for size in sizes)
        )
        there |= {
            stored.seq: stored.id for stored in appended.outcomes if stored.seq and stored.expires_at > world.now + 5
        }
    for seq in chance.sample(sorted(there), len(there) // 5):
        await world.store.inbox.withdraw(there.pop(seq), sender=None, now=world.now)
    walked: list[int] = []
    after = pages = 0
    while True:
        page = await world.store.inbox.page("ann", after=after, now=world.now + 5)
        assert len(page.entries) <= 100
        assert len(page.entries) <= 1 or sum(len(entry.content) for entry in page.entries) <= 65_536
        walked += seqs(page.entries)
        pages += 1
        if page.upto == page.state.head:
            break
        assert page.upto == page.entries[-1].seq > after
        after = page.upto
    assert walked == sorted(there)
    assert pages <= len(walked) + 1


async def test_what_has_expired_is_in_no_page_listing_or_entry(world: World) -> None:
    await world.user()
    (short,) = await world.push(ttl=1000)
    await world.push(ttl=5000)
    late = world.now + 1000
    assert seqs((await world.store.inbox.page("ann", after=0, now=late - 1)).entries) == [1, 2]
    page = await world.store.inbox.page("ann", after=0, now=late)
    assert (seqs(page.entries), page.upto) == ([2], 2)
    listing = await world.store.inbox.listing(
        "ann", after=None, before=None, limit=9, unread=False, category=None, now=late
    )
    assert seqs(listing.entries) == [2]
    with pytest.raises(NotFound) as refusal:
        await world.store.inbox.entry("ann", short.id, now=late)
    assert refusal.value.code == "unknown_notification"


async def test_many_pages_asked_at_once_are_each_ones_own(world: World) -> None:
    users = [f"user{n}" for n in range(60)]
    for number, user in enumerate(users):
        await world.user(user)
        await world.push(user, number % 4)
    asked = [(user, after) for user in users for after in (0, 1)]
    pages = await asyncio.gather(*(world.store.inbox.page(u, after=a, now=world.now) for u, a in asked))
    for (user, after), page in zip(asked, pages, strict=True):
        head = users.index(user) % 4
        assert seqs(page.entries) == list(range(after + 1, head + 1))
        assert page.state.head == head


async def test_the_page_of_a_stranger_is_empty(world: World) -> None:
    page = await world.store.inbox.page("nobody", after=3, now=world.now)
    assert (page.entries, page.upto, page.state) == ((), 0, State(0, 0, 0))


async def test_states_leave_strangers_out(world: World) -> None:
    await world.user("ann")
    await world.user("bob")
    await world.push("bob", 2)
    one, both = await asyncio.gather(
        world.store.inbox.states(["bob", "nobody"]), world.store.inbox.states(["ann", "bob"])
    )
    assert one == {"bob": State(2, 0, 2)}
    assert both == {"ann": State(0, 0, 0), "bob": State(2, 0, 2)}


# -- openings and acknowledging ------------------------------------------------------------------------------------


async def test_an_opening_tells_cursor_and_state(world: World) -> None:
    await world.user()
    session = await world.session()
    await world.push(amount=3)
    await world.store.inbox.ack("ann", session=session.id, seq=2, now=world.now)
    opening = await world.store.inbox.opening("ann", session=session.id, now=world.now)
    assert (opening.cursor, opening.state, opening.ended_why) == (2, State(3, 0, 3), None)


async def test_an_opening_of_no_session_says_why_it_ends(world: World) -> None:
    await world.user("ann")
    await world.user("bob")
    session = await world.session("ann")
    opening = world.store.inbox.opening
    assert (await opening("ann", session="none", now=world.now)).ended_why == "token_revoked"
    assert (await opening("bob", session=session.id, now=world.now)).ended_why == "token_revoked"
    assert (await opening("ann", session=session.id, now=session.expires_at)).ended_why == "token_expired"
    await world.store.users.update("ann", role=None, disabled=True, by=world.by, now=world.now, until=world.until)
    assert (await opening("ann", session=session.id, now=world.now)).ended_why == "user_disabled"


async def test_a_cursor_never_moves_back(world: World) -> None:
    await world.user()
    session = await world.session()
    await world.push(amount=9)
    await asyncio.gather(
        *(world.store.inbox.ack("ann", session=session.id, seq=seq, now=world.now) for seq in (3, 7, 5))
    )
    await world.store.inbox.ack("ann", session=session.id, seq=4, now=world.now)
    assert (await world.store.sessions.get(session.id)).cursor == 7


async def test_an_ack_beyond_the_head_moves_nothing_and_hinders_nobody(world: World) -> None:
    await world.user("ann")
    await world.user("bob")
    mine, other = await world.session("ann"), await world.session("bob")
    await world.push("ann", 2)
    await world.push("bob", 2)
    results = await asyncio.gather(
        world.store.inbox.ack("ann", session=mine.id, seq=3, now=world.now),
        world.store.inbox.ack("bob", session=other.id, seq=2, now=world.now),
        return_exceptions=True,
    )
    assert isinstance(results[0], Conflict)
    assert results[0].code == "ack_out_of_range"
    assert (await world.store.sessions.get(mine.id)).cursor == 0
    assert (await world.store.sessions.get(other.id)).cursor == 2


async def test_the_ack_of_a_session_that_ended_is_ignored(world: World) -> None:
    await world.user()
    session = await world.session()
    (stored,) = await world.push()
    by = Actor("ann")
    await world.store.revocations.revoke(
        Target(session=session.id), why="token_revoked", reason=None, by=by, now=world.now, until=world.until
    )
    await world.store.inbox.ack("ann", session=session.id, seq=1, now=world.now)
    assert (await world.store.sessions.get(session.id)).cursor == 0
    assert (await world.store.inbox.receipt(stored.id, now=world.now)).state == "stored"


async def test_the_first_device_that_acknowledges_counts(world: World) -> None:
    await world.user()
    one, two = await world.session(), await world.session()
    stored = await world.push(amount=3)
    await world.store.inbox.ack("ann", session=one.id, seq=2, now=world.now + 10)
    await world.store.inbox.ack("ann", session=two.id, seq=3, now=world.now + 20)
    receipts = [await world.store.inbox.receipt(s.id, now=world.now) for s in stored]
    assert [receipt.acknowledged_at for receipt in receipts] == [world.now + 10, world.now + 10, world.now + 20]
    assert {receipt.state for receipt in receipts} == {"acknowledged"}
    assert await world.counters() == (3, 0, 3)


async def test_a_new_session_starts_at_the_highest_any_device_acknowledged(world: World) -> None:
    await world.user()
    old = await world.session()
    await world.push(amount=3)
    assert (await world.session()).cursor == 0
    await world.store.inbox.ack("ann", session=old.id, seq=2, now=world.now)
    await world.store.revocations.revoke(
        Target(session=old.id), why="token_revoked", reason=None, by=world.by, now=world.now, until=world.until
    )
    await world.store.sessions.purge(before=world.now + 1, idle=DAY, limit=9)
    assert (await world.session()).cursor == 2


# -- reading --------------------------------------------------------------------------------------------------------


async def test_marking_as_read_counts_once(world: World) -> None:
    await world.user()
    stored = await world.push(amount=3)
    ids = [stored[2].id, "unknown", stored[0].id, stored[0].id]
    marked = await world.store.inbox.mark_read("ann", ids=ids, now=world.now)
    assert (marked.ids, marked.rev, marked.unread, marked.changed) == ((stored[2].id, stored[0].id), 1, 1, True)
    again = await world.store.inbox.mark_read("ann", ids=ids, now=world.now + 1)
    assert (again.ids, again.rev, again.unread, again.changed) == ((), 1, 1, False)
    assert (await world.store.inbox.entry("ann", stored[0].id, now=world.now)).read_at == world.now
    assert await world.counters() == (3, 1, 1)


async def test_nobody_marks_what_is_somebody_elses(world: World) -> None:
    await world.user("ann")
    await world.user("bob")
    (stored,) = await world.push("bob")
    assert not (await world.store.inbox.mark_read("ann", ids=[stored.id], now=world.now)).changed
    assert await world.counters("bob") == (1, 0, 1)


async def test_everything_read_leaves_nothing_unread_expired_or_not(world: World) -> None:
    await world.user()
    (short,) = await world.push(ttl=1000)
    await world.push(amount=3)
    later = world.now + 1000
    marked = await world.store.inbox.mark_read("ann", up_to=3, now=later)
    assert (marked.up_to, marked.rev, marked.unread, marked.changed) == (3, 1, 1, True)
    assert (await world.store.inbox.mark_read("ann", up_to=4, now=later)).unread == 0
    receipt = await world.store.inbox.receipt(short.id, now=later)
    assert (receipt.state, receipt.read_at) == ("expired", None)


async def test_reading_beyond_the_head_is_refused(world: World) -> None:
    await world.user()
    await world.push()
    with pytest.raises(Invalid) as refusal:
        await world.store.inbox.mark_read("ann", up_to=2, now=world.now)
    assert [pointer for pointer, _ in refusal.value.errors] == ["/up_to"]
    with pytest.raises(NotFound):
        await world.store.inbox.mark_read("nobody", up_to=0, now=world.now)


# -- listings --------------------------------------------------------------------------------------------------------


async def test_a_listing_goes_on_where_it_stopped_in_both_directions(world: World) -> None:
    await world.user()
    await world.push(amount=5)

    async def ask(after: int | None, before: int | None) -> tuple[list[int], int | None]:
        listing = await world.store.inbox.listing(
            "ann", after=after, before=before, limit=2, unread=False, category=None, now=world.now
        )
        assert listing.state == State(5, 0, 5)
        return seqs(listing.entries), listing.next

    assert await ask(None, None) == ([5, 4], 4)
    assert await ask(None, 4) == ([3, 2], 2)
    assert await ask(None, 2) == ([1], None)
    assert await ask(0, None) == ([1, 2], 2)
    assert await ask(2, 5) == ([3, 4], None)
    assert await ask(4, None) == ([5], None)


async def test_a_listing_can_ask_for_a_category_and_for_the_unread(world: World) -> None:
    await world.user()
    drafts = [world.draft(category=category) for category in ("news", None, "orders", "news")]
    await world.append(*drafts)
    await world.store.inbox.mark_read("ann", ids=[drafts[0].id], now=world.now)

    async def ask(unread: bool, category: str | None) -> list[int]:
        listing = await world.store.inbox.listing(
            "ann", after=0, before=None, limit=9, unread=unread, category=category, now=world.now
        )
        return seqs(listing.entries)

    assert await ask(False, "news") == [1, 4]
    assert await ask(True, "news") == [4]
    assert await ask(True, None) == [2, 3, 4]
    assert await ask(False, "nothing") == []


async def test_an_entry_is_only_its_users(world: World) -> None:
    await world.user("ann")
    await world.user("bob")
    (stored,) = await world.push("ann")
    assert (await world.store.inbox.entry("ann", stored.id, now=world.now)).seq == 1
    with pytest.raises(NotFound):
        await world.store.inbox.entry("bob", stored.id, now=world.now)


async def test_a_position_that_was_given_under_another_epoch_moves_nothing(world: World) -> None:
    """A failover while it is on its way: the number now belongs to something that the device has never seen."""
    await world.user()
    session = await world.session()
    await world.push(amount=3)
    inbox, now = world.store.inbox, world.now
    on_their_way = [
        asyncio.ensure_future(inbox.ack("ann", session=session.id, seq=2, now=now)),
        asyncio.ensure_future(inbox.mark_read("ann", up_to=2, now=now)),
    ]
    await asyncio.sleep(0)  # noqa: TID251 - lets them begin, waits for no time
    world.store.epoch.became("another")
    for one in on_their_way:
        with pytest.raises(Conflict) as refused:
            await one
        assert refused.value.code == "epoch_mismatch"
    assert (await world.store.sessions.get(session.id)).cursor == 0
    assert (await inbox.states(["ann"]))["ann"].unread == 3
    await inbox.ack("ann", session=session.id, seq=1, now=now)
    assert (await world.store.sessions.get(session.id)).cursor == 1
