"""The port ``Keys``: keys come and go with their audit row, and nobody retires on what is not so any more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import IntegrityError

from gateway.errors import Conflict
from gateway.model import SigningKey
from gateway.store.engine import Store, open_store

if TYPE_CHECKING:
    from tests.contracts.conftest import World

FIRST = SigningKey("a", "ES256", "pem of a", 10)
SECOND = SigningKey("b", "RS256", "pem of b", 20)


def anything(keys: Sequence[SigningKey]) -> None: ...


async def rotate(world: World, *keys: SigningKey) -> None:
    for key in keys:
        await world.store.keys.rotate(key, by=world.by, now=world.now)


async def audited(store: Store) -> list[tuple[str, str | None, str]]:
    records, _ = await store.audit.list(limit=50, cursor=None)
    return [(record.action, record.target, record.actor) for record in reversed(records)]


async def test_a_key_is_added_with_its_audit_row_and_told_without_what_it_is_made_of(world: World) -> None:
    await rotate(world, SECOND, FIRST)
    assert list(await world.store.keys.signing()) == [FIRST, SECOND]
    assert list(await world.store.keys.announced()) == [("a", 10), ("b", 20)]
    records, _ = await world.store.audit.list(limit=10, cursor=None)
    assert [(one.action, one.target, one.actor) for one in records] == [("key_added", key, "u-admin") for key in "ab"]
    assert records[0].detail == {"alg": "ES256", "signs_from": "1970-01-01T00:00:00.010Z"}
    assert "pem" not in str(records)


async def test_what_is_announced_is_in_the_order_of_the_keys_also_if_they_begin_together(world: World) -> None:
    await rotate(world, replace(SECOND, signs_from=10), FIRST, SigningKey("0", "ES256", "pem", 10))
    announced = await world.store.keys.announced()
    assert list(announced) == [(key.kid, key.signs_from) for key in await world.store.keys.signing()]
    assert [kid for kid, _ in announced] == ["0", "a", "b"]


async def test_a_kid_is_given_once(world: World) -> None:
    await rotate(world, FIRST)
    with pytest.raises(IntegrityError):
        await rotate(world, replace(FIRST, material="another"))
    assert list(await world.store.keys.signing()) == [FIRST]
    assert len(await audited(world.store)) == 1


async def test_a_retired_key_is_gone_and_its_audit_row_there(world: World) -> None:
    await rotate(world, FIRST, SECOND)
    seen: list[Sequence[SigningKey]] = []
    await world.store.keys.retire("a", check=seen.append, by=world.by, now=world.now)
    assert list(seen[0]) == [FIRST, SECOND]
    assert list(await world.store.keys.signing()) == [SECOND]
    assert (await audited(world.store))[-1] == ("key_retired", "a", "u-admin")


async def test_what_the_check_refuses_changes_nothing(world: World) -> None:
    await rotate(world, FIRST)

    def refuse(keys: Sequence[SigningKey]) -> None:
        raise Conflict("key_in_use", "no")

    with pytest.raises(Conflict):
        await world.store.keys.retire("a", check=refuse, by=world.by, now=world.now)
    assert list(await world.store.keys.signing()) == [FIRST]
    assert [action for action, _, _ in await audited(world.store)] == ["key_added"]


async def test_of_two_who_retire_the_last_two_keys_one_is_refused(world: World, url: str) -> None:
    await rotate(world, FIRST, SECOND)

    def not_the_last(keys: Sequence[SigningKey]) -> None:
        if len(keys) == 1:
            raise Conflict("key_in_use", "the only one")

    async with open_store(url, tool=True) as other:
        done = await asyncio.gather(
            world.store.keys.retire("a", check=not_the_last, by=world.by, now=world.now),
            other.keys.retire("b", check=not_the_last, by=world.by, now=world.now),
            return_exceptions=True,
        )
    assert [type(one) for one in done if one is not None] == [Conflict]
    assert len(await world.store.keys.signing()) == 1
