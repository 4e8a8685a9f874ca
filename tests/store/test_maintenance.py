"""Backup, restore, and the epoch that names the log."""

# ruff: noqa: ASYNC240 - a test waits for its files and processes, and nobody waits for a test

from __future__ import annotations

import asyncio
import sqlite3
import stat
from pathlib import Path

import pytest
from stores import people, signing_in

from gateway.model import Actor, Append, Ban, Draft, Target
from gateway.store.engine import Store, open_store, upgrade
from gateway.store.errors import StoreCorrupt, StoreError, StoreInUse
from gateway.store.maintenance import backup, new_epoch, restore

BY = Actor("test")
NOW = 1_700_000_000_000


async def fill(store: Store, users: int = 1) -> None:
    for number in range(users):
        id = f"user{number}"
        await store.users.create(id=id, username=id, role="user", password_hash="h", by=BY, now=NOW)
        await store.sessions.start(signing_in(f"s{number}", id, now=NOW, until=NOW + 10**9))


async def push(store: Store, id: str) -> int | None:
    request = Append("c~shop", (Draft(id, "user0", "x", None, NOW, NOW + 10**10),))
    return (await store.inbox.append(request)).outcomes[0].seq


async def rules(store: Store) -> list[Ban]:
    return list(await store.revocations.since(0, now=NOW))


async def test_a_backup_is_taken_while_the_gateway_writes(url: str, tmp_path: Path, store: Store) -> None:
    await fill(store)
    target = tmp_path / "backup.db"
    pushes = [asyncio.ensure_future(push(store, f"n{number}")) for number in range(300)]
    assert await backup(url, target) == target
    await asyncio.gather(*pushes)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    copy = sqlite3.connect(target)
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    (head,) = copy.execute("SELECT head FROM inboxes").fetchone()
    assert copy.execute("SELECT count(*), coalesce(max(seq), 0) FROM inbox").fetchone() == (head, head)
    copy.close()


async def test_a_backup_overwrites_nothing_and_makes_no_database(url: str, path: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    with pytest.raises(StoreError, match="no database"):
        await backup(url, target)
    assert not path.exists()
    assert not target.exists()
    await upgrade(url)
    target.write_text("mine")
    with pytest.raises(StoreError, match="exists already"):
        await backup(url, target)
    assert target.read_text() == "mine"


async def test_a_restore_brings_the_data_back_under_a_new_epoch(url: str, path: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    async with open_store(url) as store:
        epoch = await store.meta.epoch()
        await fill(store)
        await push(store, "before")
        await backup(url, target)
        await push(store, "after")
    changed = await restore(url, target, now=NOW + 5500)
    assert changed != epoch
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with open_store(url) as store:
        assert await store.meta.epoch() == changed
        page = await store.inbox.page("user0", after=0, now=NOW)
        assert [entry.id for entry in page.entries] == ["before"]
        session = await store.sessions.get("s0")
        assert (session.ended_at, session.ended_why) == (NOW + 5500, "token_revoked")
        (rule,) = await rules(store)
        assert (rule.kind, rule.cut, rule.why) == ("all", NOW // 1000 + 5, "token_revoked")
        assert await push(store, "again") == 2
        actions = [row.action for row in (await store.audit.list(limit=1, cursor=None))[0]]
        assert actions == ["restored"]
    assert {file.name for file in path.parent.iterdir()} == {"gateway.db", "gateway.db.lock"}


async def test_a_restore_needs_no_database_to_replace_and_survives_a_broken_one(
    url: str, path: Path, tmp_path: Path
) -> None:
    target = tmp_path / "backup.db"
    async with open_store(url) as store:
        await fill(store)
        await backup(url, target)
    path.unlink()
    await restore(url, target, now=NOW)
    async with open_store(url) as store:
        assert await people(store) == 1
    path.write_bytes(b"SQLite format 3\x00" + b"\xa5" * 9000)
    path.with_name("gateway.db-wal").write_bytes(b"an old log")
    await restore(url, target, now=NOW)
    async with open_store(url) as store:
        assert await people(store) == 1


async def test_a_restore_is_refused_while_a_gateway_serves(url: str, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    async with open_store(url) as store:
        await fill(store)
        await backup(url, target)
        with pytest.raises(StoreInUse):
            await restore(url, target, now=NOW)
        with pytest.raises(StoreInUse):
            await new_epoch(url, now=NOW)
        assert await people(store) == 1
        assert (await store.sessions.get("s0")).ended_at is None


async def test_a_bad_backup_touches_nothing(url: str, path: Path, tmp_path: Path) -> None:
    async with open_store(url) as store:
        epoch = await store.meta.epoch()
        await fill(store, users=200)
        good = await backup(url, tmp_path / "good.db")
    bad = tmp_path / "bad.db"
    bad.write_bytes(b"no database")
    damaged = tmp_path / "damaged.db"
    content = bytearray(good.read_bytes())
    content[4096 * 4 : 4096 * 12] = b"\xa5" * 4096 * 8
    damaged.write_bytes(content)
    strange = tmp_path / "strange.db"
    with sqlite3.connect(strange) as connection:
        connection.execute("CREATE TABLE cats (name)")
    connection.close()
    newer = tmp_path / "newer.db"
    newer.write_bytes(good.read_bytes())
    with sqlite3.connect(newer) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
    connection.close()
    empty = tmp_path / "empty.db"
    empty.write_bytes(b"")
    for source, kind, says in (
        (tmp_path / "none.db", StoreError, "no backup"),
        (bad, StoreCorrupt, "cannot be used"),
        (damaged, StoreCorrupt, "damaged|cannot be used"),
        (strange, StoreError, "something else"),
        (newer, StoreError, "newer"),
        (empty, StoreError, "not a backup"),
    ):
        with pytest.raises(kind, match=says):
            await restore(url, source, now=NOW)
        assert {file.name for file in path.parent.iterdir()} == {"gateway.db", "gateway.db.lock"}
    async with open_store(url) as store:
        assert await store.meta.epoch() == epoch
        assert await people(store) == 200


async def test_a_new_epoch_ends_every_session_and_every_token(url: str) -> None:
    async with open_store(url) as store:
        epoch = await store.meta.epoch()
        await fill(store, users=2)
        old = await store.revocations.revoke(
            Target(token_id="t"), why="token_revoked", reason=None, by=BY, now=NOW, until=NOW + 10
        )
    assert await new_epoch(url, now=NOW) != epoch
    async with open_store(url) as store:
        assert {(await store.sessions.get(f"s{n}")).ended_why for n in range(2)} == {"token_revoked"}
        kept, rule = await rules(store)
        assert kept == old.bans[0]
        assert rule.kind == "all"
        assert rule.number > kept.number


async def test_there_is_no_new_epoch_without_a_database(url: str, path: Path) -> None:
    with pytest.raises(StoreError, match="no database"):
        await new_epoch(url, now=NOW)
    assert not path.exists()


def cut_off(path: Path, durability: str) -> None:
    """What a run leaves behind that was killed."""
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO meta VALUES ('running', ?)", (durability,))
    connection.commit()
    connection.close()


@pytest.mark.parametrize(("durability", "changes"), [("full", False), ("relaxed", True)])
async def test_only_an_unclean_stop_under_relaxed_durability_changes_the_epoch(
    url: str, path: Path, durability: str, changes: bool
) -> None:
    async with open_store(url, durability="relaxed") as store:
        epoch = await store.meta.epoch()
        await fill(store)
    async with open_store(url, durability="relaxed") as store:
        assert await store.meta.epoch() == epoch
    cut_off(path, durability)
    async with open_store(url, tool=True) as store:
        assert await store.meta.epoch() == epoch  # a tool is no start
    async with open_store(url) as store:
        assert (await store.meta.epoch() != epoch) is changes
        assert (await store.sessions.get("s0")).ended_at is None
        changed = await store.meta.epoch()
    async with open_store(url) as store:
        assert await store.meta.epoch() == changed


async def test_the_mark_of_a_run_stands_while_it_runs(url: str, path: Path) -> None:
    def mark() -> list[tuple[str]]:
        connection = sqlite3.connect(path)
        rows: list[tuple[str]] = connection.execute("SELECT value FROM meta WHERE name = 'running'").fetchall()
        connection.close()
        return rows

    async with open_store(url, durability="relaxed"):
        assert mark() == [("relaxed",)]
    assert mark() == []
