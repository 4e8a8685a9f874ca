"""Databases with many stored rows, as time would have left them. Loads in bulk; measures nothing.

Rows lie in the order of arrival, users taking turns, over the last twenty days: a user's rows are far apart, ids begin
with their time. All indexes are there while the rows come, so they are as loose as they would be.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection

from benchmarks.backends import Backends
from benchmarks.people import SENDER, enlist, prepare

EACH = 1000
"""Stored rows of every user, as a rule."""
STEP = 500_000
SPREAD_MS = 20 * 86_400_000
TTL_MS = 30 * 86_400_000
CONTENT = (
    '"title":"Order shipped","body":"Arrives Friday",'
    '"data":{"at":"@0000000000000000000@"},"category":null,"priority":"normal"'
)
BYTES_A_ROW = 700
"""What a row takes on disk at most, indexes and log included: measured 560 (SQLite), 600 (PostgreSQL)."""

_COLUMNS = "user_id, seq, id, sender, content, size, category, created_at, expires_at"
_SQLITE = f"""
WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :end),
at(i, created) AS (SELECT i, :begin + i * :spread / :rows FROM n)
INSERT INTO inbox ({_COLUMNS})
SELECT 'u' || (i % :users), i / :users + 1, printf('%012x', created) || lower(hex(randomblob(10))), '{SENDER}',
       :content, length(:content), NULL, created, created + :ttl FROM at
"""


def _steps(rows: int) -> Iterator[tuple[int, int]]:
    for first in range(0, rows, STEP):
        yield first, min(first + STEP, rows)


def _begin() -> int:
    return int(time.time() * 1000) - SPREAD_MS


def in_sqlite(directory: Path, *, rows: int, each: int = EACH) -> None:
    """The database of a node in ``directory``, with ``rows`` stored rows, so many for ``each`` user."""
    users = rows // each
    prepare(directory, users=users, head=each)
    connection = sqlite3.connect(directory / "gateway.db", isolation_level=None)
    try:
        # Only while it is loaded: the gateway sets its own.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-1500000"):
            connection.execute(f"PRAGMA {pragma}")
        common = {"begin": _begin(), "spread": SPREAD_MS, "rows": rows, "users": users, "content": CONTENT}
        for first, end in _steps(rows):
            connection.execute(_SQLITE, common | {"ttl": TTL_MS, "first": first, "end": end})
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def in_postgres(backends: Backends, database: str, *, rows: int) -> None:
    """The same, as a new database."""
    users = rows // EACH

    def people(connection: Connection) -> None:
        enlist(connection, users=users, head=EACH)

    backends.prepare(database, people)
    begin = _begin()
    for first, end in _steps(rows):
        backends.postgres.sql(_from_to(first, end, rows=rows, begin=begin), database=database)
    backends.postgres.sql("VACUUM ANALYZE", database=database)
    backends.postgres.sql("CHECKPOINT")


def _from_to(first: int, end: int, *, rows: int, begin: int) -> str:
    users = rows // EACH
    return f"""
INSERT INTO inbox ({_COLUMNS})
SELECT 'u' || (i % {users}), i / {users} + 1,
       lpad(to_hex(created), 12, '0') || substr(md5(i::text || random()::text), 1, 20), '{SENDER}', '{CONTENT}',
       {len(CONTENT)}, NULL, created, created + {TTL_MS}
FROM (SELECT i, {begin} + i * {SPREAD_MS} / {rows} AS created
      FROM generate_series({first}::bigint, {end - 1}::bigint) AS i) AS at
"""
