"""What ``Identities`` promises, over every adapter: one user however many arrive at once, and nobody taken over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from stores import people

from gateway.errors import Conflict, NotFound
from gateway.model import Actor, AuditRecord, User
from gateway.store.engine import open_store

if TYPE_CHECKING:
    from tests.contracts.conftest import World

IDP, OTHER = "https://idp.example", "https://other.example"
BY = Actor(f"~{IDP}", "192.0.2.9", "req-7")


async def admit(world: World, subject: str = "ada", *, issuer: str = IDP, **changed: Any) -> User:
    asked: dict[str, Any] = {"id": subject, "usernames": [subject], "create": True, "link": False, **changed}
    return await world.store.identities.admit(issuer, subject, password_hash="!", by=BY, now=world.now, **asked)


async def refused(world: World, subject: str = "ada", **changed: Any) -> str:
    with pytest.raises(Conflict) as refusal:
        await admit(world, subject, **changed)
    return refusal.value.code


async def audit(world: World) -> list[AuditRecord]:
    records, _ = await world.store.audit.list(limit=50, cursor=None)
    return list(records)


async def test_who_is_new_gets_a_user_and_is_that_user_from_then_on(world: World) -> None:
    assert await world.store.identities.find(IDP, "ada") is None
    ada = await admit(world, usernames=["Ada L.", "ada"])
    assert ada == User("ada", "Ada L.", "user", False, world.now)
    assert await world.store.identities.find(IDP, "ada") == ada
    assert await admit(world, id="somebody-else") == ada
    assert await people(world.store) == 1
    assert await world.store.users.password_hash("ada") == "!"
    assert [(one.action, one.actor, one.target) for one in await audit(world)] == [
        ("identity_linked", BY.id, "ada"),
        ("user_created", BY.id, "ada"),
    ]


async def test_the_new_user_has_an_inbox_like_any_other(world: World) -> None:
    await admit(world)
    assert [stored.seq for stored in await world.push("ada", 2)] == [1, 2]
    assert (await world.session("ada")).user_id == "ada"


async def test_of_names_the_first_that_is_free(world: World) -> None:
    bob = await world.user("bob")
    assert (await admit(world, usernames=[bob.username, "ada"])).username == "ada"
    assert await refused(world, "eve", usernames=[bob.username, "ada"]) == "username_taken"


async def test_nobody_is_made_unless_told_to(world: World) -> None:
    with pytest.raises(NotFound) as missing:
        await admit(world, create=False)
    assert missing.value.code == "unknown_user"
    assert await people(world.store) == 0


async def test_who_is_there_is_linked_only_if_told_to_and_an_admin_never(world: World) -> None:
    ann = await world.user("ann")
    boss = await world.store.users.create(
        id="boss", username="boss", role="admin", password_hash="h", by=world.by, now=world.now
    )
    assert await refused(world, "ann") == "id_taken"
    assert await admit(world, "ann", create=False, link=True) == ann
    assert await world.store.users.password_hash("ann") == "hash of ann"
    assert await refused(world, "boss", link=True) == "not_linked"
    assert await world.store.identities.find(IDP, "boss") is None
    await world.store.identities.link(boss.id, IDP, "boss", by=world.by, now=world.now)
    assert await world.store.identities.find(IDP, "boss") == boss


async def test_two_issuers_do_not_share_a_user(world: World) -> None:
    ada = await admit(world)
    assert await refused(world, issuer=OTHER) == "id_taken"
    assert await admit(world, issuer=OTHER, link=True) == ada
    assert await world.store.identities.list("ada") == [(IDP, "ada"), (OTHER, "ada")]


async def test_who_was_deleted_stays_out_by_whatever_id_until_an_operator_says_otherwise(world: World) -> None:
    identities = world.store.identities
    await admit(world)
    for subject in ("x", "y", "z"):
        await identities.link("ada", OTHER, subject, by=world.by, now=world.now)
    await identities.unlink(OTHER, "z", by=world.by, now=world.now)
    await world.store.users.delete("ada", by=world.by, now=world.now, until=world.until)
    gone = User("ada", "", "user", True, world.now)
    assert await identities.list("ada") == [(IDP, "ada"), (OTHER, "x"), (OTHER, "y")]
    for issuer, subject in ((IDP, "ada"), (OTHER, "x")):
        assert await identities.find(issuer, subject) == gone
        for link in (False, True):
            assert await admit(world, subject, issuer=issuer, id="another", link=link) == gone
    assert await people(world.store) == 0
    # The id is not given again to anybody else either.
    assert await refused(world, id="ada", issuer=OTHER, subject="z") == "id_taken"
    assert await refused(world, id="ada", issuer=OTHER, subject="z", link=True) == "id_taken"
    # On purpose: as a new user, or as one who is there.
    assert await identities.unlink(OTHER, "x", by=world.by, now=world.now) == "ada"
    assert (await admit(world, "x", issuer=OTHER)).id == "x"
    ann = await world.user("ann")
    await identities.link("ann", OTHER, "y", by=world.by, now=world.now)
    assert await identities.find(OTHER, "y") == ann
    assert await identities.list("ada") == [(IDP, "ada")]


async def test_a_disabled_user_is_found_as_disabled(world: World) -> None:
    await admit(world)
    await world.store.users.update(
        "ada", role=None, disabled=True, by=world.by, now=world.now, until=world.until
    )  # fmt: skip
    found = await world.store.identities.find(IDP, "ada")
    assert found is not None
    assert found.disabled


async def test_links_are_made_and_undone_by_hand(world: World) -> None:
    identities = world.store.identities
    await world.user("ann")
    await world.user("bob")
    for _ in range(2):
        await identities.link("ann", IDP, "a|1", by=world.by, now=world.now)
    with pytest.raises(Conflict) as refusal:
        await identities.link("bob", IDP, "a|1", by=world.by, now=world.now)
    assert refusal.value.code == "identity_taken"
    assert await identities.list("ann") == [(IDP, "a|1")]
    assert await identities.unlink(IDP, "a|1", by=world.by, now=world.now) == "ann"
    assert await identities.list("ann") == []
    for gone in (
        identities.unlink(IDP, "a|1", by=world.by, now=world.now),
        identities.link("eve", IDP, "a|1", by=world.by, now=world.now),
        identities.list("eve"),
    ):
        with pytest.raises(NotFound):
            await gone
    linked = [one for one in await audit(world) if one.action.startswith("identity_")]
    assert [(one.action, one.target, one.detail) for one in linked] == [
        ("identity_unlinked", "ann", {"issuer": IDP, "subject": "a|1"}),
        ("identity_linked", "ann", {"issuer": IDP, "subject": "a|1"}),
    ]


async def test_twenty_who_arrive_at_once_are_one_user(world: World, url: str) -> None:
    stores = [world.store]
    if url.startswith("postgresql"):  # another node
        async with open_store(url, inbox_max=10) as other:
            await _arrive([world.store, other], world)
    else:
        await _arrive(stores, world)
    assert await people(world.store) == 1
    assert [one.action for one in await audit(world)].count("user_created") == 1


async def _arrive(stores: list[Any], world: World) -> None:
    found = await asyncio.gather(
        *(
            stores[number % len(stores)].identities.admit(
                IDP, "ada", id="ada", usernames=["ada"], password_hash="!", create=True, link=False, by=BY,
                now=world.now,
            )
            for number in range(20)
        )
    )  # fmt: skip
    assert {user.id for user in found} == {"ada"}
