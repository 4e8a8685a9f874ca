"""Many nodes: indexes for what used to walk the sessions, and what PostgreSQL alone needs."""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COLLATIONS = ("pg_unicode_fast", "pg_c_utf8", "und-x-icu", "default")
"""The first of these that the server has knows the capital letters of more alphabets than ours."""


def upgrade() -> None:
    op.create_index("ix_sessions_ended_at", "sessions", ["ended_at"])
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    if op.get_bind().dialect.name == "postgresql":
        _for_postgresql()


def _for_postgresql() -> None:
    # Counters change with every push and stand in no index: with room on the page they change in place.
    op.execute("ALTER TABLE inboxes SET (fillfactor = 50)")
    op.execute("ALTER TABLE inbox SET (fillfactor = 90)")
    op.execute("ALTER TABLE sessions SET (fillfactor = 80)")
    # A fifth of ten million dead rows is too late to begin.
    for table in ("inboxes", "inbox", "idempotency", "sessions"):
        op.execute(f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.02)")
    known = set(
        op.get_bind().execute(text("SELECT collname FROM pg_collation WHERE collencoding IN (-1, 6)")).scalars()
    )
    collation = next(name for name in _COLLATIONS if name in known or name == "default")
    op.execute(
        "CREATE FUNCTION unicode_lower(words text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE"
        f' AS $$ SELECT lower(words COLLATE "{collation}") $$'
    )


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION unicode_lower(text)")
    op.drop_index("ix_sessions_expires_at", "sessions")
    op.drop_index("ix_sessions_ended_at", "sessions")
