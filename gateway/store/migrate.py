"""The schema this version works with, and the steps that bring a database there. Opens no database by itself.

The steps are in ``migrations/``, and run without alembic.ini. Alembic takes longer to import than a small database
takes to open, so it is loaded only if there is something to do.

Expand and contract: a step only adds, until no version that needs the old shape may run beside it. The database says so
itself (``COMPATIBLE``), so a gateway that is one version behind starts and runs beside newer ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

import gateway
from gateway.store.errors import StoreError
from gateway.store.meta import COMPATIBLE, ensure_epoch, get, put

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0003"
"""The newest revision. A test compares it with what ``migrations/`` says."""
OLDEST = "0001"
"""The oldest revision whose gateway can work with a database at HEAD."""


def head() -> str:
    """The revision this version of the gateway works with."""
    return HEAD


def known(revision: str) -> bool:
    """Whether this version can bring a database of ``revision`` to the head. Revisions are numbered."""
    return revision.isdigit() and revision <= HEAD


def config() -> Config:
    """Alembic's configuration, pointing at the steps: in the package if it is installed, else in the repository."""
    from alembic.config import Config

    package = Path(gateway.__file__).parent
    steps = package / "_migrations"
    made = Config()
    made.set_main_option("script_location", str(steps if steps.is_dir() else package.parent / "migrations"))
    made.set_main_option("path_separator", "os")
    return made


def take_steps(connection: Connection) -> None:
    """Run every step that is missing, in the transaction that is open on ``connection``."""
    from alembic import command

    settings = config()
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")
    put(connection, COMPATIBLE, OLDEST)
    ensure_epoch(connection)


def revision(connection: Connection) -> str | None:
    """The revision of the database; None if it is empty. Raises StoreError for one that is not the gateway's."""
    names = inspect(connection).get_table_names()
    if "alembic_version" not in names:
        if names:
            raise StoreError("the database holds tables of something else: give the gateway one of its own")
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return found


def is_current(connection: Connection, what: str) -> bool:
    """Whether there is nothing to do: at HEAD, or beyond it and still fit for this version.

    Raises StoreError naming ``what`` if it is of a version that this one cannot work beside.
    """
    found = revision(connection)
    if found == HEAD:
        return True
    if found is None or known(found):
        return False
    oldest = get(connection, COMPATIBLE)
    if oldest is None or oldest > HEAD:
        raise StoreError(f"{what} has schema {found}, newer than this gateway knows ({HEAD}): use a newer gateway")
    return True
