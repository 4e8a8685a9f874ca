"""What a sign-in yields: a session and its tokens. Who may sign in was settled before; this asks nobody.

Whatever way somebody came in (password, refresh, the token of a trusted issuer), the session and the answer are made
here, so a rule about tokens has one place.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.auth.refresh import RefreshTokens, sha256
from gateway.auth.tokens import Keyring
from gateway.model import GATEWAY_CLIENT, SCOPES_OF_ROLE, Client, Session, User, millis, new_id
from gateway.ports import Sessions
from gateway.revocations import Revocations

SESSIONS_PER_USER = 100


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

    async def begin(self, user: User, *, device: str | None, address: str | None, now: float) -> tuple[Session, str]:
        """A new session of ``user`` and its first refresh token. ``now``: when the sign-in began (seconds), before
        anything was read: the store refuses one that a revocation has overtaken. Raises BadCredentials, UserDisabled.
        """
        id = new_id(now)
        refresh_token = self.refresh_tokens.first(id)
        session = await self._sessions.start(
            id=id,
            user_id=user.id,
            device=device,
            address=address,
            refresh_hash=sha256(refresh_token),
            now=millis(now),
            expires_at=millis(now) + self._session_ttl * 1000,
            limit=self._sessions_per_user,
        )
        return session, refresh_token

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
        if it is rotated meanwhile, the new cut must catch this token."""
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
