"""Token → Principal, revocation included. Memory only: no await, no store, so it can stand in any hot path."""

from __future__ import annotations

from collections.abc import Callable

from gateway.auth.tokens import Keyring
from gateway.closing import TOKEN_REVOKED, USER_DISABLED, Close
from gateway.errors import InsufficientScope, RevocationsStale, TokenMissing, TokenRevoked, UserDisabled
from gateway.model import Claims, Principal
from gateway.ports import Clock
from gateway.revocations import Revocations


class Authn:
    """The only maker of Principals. ``monotonic``: the clock (seconds) by which ``revocations`` is fresh or not."""

    def __init__(
        self, keyring: Keyring, revocations: Revocations, clock: Clock, monotonic: Callable[[], float]
    ) -> None:
        self._keyring = keyring
        self._revocations = revocations
        self._clock = clock
        self._monotonic = monotonic

    def principal(self, raw: str | None) -> Principal:
        """Who holds this token, now.

        Raises TokenMissing (None or empty), TokenInvalid, TokenExpired, TokenRevoked or UserDisabled; and
        RevocationsStale for a good token while this node cannot know whether it was revoked (contract section 8).
        """
        if not raw:
            raise TokenMissing
        return self.standing(self._keyring.verify(raw, now=self._clock()))

    def standing(self, claims: Claims) -> Principal:
        """The holder of these claims, which were proven genuine and in their time by whoever asks: what every way in
        has to pass. Raises TokenRevoked, UserDisabled, RevocationsStale.
        """
        principal = Principal(claims)
        over = self.verdict(principal)
        if over is not None:
            raise UserDisabled if over is USER_DISABLED else TokenRevoked
        if not self._revocations.fresh(at=self._monotonic()):
            raise RevocationsStale
        return principal

    def require(self, principal: Principal, scope: str) -> None:
        """Raises InsufficientScope if ``principal`` has no ``scope``."""
        if not principal.has(scope):
            raise InsufficientScope(scope)

    def verdict(self, principal: Principal) -> Close | None:
        """How a connection of ``principal`` must end because of a revocation, or None: the check after registering.

        The key that signed may have been retired too, since the token was verified or the ticket made.
        """
        verdict = self._revocations.verdict(principal.claims)
        if verdict is None and principal.claims.kid not in self._keyring:
            return TOKEN_REVOKED
        return verdict
