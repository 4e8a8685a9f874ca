"""The tables as SQLAlchemy Core metadata. No queries, and no ORM: rows are not objects here.

Every ``*_at``, ``until`` and ``cut`` is a BIGINT; milliseconds since the epoch unless the column says otherwise. Every
constraint is named, so that a migration can name it too. ``migrations/`` builds the same schema; a test compares.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
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
    event,
)
from sqlalchemy.dialects import postgresql

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

# Ids are compared byte by byte, whatever the language of the server.
Words = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
Number = BigInteger().with_variant(Integer(), "sqlite")  # only INTEGER counts by itself there; both are 64 bits

meta = Table(
    "meta",
    metadata,
    Column("name", Words, primary_key=True),
    Column("value", Words, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("id", Words, primary_key=True),
    Column("username", Words, unique=True),  # NULL once deleted: the name is free again, the id never is
    Column("password_hash", Words, nullable=False),
    Column("role", Words, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
)

# The hot row of a user: everything a push or a hello has to touch, and nothing else.
inboxes = Table(
    "inboxes",
    metadata,
    Column("user_id", Words, ForeignKey("users.id"), primary_key=True),
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
    Column("user_id", Words, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("id", Words, nullable=False, unique=True),
    Column("sender", Words, nullable=False),
    Column("content", Words, nullable=False),
    Column("size", Integer, nullable=False),  # bytes of content in UTF-8
    Column("category", Words),
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
    Column("id", Words, primary_key=True),
    Column("sender", Words, nullable=False),
    Column("user_id", Words, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("state", Words, nullable=False),
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
    Column("sender", Words, nullable=False),
    Column("key", Words, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("answer", Words, nullable=False),  # JSON
    Column("expires_at", BigInteger, nullable=False, index=True),
    PrimaryKeyConstraint("sender", "key"),
    sqlite_with_rowid=False,
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Words, primary_key=True),
    Column("user_id", Words, ForeignKey("users.id"), nullable=False, index=True),
    Column("device", Words),
    Column("address", Words),
    Column("created_at", BigInteger, nullable=False),
    Column("refreshed_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("refresh_hash", LargeBinary, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("rotated_at", BigInteger, nullable=False),
    Column("cursor", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("ended_why", Words),
    Index("ix_sessions_created_at", "created_at", "id"),
    Index("ix_sessions_ended_at", "ended_at"),
    Index("ix_sessions_expires_at", "expires_at"),
)

clients = Table(
    "clients",
    metadata,
    Column("client_id", Words, primary_key=True),
    Column("name", Words, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("scopes", Words, nullable=False),  # space separated, as in a token
    Column("created_at", BigInteger, nullable=False),
    Column("rotated_at", BigInteger),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("kid", Words, primary_key=True),
    Column("algorithm", Words, nullable=False),
    Column("material", Words, nullable=False),
    Column("signs_from", BigInteger, nullable=False),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", Words, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

# One row per rule. ``target`` (JSON) is set on what an administrator sees in the list; ``parent`` names that row's id
# on the rules it came to. Kind ``user`` is no rule for tokens: it notes that this user's sign-ins up to ``cut`` ended.
revocations = Table(
    "revocations",
    metadata,
    Column("number", Number, primary_key=True),
    Column("id", Words, nullable=False, unique=True),
    Column("kind", Words, nullable=False),
    Column("subject", Words, nullable=False),
    Column("user_id", Words),
    Column("cut", BigInteger),  # seconds for client and all (compared with iat); milliseconds for user
    Column("until", BigInteger, nullable=False, index=True),
    Column("why", Words, nullable=False),
    Column("parent", Words),
    Column("reason", Words),
    Column("actor", Words, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("target", Words),
    Index("ix_revocations_subject", "subject", "kind"),
    sqlite_autoincrement=True,  # a number is never given twice, also after a purge: pollers remember the highest
)

audit = Table(
    "audit",
    metadata,
    Column("number", Number, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", Words, nullable=False),
    Column("action", Words, nullable=False),
    Column("target", Words),
    Column("detail", Words, nullable=False),  # JSON
    Column("address", Words),
    Column("request_id", Words),
    sqlite_autoincrement=True,
)

# Nobody has a reason to change what was noted: the database refuses it, whoever asks.
_AUDIT_STAYS = {
    "sqlite": [
        f"CREATE TRIGGER audit_stays_{what.lower()} BEFORE {what} ON audit"
        " BEGIN SELECT RAISE(ABORT, 'rows of the audit stay as they are'); END"
        for what in ("UPDATE", "DELETE")
    ]
    + [
        # INSERT OR REPLACE takes the row out that is in its way, and no DELETE trigger hears of it.
        (
            "CREATE TRIGGER audit_stays_insert BEFORE INSERT ON audit"
            " WHEN EXISTS (SELECT 1 FROM audit WHERE number = NEW.number)"
            " BEGIN SELECT RAISE(ABORT, 'rows of the audit stay as they are'); END"
        ),
        # Below the first nobody looks. Only afterwards: before it, a number that was left out is -1.
        (
            "CREATE TRIGGER audit_stays_above_zero AFTER INSERT ON audit WHEN NEW.number < 1"
            " BEGIN SELECT RAISE(ABORT, 'rows of the audit stay as they are'); END"
        ),
    ],
    "postgresql": [
        (
            "CREATE FUNCTION audit_stays() RETURNS trigger LANGUAGE plpgsql"
            " AS $$ BEGIN RAISE EXCEPTION 'rows of the audit stay as they are'; END $$"
        ),
        (
            "CREATE TRIGGER audit_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON audit"
            " FOR EACH STATEMENT EXECUTE FUNCTION audit_stays()"
        ),
        (
            "CREATE TRIGGER audit_stays_above_zero BEFORE INSERT ON audit"
            " FOR EACH ROW WHEN (NEW.number < 1) EXECUTE FUNCTION audit_stays()"
        ),
    ],
}
for _dialect, _statements in _AUDIT_STAYS.items():
    for _statement in _statements:
        event.listen(audit, "after_create", DDL(_statement).execute_if(dialect=_dialect))  # type: ignore[no-untyped-call]

# How far failed sign-ins have filled what is forgiven: an account, an address, a network, each by a keyed hash, since
# people type their password where the name belongs. ``until``: when it is empty again (GCRA's arrival time).
failures = Table(
    "failures",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("until", BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)

used_tickets = Table(
    "used_tickets",
    metadata,
    Column("id", Words, primary_key=True),
    Column("expires_at", BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)

# Who somebody is that signed in with the token of a trusted issuer. Outlives the user: who was deleted stays out.
identities = Table(
    "identities",
    metadata,
    Column("issuer", Words, nullable=False),
    Column("subject", Words, nullable=False),
    Column("user_id", Words, ForeignKey("users.id"), nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("issuer", "subject"),
    sqlite_with_rowid=False,
)
