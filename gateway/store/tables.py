"""The tables as SQLAlchemy Core metadata. No queries, and no ORM: rows are not objects here.

Every ``*_at``, ``until`` and ``cut`` is a BIGINT; milliseconds since the epoch unless the column says otherwise. Every
constraint is named, so that a migration can name it too. ``migrations/`` builds the same schema; a test compares.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

Number = BigInteger().with_variant(Integer(), "sqlite")  # only INTEGER counts by itself there; both are 64 bits

meta = Table(
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("username", Text, unique=True),  # NULL once deleted: the name is free again, the id never is
    Column("password_hash", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
)

# The hot row of a user: everything a push or a hello has to touch, and nothing else.
inboxes = Table(
    "inboxes",
    metadata,
    Column("user_id", Text, ForeignKey("users.id"), primary_key=True),
    Column("head", BigInteger, nullable=False),
    Column("rev", BigInteger, nullable=False),
    Column("unread", BigInteger, nullable=False),
    Column("stored", BigInteger, nullable=False),
    Column("acked", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Rows lie in the order of arrival: clustered by (user, seq), every row of a group dirties a page of its own, which made
# groups 2.3 to 4 times slower. No foreign key: the row of ``inboxes`` that gave the seq was updated in the same
# transaction, so asking again for every row would buy nothing.
inbox = Table(
    "inbox",
    metadata,
    Column("user_id", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("id", Text, nullable=False, unique=True),
    Column("sender", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("size", Integer, nullable=False),  # bytes of content in UTF-8
    Column("category", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("acknowledged_at", BigInteger),
    Column("read_at", BigInteger),
    PrimaryKeyConstraint("user_id", "seq"),
    Index(None, "expires_at"),
)

# What is left of a notification that left its inbox: everything but its content.
receipts = Table(
    "receipts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("sender", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("acknowledged_at", BigInteger),
    Column("read_at", BigInteger),
    Column("purge_at", BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("sender", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("answer", Text, nullable=False),  # JSON
    Column("expires_at", BigInteger, nullable=False, index=True),
    PrimaryKeyConstraint("sender", "key"),
    sqlite_with_rowid=False,
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id"), nullable=False, index=True),
    Column("device", Text),
    Column("address", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("refreshed_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("refresh_hash", LargeBinary, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("rotated_at", BigInteger, nullable=False),
    Column("cursor", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("ended_why", Text),
    Index("ix_sessions_created_at", "created_at", "id"),
)

clients = Table(
    "clients",
    metadata,
    Column("client_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("scopes", Text, nullable=False),  # space separated, as in a token
    Column("created_at", BigInteger, nullable=False),
    Column("rotated_at", BigInteger),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("kid", Text, primary_key=True),
    Column("algorithm", Text, nullable=False),
    Column("material", Text, nullable=False),
    Column("signs_from", BigInteger, nullable=False),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

# One row per rule. ``target`` (JSON) is set on what an administrator sees in the list; ``parent`` names that row's id
# on the rules it came to. Kind ``user`` is no rule for tokens: it notes that this user's sign-ins up to ``cut`` ended.
revocations = Table(
    "revocations",
    metadata,
    Column("number", Number, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("user_id", Text),
    Column("cut", BigInteger),  # seconds for client and all (compared with iat); milliseconds for user
    Column("until", BigInteger, nullable=False, index=True),
    Column("why", Text, nullable=False),
    Column("parent", Text),
    Column("reason", Text),
    Column("actor", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("target", Text),
    Index("ix_revocations_subject", "subject", "kind"),
    sqlite_autoincrement=True,  # a number is never given twice, also after a purge: pollers remember the highest
)

audit = Table(
    "audit",
    metadata,
    Column("number", Number, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text),
    Column("detail", Text, nullable=False),  # JSON
    Column("address", Text),
    Column("request_id", Text),
    sqlite_autoincrement=True,
)
