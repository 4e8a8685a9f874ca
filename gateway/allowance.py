"""How often one user may do what adds a row that stays. Raises; what is in the buckets is the limiter's business.

Somebody who may sign in could otherwise grow the audit trail, and the list of revocations that every node keeps in
memory, for as long as they like.
"""

from __future__ import annotations

from gateway.errors import Limited
from gateway.model import Policy
from gateway.ports import Limiter

AT_ONCE, EVERY = 100, 10
"""So many at once, then one each so many seconds."""
SIGN_INS = Policy("sign-ins", rate=1 / EVERY, burst=AT_ONCE)
"""By user: new sessions, and new passwords."""
TOKEN_REVOCATIONS = Policy("token-revocations", rate=1 / EVERY, burst=AT_ONCE)
"""By user or client: access tokens that their holder ends one by one. Sessions are ended without a limit."""
TICKETS = Policy("tickets", rate=1, burst=200)
"""By user: each that is used is a row for a while. A page asks for one a connection."""


class Allowance:
    def __init__(self, limiter: Limiter, policy: Policy) -> None:
        self._limiter, self._policy = limiter, policy

    async def take(self, key: str) -> None:
        """One of what ``key`` may do. Raises Limited."""
        policy = self._policy
        wait = await self._limiter.take(policy, key, 1)
        if wait:
            window = round(policy.burst / policy.rate)
            raise Limited(policy.name, retry_after=wait, quota=int(policy.burst), window=window)
