"""How connections to PostgreSQL are made: their limits, how their transactions begin. Runs no work of ours."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from sqlalchemy import URL, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from gateway.store.errors import StoreError

CONNECT = 3.0
"""Seconds to make a connection."""
COMMAND = 6.0
"""Seconds this side waits for one statement, whatever the other does. Above the limits the server keeps itself."""
STATEMENT_MS, LOCK_MS = 5000, 4000
IDLE_MS = 2000
"""Milliseconds a transaction may be open with nothing asked of it: a node that is stopped in the middle of one holds up
whoever wants the same rows no longer than that."""
PATIENT_IDLE_MS = 60_000
"""The same without the other limits: a node that is gone in the middle of a migration must not keep the tables."""
KEEPALIVES = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
"""Seconds. The server notices a node whose machine is gone, and a firewall on the way does not take an idle connection
for a dead one. Without effect on a Unix socket."""


class Lineage(Protocol):
    """Which history of the log connections have to lead to; ``mark`` changes when another one is adopted."""

    mark: str | None

    def look(self, connection: Any) -> None:
        """Raises for a new DBAPI connection that must not be used."""


Isolation = Literal["READ COMMITTED", "REPEATABLE READ", "AUTOCOMMIT"]


def url_of(url: str) -> URL:
    """The parts of the setting. Raises StoreError if it cannot be read or names no database."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreError("the database URL cannot be read") from None
    if not parsed.database:
        raise StoreError("the database URL names no database: postgresql+asyncpg://user:password@host:5432/database")
    return parsed


def where(url: str) -> str:
    """The database for people: without its user and password."""
    parsed = url_of(url)
    return f"{parsed.host or 'localhost'}:{parsed.port or 5432}/{parsed.database}"


def engine(
    url: URL,
    *,
    size: int,
    isolation: Isolation,
    read_only: bool = False,
    waits_for_disk: bool | None = None,
    application: str,
    patience: float,
    lineage: Lineage | None = None,
    limits: bool = True,
) -> AsyncEngine:
    """A pool of at most ``size`` connections. ``patience``: seconds to wait for a free one.

    ``waits_for_disk``: whether a commit does; None leaves that to the server. ``lineage`` looks at each one.
    ``limits=False``: no limit for statements, for what is done once and may take as long as the tables are large.
    """
    # Compiling a statement takes longer than running any of ours.
    settings = {
        "application_name": application,
        "jit": "off",
        "idle_in_transaction_session_timeout": str(IDLE_MS if limits else PATIENT_IDLE_MS),
        **KEEPALIVES,
    }
    if limits:
        settings |= {"statement_timeout": str(STATEMENT_MS), "lock_timeout": str(LOCK_MS)}
    if read_only:
        settings["default_transaction_read_only"] = "on"
    if waits_for_disk is not None:
        settings["synchronous_commit"] = "on" if waits_for_disk else "off"
    made = create_async_engine(
        _without_options(url),
        pool_size=size,
        max_overflow=0,
        pool_timeout=patience,
        pool_recycle=1800,
        pool_use_lifo=True,  # the connections a quiet time does not need grow old together
        isolation_level=isolation,
        hide_parameters=True,
        connect_args={
            "timeout": CONNECT,
            "command_timeout": COMMAND if limits else None,
            "server_settings": settings,
            "prepared_statement_cache_size": 200,
            **_tls(url.query),
        },
    )
    if lineage is not None:
        _keep_to(made, lineage)
    return made


def _keep_to(engine: AsyncEngine, lineage: Lineage) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        lineage.look(connection)
        record.info["mark"] = lineage.mark

    @event.listens_for(engine.sync_engine, "checkout")
    def checkout(connection: Any, record: Any, proxy: object) -> None:
        # A server that was replaced, and lives on unnoticed, still answers on the connections from before.
        if record.info["mark"] != lineage.mark:
            raise DisconnectionError("it leads to a history that is over")


def _without_options(url: URL) -> URL:
    return url.set(query={})


def _tls(query: Mapping[str, Any]) -> dict[str, Any]:
    """``?sslmode=`` and ``sslrootcert=`` as libpq spells and reads them; any other option is refused.

    Raises StoreError: what would not be heeded must not be believed in.
    """
    unknown = sorted(query.keys() - {"sslmode", "ssl", "sslrootcert"})
    if unknown:
        raise StoreError(
            f"the database URL has the option {unknown[0]}, which is not known: sslmode and sslrootcert are"
        )
    mode = query.get("sslmode") or query.get("ssl")
    authority = query.get("sslrootcert")
    if mode is None and authority is None:
        return {}
    if mode == "require" and authority is not None:
        mode = "verify-ca"  # as libpq does: nobody names an authority that is not to be asked
    if mode in ("verify-ca", "verify-full", None):
        try:
            context = ssl.create_default_context(cafile=authority)
        except (OSError, ssl.SSLError) as error:
            raise StoreError(f"the sslrootcert of the database URL cannot be used: {error}") from None
        context.check_hostname = mode != "verify-ca"
        return {"ssl": context}
    if mode not in ("disable", "allow", "prefer", "require"):
        raise StoreError(
            "the sslmode of the database URL is none of disable allow prefer require verify-ca verify-full"
        )
    if authority is not None:
        raise StoreError(f"the database URL has an sslrootcert, which sslmode={mode} does not look at")
    return {"ssl": mode}
