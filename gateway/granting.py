"""What a sign-in yields: a session and its tokens. Who may sign in was settled before; this asks nobody.

Whatever way somebody came in (password, refresh, the token of a trusted issuer), the session and the answer are made
here, so a rule about tokens has one place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.allowance import SIGN_INS, Allowance
from gateway.auth.refresh import RefreshTokens, sha256
from gateway.auth.tokens import Keyring
from gateway.errors import Limited
from gateway.model import GATEWAY_CLIENT, SCOPES_OF_ROLE, Actor, Client, Session, SignIn, User, millis, new_id
from gateway.ports import Limiter, Sessions
from gateway.revocations import Revocations

SESSIONS_PER_USER = 100
REFRESHES_AT_ONCE, REFRESH_EVERY = 60, 10.0
"""A session is refreshed so often at once, and once more for each so many seconds since it began."""
BAN_MARGIN = 90
"""Seconds a ban outlasts the tokens it kills: the largest leeway (30), and a minute for clocks that differ."""
SIGN_IN_TAKES = 600
"""Seconds a sign-in may wait for its turn, at most: the clock was read when it began."""


def ban_until(now: int, access_ttl: int) -> int:
    """When (ms) a ban made at ``now`` (ms) may be forgotten: no token from before it, ``access_ttl`` seconds long,
    can be valid then. One that an earlier, longer setting made is longer than any this node takes (``Keyring``)."""
    return now + (access_ttl + BAN_MARGIN) * 1000


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What a sign-in yields. Durations in seconds; a client gets no refresh token."""

    access_token: str = field(repr=False)
    expires_in: int
    scope: str
    refresh_token: str | None = field(default=None, repr=False)
    refresh_expires_in: int | None = None


class Granting:
    """``access_ttl``, ``session_ttl``, ``refresh_idle``: seconds. ``server_key``: 32 bytes, the same on every node."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        keyring: Keyring,
        revocations: Revocations,
        limiter: Limiter,
        server_key: bytes,
        access_ttl: int,
        session_ttl: int,
        refresh_idle: int,
        sessions_per_user: int = SESSIONS_PER_USER,
    ) -> None:
        self._sessions, self._keyring, self._revocations = sessions, keyring, revocations
        self.refresh_tokens = RefreshTokens(server_key)
        self.access_ttl, self.refresh_idle = access_ttl, refresh_idle
        self._session_ttl, self._sessions_per_user = session_ttl, sessions_per_user
        self._sign_ins = Allowance(limiter, SIGN_INS)

    async def allow(self, user_id: str) -> None:
        """One more sign-in, or new password, of a user who has shown who they are. Raises Limited."""
        await self._sign_ins.take(user_id)

    def allow_refresh(self, session: Session, generation: int, now: float) -> None:
        """Raises Limited for a session that has been refreshed ``generation`` times, which is too often for its age.

        Asks nobody: all nodes know both numbers. Whoever makes tokens that live for seconds may refresh as quickly.
        """
        every = min(REFRESH_EVERY, self.access_ttl / 2)
        wait = (generation + 1 - REFRESHES_AT_ONCE) * every - max(0.0, now - session.created_at / 1000)
        if wait > 0:
            window = math.ceil(REFRESHES_AT_ONCE * every)
            raise Limited("refreshes", retry_after=wait, quota=REFRESHES_AT_ONCE, window=window)

    async def begin(
        self,
        user_id: str,
        *,
        device: str | None,
        by: Actor,
        detail: Mapping[str, object],
        now: float,
        hashes: frozenset[str] | None = None,
        identity: tuple[str, str] | None = None,
    ) -> tuple[Session, User, str]:
        """A new session of a user whom ``allow`` has let through, the user as of then, and the first refresh token.
        ``now``: when the sign-in began (seconds), before anything was read: the store refuses one that a revocation
        has overtaken. What was verified has to be so still: the stored hash is one of ``hashes``, ``identity`` (issuer
        and subject) is the user. Raises BadCredentials (CredentialsChanged: look once more), UserDisabled.
        """
        id = new_id(now)
        refresh_token = self.refresh_tokens.first(id)
        session, user = await self._sessions.start(
            SignIn(
                id=id,
                user_id=user_id,
                device=device,
                refresh_hash=sha256(refresh_token),
                now=millis(now),
                expires_at=millis(now) + self._session_ttl * 1000,
                limit=self._sessions_per_user,
                until=ban_until(millis(now + SIGN_IN_TAKES), self.access_ttl),
                hashes=hashes,
                identity=identity,
                action="login",
                target=id,
                detail=detail,
                by=by,
            )
        )
        return session, user, refresh_token

    def user(self, session: Session, user: User, refresh_token: str, now: float) -> TokenAnswer:
        """Tokens of a user's session."""
        # No token outlives its session, and none is born dead in the session's last second.
        left = max(1, (session.expires_at - millis(now)) // 1000)
        ttl = min(self.access_ttl, left)
        scopes = SCOPES_OF_ROLE[user.role]
        token = self._keyring.sign(
            subject=user.id,
            client_id=GATEWAY_CLIENT,
            scopes=scopes,
            session=session.id,
            token_id=new_id(now),
            now=now,
            ttl=ttl,
            issued_at=self.issued_at(GATEWAY_CLIENT, now),
        )
        return TokenAnswer(
            access_token=token,
            expires_in=ttl,
            scope=" ".join(sorted(scopes)),
            refresh_token=refresh_token,
            refresh_expires_in=min(self.refresh_idle, left),
        )

    def client(self, client: Client, scopes: frozenset[str], *, issued_at: int, now: float) -> TokenAnswer:
        """An access token of a client. ``issued_at``: what the method of that name said before the secret was checked:
        the cut of a revocation that came in between must catch this token."""
        token = self._keyring.sign(
            subject=client.client_id,
            client_id=client.client_id,
            scopes=scopes,
            session=None,
            token_id=new_id(now),
            now=now,
            ttl=self.access_ttl,
            issued_at=issued_at,
        )
        return TokenAnswer(access_token=token, expires_in=self.access_ttl, scope=" ".join(sorted(scopes)))

    def issued_at(self, client_id: str, now: float) -> int:
        """``now`` in seconds, or the second after a cut: a cut takes in its own second, and who signs in again within
        it would be cut off with the old tokens. The keyring forgives that second; of a cut from a clock further ahead
        it forgives its leeway only."""
        return max(int(now), self._revocations.cut(client_id) + 1)
