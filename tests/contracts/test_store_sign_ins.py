"""What ``Sessions.start`` promises, over every adapter: what was verified is so still, and one commit holds all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from gateway.errors import BadCredentials, CredentialsChanged, Invalid, UserDisabled
from gateway.model import Actor, AuditRecord, Session
from gateway.store.database import Work
from gateway.store.engine import Store, open_store

if TYPE_CHECKING:
    from tests.contracts.conftest import World

ISSUER, SUBJECT = "https://id.example", "s-1"


@pytest.fixture
async def other(world: World, url: str) -> AsyncIterator[Store]:
    """A second node on the same database; on SQLite there is one."""
    if url.startswith("sqlite"):
        yield world.store
        return
    async with open_store(url) as opened:
        yield opened


@pytest.fixture
def commits(world: World, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One for each writing transaction: whether it was a group's."""
    write, seen = world.store.database.write, list[bool]()

    async def counted(work: Work[Any], *, grouped: bool = False) -> Any:
        seen.append(grouped)
        return await write(work, grouped=grouped)

    monkeypatch.setattr(world.store.database, "write", counted)
    return seen


def known(*hashes: str) -> dict[str, Any]:
    return {"hashes": frozenset(hashes)}


async def trail(world: World) -> list[AuditRecord]:
    rows, _ = await world.store.audit.list(limit=200, cursor=None)
    return [row for row in rows if row.action == "login"]


async def sessions(world: World) -> list[Session]:
    rows, _ = await world.store.sessions.list(None, now=world.now, idle=1 << 40, limit=500, cursor=None)
    return list(rows)


async def reset(world: World, store: Store, password_hash: str) -> None:
    await store.users.set_password(
        "ann", password_hash=password_hash, keep_session=None, by=world.by, now=world.now, until=world.until
    )


@pytest.mark.parametrize("hashes", [None, frozenset({"hash of ann"}), frozenset({"another", "hash of ann"})])
async def test_a_session_its_user_and_its_audit_row_are_one_commit(
    world: World, commits: list[bool], hashes: frozenset[str] | None
) -> None:
    ann = await world.user("ann")
    commits.clear()
    asked = world.sign_in("ann", hashes=hashes)
    session, user = await world.store.sessions.start(asked)
    assert commits == [True]
    assert (user, session.user_id, session.address) == (ann, "ann", asked.by.address)
    assert await world.store.sessions.get(session.id) == session
    [row] = await trail(world)
    assert (row.at, row.actor, row.target, row.detail) == (world.now, "ann", session.id, {"device": "phone"})
    assert (row.address, row.request_id) == (asked.by.address, asked.by.request_id)


async def test_the_row_says_what_it_is_told(world: World) -> None:
    await world.user("ann")
    asked = replace(world.sign_in("ann"), action="token_issued", target="ann", by=Actor("~cli:root"), detail={"ttl": 9})
    await world.store.sessions.start(asked)
    rows, _ = await world.store.audit.list(limit=1, cursor=None)
    assert [(row.action, row.target, row.actor, row.detail) for row in rows] == [
        ("token_issued", "ann", "~cli:root", {"ttl": 9})
    ]


async def test_a_password_that_is_another_by_now_starts_nothing(world: World) -> None:
    await world.user("ann")
    await reset(world, world.store, "new")
    with pytest.raises(CredentialsChanged):
        await world.store.sessions.start(world.sign_in("ann", **known("hash of ann")))
    assert (await sessions(world), await trail(world)) == ([], [])
    session, _ = await world.store.sessions.start(world.sign_in("ann", **known("new")))
    assert session.ended_at is None


async def test_only_who_knows_the_password_of_now_is_told_that_they_are_disabled(world: World) -> None:
    await world.user("ann")
    await reset(world, world.store, "new")
    await world.store.users.update("ann", role=None, disabled=True, by=world.by, now=world.now, until=world.until)
    with pytest.raises(CredentialsChanged):
        await world.store.sessions.start(world.sign_in("ann", **known("hash of ann")))
    with pytest.raises(UserDisabled):
        await world.store.sessions.start(world.sign_in("ann", **known("new")))


async def test_whoever_the_issuer_speaks_of_is_still_the_user_or_nobody_signs_in(world: World) -> None:
    await world.user("ann")
    await world.user("bob")
    identities = world.store.identities
    asked: dict[str, Any] = {"identity": (ISSUER, SUBJECT)}
    with pytest.raises(CredentialsChanged):
        await world.store.sessions.start(world.sign_in("ann", **asked))
    await identities.link("ann", ISSUER, SUBJECT, by=world.by, now=world.now)
    session, _ = await world.store.sessions.start(world.sign_in("ann", **asked))
    assert session.user_id == "ann"
    await identities.unlink(ISSUER, SUBJECT, by=world.by, now=world.now)
    await identities.link("bob", ISSUER, SUBJECT, by=world.by, now=world.now)
    outcomes = await asyncio.gather(
        *(world.store.sessions.start(world.sign_in(id, **asked)) for id in ("ann", "bob")), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [CredentialsChanged, tuple]


async def test_the_role_is_that_of_the_commit(world: World) -> None:
    await world.user("ann")
    await world.store.users.update("ann", role="admin", disabled=None, by=world.by, now=world.now, until=world.until)
    _, user = await world.store.sessions.start(world.sign_in("ann", **known("hash of ann")))
    assert user.role == "admin"


async def test_of_those_who_sign_in_together_each_is_refused_alone(world: World, commits: list[bool]) -> None:
    for id in ("ann", "bob", "cat", "dan"):
        await world.user(id)
    await world.store.users.update("bob", role=None, disabled=True, by=world.by, now=world.now, until=world.until)
    began, world.now = world.now, world.now + 5
    await world.store.users.update("dan", role="admin", disabled=None, by=world.by, now=world.now, until=world.until)
    world.now = began
    commits.clear()
    outcomes = await asyncio.gather(
        world.store.sessions.start(world.sign_in("nobody", **known("x"))),
        world.store.sessions.start(world.sign_in("cat", **known("hash of cat"))),
        world.store.sessions.start(world.sign_in("bob", **known("hash of bob"))),
        world.store.sessions.start(world.sign_in("ann", **known("a stale one"))),
        world.store.sessions.start(world.sign_in("dan", **known("hash of dan"))),
        world.store.sessions.start(world.sign_in("ann", **known("hash of ann"))),
        return_exceptions=True,
    )
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [BadCredentials, tuple, UserDisabled, CredentialsChanged, BadCredentials, tuple]
    assert sorted(session.user_id for session in await sessions(world)) == ["ann", "cat"]
    assert sorted(row.actor for row in await trail(world)) == ["ann", "cat"]
    assert commits == [True]


@pytest.mark.parametrize("device", ["\ud800", "a\x00b"])
async def test_a_value_that_cannot_be_stored_fails_nobody_else(world: World, url: str, device: str) -> None:
    for number in range(3):
        await world.user(f"u{number}")
    asked = [world.sign_in(f"u{number}") for number in range(3)]
    asked[1] = replace(asked[1], device=device)
    outcomes = await asyncio.gather(*map(world.store.sessions.start, asked), return_exceptions=True)
    taken = url.startswith("sqlite") and device != "\ud800"  # text with NUL is text there
    assert [type(outcome) for outcome in outcomes] == [tuple, tuple if taken else Invalid, tuple]
    assert sorted(row.actor for row in await trail(world)) == ["u0", *(["u1"] if taken else []), "u2"]
    assert len(await sessions(world)) == 2 + taken


async def test_a_hundred_who_sign_in_at_once_are_few_commits(world: World, commits: list[bool]) -> None:
    for number in range(100):
        await world.user(f"u{number}")
    commits.clear()
    started = await asyncio.gather(
        *(
            world.store.sessions.start(world.sign_in(f"u{number}", **known(f"hash of u{number}")))
            for number in range(100)
        )
    )
    assert [user.id for _, user in started] == [f"u{number}" for number in range(100)]
    assert len(commits) <= 3
    assert len(await trail(world)) == len(await sessions(world)) == 100


async def test_a_caller_that_goes_away_has_signed_in(world: World) -> None:
    await world.user("ann")
    waiting = asyncio.ensure_future(world.store.sessions.start(world.sign_in("ann")))
    await asyncio.sleep(0)  # noqa: TID251 - it has been handed in
    waiting.cancel()
    await world.store.sessions.settled()
    assert len(await sessions(world)) == len(await trail(world)) == 1


async def test_who_signs_in_many_times_at_once_has_no_more_sessions_than_they_may(world: World) -> None:
    await world.user("ann")
    first = await world.session("ann", limit=3)
    started = await asyncio.gather(
        *(world.store.sessions.start(world.sign_in("ann", id=f"t{number}", limit=3)) for number in range(5))
    )
    assert {session.id for session in await sessions(world)} == {"t2", "t3", "t4"}
    assert [session.ended_at for session, _ in started] == [None] * 5
    bans = await world.store.revocations.since(0, now=world.now)
    assert [ban.subject for ban in bans] == [first.id, "t0", "t1"]


Change = Callable[["World", Store, int], Awaitable[object]]
CHANGES: dict[str, Change] = {
    "reset": lambda world, store, number: reset(world, store, f"hash {number}"),
    "role": lambda world, store, number: store.users.update(
        "ann", role=("admin", "user")[number % 2], disabled=None, by=world.by, now=world.now, until=world.until
    ),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_that_comes_at_the_same_time_is_seen_or_ends_the_session(
    world: World, other: Store, change: str
) -> None:
    """All in one millisecond: it is not the clock that tells which came first."""
    root = await world.user("root")
    await world.store.users.update(root.id, role="admin", disabled=None, by=world.by, now=world.now, until=world.until)
    await world.user("ann")
    seen = set[str]()
    for number in range(30):
        asked = world.sign_in("ann", **known(await world.store.users.password_hash("ann")))
        changing = partial(CHANGES[change], world, other, number)
        if number == 0:
            await changing()
        signing_in = asyncio.ensure_future(world.store.sessions.start(asked))
        if number == 1:
            await asyncio.wait({signing_in})
        for _ in range(number % 5):
            await asyncio.sleep(0)  # noqa: TID251 - now the one is first at the database, now the other
        if number > 0:
            await changing()
        try:
            session, user = await signing_in
        except CredentialsChanged:
            assert change == "reset"
            seen.add("refused")
            continue
        if (await world.store.sessions.get(session.id)).ended_at is not None:
            seen.add("ended")
        else:
            assert change == "role"
            assert user == await world.store.users.get("ann"), number
            seen.add("as of now")
    assert seen == {"refused" if change == "reset" else "as of now", "ended"}
