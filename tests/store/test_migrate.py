"""The schema: what ``migrations/`` builds is what ``tables.py`` says, whole or not at all."""

# ruff: noqa: ASYNC221, ASYNC240 - a test waits for its files and processes, and nobody waits for a test

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from stores import people

from gateway.store import migrate
from gateway.store.engine import Store, current, open_store, upgrade
from gateway.store.errors import StoreError, StoreInUse
from gateway.store.tables import metadata


def schema(path: Path) -> dict[str, str]:
    """Every table and index by name, its SQL without the freedom of writing it."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {
        name: re.sub(r"[\s\"]+", " ", sql).replace("CONSTRAINT pk_revocations ", "").replace("CONSTRAINT pk_audit ", "")
        for name, sql in rows
        if name != "alembic_version" and not name.startswith("sqlite_")
    }


async def test_the_migrated_schema_is_the_one_of_the_tables(url: str, path: Path, tmp_path: Path) -> None:
    assert await upgrade(url) is True
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()
    direct = create_engine(f"sqlite:///{tmp_path}/direct.db")
    metadata.create_all(direct)
    direct.dispose()
    assert schema(path) == schema(tmp_path / "direct.db")


def test_every_constraint_has_a_name() -> None:
    for table in metadata.tables.values():
        for constraint in table.constraints:
            assert constraint.name, (table.name, constraint)


def test_the_head_is_the_newest_step() -> None:
    scripts = ScriptDirectory.from_config(migrate.config())
    assert scripts.get_current_head() == migrate.head()
    revisions = [script.revision for script in scripts.walk_revisions()]
    assert sorted(revisions, reverse=True) == revisions
    assert all(migrate.known(revision) for revision in revisions)


async def test_an_upgrade_happens_once(url: str, path: Path) -> None:
    assert await current(url) is None
    assert not path.exists()
    assert await upgrade(url) is True
    assert await current(url) == migrate.head()
    assert await upgrade(url) is False


async def test_a_current_database_opens_without_alembic(url: str) -> None:
    await upgrade(url)
    code = f"""
import asyncio, sys
from gateway.store.engine import open_store
async def main():
    async with open_store({url!r}) as store:
        await store.meta.epoch()
asyncio.run(main())
assert not [name for name in sys.modules if name.split(".")[0] == "alembic"]
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_a_database_of_a_newer_gateway_is_refused(url: str, path: Path) -> None:
    await upgrade(url)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '0999'")
    connection.execute("UPDATE meta SET value = '0998' WHERE name = 'compatible'")
    connection.commit()
    connection.close()
    for tool in (False, True):
        with pytest.raises(StoreError, match="newer than this gateway"):
            async with open_store(url, tool=tool):
                raise AssertionError("opened")


async def test_a_gateway_starts_beside_newer_ones_that_have_only_added(url: str, path: Path) -> None:
    await upgrade(url)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '0999'")
    connection.execute("ALTER TABLE users ADD COLUMN shoe_size BIGINT")
    connection.commit()
    connection.close()
    async with open_store(url) as store:
        assert await people(store) == 0
        assert await store.meta.schema() == "0999"
    assert await current(url) == "0999"


async def test_nobody_migrates_under_a_running_gateway(url: str, path: Path, store: Store) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '0000'")
    connection.commit()
    connection.close()
    with pytest.raises(StoreInUse, match="schema must be brought to"):
        await upgrade(url)


async def test_a_database_has_an_epoch_from_its_first_migration(url: str, path: Path) -> None:
    await upgrade(url)
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchall()
    connection.close()
    assert len(found) == 1
    async with open_store(url) as store:
        assert (await store.meta.epoch(),) == found[0]


KILLED = """
import asyncio, os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from gateway.store.engine import upgrade

@event.listens_for(Engine, "after_cursor_execute")
def count(connection, cursor, statement, parameters, context, many):
    if "CREATE TABLE sessions" in statement:
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(upgrade(sys.argv[1]))
"""


async def test_a_migration_that_is_killed_half_way_leaves_what_was_before(url: str, path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, url], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert schema(path) == {}
    assert await current(url) is None
    assert await upgrade(url) is True
    async with open_store(url) as store:
        assert await people(store) == 0


async def test_the_alembic_command_works_from_the_repository(url: str, path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {"GATEWAY_DATABASE_URL": url, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(root)}
    for arguments in (["upgrade", "head"], ["check"], ["downgrade", "base"], ["upgrade", "head"]):
        done = subprocess.run(
            [sys.executable, "-W", "error::DeprecationWarning:alembic", "-m", "alembic", *arguments],
            cwd=root, env=environment, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert await current(url) == migrate.head()
