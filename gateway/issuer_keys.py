"""The keys of trusted issuers, as fresh as need be: when they are fetched, when not. No HTTP, and no tokens.

What a token says can choose among the issuers of the setting, and at most every half a minute cause a look for a new
key of one of them; nobody can make the gateway fetch more than that, or anything else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gateway.auth.issuers import TrustedIssuer
from gateway.auth.jwks import ForeignKey, KeySet, parse_jwks
from gateway.errors import IssuerUnavailable
from gateway.ports import KeySource

SHORTEST, USUAL, LONGEST = 60.0, 600.0, 86_400.0
"""Seconds for which keys are good: the bounds of what the issuer may say, and what is taken when it says nothing."""
WHILE_RENEWING = 60.0
"""For so long stale keys are used while new ones are on their way. Then a sign-in waits: a key taken back must not
verify one more token only because nobody had signed in for hours."""
KEPT = 86_400.0
"""Keys of this age are no longer used, however long the issuer has been away."""
LOOKED_FOR = 30.0
"""Between two looks for a key nobody knows."""
BACKOFF = 60.0
"""The longest wait after a failure: 1, 2, 4, … seconds up to this."""

log = logging.getLogger("gateway.issuers")


@dataclass(slots=True)
class _Known:
    """Of one issuer. Times are the monotonic clock's; ``asked_at``: when a fetch last began."""

    keys: KeySet | None = None
    fetched_at: float = 0.0
    good_until: float = 0.0
    asked_at: float = float("-inf")
    failures: int = 0
    not_before: float = 0.0
    fetch: asyncio.Task[bool] | None = field(default=None, repr=False)


class IssuerKeys:
    """``close`` ends what is under way."""

    def __init__(
        self, issuers: Mapping[str, TrustedIssuer], *, source: KeySource, monotonic: Callable[[], float]
    ) -> None:
        self._source, self._monotonic = source, monotonic
        self._known = {name: _Known() for name in issuers}

    async def key(self, issuer: TrustedIssuer, kid: str | None, algorithm: str) -> ForeignKey | None:
        """The key a token of ``issuer`` names (see ``KeySet.find``). None if the issuer has no such key.

        Raises IssuerUnavailable if that cannot be known: there are no keys, or the look for this one failed.
        """
        known = self._known[issuer.issuer]
        found = (await self._keys(issuer, known)).find(kid, algorithm)
        if found is not None or kid is None:
            return found
        if known.fetch is None and self._monotonic() - known.asked_at < LOOKED_FOR:
            if known.failures:
                raise self._unavailable(known)
            return None
        if not await self._fetched(issuer, known):
            raise self._unavailable(known)
        return known.keys.find(kid, algorithm) if known.keys is not None else None

    async def close(self) -> None:
        under_way = [known.fetch for known in self._known.values() if known.fetch is not None]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _keys(self, issuer: TrustedIssuer, known: _Known) -> KeySet:
        now = self._monotonic()
        if known.keys is not None and now >= known.fetched_at + KEPT:
            known.keys = None
        if known.keys is not None and now < known.good_until:
            return known.keys
        if now < known.not_before:  # it failed a moment ago: nobody waits for the next failure
            if known.keys is None:
                raise self._unavailable(known)
            return known.keys
        if known.keys is not None and now < known.good_until + WHILE_RENEWING:
            self._begin(issuer, known)
            return known.keys
        await self._fetched(issuer, known)
        if known.keys is None:
            raise self._unavailable(known)
        return known.keys

    async def _fetched(self, issuer: TrustedIssuer, known: _Known) -> bool:
        """Wait for the fetch that is under way, or a new one: whether it brought keys. All who wait share one."""
        # Shielded: one of those who wait goes away, and the others still want it.
        return await asyncio.shield(self._begin(issuer, known))

    def _begin(self, issuer: TrustedIssuer, known: _Known) -> asyncio.Task[bool]:
        if known.fetch is None:
            known.asked_at = self._monotonic()
            known.fetch = asyncio.create_task(self._fetch(issuer, known), name="keys of an issuer")
        return known.fetch

    async def _fetch(self, issuer: TrustedIssuer, known: _Known) -> bool:
        try:
            raw, good_for = await self._source.fetch(issuer.jwks_url)
            keys = parse_jwks(raw)
        except (OSError, ValueError) as error:
            known.failures += 1
            known.not_before = self._monotonic() + min(BACKOFF, 2.0 ** (known.failures - 1))
            level = logging.WARNING if known.failures == 1 else logging.DEBUG
            extra = {"issuer": issuer.issuer, "why": str(error), "failures": known.failures}
            log.log(level, "the keys of an issuer cannot be fetched", extra=extra)
            return False
        finally:
            known.fetch = None
        if known.failures:
            log.info("the keys of an issuer can be fetched again", extra={"issuer": issuer.issuer})
        known.keys, known.fetched_at, known.failures = keys, self._monotonic(), 0
        known.good_until = known.fetched_at + min(LONGEST, max(SHORTEST, USUAL if good_for is None else good_for))
        log.debug("keys of an issuer", extra={"issuer": issuer.issuer, "keys": len(keys.keys)})
        return True

    def _unavailable(self, known: _Known) -> IssuerUnavailable:
        return IssuerUnavailable(retry_after=max(1.0, known.not_before - self._monotonic()))
