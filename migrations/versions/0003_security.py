"""Security: failed sign-ins counted, tickets used up, people of trusted issuers, an audit that stays."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Words = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "failures",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_failures"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_failures_until", "failures", ["until"])
    op.create_table(
        "used_tickets",
        sa.Column("id", Words, nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_used_tickets"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_used_tickets_expires_at", "used_tickets", ["expires_at"])
    op.create_table(
        "identities",
        sa.Column("issuer", Words, nullable=False),
        sa.Column("subject", Words, nullable=False),
        sa.Column("user_id", Words, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("issuer", "subject", name="pk_identities"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_identities_user_id_users"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_identities_user_id", "identities", ["user_id"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION audit_stays() RETURNS trigger LANGUAGE plpgsql"
            " AS $$ BEGIN RAISE EXCEPTION 'rows of the audit stay as they are'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON audit"
            " FOR EACH STATEMENT EXECUTE FUNCTION audit_stays()"
        )
        op.execute(
            "CREATE TRIGGER audit_stays_above_zero BEFORE INSERT ON audit"
            " FOR EACH ROW WHEN (NEW.number < 1) EXECUTE FUNCTION audit_stays()"
        )
    else:
        for what in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_stays_{what.lower()} BEFORE {what} ON audit"
                " BEGIN SELECT RAISE(ABORT, 'rows of the audit stay as they are'); END"
            )
        # INSERT OR REPLACE takes the row out that is in its way, and no DELETE trigger hears of it.
        op.execute(
            "CREATE TRIGGER audit_stays_insert BEFORE INSERT ON audit"
            " WHEN EXISTS (SELECT 1 FROM audit WHERE number = NEW.number)"
            " BEGIN SELECT RAISE(ABORT, 'rows of the audit stay as they are'); END"
        )
        # Only afterwards: before it, a number that was left out is -1.
        op.execute(
            "CREATE TRIGGER audit_stays_above_zero AFTER INSERT ON audit WHEN NEW.number < 1"
            " BEGIN SELECT RAISE(ABORT, 'rows of the audit stay as they are'); END"
        )


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER audit_stays_above_zero ON audit")
        op.execute("DROP TRIGGER audit_stays ON audit")
        op.execute("DROP FUNCTION audit_stays()")
    else:
        op.execute("DROP TRIGGER audit_stays_update")
        op.execute("DROP TRIGGER audit_stays_delete")
        op.execute("DROP TRIGGER audit_stays_insert")
        op.execute("DROP TRIGGER audit_stays_above_zero")
    op.drop_table("identities")
    op.drop_table("used_tickets")
    op.drop_table("failures")
