"""What ``Users``, ``Sessions``, ``Clients``, ``Revocations``, ``Keys`` and ``Audit`` promise, over every adapter."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from stores import people

from gateway.errors import BadCredentials, Conflict, Invalid, NotFound, UserDisabled
from gateway.model import PUSH, Actor, Ban, Client, Revocation, SigningKey, Target

if TYPE_CHECKING:
    from tests.contracts.conftest import World

HOUR = 3600 * 1000
DAY = 24 * HOUR


async def rotate(world: World, session: str, *, generation: int, presented: bytes, successor: bytes) -> bool:
    found = await world.store.sessions.rotate(
        session, presented=presented, generation=generation, successor=successor, now=world.now, idle=HOUR
    )
    return found is not None


async def revoke(
    world: World, target: Target, *, by: Actor | None = None, reason: str | None = None, listed: bool = True
) -> Revocation:
    return await world.store.revocations.revoke(
        target, why="token_revoked", reason=reason, by=by or world.by, now=world.now, until=world.until, listed=listed
    )


async def bans(world: World) -> list[Ban]:
    return list(await world.store.revocations.since(0, now=world.now))


# -- users -------------------------------------------------------------------------------------------------------


async def test_names_and_ids_are_given_once(world: World) -> None:
    ann = await world.user("ann")
    assert await world.store.users.get("ann") == ann
    create = world.store.users.create
    with pytest.raises(Conflict) as refusal:
        await create(id="ann", username="other", role="user", password_hash="h", by=world.by, now=world.now)
    assert refusal.value.code == "id_taken"
    with pytest.raises(Conflict) as refusal:
        await create(id="bob", username=ann.username, role="user", password_hash="h", by=world.by, now=world.now)
    assert refusal.value.code == "username_taken"


async def test_the_id_of_a_deleted_user_is_never_given_again_but_the_name_is(world: World) -> None:
    ann = await world.user("ann")
    await world.store.users.delete("ann", by=world.by, now=world.now, until=world.until)
    assert await world.store.users.credentials(ann.username) is None
    assert await people(world.store) == 0
    create = world.store.users.create
    with pytest.raises(Conflict) as refusal:
        await create(id="ann", username="new", role="user", password_hash="h", by=world.by, now=world.now)
    assert refusal.value.code == "id_taken"
    await create(id="ann2", username=ann.username, role="user", password_hash="h", by=world.by, now=world.now)
    for gone in (
        world.store.users.get("ann"),
        world.store.users.password_hash("ann"),
        world.store.users.delete("ann", by=world.by, now=world.now, until=world.until),
        revoke(world, Target(user_id="ann")),
    ):
        with pytest.raises(NotFound) as missing:
            await gone
        assert missing.value.code == "unknown_user"


async def test_a_hash_is_upgraded_only_if_it_is_still_the_old_one(world: World) -> None:
    ann = await world.user("ann")
    await world.store.users.rehash("ann", old="hash of ann", new="better")
    await world.store.users.rehash("ann", old="hash of ann", new="too late")
    assert await world.store.users.credentials(ann.username) == (ann, "better")
    assert await world.store.users.password_hash("ann") == "better"


async def test_users_are_listed_by_id_and_found_by_part_of_id_or_name(world: World) -> None:
    for id in ("c", "a", "b", "100%"):
        await world.user(id)
    await world.store.users.create(
        id="d", username="Ärger_Übel", role="user", password_hash="h", by=world.by, now=world.now
    )

    async def find(query: str | None, limit: int = 9, cursor: str | None = None) -> tuple[list[str], str | None]:
        found, next_ = await world.store.users.list(query=query, limit=limit, cursor=cursor)
        return [user.id for user in found], next_

    assert await find(None, 2) == (["100%", "a"], "a")
    assert await find(None, 3, "a") == (["b", "c", "d"], None)
    assert await find("NAME OF B") == (["b"], None)
    assert await find("ärger_ÜB") == (["d"], None)
    assert await find("%") == (["100%"], None)
    assert await find("r_") == (["d"], None)


async def test_the_last_admin_who_is_not_disabled_stays_one(world: World) -> None:
    users = world.store.users
    for name in ("root", "rita"):
        await users.create(id=name, username=name, role="admin", password_hash="h", by=world.by, now=world.now)
    taking_each_other = [
        users.update(name, role="user", disabled=None, by=world.by, now=world.now, until=world.until)
        for name in ("root", "rita")
    ]
    outcomes = await asyncio.gather(*taking_each_other, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    assert [refusal.code for refusal in refused] == ["last_admin"]
    [left] = [name for name in ("root", "rita") if (await users.get(name)).role == "admin"]
    with pytest.raises(Conflict):
        await users.update(left, role=None, disabled=True, by=world.by, now=world.now, until=world.until)
    with pytest.raises(Conflict):
        await users.delete(left, by=world.by, now=world.now, until=world.until)


async def test_disabling_ends_the_sessions_and_keeps_new_ones_out(world: World) -> None:
    await world.user("ann")
    one, two = await world.session(), await world.session()
    users = world.store.users
    user, ended = await users.update("ann", role=None, disabled=True, by=world.by, now=world.now, until=world.until)
    assert user.disabled
    assert {(ban.kind, ban.subject, ban.user_id, ban.why) for ban in ended} == {
        ("session", session.id, "ann", "user_disabled") for session in (one, two)
    }
    assert await bans(world) == list(ended)
    assert (await world.store.sessions.get(one.id)).ended_why == "user_disabled"
    with pytest.raises(UserDisabled):
        await world.session()
    assert not await rotate(world, one.id, generation=0, presented=b"hash 0", successor=b"1")
    user, ended = await users.update("ann", role=None, disabled=False, by=world.by, now=world.now, until=world.until)
    assert (user.disabled, ended) == (False, ())
    assert not await rotate(world, one.id, generation=0, presented=b"hash 0", successor=b"1")
    assert (await world.session()).user_id == "ann"


async def test_a_changed_role_ends_the_sessions_and_the_same_role_does_not(world: World) -> None:
    await world.user("ann")
    session = await world.session()
    users = world.store.users
    _, ended = await users.update("ann", role="user", disabled=False, by=world.by, now=world.now, until=world.until)
    assert ended == ()
    user, ended = await users.update("ann", role="admin", disabled=None, by=world.by, now=world.now, until=world.until)
    assert user.role == "admin"
    assert [(ban.subject, ban.why) for ban in ended] == [(session.id, "token_revoked")]
    with pytest.raises(NotFound):
        await users.update("nobody", role="user", disabled=None, by=world.by, now=world.now, until=world.until)


async def test_a_new_password_ends_every_other_session(world: World) -> None:
    await world.user("ann")
    mine, other = await world.session(), await world.session()
    ended = await world.store.users.set_password(
        "ann", password_hash="new", keep_session=mine.id, by=world.by, now=world.now, until=world.until
    )
    assert [ban.subject for ban in ended] == [other.id]
    assert (await world.store.sessions.get(mine.id)).ended_at is None
    assert (await world.store.sessions.get(other.id)).ended_at == world.now
    assert await world.store.users.password_hash("ann") == "new"


async def test_a_password_is_replaced_only_if_it_is_still_the_one_that_was_checked(world: World) -> None:
    await world.user()
    session = await world.session()
    change = {"keep_session": None, "by": world.by, "now": world.now, "until": world.until}
    with pytest.raises(BadCredentials):
        await world.store.users.set_password("ann", password_hash="new", replaces="another", **change)  # type: ignore[arg-type]
    assert await world.store.users.password_hash("ann") == "hash of ann"
    assert (await world.store.sessions.get(session.id)).ended_at is None
    await world.store.users.set_password("ann", password_hash="new", replaces="hash of ann", **change)  # type: ignore[arg-type]
    assert await world.store.users.password_hash("ann") == "new"


async def test_a_sign_in_that_a_new_password_overtakes_fails(world: World) -> None:
    await world.user("ann")
    began = world.now
    world.now += 50
    await world.store.users.set_password(
        "ann", password_hash="new", keep_session=None, by=world.by, now=world.now, until=world.until
    )
    ended, world.now = world.now, began
    with pytest.raises(BadCredentials):
        await world.session()
    world.now = ended
    assert (await world.session()).user_id == "ann"


# -- sessions -----------------------------------------------------------------------------------------------------


async def test_a_session_needs_a_user(world: World) -> None:
    with pytest.raises(BadCredentials):
        await world.session("nobody")
    with pytest.raises(NotFound) as missing:
        await world.store.sessions.get("none")
    assert missing.value.code == "unknown_session"


async def test_one_of_fifty_parallel_rotations_wins(world: World) -> None:
    await world.user()
    session = await world.session()
    won = await asyncio.gather(
        *(rotate(world, session.id, generation=0, presented=b"hash 0", successor=b"%d" % n) for n in range(50))
    )
    assert sum(won) == 1
    found = await world.store.sessions.refreshable(session.id, now=world.now, idle=HOUR)
    assert found is not None
    assert found[2:] == (b"%d" % won.index(True), 1, world.now)
    assert found[1].id == "ann"


async def test_only_the_right_token_rotates(world: World) -> None:
    await world.user()
    session = await world.session()
    assert not await rotate(world, session.id, generation=1, presented=b"hash 0", successor=b"x")
    assert not await rotate(world, session.id, generation=0, presented=b"hash 1", successor=b"x")
    assert not await rotate(world, "none", generation=0, presented=b"hash 0", successor=b"x")
    assert await rotate(world, session.id, generation=0, presented=b"hash 0", successor=b"x")
    assert not await rotate(world, session.id, generation=0, presented=b"hash 0", successor=b"y")
    assert await rotate(world, session.id, generation=1, presented=b"x", successor=b"y")


async def test_an_idle_session_cannot_be_refreshed_and_a_used_one_not_past_its_end(world: World) -> None:
    await world.user()
    session = await world.session()
    world.now += HOUR - 1
    assert await rotate(world, session.id, generation=0, presented=b"hash 0", successor=b"1")
    world.now += HOUR
    assert not await rotate(world, session.id, generation=1, presented=b"1", successor=b"2")
    assert await world.store.sessions.refreshable(session.id, now=world.now, idle=HOUR) is None
    for end, expected in ((session.expires_at - 1, True), (session.expires_at, False)):
        found = await world.store.sessions.refreshable(session.id, now=end, idle=10**15)
        assert (found is not None) is expected


async def test_sessions_are_listed_newest_first_while_they_live(world: World) -> None:
    await world.user("ann")
    await world.user("bob")
    ids = []
    for number in range(5):
        world.now += number % 2
        ids.append((await world.session("bob" if number == 2 else "ann", id=f"s{number}")).id)
    await revoke(world, Target(session=ids[1]))

    async def find(user: str | None, limit: int, cursor: str | None = None) -> tuple[list[str], str | None]:
        found, next_ = await world.store.sessions.list(user, now=world.now, idle=1000 * DAY, limit=limit, cursor=cursor)
        return [session.id for session in found], next_

    first, cursor = await find("ann", 2)
    assert first == ["s4", "s3"]
    assert await find("ann", 2, cursor) == (["s0"], None)
    assert await find(None, 9) == (["s4", "s3", "s2", "s0"], None)
    found, _ = await world.store.sessions.list("ann", now=world.now + 400 * DAY, idle=1000 * DAY, limit=9, cursor=None)
    assert list(found) == []
    with pytest.raises(Invalid):
        await find("ann", 2, "nonsense")


async def test_more_sessions_than_the_limit_push_the_longest_unused_out(world: World) -> None:
    await world.user()
    first = await world.session(limit=2)
    world.now += 1
    second = await world.session(limit=2)
    world.now += 1
    assert await rotate(world, first.id, generation=0, presented=b"hash 0", successor=b"1")
    await world.session(limit=2)
    assert (await world.store.sessions.get(first.id)).ended_at is None
    assert (await world.store.sessions.get(second.id)).ended_why == "token_revoked"
    assert [(ban.subject, ban.until) for ban in await bans(world)] == [(second.id, world.until)]


async def test_sessions_that_ended_long_ago_are_purged(world: World) -> None:
    await world.user()
    gone, alive = await world.session(), await world.session()
    await revoke(world, Target(session=gone.id))
    assert await world.store.sessions.purge(before=world.now, idle=DAY, limit=9) == 0
    assert await world.store.sessions.purge(before=world.now + 1, idle=DAY, limit=9) == 1
    with pytest.raises(NotFound):
        await world.store.sessions.get(gone.id)
    assert (await world.store.sessions.get(alive.id)).ended_at is None


async def test_a_session_that_idles_is_neither_listed_nor_kept_for_ever(world: World) -> None:
    await world.user()
    idle, used = await world.session(), await world.session()

    async def listed() -> list[str]:
        found, _ = await world.store.sessions.list(None, now=world.now, idle=DAY, limit=9, cursor=None)
        return [session.id for session in found]

    world.now += HOUR - 1
    assert await rotate(world, used.id, generation=0, presented=b"hash 0", successor=b"1")
    world.now += DAY - HOUR
    assert set(await listed()) == {idle.id, used.id}
    world.now += 1
    assert await listed() == [used.id]
    assert await world.store.sessions.purge(before=world.now, idle=DAY, limit=9) == 0
    assert await world.store.sessions.purge(before=world.now + 1, idle=DAY, limit=9) == 1
    with pytest.raises(NotFound):
        await world.store.sessions.get(idle.id)
    assert (await world.store.sessions.get(used.id)).ended_at is None


async def test_a_revocation_that_answered_leaves_nothing_to_refresh(world: World) -> None:
    await world.user()
    for number in range(30):
        session = await world.session()
        refreshed, _ = await asyncio.gather(
            rotate(world, session.id, generation=0, presented=b"hash 0", successor=b"1"),
            revoke(world, Target(session=session.id)),
        )
        after = rotate(
            world, session.id, generation=int(refreshed), presented=b"1" if refreshed else b"hash 0", successor=b"2"
        )
        assert not await after, number


# -- revocations --------------------------------------------------------------------------------------------------


async def test_revoking_a_session_ends_it_and_can_be_done_twice(world: World) -> None:
    await world.user()
    session = await world.session()
    revocation = await revoke(world, Target(session=session.id), reason="lost phone")
    assert [(ban.kind, ban.subject, ban.user_id) for ban in revocation.bans] == [("session", session.id, "ann")]
    assert (await world.store.sessions.get(session.id)).ended_at == world.now
    assert (await revoke(world, Target(session=session.id))).id != revocation.id
    with pytest.raises(NotFound) as missing:
        await revoke(world, Target(session="none"))
    assert missing.value.code == "unknown_session"


@pytest.mark.parametrize("kind", ["logout", "session", "token"])
async def test_what_nobody_lists_is_written_once_however_many_end_it_at_once(world: World, kind: str) -> None:
    await world.user()
    session = (await world.session()).id
    target = Target(token_id="jti") if kind == "token" else Target(session=session)
    how = {"by": Actor("ann")} if kind == "logout" else {"by": Actor("c~gateway"), "listed": False}
    done = await asyncio.gather(*(revoke(world, target, **how) for _ in range(50)))
    assert sum(one.written for one in done) == 1
    assert len({(one.id, one.bans) for one in done}) == 1
    assert await bans(world) == list(done[0].bans)
    rows, _ = await world.store.audit.list(limit=200, cursor=None)
    assert len([row for row in rows if row.action in ("revoked", "session_ended")]) == 1
    listed = await revoke(world, target, reason="by an admin")
    assert (listed.written, len(await bans(world))) == (True, 2)
    found, _ = await world.store.revocations.list(now=world.now, limit=9, cursor=None)
    assert [one.id for one in found] == [listed.id]
    world.now += 1_000_000
    assert await bans(world) == []
    assert (await revoke(world, target, **how)).written, "nothing says any more that it is over"


async def test_what_a_revocation_is_because_of_is_noted_with_it_and_once(world: World) -> None:
    await world.user()
    session = await world.session()

    async def reused() -> Revocation:
        return await world.store.revocations.revoke(
            Target(session=session.id), why="token_revoked", reason=None, by=Actor("c~gateway"), now=world.now,
            until=world.until, listed=False, because=("refresh_reuse", {"generation": 1}),
        )  # fmt: skip

    done = await asyncio.gather(*(reused() for _ in range(5)))
    assert [one.written for one in done].count(True) == 1
    rows, _ = await world.store.audit.list(limit=3, cursor=None)
    assert [(row.action, row.target) for row in rows] == [
        ("refresh_reuse", session.id),
        ("revoked", session.id),
        ("login", session.id),
    ]
    assert rows[0].detail == {"generation": 1}


async def test_revoking_a_user_ends_the_sessions_signed_in_until_then(world: World) -> None:
    await world.user("ann")
    await world.user("bob")
    old = await world.session("ann")
    world.now += 10
    new = await world.session("ann")
    other = await world.session("bob")
    revocation = await revoke(world, Target(user_id="ann", issued_before=world.now - 1))
    assert [ban.subject for ban in revocation.bans] == [old.id]
    revocation = await revoke(world, Target(user_id="ann"))
    assert [ban.subject for ban in revocation.bans] == [new.id]
    assert (await world.store.sessions.get(other.id)).ended_at is None
    assert (await world.session("ann")).ended_at is None


async def test_revoking_a_token_or_a_client_writes_one_rule(world: World) -> None:
    await world.store.clients.create(
        client_id="c~shop", name="shop", scopes=frozenset({PUSH}), secret_hash=b"h", by=world.by, now=world.now
    )
    token = await revoke(world, Target(token_id="jti-1"))
    client = await revoke(world, Target(client_id="c~shop"))
    assert [(ban.kind, ban.subject, ban.cut) for ban in token.bans] == [("token", "jti-1", None)]
    assert [(ban.kind, ban.subject, ban.cut) for ban in client.bans] == [("client", "c~shop", world.now // 1000)]
    with pytest.raises(NotFound) as missing:
        await revoke(world, Target(client_id="c~other"))
    assert missing.value.code == "unknown_client"


async def test_rules_are_read_from_a_number_on_while_they_are_in_force(world: World) -> None:
    first = (await revoke(world, Target(token_id="one"))).bans[0]
    world.now += 10
    second = (await revoke(world, Target(token_id="two"))).bans[0]
    since = world.store.revocations.since
    assert second.number > first.number
    assert list(await since(0, now=world.now)) == [first, second]
    assert list(await since(first.number, now=world.now)) == [second]
    assert list(await since(0, now=world.now, limit=1)) == [first]
    assert list(await since(0, now=first.until)) == [second]
    assert list(await since(second.number, now=world.now)) == []


async def test_numbers_are_not_given_again_after_a_purge(world: World) -> None:
    ban = (await revoke(world, Target(token_id="one"))).bans[0]
    assert await world.store.revocations.purge(now=ban.until - 1, limit=9) == 0
    assert await world.store.revocations.purge(now=ban.until, limit=9) == 1
    assert (await revoke(world, Target(token_id="two"))).bans[0].number > ban.number


async def test_the_list_shows_what_administrators_revoked_newest_first(world: World) -> None:
    await world.user()
    one, two = await world.session(), await world.session()
    await revoke(world, Target(session=one.id), by=Actor("ann"))  # a logout
    a = await revoke(world, Target(user_id="ann", issued_before=world.now), reason="stolen")
    b = await revoke(world, Target(token_id="jti"))
    await world.store.users.set_password(
        "ann", password_hash="x", keep_session=None, by=world.by, now=world.now, until=world.until
    )
    assert [ban.subject for ban in a.bans] == [two.id]
    found, cursor = await world.store.revocations.list(now=world.now, limit=1, cursor=None)
    assert [revocation.id for revocation in found] == [b.id]
    found, cursor = await world.store.revocations.list(now=world.now, limit=1, cursor=cursor)
    assert list(found) == [Revocation(a.id, a.target, "stolen", "u-admin", world.now, world.until)]
    assert cursor is None
    assert list((await world.store.revocations.list(now=world.until, limit=9, cursor=None))[0]) == []


# -- clients ------------------------------------------------------------------------------------------------------


async def test_a_client_signs_in_with_its_current_secret_only(world: World) -> None:
    clients = world.store.clients
    made = await clients.create(
        client_id="c~shop", name="shop", scopes=frozenset({PUSH}), secret_hash=b"one", by=world.by, now=world.now
    )
    assert made == Client("c~shop", "shop", frozenset({PUSH}), world.now)
    assert await clients.authenticate("c~shop", secret_hash=b"one") == made
    assert await clients.authenticate("c~shop", secret_hash=b"two") is None
    assert await clients.authenticate("c~none", secret_hash=b"one") is None
    rotated = await clients.rotate("c~shop", secret_hash=b"two", by=world.by, now=world.now + 1)
    assert rotated.rotated_at == world.now + 1
    assert await clients.authenticate("c~shop", secret_hash=b"one") is None
    assert await clients.authenticate("c~shop", secret_hash=b"two") == rotated
    assert await clients.get("c~shop") == rotated
    assert await clients.list(limit=1, cursor=None) == ([rotated], None)


async def test_a_deleted_client_takes_its_tokens_along(world: World) -> None:
    clients = world.store.clients
    await clients.create(client_id="c~a", name="a", scopes=frozenset(), secret_hash=b"h", by=world.by, now=world.now)
    (ban,) = await clients.delete("c~a", by=world.by, now=world.now, until=world.until)
    # Whatever is issued until this is committed too: the id is never given again.
    assert (ban.kind, ban.subject, ban.cut, ban.until) == ("client", "c~a", world.until // 1000, world.until)
    assert await bans(world) == [ban]
    for gone in (
        clients.get("c~a"),
        clients.rotate("c~a", secret_hash=b"x", by=world.by, now=world.now),
        clients.delete("c~a", by=world.by, now=world.now, until=world.until),
    ):
        with pytest.raises(NotFound):
            await gone


async def test_a_second_revocation_within_a_second_takes_the_tokens_in_between_along(world: World) -> None:
    clients = world.store.clients
    await clients.create(client_id="c~a", name="a", scopes=frozenset(), secret_hash=b"h", by=world.by, now=world.now)
    first = await revoke(world, Target(client_id="c~a"))
    (ban,) = first.bans
    assert ban.cut == world.now // 1000  # who signs in now gets a token of the second after it
    (second,) = (await revoke(world, Target(client_id="c~a"))).bans
    assert second.cut == ban.cut + 1
    assert (await bans(world))[-1] == second


# -- keys and audit -----------------------------------------------------------------------------------------------


async def test_keys_come_back_oldest_first(world: World) -> None:
    newer, older = SigningKey("b", "ES256", "pem b", 20), SigningKey("a", "ES256", "pem a", 10)
    await world.store.keys.add_signing(newer, only_if_none=True)
    await world.store.keys.add_signing(SigningKey("z", "ES256", "pem", 5), only_if_none=True)
    await world.store.keys.add_signing(older)
    assert list(await world.store.keys.signing()) == [older, newer]


async def test_a_secret_is_made_once(world: World) -> None:
    made = iter([b"one", b"two", b"three"])
    secret = world.store.keys.secret
    found = await asyncio.gather(*(secret("refresh", generate=lambda: next(made)) for _ in range(3)))
    assert found == [b"one"] * 3
    assert await secret("other", generate=lambda: next(made)) == b"two"


async def test_every_change_leaves_one_audit_row(world: World) -> None:
    await world.user("ann")
    session = await world.session("ann")
    await revoke(world, Target(session=session.id), reason="lost")
    await world.store.users.set_password(
        "ann", password_hash="x", keep_session=None, by=world.by, now=world.now, until=world.until
    )
    await world.store.audit.record("login", target="ann", detail={"ok": True}, by=Actor("ann"), now=world.now)
    await world.store.users.delete("ann", by=world.by, now=world.now, until=world.until)
    rows, cursor = await world.store.audit.list(limit=4, cursor=None)
    assert [row.action for row in rows] == ["user_deleted", "login", "password_set", "revoked"]
    assert rows[1].detail == {"ok": True}
    assert (rows[3].actor, rows[3].address, rows[3].request_id) == ("u-admin", "192.0.2.1", "req-1")
    assert rows[3].detail["reason"] == "lost"
    rest, end = await world.store.audit.list(limit=4, cursor=cursor)
    assert ([row.action for row in rest], end) == (["login", "user_created"], None)


async def test_what_is_refused_leaves_no_audit_row(world: World) -> None:
    with pytest.raises(NotFound):
        await world.store.users.delete("nobody", by=world.by, now=world.now, until=world.until)
    assert (await world.store.audit.list(limit=9, cursor=None))[0] == []


async def test_those_who_are_looked_up_together_find_each_their_own(world: World) -> None:
    people = [await world.user(f"u{n}") for n in range(5)]
    names = [*(user.username for user in people), "nobody", people[0].username, "a\x00b", "\ud800", "na\u00efve \"'\\"]
    found = await asyncio.gather(*(world.store.users.credentials(name) for name in names))
    assert [one and one[0] for one in found] == [*people, None, people[0], None, None, None]
