"""No statement of the hot paths may grow with what is stored: each finds its rows by an index."""

from __future__ import annotations

from sqlalchemy import Connection, Executable
from sqlalchemy.sql.elements import ClauseElement

from gateway.store import append, leaving, marking, pages
from gateway.store.engine import Store

OURS = tuple(f"SCAN {table}" for table in ("inbox", "older", "receipts", "idempotency", "sessions"))
GROWS = {"_OVERFULL"}  # asked once at the start, of one narrow row per user


def statements() -> list[tuple[str, ClauseElement]]:
    found: list[tuple[str, ClauseElement]] = []
    for module in (append, pages, marking, leaving):
        for name, value in vars(module).items():
            several = value.items() if isinstance(value, dict) and name == "_KEEP_RECEIPTS" else [("", value)]
            for way, statement in several:
                if isinstance(statement, Executable) and isinstance(statement, ClauseElement) and name[1:].isupper():
                    found.append((f"{module.__name__}.{name}{way}", statement))
    return found


async def test_every_grouped_statement_searches(store: Store) -> None:
    looked_at = statements()
    assert len(looked_at) > 25

    def explain(connection: Connection) -> list[str]:
        bad = []
        for name, statement in looked_at:
            compiled = statement.compile(dialect=connection.dialect)
            nothing = tuple(None for _ in compiled.positiontup or ())  # type: ignore[attr-defined]
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", nothing).all()
            for step in [row[-1] for row in plan]:
                whole = step.startswith(OURS)
                if whole and name.rpartition(".")[2] not in GROWS:
                    bad.append(f"{name}: {step}")
        return bad

    assert await store.database.write(explain) == []
