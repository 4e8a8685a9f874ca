"""Whether the log a connection leads to is the one whose numbers were given out. Changes the epoch if it is not.

A failover to a copy that had not received everything gives numbers out a second time. PostgreSQL marks such a history
by a new timeline. Under ``relaxed`` durability a crash of the server may do the same and leaves no mark: there each
start of the server, and each recovery from a crash, counts as another history.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from gateway.model import Actor, new_id
from gateway.store.audit import note
from gateway.store.database import Durability
from gateway.store.errors import StoreError
from gateway.store.locking import in_turn
from gateway.store.meta import EPOCH, HISTORY, ensure_epoch, get, put

_TIMELINE = "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
_MARK = {
    "full": f"SELECT {_TIMELINE}",
    # A server that lost one of its processes recovers without a new start, and counts its statistics from then on.
    "relaxed": f"SELECT concat_ws('/', {_TIMELINE}, extract(epoch FROM pg_postmaster_start_time()),"  # noqa: S608 - constants
    " (SELECT extract(epoch FROM stats_reset) FROM pg_stat_archiver))",
}


class Moved(StoreError):
    """This connection leads to another history than the one that was adopted."""


class History:
    """``mark`` is what connections have to show; None until the first ``adopt``, and they are let in."""

    def __init__(self, durability: Durability) -> None:
        self._question = _MARK[durability]
        self.mark: str | None = None

    def look(self, connection: Any) -> None:
        """For each new DBAPI connection. Raises Moved; also for a server that cannot be written (a standby)."""
        if self.mark is None:
            return
        cursor = connection.cursor()
        try:
            cursor.execute("SELECT pg_is_in_recovery()")
            if cursor.fetchone()[0]:
                raise Moved("the database is a standby: it cannot be written")
            cursor.execute(self._question)
            found = cursor.fetchone()[0]
        finally:
            cursor.close()
        connection.rollback()
        if found != self.mark:
            raise Moved(f"the database has another history now ({self.mark} became {found})")

    def adopt(self, connection: Connection) -> tuple[str, str]:
        """In one transaction: if the history is not the one that was noted, note it and begin a new epoch.

        Sessions stay. The mark, for ``mark`` once this is committed, and the epoch. Raises StoreError on a standby.
        """
        if connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one():
            raise StoreError("the database is a standby: it cannot be written")
        in_turn(connection, "meta")
        found = str(connection.execute(text(self._question)).scalar_one())
        noted = get(connection, HISTORY)
        if noted == found:
            return found, ensure_epoch(connection)
        # `full` after `relaxed`, or the reverse: the form of the mark changed, and the timeline in it alone counts.
        same_form = noted is not None and ("/" in noted) == ("/" in found)
        if noted is not None and (same_form or noted.partition("/")[0] != found.partition("/")[0]):
            now = int(connection.execute(text("SELECT extract(epoch FROM now()) * 1000")).scalar_one())
            epoch = new_id(now / 1000)
            put(connection, EPOCH, epoch)
            detail = {"epoch": epoch, "was": noted, "is": found}
            note(connection, "history_changed", target=None, by=Actor("gateway"), now=now, detail=detail)
        put(connection, HISTORY, found)
        return found, ensure_epoch(connection)
