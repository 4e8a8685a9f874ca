"""A token that somebody presents: its end (RFC 7009), and what it says (RFC 7662). Who may ask was settled before.

To revoke it, holding a token is enough. Neither use of a refresh token counts as a use of it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from hmac import compare_digest

from gateway.allowance import TOKEN_REVOCATIONS, Allowance
from gateway.auth.refresh import RefreshTokens, sha256
from gateway.auth.tokens import Keyring
from gateway.authn import Authn
from gateway.errors import NotFound, Unauthenticated
from gateway.model import GATEWAY_CLIENT, SCOPES_OF_ROLE, Actor, Claims, Session, Target, User, millis
from gateway.ports import Clock, Limiter, Sessions
from gateway.revocations import Revocations
from gateway.revoke import Revoker
from gateway.tickets import Tickets, is_ticket

log = logging.getLogger("gateway.login")


class PresentedTokens:
    """``refresh_idle``: seconds after which a session that was not refreshed cannot be any more."""

    def __init__(
        self,
        *,
        keyring: Keyring,
        authn: Authn,
        tickets: Tickets,
        refresh_tokens: RefreshTokens,
        refresh_idle: int,
        sessions: Sessions,
        denylist: Revocations,
        revoker: Revoker,
        limiter: Limiter,
        clock: Clock,
    ) -> None:
        self._keyring, self._authn, self._tickets, self._sessions = keyring, authn, tickets, sessions
        self._refresh_tokens, self._refresh_idle = refresh_tokens, refresh_idle
        self._denylist, self._revoker, self._clock = denylist, revoker, clock
        self._revocations = Allowance(limiter, TOKEN_REVOCATIONS)

    async def revoke(self, token: str, *, address: str | None, request_id: str | None = None) -> None:
        """End ``token``: an access token by itself, a ticket with the access token it was made of, a refresh token with
        its whole session. What is none of ours, or over already, is nothing to do (RFC 7009 section 2.2).

        When this returns it is committed, and the sockets here are closed. Raises StoreUnavailable (unknown),
        RevocationsStale for a ticket that cannot be judged now, or Limited: who ends one access token after the other
        is told to wait, or to end the session.
        """
        claims = self._claims(token)
        if claims is not None:
            if self._denylist.verdict(claims) is None:  # else there is nothing to do
                await self._revocations.take(claims.subject)
                by = Actor(claims.subject, address, request_id)
                await self._revoker.revoke(Target(token_id=claims.token_id), reason=None, by=by, listed=False)
                log.info("token revoked by its holder", extra={"jti": claims.token_id, "address": address})
            return
        found = await self._session_of(token)
        if found is not None:
            session, user = found
            with contextlib.suppress(NotFound):  # gone meanwhile
                by = Actor(user.id, address, request_id)
                await self._revoker.revoke(Target(session=session.id), reason=None, by=by, listed=False)
                log.info("session ended by its refresh token", extra={"session": session.id, "address": address})

    async def introspect(self, token: str) -> Mapping[str, object] | None:
        """What an active token says, by the names of RFC 7662 section 2.2, or None: for whatever reason, it is not.

        A refresh token is active while it is the current one, until ``exp`` at the latest. A ticket never is: it is
        good for a socket only. Raises RevocationsStale for a token that cannot be judged now, StoreUnavailable.
        """
        try:
            claims = self._authn.principal(token).claims
        except Unauthenticated:
            return await self._introspect_refresh(token)
        said: dict[str, object] = {
            "active": True,
            "token_type": "Bearer",
            "scope": " ".join(sorted(claims.scopes)),
            "client_id": claims.client_id,
            "sub": claims.subject,
            "aud": self._keyring.audience,
            "iss": self._keyring.issuer,
            "jti": claims.token_id,
            "iat": claims.issued_at,
            "nbf": claims.issued_at,
            "exp": claims.expires_at,
        }
        if claims.session is None:
            return said
        # The database, not only this node's memory: no other node has heard later of a session's end.
        now = millis(self._clock())
        state = await self._sessions.refreshable(claims.session, now=now, idle=now)
        return None if state is None else said | {"sid": claims.session, "username": state[1].username}

    async def _introspect_refresh(self, token: str) -> Mapping[str, object] | None:
        parsed = self._refresh_tokens.read(token)
        if parsed is None:
            return None
        idle = self._refresh_idle * 1000
        state = await self._sessions.refreshable(parsed[0], now=millis(self._clock()), idle=idle)
        if state is None or not compare_digest(sha256(token), state[2]):
            return None
        session, user, _, _, rotated_at = state
        return {
            "active": True,
            "token_type": "refresh_token",
            "scope": " ".join(sorted(SCOPES_OF_ROLE[user.role])),
            "client_id": GATEWAY_CLIENT,
            "username": user.username,
            "sub": user.id,
            "iss": self._keyring.issuer,
            "sid": session.id,
            "iat": rotated_at // 1000,
            "exp": min(session.expires_at, session.refreshed_at + idle) // 1000,
        }

    def _claims(self, token: str) -> Claims | None:
        """Those of an access token or a ticket that is genuine and not over."""
        try:
            if is_ticket(token):
                return self._tickets.read(token, origin=None).principal.claims
            return self._keyring.verify(token, now=self._clock())
        except Unauthenticated:
            return None

    async def _session_of(self, token: str) -> tuple[Session, User] | None:
        """The living session of a genuine refresh token, current or used: whoever forges one ends nobody's."""
        parsed = self._refresh_tokens.read(token)
        if parsed is None:
            return None
        id, generation = parsed
        now = millis(self._clock())
        state = await self._sessions.refreshable(id, now=now, idle=now)  # however long ago it was refreshed
        if state is None:
            return None
        session, user, stored, current, _ = state
        if compare_digest(sha256(token), stored):
            return session, user
        successor = self._refresh_tokens.successor(token)
        if await self._refresh_tokens.leads_to(successor, stored, steps=current - generation - 1):
            return session, user
        return None
