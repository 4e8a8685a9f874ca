"""How a connection to the SQLite file is made: its pragmas, how its transactions begin. Runs no work of ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

from gateway.store.errors import StoreError

BUSY_MS = 5000
"""How long a connection waits for a lock that another process holds."""


def reader_pragmas() -> Mapping[str, str | int]:
    return {
        "query_only": 1,
        "foreign_keys": 1,
        "busy_timeout": BUSY_MS,
        "mmap_size": 0,
        "cache_size": -8192,
        "temp_store": 2,
    }


def engine(path: Path, begin: str, *, size: int, pragmas: Callable[[], Mapping[str, str | int]]) -> Engine:
    """An engine for the threads of one kind of work: a connection for each, kept."""
    made = create_engine(
        URL.create("sqlite", database=str(path)),
        pool_size=size,
        max_overflow=0,
        pool_reset_on_return=None,  # every transaction is ended where it began
        hide_parameters=True,
    )
    _prepare(made, path, begin, pragmas)
    return made


def _prepare(engine: Engine, path: Path, begin: str, pragmas: Callable[[], Mapping[str, str | int]]) -> None:
    """Set ``pragmas`` on each connection of ``engine`` and see that they hold; begin transactions as ``begin`` says."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: object) -> None:
        connection.isolation_level = None  # or the driver begins and commits where it likes
        connection.create_function("unicode_lower", 1, _lower, deterministic=True)
        cursor = connection.cursor()
        try:
            for name, value in pragmas().items():
                cursor.execute(f"PRAGMA {name}={value}")
                cursor.execute(f"PRAGMA {name}")
                row = cursor.fetchone()
                if row is None or row[0] != value:
                    raise StoreError(f"{path}: {name} is {row and row[0]!r} where it must be {value!r}")
        finally:
            cursor.close()

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - narrows a type
        driver.execute(begin).close()  # past SQLAlchemy's own layers, which cost eight times as much


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()
