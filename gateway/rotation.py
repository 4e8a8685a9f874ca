"""Signing keys that come and go under a running node: the keyring takes over the database's. Makes and judges none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from gateway.auth.tokens import Keyring
from gateway.closing import TOKEN_REVOKED
from gateway.errors import StoreUnavailable
from gateway.hub import Hub
from gateway.ports import Keys

LOOK_EVERY = 0.5
"""Seconds. A key that was retired because it leaked is a revocation, and has the second every revocation has."""

log = logging.getLogger("gateway.keys")


class Rotation:
    """Keeps ``keyring`` as the database has it. While that cannot be read, the keys of before stay."""

    def __init__(self, *, store: Keys, keyring: Keyring, hub: Hub) -> None:
        self._store, self._keyring, self._hub = store, keyring, hub
        self._seen: Sequence[tuple[str, int]] = ()

    async def look(self) -> None:
        """Take over what has changed. When this returns no token of a key that went is let in any more, and the sockets
        that came in by one are closed. Raises StoreUnavailable; then nothing has changed."""
        announced = await self._store.announced()
        if announced == self._seen:
            return
        keys = await self._store.signing()
        self._seen = [(key.kid, key.signs_from) for key in keys]
        before = self._keyring.kids
        try:
            self._keyring.replace(keys)
        except ValueError as error:  # none at all, or one that somebody put there by hand
            log.error("the signing keys in the database cannot be used, those of before stay: %s", error)
            # One that went is gone all the same: to retire it was a revocation.
            left = [key for key in keys if key.kid in before]
            if not left:
                return
            self._keyring.replace(left)
        after = self._keyring.kids
        gone = before - after
        closed = [one for one in self._hub if one.claims.kid in gone]
        for connection in closed:
            connection.close(TOKEN_REVOKED)
        if gone or after - before:
            more = {"added": sorted(after - before), "retired": sorted(gone), "closed": len(closed)}
            log.info("signing keys changed", extra=more)

    async def keep_looking(self) -> None:
        complained = False
        while True:
            try:
                await self.look()
                complained = False
            except StoreUnavailable:
                if not complained:
                    log.warning("signing keys cannot be read: those of before stay")
                complained = True
            await asyncio.sleep(LOOK_EVERY)
