"""No statement of the hot paths may grow with what is stored: each finds its rows by an index."""

from __future__ import annotations

from collections.abc import Callable

from servers import Postgres
from sqlalchemy import Connection, Executable
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.sql.elements import ClauseElement

from gateway.store import append, leaving, locking, marking, pages, starting
from gateway.store.engine import Store

OURS = tuple(f"SCAN {table}" for table in ("inbox", "older", "receipts", "idempotency", "sessions"))


def statements() -> list[tuple[str, ClauseElement]]:
    found: list[tuple[str, ClauseElement]] = []
    for module in (append, pages, marking, leaving, starting):
        for name, value in vars(module).items():
            several = value.items() if isinstance(value, dict) and name == "_KEEP_RECEIPTS" else [("", value)]
            for way, statement in several:
                if isinstance(statement, Executable) and isinstance(statement, ClauseElement) and name[1:].isupper():
                    found.append((f"{module.__name__}.{name}{way}", statement))
    return found


def test_on_postgresql_every_statement_has_an_index_it_can_use(database: Callable[[], str], postgres: Postgres) -> None:
    dialect = asyncpg.dialect()  # type: ignore[no-untyped-call]
    asked = ["SET enable_seqscan = off"]  # a table is walked all the same where nothing else can be done
    locks = [("locking._HOLD_INBOXES", locking._HOLD_INBOXES), ("locking._HOLD_USERS", locking._HOLD_USERS)]
    for name, statement in [*statements(), *locks]:
        asked += [f"\\echo ## {name}", f"EXPLAIN (GENERIC_PLAN) {statement.compile(dialect=dialect)}"]
    arguments = ["-h", "127.0.0.1", "-p", str(postgres.port), "-U", "postgres", "-d", database().rpartition("/")[2]]
    told = postgres.tool("psql", *arguments, "-At", *(part for one in asked for part in ("-c", one)))
    assert told.stderr == ""
    plans = told.stdout.split("## ")[1:]
    assert len(plans) == len(asked) // 2
    assert [plan for plan in plans if "Seq Scan on" in plan] == []


async def test_every_grouped_statement_searches(store: Store) -> None:
    looked_at = statements()
    assert len(looked_at) > 25

    def explain(connection: Connection) -> list[str]:
        bad = []
        for name, statement in looked_at:
            compiled = statement.compile(dialect=connection.dialect)
            nothing = tuple(None for _ in compiled.positiontup or ())  # type: ignore[attr-defined]
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", nothing).all()
            bad += [f"{name}: {row[-1]}" for row in plan if row[-1].startswith(OURS)]
        return bad

    assert await store.database.write(explain) == []
