"""Many rows as one parameter, and the other spots where databases differ. No connection, no table of ours.

``given("asked", user_id=Text, after=BigInteger)`` stands in a FROM like a table whose rows are passed at execution as
``{"asked": packed(rows)}``: one statement, compiled once, for one row or a thousand. The column ``place`` numbers the
rows from 0. On SQLite that is ``json_each``; another database gets its own text here and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Subquery, Text, bindparam, func, literal_column, select
from sqlalchemy.types import TypeEngine


def given(name: str, **columns: type[TypeEngine[Any]]) -> Subquery:
    """A FROM element of the rows bound to ``name``, in the order of ``columns``."""
    each = func.json_each(bindparam(name, type_=Text())).table_valued("key", "value", name=f"each_{name}")
    return select(
        each.c.key.label("place"),
        *(
            func.json_extract(each.c.value, literal_column(f"'$[{place}]'", Text), type_=kind()).label(column)
            for place, (column, kind) in enumerate(columns.items())
        ),
    ).subquery(f"given_{name}")


def packed(rows: Iterable[Sequence[object]]) -> str:
    """The parameter that ``given`` reads: rows of text and numbers."""
    return json.dumps(list(rows), separators=(",", ":"))
