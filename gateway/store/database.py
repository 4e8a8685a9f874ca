"""What a database does for the store, whichever it is: run a function in a transaction. Opens nothing, knows no table.

Work is a plain function of a SQLAlchemy ``Connection``. It may be run again from its beginning if the database says
that nothing of it was kept, so it changes nothing but through that connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")
Durability = Literal["full", "relaxed"]
Work = Callable[[Connection], T]


class Database(Protocol):
    """Every method raises StoreUnavailable when the database cannot answer, and works again when it can."""

    async def write(self, work: Work[T], *, grouped: bool = False) -> T:
        """Run ``work`` in a writing transaction; returns after the commit. An exception rolls it back.

        ``grouped``: it is the work of many who travel together. Where there is one writer they wait for one other at
        most, and not for a crowd that comes one by one.

        StoreUnavailable leaves open whether it was committed, unless nothing could be begun.
        """

    async def read(self, work: Work[T]) -> T:
        """Run ``work`` in a reading transaction: all it selects is one snapshot. It cannot write."""

    async def read_first(self, work: Work[T]) -> T:
        """As ``read``, of one statement that everybody else waits for: no crowd of readers holds it up."""

    @property
    def refuses_writes(self) -> bool:
        """Whether the last write that needed room failed, and none has ``proved`` the contrary since."""

    async def prove(self, work: Work[T]) -> T:
        """As ``write``, of something large enough to say that writing works again."""
