"""The cursors of lists: where a page of a list goes on, as text that callers hand back. Reads nothing."""

from __future__ import annotations

from gateway.errors import Invalid


def number_of(cursor: str | None) -> int | None:
    """Raises Invalid for what ``next`` never was."""
    if cursor is None:
        return None
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 18:
        raise _bad()
    return int(cursor)


def pair_of(cursor: str | None) -> tuple[int, str] | None:
    """``<number>.<id>``, for lists ordered by a time. Raises Invalid for what ``next`` never was."""
    if cursor is None:
        return None
    at, dot, id = cursor.partition(".")
    number = number_of(at)
    if not dot or not id or number is None:
        raise _bad()
    return number, id


def _bad() -> Invalid:
    return Invalid(errors=[("query:cursor", "This is not a cursor that a list has given.")])
