"""Token exchange (RFC 8693): the token of a trusted issuer → a session here. Knows no HTTP and fetches no keys itself.

Such a token is good for this and nothing else: whoever holds it can sign in with it until it expires, as with a
password, and as often (``jti`` is not remembered: several devices of one person may share one token, issuers need not
give one, and what a thief could do with a second exchange he could do with the first).
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Mapping

from gateway.auth.foreign import Proven, read
from gateway.auth.issuers import TrustedIssuer
from gateway.errors import (
    BadCredentials,
    Conflict,
    CredentialsChanged,
    NotFound,
    TokenExpired,
    TokenInvalid,
    UserDisabled,
)
from gateway.granting import Granting, TokenAnswer
from gateway.issuer_keys import IssuerKeys
from gateway.model import Actor, User, is_user_id, millis
from gateway.ports import Clock, Identities
from gateway.trail import Trail

NOBODYS_PASSWORD = "!"  # noqa: S105 - no hash: nothing verifies against it
"""Stored for a user who was made here: every password is wrong until an admin sets one."""

log = logging.getLogger("gateway.login")


class Exchange:
    """``leeway``: seconds."""

    def __init__(
        self,
        issuers: Mapping[str, TrustedIssuer],
        *,
        keys: IssuerKeys,
        identities: Identities,
        granting: Granting,
        trail: Trail,
        clock: Clock,
        leeway: int,
    ) -> None:
        self._issuers, self._keys, self._identities = issuers, keys, identities
        self._granting, self._trail, self._clock, self._leeway = granting, trail, clock, leeway

    @property
    def trusts_anybody(self) -> bool:
        return bool(self._issuers)

    async def token(self, raw: str, *, address: str | None, request_id: str | None = None) -> TokenAnswer:
        """A new session of whoever the token speaks of.

        Raises BadCredentials for any token that will not do, whatever is wrong with it; UserDisabled (only to who
        brought a good one; deleted ones too); IssuerUnavailable if its key cannot be had now.
        """
        now = self._clock()  # before anything is read: the store refuses a sign-in that a revocation has overtaken
        try:
            proven = await self._proven(raw, now)
        except (TokenInvalid, TokenExpired) as error:
            why = error.why if isinstance(error, TokenInvalid) else error.code
            await self._failed(None, why, None, address, request_id)
            raise BadCredentials from None
        issuer = proven.issuer
        user = await self._user(proven, Actor(f"~{issuer.issuer}", address, request_id), now)
        if user is None or user.disabled:
            target, why = (None, "unknown user") if user is None else (user.id, "disabled")
            await self._failed(target, why, proven, address, request_id)
            raise BadCredentials if user is None else UserDisabled
        await self._granting.allow(user.id)
        by, detail = Actor(user.id, address, request_id), {"issuer": issuer.issuer}
        try:
            session, user, refresh_token = await self._granting.begin(
                user.id, device=None, by=by, detail=detail, now=now, identity=(issuer.issuer, proven.subject)
            )
        except CredentialsChanged:
            await self._failed(user.id, "changed meanwhile", proven, address, request_id)
            raise
        extra = {"user": user.id, "session": session.id, "issuer": issuer.issuer, "address": address}
        log.info("signed in", extra=extra)
        return self._granting.user(session, user, refresh_token, now)

    async def _proven(self, raw: str, now: float) -> Proven:
        presented = read(raw, self._issuers, now=now, leeway=self._leeway)
        key = await self._keys.key(presented.issuer, presented.kid, presented.algorithm)
        if key is None:
            raise TokenInvalid("key")
        return presented.proven(key)

    async def _user(self, proven: Proven, by: Actor, now: float) -> User | None:
        issuer = proven.issuer
        found = await self._identities.find(issuer.issuer, proven.subject)
        if found is not None or not (issuer.create or issuer.link):
            return found
        id = user_id(proven)
        suggested = proven.username
        names = [suggested] if suggested is not None and _is_name(suggested) else []
        try:
            return await self._identities.admit(
                issuer.issuer,
                proven.subject,
                id=id,
                usernames=[*names, id, secrets.token_hex(16)],  # the last nobody can have taken
                password_hash=NOBODYS_PASSWORD,
                create=issuer.create,
                link=issuer.link,
                by=by,
                now=millis(now),
            )
        except NotFound:
            return None
        except Conflict as error:
            # The operator has to know: for whoever signs in it is one more token that will not do.
            extra = {"issuer": issuer.issuer, "user": id, "why": error.detail, "code": error.code}
            log.warning("a user of an issuer cannot be let in", extra=extra)
            return None

    async def _failed(
        self, target: str | None, why: str, proven: Proven | None, address: str | None, request_id: str | None
    ) -> None:
        more = {"why": why} if proven is None else {"why": why, "issuer": proven.issuer.issuer}
        await self._trail.failed(target, "exchange", address, request_id, more=more)


def user_id(proven: Proven) -> str:
    """The id of somebody whom nobody linked by hand: what the issuer calls them, if it can be an id, so that backends
    can push to it; else the SHA-256 (hexadecimal) of issuer, line feed and that, which they can compute."""
    if is_user_id(proven.subject):
        return proven.subject
    return hashlib.sha256(f"{proven.issuer.issuer}\n{proven.subject}".encode()).hexdigest()


def _is_name(text: str) -> bool:
    return 1 <= len(text) <= 64 and text.isprintable() and text == text.strip()
