"""What an error of PostgreSQL means for the work that met it. Retries nothing, logs nothing.

The codes are SQLSTATE (PostgreSQL documentation, appendix A).
"""

from __future__ import annotations

from enum import Enum

from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeout

AGAIN = frozenset({"40001", "40P01", "25P03"})
"""Serialization failure, deadlock, a transaction that was idle too long: the whole transaction was rolled back."""
_CALLERS = ("22", "23")
"""Data exception, integrity constraint violation: about what was asked, not about the database."""


class Meaning(Enum):
    AGAIN = "rolled back for the sake of others: the same work may well succeed now"
    GONE = "the connection is gone"
    CALLERS = "the caller's fault"
    UNAVAILABLE = "the database cannot do it now"


def sqlstate(error: BaseException) -> str | None:
    origin = getattr(error, "orig", None) or error
    found = getattr(origin, "sqlstate", None)
    return found if isinstance(found, str) else None


def meaning(error: BaseException) -> Meaning:
    state = sqlstate(error)
    if state is not None:
        if state in AGAIN:
            return Meaning.AGAIN
        if state.startswith(_CALLERS):
            return Meaning.CALLERS
        if state.startswith(("08", "57P")):  # connection exception; the server shuts down, crashed or is starting
            return Meaning.GONE
        return Meaning.UNAVAILABLE
    if isinstance(error, DBAPIError) and (error.connection_invalidated or _is_about_the_link(error.orig)):
        return Meaning.GONE
    if isinstance(error, TimeoutError | PoolTimeout):
        return Meaning.UNAVAILABLE
    if isinstance(error, OSError):  # refused, reset, no route
        return Meaning.GONE
    if isinstance(error, DBAPIError):
        # The driver's own complaint about a value: it was never sent.
        return Meaning.CALLERS if _is_about_a_value(error.orig) else Meaning.UNAVAILABLE
    if isinstance(error, InvalidRequestError):
        return Meaning.UNAVAILABLE
    return Meaning.CALLERS


def _is_about_the_link(origin: BaseException | None) -> bool:
    return origin is not None and ("connection is closed" in str(origin) or "connection was closed" in str(origin))


def _is_about_a_value(origin: BaseException | None) -> bool:
    return type(origin).__name__ == "DataError" or isinstance(origin, ValueError | OverflowError | UnicodeError)


def text(error: BaseException) -> str:
    """What the driver said: without the statement, which is long, and the parameters, which are secret."""
    origin = getattr(error, "orig", None) or error
    told = str(origin).removeprefix(f"{type(origin)}: ")
    return told.splitlines()[0] if told else type(origin).__name__
