"""How a migration runs: on the connection the gateway hands over, or on one of its own under the alembic command.

In one transaction with foreign keys off and checked at the end: killed half-way, everything is as before.
"""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection

from gateway.settings import read_settings
from gateway.store.postgres import opening as postgres
from gateway.store.sqlite.lock import locked, path_of, prepare
from gateway.store.sqlite.migrating import migration_engine
from gateway.store.tables import metadata


def migrate(connection: Connection) -> None:
    """Run the missing steps in the transaction that is open on ``connection``. Raises if they orphaned a row."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,  # SQLite can alter little in place: the table is rebuilt
        transactional_ddl=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()
    if connection.dialect.name == "sqlite":
        orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if orphans:
            raise RuntimeError(f"the migration left {len(orphans)} rows without what they refer to")


async def migrate_configured() -> None:
    """For the alembic command: the database that the settings name, which no gateway may be serving."""
    url = read_settings().database_url.get_secret_value()
    if postgres.is_postgres(url):
        await postgres.run(url, migrate)
        return
    path = path_of(url)
    with locked(path):
        prepare(path)
        engine = migration_engine(path)
        try:
            with engine.begin() as connection:
                migrate(connection)
        finally:
            engine.dispose()


def main() -> None:
    given = context.config.attributes.get("connection")
    if given is not None:
        migrate(given)
    elif context.is_offline_mode():
        raise SystemExit("write no SQL files: a migration here looks at the rows it moves")
    else:
        asyncio.run(migrate_configured())


main()
