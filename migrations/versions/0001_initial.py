"""Initial: the embedded default — users, inboxes, sessions, clients, keys, revocations, audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Words = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "meta",
        sa.Column("name", Words, nullable=False),
        sa.Column("value", Words, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_meta"),
    )
    op.create_table(
        "users",
        sa.Column("id", Words, nullable=False),
        sa.Column("username", Words),
        sa.Column("password_hash", Words, nullable=False),
        sa.Column("role", Words, nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("username", name="uq_users_username"),
    )
    op.create_table(
        "inboxes",
        sa.Column("user_id", Words, nullable=False),
        sa.Column("head", sa.BigInteger(), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.Column("unread", sa.BigInteger(), nullable=False),
        sa.Column("stored", sa.BigInteger(), nullable=False),
        sa.Column("acked", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_inboxes"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_inboxes_user_id_users"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "inbox",
        sa.Column("user_id", Words, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("id", Words, nullable=False),
        sa.Column("sender", Words, nullable=False),
        sa.Column("content", Words, nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("category", Words),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("acknowledged_at", sa.BigInteger()),
        sa.Column("read_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("user_id", "seq", name="pk_inbox"),
        sa.UniqueConstraint("id", name="uq_inbox_id"),
    )
    op.create_index("ix_inbox_expires_at", "inbox", ["expires_at"])
    op.create_table(
        "receipts",
        sa.Column("id", Words, nullable=False),
        sa.Column("sender", Words, nullable=False),
        sa.Column("user_id", Words, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("state", Words, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("acknowledged_at", sa.BigInteger()),
        sa.Column("read_at", sa.BigInteger()),
        sa.Column("purge_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_receipts"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_receipts_purge_at", "receipts", ["purge_at"])
    op.create_table(
        "idempotency",
        sa.Column("sender", Words, nullable=False),
        sa.Column("key", Words, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("answer", Words, nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sender", "key", name="pk_idempotency"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_idempotency_expires_at", "idempotency", ["expires_at"])
    op.create_table(
        "sessions",
        sa.Column("id", Words, nullable=False),
        sa.Column("user_id", Words, nullable=False),
        sa.Column("device", Words),
        sa.Column("address", Words),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("refreshed_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("refresh_hash", sa.LargeBinary(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("rotated_at", sa.BigInteger(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("ended_why", Words),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_sessions_user_id_users"),
    )
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"])
    op.create_index("ix_sessions_created_at", "sessions", ["created_at", "id"])
    op.create_table(
        "clients",
        sa.Column("client_id", Words, nullable=False),
        sa.Column("name", Words, nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", Words, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("rotated_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("client_id", name="pk_clients"),
    )
    op.create_table(
        "signing_keys",
        sa.Column("kid", Words, nullable=False),
        sa.Column("algorithm", Words, nullable=False),
        sa.Column("material", Words, nullable=False),
        sa.Column("signs_from", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kid", name="pk_signing_keys"),
    )
    op.create_table(
        "secrets",
        sa.Column("name", Words, nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_secrets"),
    )
    op.create_table(
        "revocations",
        sa.Column("number", Number, nullable=False),
        sa.Column("id", Words, nullable=False),
        sa.Column("kind", Words, nullable=False),
        sa.Column("subject", Words, nullable=False),
        sa.Column("user_id", Words),
        sa.Column("cut", sa.BigInteger()),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("why", Words, nullable=False),
        sa.Column("parent", Words),
        sa.Column("reason", Words),
        sa.Column("actor", Words, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("target", Words),
        sa.PrimaryKeyConstraint("number", name="pk_revocations"),
        sa.UniqueConstraint("id", name="uq_revocations_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_revocations_until", "revocations", ["until"])
    op.create_index("ix_revocations_subject", "revocations", ["subject", "kind"])
    op.create_table(
        "audit",
        sa.Column("number", Number, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", Words, nullable=False),
        sa.Column("action", Words, nullable=False),
        sa.Column("target", Words),
        sa.Column("detail", Words, nullable=False),
        sa.Column("address", Words),
        sa.Column("request_id", Words),
        sa.PrimaryKeyConstraint("number", name="pk_audit"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    for table in (
        "audit",
        "revocations",
        "secrets",
        "signing_keys",
        "clients",
        "sessions",
        "idempotency",
        "receipts",
        "inbox",
        "inboxes",
        "users",
        "meta",
    ):
        op.drop_table(table)
