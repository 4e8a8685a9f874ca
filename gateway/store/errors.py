"""Why a database cannot be opened, in words for the operator. Not answers to callers: those are ``gateway.errors``."""

from __future__ import annotations


class StoreError(Exception):
    """The database cannot be opened or worked on as it is; ``str(error)`` says why and what to do."""


class StoreInUse(StoreError):
    """Another gateway serves this database."""


class StoreCorrupt(StoreError):
    """What lies at the path is damaged, or no database of the gateway."""
