"""Many rows as one parameter, and the other spots where databases differ. No connection, no table of ours.

``given("asked", user_id=Text, after=BigInteger)`` stands in a FROM like a table whose rows are passed at execution as
``{"asked": packed(rows)}``: one statement, compiled once, for one row or a thousand. The column ``place`` numbers the
rows from 0. It is ``json_each`` on SQLite and ``jsonb_array_elements`` on PostgreSQL.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import BigInteger, Subquery, Text, bindparam, literal_column, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine


class _Each(FunctionElement[Any]):
    """The members of a JSON array as rows: ``key`` (from 0) and ``value``."""

    name = "each"
    inherit_cache = True


class _Member(FunctionElement[Any]):
    """One member of a JSON array, by its place: a text."""

    name = "member"
    type: TypeEngine[Any] = Text()
    inherit_cache = True


class _NumberMember(_Member):
    name = "number_member"
    type = BigInteger()
    inherit_cache = True


@compiles(_Each, "sqlite")
def _each_sqlite(element: _Each, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_Each, "postgresql")
def _each_postgresql(element: _Each, compiler: SQLCompiler, **options: Any) -> str:
    array = compiler.process(element.clauses, **options)
    return (
        f"(SELECT member.number - 1 AS key, member.value FROM jsonb_array_elements(CAST({array} AS JSONB))"  # noqa: S608 - the place of a parameter, not its value
        " WITH ORDINALITY AS member(value, number)"
        # Always so, and taken for rare: or a hundred rows are expected, and for those all of ``inboxes`` is read.
        " WHERE jsonb_typeof(member.value) = 'array')"
    )


@compiles(_Member, "sqlite")
def _member_sqlite(element: _Member, compiler: SQLCompiler, **options: Any) -> str:
    array, place = element.clauses
    return f"json_extract({compiler.process(array, **options)}, '$[{compiler.process(place, **options)}]')"


@compiles(_Member, "postgresql")
def _member_postgresql(element: _Member, compiler: SQLCompiler, **options: Any) -> str:
    array, place = element.clauses
    return f"({compiler.process(array, **options)} ->> {compiler.process(place, **options)})"


@compiles(_NumberMember, "postgresql")
def _number_postgresql(element: _NumberMember, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST({_member_postgresql(element, compiler, **options)} AS BIGINT)"


def given(name: str, **columns: type[TypeEngine[Any]]) -> Subquery:
    """A FROM element of the rows bound to ``name``, in the order of ``columns``: Text or BigInteger each."""
    each = _Each(bindparam(name, type_=Text())).table_valued("key", "value", name=f"each_{name}")
    members = (
        (_Member if kind is Text else _NumberMember)(each.c.value, literal_column(str(place))).label(column)
        for place, (column, kind) in enumerate(columns.items())
    )
    return select(each.c.key.label("place"), *members).subquery(f"given_{name}")


def packed(rows: Iterable[Sequence[object]]) -> str:
    """The parameter that ``given`` reads: rows of text and numbers."""
    return json.dumps(list(rows), separators=(",", ":"))
