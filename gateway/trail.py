"""What the audit trail is told of sign-ins that came to nothing: the first of a flood, and how many were left out.

Limits nobody. Anybody can fail, each row waits for the disk in front of the pushes, and none is ever taken out; so
most stand in the log alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType

from gateway.errors import StoreUnavailable, TooManyAttempts
from gateway.limits import Bucket
from gateway.model import Actor, millis
from gateway.ports import Audit, Clock

NOBODY = "~"
"""Actor of a failed sign-in; ``~`` stands in no user's id."""
FAILURES_NOTED, FAILURES_AT_ONCE = 2.0, 200
"""Failed sign-ins a second, and at once, that get a row."""
REFUSALS_NOTED, REFUSALS_AT_ONCE = 0.1, 20
"""The same of those that were not even looked at."""

log = logging.getLogger("gateway.login")


class Trail:
    def __init__(self, audit: Audit, clock: Clock) -> None:
        self._failures = _Rows(audit, clock, "login_failed", rate=FAILURES_NOTED, burst=FAILURES_AT_ONCE)
        self._refusals = _Rows(audit, clock, "login_limited", rate=REFUSALS_NOTED, burst=REFUSALS_AT_ONCE)

    async def failed(
        self,
        target: str | None,
        reason: str,
        address: str | None,
        request_id: str | None,
        *,
        more: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """``target``: whose sign-in it was, None if there is nobody of that name: people type their password there."""
        detail = {"reason": reason, **more}
        log.info("sign-in failed", extra={"target": target, "address": address, **detail})
        await self._failures.note(target, detail, Actor(NOBODY, address, request_id))

    async def limited(self, refusal: TooManyAttempts, address: str | None, request_id: str | None) -> None:
        log.info("sign-in refused: too many have failed", extra={"policy": refusal.policy, "address": address})
        await self._refusals.note(None, {"policy": refusal.policy}, Actor(NOBODY, address, request_id))


class _Rows:
    """``rate``: rows a second."""

    def __init__(self, audit: Audit, clock: Clock, action: str, *, rate: float, burst: int) -> None:
        self._audit, self._clock, self._action, self._rate, self._burst = audit, clock, action, rate, burst
        self._bucket, self._left_out = Bucket(burst=burst, at=clock()), 0

    async def note(self, target: str | None, detail: Mapping[str, object], by: Actor) -> None:
        now = self._clock()
        if self._bucket.take(1, rate=self._rate, burst=self._burst, at=now):
            self._left_out += 1
            return
        left_out, self._left_out = self._left_out, 0
        said = {**detail, "not_noted_before": left_out} if left_out else detail
        try:
            await self._audit.record(self._action, target=target, detail=said, by=by, now=millis(now))
        except StoreUnavailable:  # it failed all the same
            self._left_out += left_out + 1
