"""How far devices and user have come: acknowledging and reading. Moves nothing out of an inbox, commits nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import BigInteger, Connection, Text, bindparam, select, update

from gateway.errors import Conflict, Invalid, NotFound
from gateway.model import MarkedRead
from gateway.store.given import given, packed
from gateway.store.leaving import expire_user
from gateway.store.locking import hold_inboxes
from gateway.store.tables import inbox, inboxes, sessions


class Ack(NamedTuple):
    user_id: str
    session: str
    seq: int
    now: int


_owner = bindparam("owner", type_=Text())
_now = bindparam("now", type_=BigInteger())

_acking = given("acking", user_id=Text, session=Text)
_KNOWN = (
    select(_acking.c.place, inboxes.c.head, inboxes.c.acked, sessions.c.cursor)
    .select_from(_acking)
    .join(sessions, (sessions.c.id == _acking.c.session) & (sessions.c.user_id == _acking.c.user_id))
    .join(inboxes, inboxes.c.user_id == _acking.c.user_id)
    .where(sessions.c.ended_at.is_(None))
)
_moved = given("moved", session=Text, seq=BigInteger)
_MOVE = update(sessions).where(sessions.c.id == _moved.c.session).values(cursor=_moved.c.seq)
_raised = given("raised", user_id=Text, was=BigInteger, seq=BigInteger, at=BigInteger)
_RAISE = update(inboxes).where(inboxes.c.user_id == _raised.c.user_id).values(acked=_raised.c.seq)
_ACKNOWLEDGE = (
    update(inbox)
    .where(
        inbox.c.user_id == _raised.c.user_id,
        inbox.c.seq > _raised.c.was,
        inbox.c.seq <= _raised.c.seq,
        inbox.c.acknowledged_at.is_(None),
    )
    .values(acknowledged_at=_raised.c.at)
)

_INBOX = select(inboxes.c.head, inboxes.c.rev, inboxes.c.unread).where(inboxes.c.user_id == _owner)
_ids = given("ids", id=Text, owner=Text)  # the owner beside each: or all of the inbox is walked to find the few
_READ_IDS = (
    update(inbox)
    .where(
        inbox.c.id == _ids.c.id,
        inbox.c.user_id == _ids.c.owner,
        inbox.c.read_at.is_(None),
        inbox.c.expires_at > _now,
    )
    .values(read_at=_now)
    .returning(inbox.c.id)
)
_READ_UP_TO = (
    update(inbox)
    .where(inbox.c.user_id == _owner, inbox.c.seq <= bindparam("up_to"), inbox.c.read_at.is_(None))
    .values(read_at=_now)
)
_COUNT_READ = (
    update(inboxes)
    .where(inboxes.c.user_id == _owner)
    .values(unread=inboxes.c.unread - bindparam("amount"), rev=inboxes.c.rev + 1)
    .returning(inboxes.c.rev, inboxes.c.unread)
)


def acknowledge(connection: Connection, acks: Sequence[Ack]) -> list[BaseException | None]:
    """Move the cursors to the highest that each session acknowledged. Conflict for one beyond the head, alone."""
    hold_inboxes(connection, [ack.user_id for ack in acks])
    rows = connection.execute(_KNOWN, {"acking": packed([(ack.user_id, ack.session) for ack in acks])})
    known = {row.place: row for row in rows}
    results: list[BaseException | None] = [None] * len(acks)
    cursors: dict[str, int] = {}
    acked: dict[str, tuple[int, int, int]] = {}
    for place, ack in enumerate(acks):
        row = known.get(place)
        if row is None:
            continue  # the session is over: where it got to matters to nobody
        if ack.seq > row.head:
            results[place] = Conflict("ack_out_of_range", f"The inbox ends at {row.head}.")
            continue
        if ack.seq > cursors.get(ack.session, row.cursor):
            cursors[ack.session] = ack.seq
        if ack.seq > acked.get(ack.user_id, (0, row.acked, 0))[1]:
            acked[ack.user_id] = (row.acked, ack.seq, ack.now)
    if cursors:
        connection.execute(_MOVE, {"moved": packed(sorted(cursors.items()))})
    if acked:
        raised = packed([(user_id, *step) for user_id, step in sorted(acked.items())])
        connection.execute(_RAISE, {"raised": raised})
        connection.execute(_ACKNOWLEDGE, {"raised": raised})
    return results


def mark_read(connection: Connection, user_id: str, *, ids: Sequence[str], up_to: int | None, now: int) -> MarkedRead:
    hold_inboxes(connection, [user_id])
    row = connection.execute(_INBOX, {"owner": user_id}).one_or_none()
    if row is None:
        raise NotFound("user")
    if up_to is not None and up_to > row.head:
        raise Invalid(errors=[("/up_to", f"The inbox ends at {row.head}.")])
    changed: set[str] = set()
    amount = 0
    if ids:
        wanted = packed([(id, user_id) for id in ids])
        changed.update(connection.execute(_READ_IDS, {"ids": wanted, "now": now}).scalars())
        amount = len(changed)
    if up_to is not None:
        # What has expired leaves first: it was not read, and `unread` shall be 0 when everything up to the head is.
        expire_user(connection, user_id, now=now)
        amount += connection.execute(_READ_UP_TO, {"owner": user_id, "up_to": up_to, "now": now}).rowcount
    if amount:
        rev, unread = connection.execute(_COUNT_READ, {"owner": user_id, "amount": amount}).one()
    else:
        rev, unread = connection.execute(_INBOX, {"owner": user_id}).one()[1:]
    told = tuple(dict.fromkeys(id for id in ids if id in changed))
    return MarkedRead(user_id, rev=rev, unread=unread, ids=told, up_to=up_to, changed=bool(amount))
