"""Where the database lies, who may read its files, which one gateway serves it. No SQL but a check that it is sound.

The lock is an ``flock`` on ``<database>.lock``: the kernel lets go of it however its holder dies. Tools that only write
a row beside a running node take none.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from gateway.store.errors import StoreCorrupt, StoreError, StoreInUse

QUICK_CHECK_UP_TO = 64 << 20
"""Bytes. A database up to this size is checked page by page at every start; a larger one by its header and schema only:
a start may not grow with what is stored."""
_MAGIC = b"SQLite format 3\x00"

log = logging.getLogger("gateway.store")


def path_of(url: str) -> Path:
    """The absolute path of the database file. Raises StoreError for what is not a file of SQLite."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreError("the database URL cannot be read") from None
    if parsed.drivername != "sqlite+aiosqlite":
        raise StoreError(f"databases of the kind {parsed.drivername} are not supported: use sqlite+aiosqlite:///<file>")
    if not parsed.database or parsed.database == ":memory:" or parsed.database.startswith("file:"):
        raise StoreError("the database must be a file: sqlite+aiosqlite:///<file>")
    return Path(parsed.database).absolute()


def prepare(path: Path) -> None:
    """Make the directory (0700) and the file (0600) if they are not there; what is there keeps its modes.

    Raises StoreError if that is not possible.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            log.warning("%s can be read by others than its owner: it holds keys, it should have mode 0600", path)
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error.strerror}") from None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Inside the block this process serves ``path``. Raises StoreInUse if another one does."""
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{lock} cannot be opened: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            raise StoreInUse(
                f"another gateway is using {path}" + (f" (process {holder})" if holder else "")
                + ": one SQLite database serves one gateway process"
            ) from None  # fmt: skip
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)  # the file stays: unlinking it would let two holders lock two different files


def check_sound(path: Path) -> None:
    """Raises StoreCorrupt if the file is no database or a damaged one, StoreError if it cannot be read at all."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
        size = path.stat().st_size
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    if not head:
        return  # a new one
    if head != _MAGIC:
        raise StoreCorrupt(f"{path} is not an SQLite database")
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA busy_timeout=5000")
        connection.execute("PRAGMA schema_version").fetchone()
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if size <= QUICK_CHECK_UP_TO:
            findings = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
            if findings != ["ok"]:
                raise StoreCorrupt(_damaged(path, "; ".join(findings)))
    except sqlite3.OperationalError as error:
        raise StoreError(f"{path} cannot be opened: {error}") from None
    except sqlite3.DatabaseError as error:
        raise StoreCorrupt(_damaged(path, str(error))) from None
    finally:
        connection.close()


def _damaged(path: Path, finding: str) -> str:
    return f"{path} is damaged ({finding}): restore a backup with `gateway restore`"
