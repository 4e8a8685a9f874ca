"""Storing a group of requests: one statement for all heads, one for all rows, one for all keys. Commits nothing.

``seq`` comes from the user's own row in the transaction that inserts under it, so the order of commits is the order of
``seq``; a reader never sees a number whose lower neighbour is still to come.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from sqlalchemy import BigInteger, Connection, Text, bindparam, delete, insert, select, update
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError

from gateway.errors import Invalid
from gateway.model import Append, Appended, Stored
from gateway.store.given import given, packed
from gateway.store.locking import has_one_writer
from gateway.store.tables import idempotency, inbox, inboxes

KEY_LIFE = 24 * 3600 * 1000
"""Milliseconds a key is remembered (contract 5)."""

BAD_DATA = (DBAPIError, UnicodeError, OverflowError)
"""What a value that cannot be stored raises, among other things: ask ``is_bad_data``."""

_counts = given("counts", user_id=Text, amount=BigInteger)
_RAISE_HEADS = (
    update(inboxes)
    .where(inboxes.c.user_id == _counts.c.user_id)
    .values(
        head=inboxes.c.head + _counts.c.amount,
        unread=inboxes.c.unread + _counts.c.amount,
        stored=inboxes.c.stored + _counts.c.amount,
    )
    .returning(inboxes.c.user_id, inboxes.c.head, inboxes.c.stored)
)
_INSERT_ROWS = insert(inbox)

_keys = given("keys", sender=Text, key=Text)
_KNOWN_KEYS = select(
    idempotency.c.sender,
    idempotency.c.key,
    idempotency.c.fingerprint,
    idempotency.c.answer,
    idempotency.c.expires_at,
).join_from(_keys, idempotency, (idempotency.c.sender == _keys.c.sender) & (idempotency.c.key == _keys.c.key))
_FORGET_KEYS = delete(idempotency).where(
    idempotency.c.sender == bindparam("old_sender"), idempotency.c.key == bindparam("old_key")
)
_INSERT_KEYS = insert(idempotency)
_WRITE_AGAIN = (
    update(idempotency)
    .where(idempotency.c.sender == _keys.c.sender, idempotency.c.key == _keys.c.key)
    .values(expires_at=idempotency.c.expires_at)
)


def is_bad_data(error: BaseException) -> bool:
    """Whether this is the fault of one item, and never of its neighbours: SQLSTATE classes 22 and 23, or the driver's
    own word for them."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    if isinstance(state, str):
        return state.startswith(("22", "23"))
    return not isinstance(error, DBAPIError) or isinstance(error, IntegrityError | DataError | ProgrammingError)


def append_group(
    connection: Connection, requests: Sequence[Append], *, inbox_max: int
) -> list[Appended | BaseException]:
    """Store ``requests`` in their order: for each what came of it, or Invalid ``idempotency_mismatch``.

    Raises one of BAD_DATA if any of them holds a value that cannot be stored (``is_bad_data``); then use
    ``append_each``.
    """
    results: list[Appended | BaseException | None] = [None] * len(requests)
    pending = list(range(len(requests)))
    replayed: set[tuple[str, str]] = set()
    while pending:
        # A key that comes twice in one group is settled one after the other: the second finds the first's answer.
        wave, later, keys = [], [], set[tuple[str, str]]()
        for place in pending:
            request = requests[place]
            if request.key is not None:
                key = (request.sender, request.key[0])
                if key in keys:
                    later.append(place)
                    continue
                keys.add(key)
            wave.append(place)
        known = _known(connection, keys)
        fresh = []
        for place in wave:
            request = requests[place]
            found = None if request.key is None else known.get((request.sender, request.key[0]))
            if request.key is None or found is None:
                fresh.append(place)
            elif found[2] <= request.drafts[0].created_at:
                connection.execute(_FORGET_KEYS, {"old_sender": request.sender, "old_key": request.key[0]})
                fresh.append(place)
            elif found[0] != request.key[1]:
                results[place] = Invalid(
                    "The idempotency key was used before, for another request.", code="idempotency_mismatch"
                )
            else:
                results[place] = Appended(tuple(Stored(*values) for values in json.loads(found[1])), replayed=True)
                replayed.add((request.sender, request.key[0]))
        _store(connection, requests, fresh, results, inbox_max)
        pending = later
    if replayed and not has_one_writer(connection):
        # Seen is not durable: a commit whose wait for the synchronous standby was cut short (a timeout, a crash) shows
        # all the same. A commit that writes waits for everything before it; one that only reads waits for nothing.
        connection.execute(_WRITE_AGAIN, {"keys": packed(sorted(replayed))})
    return [result for result in results if result is not None]


def append_each(
    connection: Connection, requests: Sequence[Append], *, inbox_max: int
) -> list[Appended | BaseException]:
    """As ``append_group``, item by item: one that cannot be stored gets Invalid and leaves nothing behind."""
    return [_append_one(connection, request, inbox_max=inbox_max) for request in requests]


def _append_one(connection: Connection, request: Append, *, inbox_max: int) -> Appended | BaseException:
    for _ in range(3):
        try:
            with connection.begin_nested():
                return append_group(connection, [request], inbox_max=inbox_max)[0]
        except IntegrityError:
            continue  # another node committed the same key first: now it is found, and answers
        except BAD_DATA as error:
            if not is_bad_data(error):
                raise
            break
    return Invalid("A value in it cannot be stored.")


def _known(connection: Connection, keys: set[tuple[str, str]]) -> dict[tuple[str, str], tuple[bytes, str, int]]:
    """Fingerprint, answer and end of the keys that were used before."""
    if not keys:
        return {}
    rows = connection.execute(_KNOWN_KEYS, {"keys": packed(keys)})
    return {(sender, key): (fingerprint, answer, until) for sender, key, fingerprint, answer, until in rows}


def _store(
    connection: Connection,
    requests: Sequence[Append],
    places: Sequence[int],
    results: list[Appended | BaseException | None],
    inbox_max: int,
) -> None:
    counts = Counter([draft.user_id for place in places for draft in requests[place].drafts])
    if not counts:
        return
    # Sorted: two nodes that write the same users then lock them in the same order.
    raised = connection.execute(_RAISE_HEADS, {"counts": packed(sorted(counts.items()))}).all()
    last = {user_id: head - counts[user_id] for user_id, head, _ in raised}
    full = {user_id for user_id, _, stored in raised if stored > inbox_max}
    rows: list[dict[str, object]] = []
    keys: list[dict[str, object]] = []
    for place in places:
        request = requests[place]
        outcomes = []
        for draft in request.drafts:
            user_id = draft.user_id
            seq = last.get(user_id)
            if seq is not None:
                last[user_id] = seq = seq + 1
                rows.append(
                    {
                        "user_id": user_id,
                        "seq": seq,
                        "id": draft.id,
                        "sender": request.sender,
                        "content": draft.content,
                        "size": len(draft.content.encode()),
                        "category": draft.category,
                        "created_at": draft.created_at,
                        "expires_at": draft.expires_at,
                    }
                )
            outcomes.append(Stored(user_id, draft.id, seq, draft.created_at, draft.expires_at, draft.online))
        results[place] = Appended(tuple(outcomes), overfull=tuple({o.user_id for o in outcomes} & full) if full else ())
        if request.key is not None and (request.listed or outcomes[0].seq is not None):
            keys.append(
                {
                    "sender": request.sender,
                    "key": request.key[0],
                    "fingerprint": request.key[1],
                    "answer": _answer(outcomes),
                    "expires_at": outcomes[0].created_at + KEY_LIFE,
                }
            )
    if rows:
        connection.execute(_INSERT_ROWS, rows)
    if keys:
        connection.execute(_INSERT_KEYS, keys)


def _answer(outcomes: Sequence[Stored]) -> str:
    return json.dumps(
        [[o.user_id, o.id, o.seq, o.created_at, o.expires_at, o.online] for o in outcomes], separators=(",", ":")
    )
