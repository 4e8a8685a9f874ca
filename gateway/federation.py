"""The wiring of token exchange: the setting in, an open ``Exchange`` out. Without trusted issuers nothing is opened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from gateway.exchange import Exchange
from gateway.granting import Granting
from gateway.issuer_keys import IssuerKeys
from gateway.ports import Clock, KeySource
from gateway.settings import Settings
from gateway.store.engine import Store
from gateway.trail import Trail


class _NoSource:
    async def fetch(self, url: str) -> tuple[bytes, float | None]:
        raise OSError("no issuer is trusted")


@asynccontextmanager
async def open_exchange(
    settings: Settings,
    *,
    store: Store,
    granting: Granting,
    trail: Trail,
    clock: Clock,
    monotonic: Callable[[], float],
) -> AsyncIterator[Exchange]:
    issuers = settings.issuers_trusted
    async with AsyncExitStack() as stack:
        source: KeySource = _NoSource()
        if issuers:
            # Its client takes a tenth of a second to import: only for those who use it.
            from gateway.jwks import key_source

            source = await stack.enter_async_context(key_source())
        keys = IssuerKeys(issuers, source=source, monotonic=monotonic)
        stack.push_async_callback(keys.close)
        yield Exchange(
            issuers, keys=keys, identities=store.identities, granting=granting, trail=trail, clock=clock,
            leeway=settings.token_leeway,
        )  # fmt: skip
