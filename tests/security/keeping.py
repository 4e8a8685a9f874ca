"""Where a gateway keeps its data, seen from outside: how to break it, to take it away, and every file it writes."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from servers import Postgres

MARK = b"login_failed"
"""What stands in the audit trail of a gateway that was tried, so that a reader of files knows that it reads."""

_TEXT = re.compile(rb"[\x20-\x7e]{16,}")
"""Long enough for a piece of a credential; of the megabytes of a database most is none."""


class Kept(Protocol):
    """Where a node keeps its data: how it is broken, and every byte of it."""

    def break_sessions(self) -> None:
        """From now on nobody can sign in or refresh: the statement fails inside the database."""

    def mend_sessions(self) -> None: ...

    def leave(self) -> None:
        """The database is away altogether."""

    def come_back(self) -> None: ...

    def words(self) -> Mapping[bytes, Path]:
        """Every text in the files it has written, its own log too, and one of the files in which it stands."""


def words(files: Iterable[Path]) -> dict[bytes, Path]:
    return {text: path for path in files for text in _TEXT.findall(path.read_bytes())}


class InSqlite:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file, self._away = directory / "gateway.db", directory / "away.db"

    def _run(self, *statements: str) -> None:
        with contextlib.closing(sqlite3.connect(self._file)) as database, database:
            for statement in statements:
                database.execute(statement)

    def break_sessions(self) -> None:
        self._run(
            *(
                f"CREATE TRIGGER broken_{what} BEFORE {what} ON sessions BEGIN SELECT RAISE(ABORT, 'broken'); END"
                for what in ("UPDATE", "INSERT")
            )
        )

    def mend_sessions(self) -> None:
        self._run("DROP TRIGGER broken_UPDATE", "DROP TRIGGER broken_INSERT")

    def leave(self) -> None:
        self._file.rename(self._away)

    def come_back(self) -> None:
        self._away.rename(self._file)

    def words(self) -> Mapping[bytes, Path]:
        found = [path for path in self._directory.rglob("*") if path.is_file() and path.name != "gateway.log"]
        assert {"gateway.db", "gateway.db-wal"} <= {path.name for path in found}
        return words(found)


class InPostgres:
    """A server of its own: its data, its write-ahead log and its log hold what one gateway wrote, and nothing else."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self.url = server.create("gateway")
        self._before = words(self._files()).keys()

    def _files(self) -> list[Path]:
        return [path for path in self._server.root.rglob("*") if path.is_file()]

    def break_sessions(self) -> None:
        body = "BEGIN RAISE 'broken' USING ERRCODE = 'integrity_constraint_violation'; END"
        function = f"FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $${body}$$"
        self._server.sql(f"CREATE {function}", database="gateway")
        trigger = "TRIGGER broken BEFORE INSERT OR UPDATE ON sessions FOR EACH ROW EXECUTE FUNCTION broken()"
        self._server.sql(f"CREATE {trigger}", database="gateway")

    def mend_sessions(self) -> None:
        self._server.sql("DROP FUNCTION broken() CASCADE", database="gateway")

    def leave(self) -> None:
        self._server.stop()

    def come_back(self) -> None:
        self._server.start()

    def words(self) -> Mapping[bytes, Path]:
        self._server.sql("CHECKPOINT")
        found = self._files()
        written = [path.relative_to(self._server.root).parts for path in found if MARK in path.read_bytes()]
        assert {("data", "base"), ("data", "pg_wal")} <= {parts[:2] for parts in written}, "it is read"
        assert b"broken" in self._server.log.read_bytes(), "what failed inside is told in its log"
        return {text: path for text, path in words(found).items() if text not in self._before}
