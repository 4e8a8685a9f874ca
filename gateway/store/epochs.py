"""A new name for the log, and what follows from it. Decides nothing: somebody else found the old numbers unfit."""

from __future__ import annotations

from sqlalchemy import Connection, delete, update

from gateway.closing import TOKEN_REVOKED
from gateway.model import Actor, new_id
from gateway.store.audit import note
from gateway.store.meta import EPOCH, RUNNING, put
from gateway.store.rules import BAN_LIFE, add_rules
from gateway.store.tables import meta, sessions

SYSTEM = Actor("gateway")
"""Who begins one if nobody says so."""


def begin_epoch(connection: Connection, *, why: str, by: Actor, now: int) -> str:
    """After a restore: a new epoch, every session ended, every token issued so far dead. The epoch."""
    epoch = new_id(now / 1000)
    put(connection, EPOCH, epoch)
    connection.execute(delete(meta).where(meta.c.name == RUNNING))
    ended = connection.execute(
        update(sessions).where(sessions.c.ended_at.is_(None)).values(ended_at=now, ended_why=TOKEN_REVOKED.reason)
    ).rowcount
    rule = {"kind": "all", "subject": "*", "user_id": None, "cut": now // 1000, "until": now + BAN_LIFE}
    add_rules(connection, [rule | {"why": TOKEN_REVOKED.reason}], by=by, now=now)
    note(connection, why, target=None, by=by, now=now, detail={"epoch": epoch, "sessions_ended": ended})
    return epoch
