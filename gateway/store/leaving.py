"""How notifications leave an inbox: the row goes, a receipt stays, the counters follow. Commits nothing.

The four ways out: ``withdrawn`` by the sender, ``hidden`` by the user, ``expired``, ``trimmed`` beyond the limit. The
receipt says ``withdrawn``, or else the furthest the notification came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from sqlalchemy import (
    BigInteger,
    Connection,
    Insert,
    Text,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)

from gateway.errors import NotFound
from gateway.model import Withdrawn
from gateway.store.given import given, packed
from gateway.store.locking import has_one_writer, hold_inboxes, if_free
from gateway.store.tables import idempotency, inbox, inboxes, receipts

Exit = Literal["withdrawn", "hidden", "expired", "trimmed"]
RECEIPT_LIFE = 7 * 24 * 3600 * 1000
"""Milliseconds a receipt outlives what it is about (contract 5)."""

_now = bindparam("now", type_=BigInteger())
_id = bindparam("id", type_=Text())
_leaving = given("leaving", id=Text)
_COPIED = ("id", "sender", "user_id", "seq", "created_at", "expires_at", "read_at")


def _keep_receipts(state: str, *, reached: bool) -> Insert:
    """``state``: the word if no device went further; ``reached``: leaving itself proves that it came to the user."""
    furthest = case(
        (inbox.c.read_at.is_not(None), literal("read")),
        (inbox.c.acknowledged_at.is_not(None), literal("acknowledged")),
        else_=literal(state),
    )
    return insert(receipts).from_select(
        [*_COPIED, "acknowledged_at", "state", "purge_at"],
        select(
            *(inbox.c[name] for name in _COPIED),
            func.coalesce(inbox.c.acknowledged_at, _now) if reached else inbox.c.acknowledged_at,
            literal(state) if state == "withdrawn" else furthest,
            _now + RECEIPT_LIFE,
        ).join_from(_leaving, inbox, inbox.c.id == _leaving.c.id),
    )


_KEEP_RECEIPTS = {
    "withdrawn": _keep_receipts("withdrawn", reached=False),
    "hidden": _keep_receipts("acknowledged", reached=True),
    "expired": _keep_receipts("expired", reached=False),
    "trimmed": _keep_receipts("stored", reached=False),
}
_REMOVE = delete(inbox).where(inbox.c.id.in_(select(_leaving.c.id))).returning(inbox.c.user_id, inbox.c.read_at)
_OWNERS = select(inbox.c.user_id).join_from(_leaving, inbox, inbox.c.id == _leaving.c.id).distinct()
_counts = given("counts", user_id=Text, gone=BigInteger, unread=BigInteger)
_LOWER = (
    update(inboxes)
    .where(inboxes.c.user_id == _counts.c.user_id)
    .values(stored=inboxes.c.stored - _counts.c.gone, unread=inboxes.c.unread - _counts.c.unread)
)
_CHANGED = (
    update(inboxes)
    .where(inboxes.c.user_id == bindparam("owner", type_=Text()))
    .values(rev=inboxes.c.rev + 1)
    .returning(inboxes.c.rev, inboxes.c.unread)
)
_FIND = select(inbox.c.user_id, inbox.c.seq, inbox.c.sender, inbox.c.expires_at).where(inbox.c.id == _id)
_SENDER_OF = select(receipts.c.sender).where(receipts.c.id == _id)
_EXPIRED = select(inbox.c.id).where(inbox.c.expires_at <= _now).order_by(inbox.c.expires_at).limit(bindparam("amount"))
_EXPIRED_OF = select(inbox.c.id).where(inbox.c.user_id == bindparam("owner", type_=Text()), inbox.c.expires_at <= _now)
_wanted = given("wanted", user_id=Text)
_SURPLUS = select(inboxes.c.user_id, inboxes.c.stored - bindparam("keep", type_=BigInteger())).join_from(
    _wanted, inboxes, (inboxes.c.user_id == _wanted.c.user_id) & (inboxes.c.stored > bindparam("keep"))
)
_OLDEST = (
    select(inbox.c.id)
    .where(inbox.c.user_id == bindparam("owner", type_=Text()))
    .order_by(inbox.c.seq)
    .limit(bindparam("amount"))
)
_from = bindparam("after", type_=Text())
_ids_of_step = select(inboxes.c.user_id).where(inboxes.c.user_id > _from).order_by(inboxes.c.user_id)
_STEP = select(func.max(_ids_of_step.limit(bindparam("amount")).subquery("step").c.user_id))
_OVERFULL = select(inboxes.c.user_id).where(
    inboxes.c.user_id > _from,
    inboxes.c.user_id <= bindparam("upto", type_=Text()),
    inboxes.c.stored > bindparam("keep", type_=BigInteger()),
)
_old_receipts = select(receipts.c.id).where(receipts.c.purge_at <= _now).limit(bindparam("amount"))
_PURGE_RECEIPTS = delete(receipts).where(receipts.c.id.in_(_old_receipts))
_old_keys = (
    select(idempotency.c.sender, idempotency.c.key).where(idempotency.c.expires_at <= _now).limit(bindparam("amount"))
)
_PURGE_KEYS = delete(idempotency).where(tuple_(idempotency.c.sender, idempotency.c.key).in_(_old_keys))


def leave(connection: Connection, ids: Sequence[str], *, way: Exit, now: int) -> int:
    """Move these entries out of their inboxes. How many there were."""
    if not ids:
        return 0
    leaving = packed([(id,) for id in ids])
    if not has_one_writer(connection):
        hold_inboxes(connection, connection.execute(_OWNERS, {"leaving": leaving}).scalars())
    connection.execute(_KEEP_RECEIPTS[way], {"leaving": leaving, "now": now})
    removed = connection.execute(_REMOVE, {"leaving": leaving}).all()
    gone = Counter([user_id for user_id, _ in removed])
    unread = Counter([user_id for user_id, read_at in removed if read_at is None])
    counts = [(user_id, amount, unread[user_id]) for user_id, amount in sorted(gone.items())]
    connection.execute(_LOWER, {"counts": packed(counts)})
    return len(removed)


def withdraw(connection: Connection, id: str, *, sender: str | None, now: int) -> Withdrawn | None:
    row = connection.execute(_FIND, {"id": id}).one_or_none()
    if row is None:
        was = connection.execute(_SENDER_OF, {"id": id}).scalar_one_or_none()
        if was is None or sender not in (None, was):
            raise NotFound("notification")
        return None
    if sender not in (None, row.sender):
        raise NotFound("notification")
    if hold_inboxes(connection, [row.user_id]) and connection.execute(_FIND, {"id": id}).one_or_none() is None:
        return None  # it left while this waited its turn
    if row.expires_at <= now:
        return None  # it has left for everybody who asks; only the sweep has not come by yet
    return _taken(connection, id, row.user_id, row.seq, way="withdrawn", now=now)


def hide(connection: Connection, user_id: str, id: str, *, now: int) -> Withdrawn:
    hold_inboxes(connection, [user_id])
    row = connection.execute(_FIND, {"id": id}).one_or_none()
    if row is None or row.user_id != user_id or row.expires_at <= now:
        raise NotFound("notification")
    return _taken(connection, id, user_id, row.seq, way="hidden", now=now)


def _taken(connection: Connection, id: str, user_id: str, seq: int, *, way: Exit, now: int) -> Withdrawn:
    leave(connection, [id], way=way, now=now)
    rev, unread = connection.execute(_CHANGED, {"owner": user_id}).one()
    return Withdrawn(user_id, rev=rev, unread=unread, id=id, seq=seq)


def expire(connection: Connection, *, now: int, limit: int) -> int:
    if not if_free(connection, "janitor"):
        return 0  # another node is at it
    ids = connection.execute(_EXPIRED, {"now": now, "amount": limit}).scalars().all()
    return leave(connection, ids, way="expired", now=now)


def expire_user(connection: Connection, user_id: str, *, now: int) -> int:
    ids = connection.execute(_EXPIRED_OF, {"owner": user_id, "now": now}).scalars().all()
    return leave(connection, ids, way="expired", now=now)


def trim(connection: Connection, user_ids: Sequence[str], *, keep: int, now: int, limit: int) -> int:
    """One step of at most ``limit`` entries: a transaction that others wait for stays short."""
    hold_inboxes(connection, user_ids)
    surplus = connection.execute(_SURPLUS, {"wanted": packed([(user_id,) for user_id in user_ids]), "keep": keep}).all()
    ids: list[str] = []
    for user_id, amount in surplus:
        if len(ids) >= limit:
            break
        ids += connection.execute(_OLDEST, {"owner": user_id, "amount": min(amount, limit - len(ids))}).scalars()
    return leave(connection, ids, way="trimmed", now=now)


def overfull(connection: Connection, *, keep: int, after: str, step: int) -> tuple[list[str], str | None]:
    """Those among the next ``step`` inboxes behind the user ``after``, and the last user looked at (None: the end)."""
    upto = connection.execute(_STEP, {"after": after, "amount": step}).scalar_one()
    if upto is None:
        return [], None
    return list(connection.execute(_OVERFULL, {"keep": keep, "after": after, "upto": upto}).scalars()), upto


def purge(connection: Connection, *, now: int, limit: int) -> int:
    if not if_free(connection, "janitor"):
        return 0
    receipts_gone = connection.execute(_PURGE_RECEIPTS, {"now": now, "amount": limit}).rowcount
    if receipts_gone >= limit:
        return receipts_gone
    return receipts_gone + connection.execute(_PURGE_KEYS, {"now": now, "amount": limit - receipts_gone}).rowcount
