"""Reading inboxes: openings and pages for many who wait, listings, single entries, receipts. Changes nothing.

Counters are read in the same transaction as the rows beside them: read apart, a live entry is told as a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, Integer, Row, Text, bindparam, func, literal, select

from gateway.closing import TOKEN_EXPIRED, TOKEN_REVOKED
from gateway.errors import NotFound
from gateway.model import Entry, Listing, Opening, Page, Receipt, ReceiptState, State
from gateway.store.given import given, packed
from gateway.store.tables import inbox, inboxes, receipts, sessions

PAGE_ROWS = 100
PAGE_BYTES = 64 << 10
"""Content in one page; a single row may be larger, it then comes alone."""

NOTHING = State(head=0, rev=0, unread=0)
"""The state of an inbox that is not there (any more)."""


class Arrival(NamedTuple):
    user_id: str
    session: str
    now: int


class Position(NamedTuple):
    user_id: str
    after: int
    now: int


_STATE = (inboxes.c.head, inboxes.c.rev, inboxes.c.unread)
_ENTRY = (inbox.c.seq, inbox.c.id, inbox.c.content, inbox.c.created_at, inbox.c.expires_at, inbox.c.read_at)
_user = bindparam("user_id", type_=Text())
_now = bindparam("now", type_=BigInteger())

_arrivals = given("arrivals", user_id=Text, session=Text)
_OPENINGS = (
    select(_arrivals.c.place, sessions.c.cursor, sessions.c.expires_at, sessions.c.ended_why, *_STATE)
    .select_from(_arrivals)
    .join(sessions, (sessions.c.id == _arrivals.c.session) & (sessions.c.user_id == _arrivals.c.user_id))
    .join(inboxes, inboxes.c.user_id == _arrivals.c.user_id)
)

_users = given("users", user_id=Text)
_STATES = select(inboxes.c.user_id, *_STATE).join_from(_users, inboxes, inboxes.c.user_id == _users.c.user_id)

_asked = given("asked", user_id=Text, after=BigInteger)
_older = inbox.alias("older")
_first = (
    select(
        _older.c.seq,
        (func.sum(_older.c.size).over(order_by=_older.c.seq) - _older.c.size).label("before"),
        func.row_number().over(order_by=_older.c.seq).label("rank"),
    )
    .where(_older.c.user_id == _asked.c.user_id, _older.c.seq > _asked.c.after, _older.c.expires_at > _now)
    .order_by(_older.c.seq)
    .limit(literal(PAGE_ROWS + 1, Integer))
    .correlate(_asked)
    .subquery("first")
)
# The rows that fit and, if there is one, the next: that one only tells that more follows. The second is always looked
# at, for the first one comes however large it is.
_last = (
    select(func.max(_first.c.seq))
    .where((_first.c.before <= PAGE_BYTES) | (_first.c.rank == 2))
    .correlate(_asked)
    .scalar_subquery()
)
_PAGES = (
    select(_asked.c.place, inbox.c.size, *_ENTRY)
    .join_from(_asked, inbox, inbox.c.user_id == _asked.c.user_id)
    .where(inbox.c.seq > _asked.c.after, inbox.c.seq <= _last, inbox.c.expires_at > _now)
    .order_by(_asked.c.place, inbox.c.seq)
)

_STATE_OF = select(*_STATE).where(inboxes.c.user_id == _user)
_LISTING = select(*_ENTRY).where(inbox.c.user_id == _user, inbox.c.expires_at > _now)
_ENTRY_OF = _LISTING.where(inbox.c.id == bindparam("id", type_=Text()))
_ABOUT = ("id", "user_id", "sender", "seq", "created_at", "expires_at", "acknowledged_at", "read_at")
_STORED = select(*(inbox.c[name] for name in _ABOUT)).where(inbox.c.id == bindparam("id", type_=Text()))
_RECEIPT = select(*(receipts.c[name] for name in _ABOUT), receipts.c.state).where(
    receipts.c.id == bindparam("id", type_=Text())
)


def openings(connection: Connection, asked: Sequence[Arrival]) -> list[Opening]:
    rows = connection.execute(_OPENINGS, {"arrivals": packed([(a.user_id, a.session) for a in asked])})
    found = {row.place: row for row in rows}
    results = []
    for place, arrival in enumerate(asked):
        row = found.get(place)
        if row is None:
            results.append(Opening(cursor=0, state=NOTHING, ended_why=TOKEN_REVOKED.reason))
            continue
        over = row.ended_why or (TOKEN_EXPIRED.reason if row.expires_at <= arrival.now else None)
        results.append(Opening(cursor=row.cursor, state=State(row.head, row.rev, row.unread), ended_why=over))
    return results


def states(connection: Connection, user_ids: Sequence[str]) -> dict[str, State]:
    rows = connection.execute(_STATES, {"users": packed([(user_id,) for user_id in user_ids])})
    return {user_id: State(head, rev, unread) for user_id, head, rev, unread in rows}


def pages(connection: Connection, asked: Sequence[Position]) -> list[Page]:
    """One page per position. ``now`` is the latest of the group: they were asked within moments of each other."""
    now = max(position.now for position in asked)
    rows = connection.execute(_PAGES, {"asked": packed([(p.user_id, p.after) for p in asked]), "now": now})
    found: list[list[Row[*tuple[Any, ...]]]] = [[] for _ in asked]
    for row in rows:
        found[row[0]].append(row)
    state_of = states(connection, list({position.user_id for position in asked}))
    results = []
    for position, mine in zip(asked, found, strict=True):
        fitting = _fitting(mine)
        state = state_of.get(position.user_id, NOTHING)
        entries = tuple([Entry(*row[2:]) for row in mine[:fitting]])
        results.append(Page(entries, upto=state.head if fitting == len(mine) else entries[-1].seq, state=state))
    return results


def _fitting(rows: Sequence[Row[*tuple[Any, ...]]]) -> int:
    """How many of these fit into a page: one at least. What does not fit is there to tell that more follows."""
    total = 0
    for amount, row in enumerate(rows[:PAGE_ROWS]):
        total += row[1]
        if total > PAGE_BYTES and amount:
            return amount
    return min(len(rows), PAGE_ROWS)


def listing(
    connection: Connection,
    user_id: str,
    *,
    after: int | None,
    before: int | None,
    limit: int,
    unread: bool,
    category: str | None,
    now: int,
) -> Listing:
    statement = _LISTING.limit(limit + 1)
    if after is not None:
        statement = statement.where(inbox.c.seq > after)
    if before is not None:
        statement = statement.where(inbox.c.seq < before)
    if unread:
        statement = statement.where(inbox.c.read_at.is_(None))
    if category is not None:
        statement = statement.where(inbox.c.category == category)
    statement = statement.order_by(inbox.c.seq.desc() if after is None else inbox.c.seq)
    rows = connection.execute(statement, {"user_id": user_id, "now": now}).all()
    entries = tuple([Entry(*row) for row in rows[:limit]])
    state = connection.execute(_STATE_OF, {"user_id": user_id}).one_or_none()
    return Listing(
        entries,
        state=NOTHING if state is None else State(*state),
        next=entries[-1].seq if len(rows) > limit and entries else None,
    )


def entry(connection: Connection, user_id: str, id: str, *, now: int) -> Entry:
    row = connection.execute(_ENTRY_OF, {"user_id": user_id, "id": id, "now": now}).one_or_none()
    if row is None:
        raise NotFound("notification")
    return Entry(*row)


def receipt(connection: Connection, id: str, *, now: int) -> Receipt:
    row = connection.execute(_STORED, {"id": id}).one_or_none()
    if row is not None:
        state: ReceiptState = "expired" if row.expires_at <= now else "stored"
        if row.read_at is not None:
            state = "read"
        elif row.acknowledged_at is not None:
            state = "acknowledged"
    else:
        row = connection.execute(_RECEIPT, {"id": id}).one_or_none()
        if row is None:
            raise NotFound("notification")
        state = row.state
    return Receipt(**{name: row._mapping[name] for name in _ABOUT}, state=state)
