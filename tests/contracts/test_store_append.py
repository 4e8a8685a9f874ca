"""What ``Inbox.append`` promises, over every adapter."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from gateway.errors import Invalid
from gateway.model import Append, Appended

if TYPE_CHECKING:
    from tests.contracts.conftest import World

DAY = 24 * 3600 * 1000


async def test_seq_is_dense_per_user_in_the_order_of_the_drafts(world: World) -> None:
    await world.user("ann")
    await world.user("bob")
    appended = await world.append(*(world.draft(user) for user in ("ann", "bob", "ann", "ann", "bob")))
    assert [(stored.user_id, stored.seq) for stored in appended.outcomes] == [
        ("ann", 1), ("bob", 1), ("ann", 2), ("ann", 3), ("bob", 2),
    ]  # fmt: skip
    assert await world.counters("ann") == (3, 0, 3)
    assert await world.counters("bob") == (2, 0, 2)


async def test_calls_that_travel_together_keep_their_order(world: World) -> None:
    await world.user()
    answers = await asyncio.gather(*(world.append(world.draft()) for _ in range(700)))
    assert [answer.outcomes[0].seq for answer in answers] == list(range(1, 701))


async def test_two_hundred_concurrent_requests_leave_no_hole(world: World) -> None:
    chance = random.Random(7)
    users = [f"user{n}" for n in range(5)]
    for user in users:
        await world.user(user)
    given: dict[str, list[int]] = {user: [] for user in users}

    async def one() -> None:
        appended = await world.append(*(world.draft(chance.choice(users)) for _ in range(chance.randint(1, 6))))
        for stored in appended.outcomes:
            assert stored.seq is not None
            given[stored.user_id].append(stored.seq)
        if chance.random() < 0.3:
            await world.store.inbox.withdraw(appended.outcomes[0].id, sender=None, now=world.now)

    await asyncio.gather(*(one() for _ in range(200)))
    for user in users:
        assert sorted(given[user]) == list(range(1, len(given[user]) + 1))
        head, rev, unread = await world.counters(user)
        assert head == len(given[user])
        assert unread == head - rev  # each withdrawal took one unread entry and counted as one change


async def test_an_unknown_user_stores_nothing_and_holds_nobody_up(world: World) -> None:
    await world.user()
    appended = await world.append(world.draft("nobody"), world.draft("ann"))
    assert [stored.seq for stored in appended.outcomes] == [None, 1]
    page = await world.store.inbox.page("ann", after=0, now=world.now)
    assert [entry.id for entry in page.entries] == [appended.outcomes[1].id]


async def test_a_key_used_again_gives_the_first_answer(world: World) -> None:
    await world.user()
    first = await world.append(world.draft(), key=("order-1", b"fingerprint"))
    again = await world.append(world.draft(), key=("order-1", b"fingerprint"))
    assert not first.replayed
    assert again.replayed
    assert again.outcomes == first.outcomes
    assert await world.counters() == (1, 0, 1)


async def test_a_key_used_for_another_request_is_refused(world: World) -> None:
    await world.user()
    await world.append(world.draft(), key=("order-1", b"fingerprint"))
    with pytest.raises(Invalid) as refusal:
        await world.append(world.draft(), key=("order-1", b"another"))
    assert refusal.value.code == "idempotency_mismatch"
    assert await world.counters() == (1, 0, 1)


async def test_keys_of_two_senders_have_nothing_to_do_with_each_other(world: World) -> None:
    await world.user()
    await world.append(world.draft(), sender="c~one", key=("k", b"1"))
    assert not (await world.append(world.draft(), sender="c~two", key=("k", b"2"))).replayed


async def test_the_same_key_twenty_times_at_once_stores_one(world: World) -> None:
    await world.user()
    answers = await asyncio.gather(*(world.append(world.draft(), key=("k", b"same")) for _ in range(20)))
    assert len({answer.outcomes for answer in answers}) == 1
    assert [answer.replayed for answer in answers] == [False] + [True] * 19
    assert await world.counters() == (1, 0, 1)


async def test_one_group_tells_a_mismatch_from_a_replay(world: World) -> None:
    await world.user()
    results = await asyncio.gather(
        *(world.append(world.draft(), key=("k", fingerprint)) for fingerprint in (b"a", b"b", b"a")),
        return_exceptions=True,
    )
    assert isinstance(results[0], Appended)
    assert isinstance(results[1], Invalid)
    assert isinstance(results[2], Appended)
    assert results[2].replayed
    assert results[2].outcomes == results[0].outcomes


async def test_a_key_is_forgotten_after_24_hours(world: World) -> None:
    await world.user()
    first = await world.append(world.draft(), key=("k", b"1"))
    world.now += DAY - 1
    assert (await world.append(world.draft(), key=("k", b"1"))).replayed
    world.now += 1
    later = await world.append(world.draft(), key=("k", b"2"))
    assert not later.replayed
    assert later.outcomes != first.outcomes
    world.now += 1
    assert (await world.append(world.draft(), key=("k", b"2"))).replayed


async def test_a_key_whose_only_draft_had_no_user_is_not_remembered(world: World) -> None:
    assert (await world.append(world.draft("ann"), key=("k", b"1"))).outcomes[0].seq is None
    await world.user("ann")
    later = await world.append(world.draft("ann"), key=("k", b"1"))
    assert not later.replayed
    assert later.outcomes[0].seq == 1


async def test_a_key_of_a_list_is_remembered_also_if_no_user_was_known(world: World) -> None:
    await world.append(world.draft("x"), world.draft("y"), key=("k", b"1"), listed=True)
    assert (await world.append(world.draft("x"), world.draft("y"), key=("k", b"1"), listed=True)).replayed
    await world.append(world.draft("x"), key=("k2", b"1"), listed=True)
    await world.user("x")
    assert (await world.append(world.draft("x"), key=("k2", b"1"), listed=True)).replayed


async def test_a_value_that_cannot_be_stored_fails_its_item_alone(world: World) -> None:
    await world.user()
    twin = world.draft()
    await world.append(twin)
    results = await asyncio.gather(
        world.append(world.draft()),
        world.append(world.draft(text='"title":"\ud800"')),
        world.append(world.draft(), twin, key=("k", b"1")),
        world.append(world.draft()),
        return_exceptions=True,
    )
    assert isinstance(results[0], Appended)
    assert isinstance(results[1], Invalid)
    assert isinstance(results[2], Invalid)
    assert isinstance(results[3], Appended)
    assert [results[0].outcomes[0].seq, results[3].outcomes[0].seq] == [2, 3]
    assert await world.counters() == (3, 0, 3)
    assert not (await world.append(world.draft(), key=("k", b"2"))).replayed  # its key was not kept either


async def test_a_caller_who_goes_away_does_not_take_the_request_back(world: World) -> None:
    await world.user()
    caller = asyncio.ensure_future(world.append(world.draft()))
    await asyncio.wait([caller], timeout=0)
    caller.cancel()
    await asyncio.wait([caller])
    assert (await world.append(world.draft())).outcomes[0].seq == 2
    assert await world.counters() == (2, 0, 2)


async def test_users_beyond_the_limit_are_named(world: World) -> None:
    await world.user("ann")
    await world.user("bob")
    assert (await world.append(*(world.draft("ann") for _ in range(10)))).overfull == ()
    assert (await world.append(world.draft("bob"), world.draft("ann"))).overfull == ("ann",)
    assert await world.store.inbox.overfull(keep=10) == ["ann"]
    assert await world.store.inbox.overfull(keep=11) == []


async def test_content_comes_back_byte_for_byte(world: World) -> None:
    await world.user()
    text = '"title":"Ä \\u0041 \u2028 \U0001f600 \\"q\\""'
    await world.append(world.draft(text=text))
    page = await world.store.inbox.page("ann", after=0, now=world.now)
    assert page.entries[0].content == text


async def test_what_travels_in_one_request_commits_whole(world: World) -> None:
    await world.user()
    twin = world.draft()
    with pytest.raises(Invalid):
        await world.store.inbox.append(Append("c~shop", (world.draft(), twin, twin)))
    assert await world.counters() == (0, 0, 0)
