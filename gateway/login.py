"""Signing in: password, refresh token or client secret → tokens. Knows no HTTP, and counts no failures itself.

Refresh tokens rotate at every use (RFC 9700 section 4.14.2). The direct predecessor is forgiven for a moment, because
answers get lost; an older one that is genuine proves that two hold the chain, and the session ends.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hmac import compare_digest

from gateway.attempts import Attempt, Attempts
from gateway.auth.passwords import Passwords
from gateway.auth.refresh import sha256
from gateway.errors import BadCredentials, CredentialsChanged, Invalid, TooManyAttempts, TooManySignIns, UserDisabled
from gateway.granting import Granting, TokenAnswer, ban_until
from gateway.model import GATEWAY_CLIENT, Actor, Ban, Client, Principal, Session, User, millis
from gateway.ports import Clients, Clock, Sessions, Users
from gateway.trail import Trail

ROUNDS = 3
"""So often a session is tried to start whose user's hash is another one each time."""

log = logging.getLogger("gateway.login")


def new_client_secret() -> tuple[str, bytes]:
    """A client secret of 256 bits, and the hash to store. A random secret needs no slow hash."""
    secret = secrets.token_urlsafe(32)
    return secret, sha256(secret)


class Login:
    """``refresh_grace``: seconds. ``apply_bans`` puts rules to work on this node at once; ``end_session`` (its id, who,
    and action and detail of an audit row) ends a session and its sockets. If it had ended, nothing is noted."""

    new_client_secret = staticmethod(new_client_secret)

    def __init__(
        self,
        *,
        users: Users,
        sessions: Sessions,
        clients: Clients,
        passwords: Passwords,
        attempts: Attempts,
        trail: Trail,
        granting: Granting,
        clock: Clock,
        refresh_grace: int,
        apply_bans: Callable[[Sequence[Ban]], int],
        end_session: Callable[[str, Actor, tuple[str, Mapping[str, object]]], Awaitable[None]],
    ) -> None:
        self._users, self._sessions, self._clients = users, sessions, clients
        self._passwords, self._granting, self._clock = passwords, granting, clock
        self._refresh_tokens, self._refresh_grace = granting.refresh_tokens, refresh_grace
        self._apply_bans, self._end_session = apply_bans, end_session
        self._attempts, self._trail = attempts, trail

    def full(self, address: str | None) -> bool:
        """Whether a sign-in from there that begins now would be told to come back (TooManySignIns)."""
        return self._passwords.full or self._attempts.crowded(address)

    async def password(
        self, username: str, password: str, *, device: str | None, address: str | None, request_id: str | None = None
    ) -> TokenAnswer:
        """A new session of a user.

        Raises BadCredentials (unknown user and wrong password cost the same), UserDisabled (only to who knows the
        password), TooManyAttempts, Limited (right too often), Unavailable (too many at once).
        """
        if self.full(address):  # before the database is asked anything for nothing
            raise TooManySignIns
        now = self._clock()  # before anything is read: the store refuses a sign-in that a revocation has overtaken
        async with self._attempt(self._attempts.of_account(username, address), address, request_id) as attempt:
            user, stored, better = await self._verified(attempt, username, password, address, request_id)
        hashes = {stored}
        if better is not None:
            await self._users.rehash(user.id, old=stored, new=better)
            hashes.add(better)
        await self._granting.allow(user.id)
        by = Actor(user.id, address, request_id)
        session, user, refresh_token = await self._begun(user, password, hashes, device=device, by=by, now=now)
        log.info("signed in", extra={"user": user.id, "session": session.id, "address": address})
        return self._granting.user(session, user, refresh_token, now)

    async def refresh(self, refresh_token: str, *, address: str | None, request_id: str | None = None) -> TokenAnswer:
        """The next tokens of a session. The direct predecessor, within the grace, gets the same successor again.

        Raises BadCredentials for any other. If that was a genuine one from earlier, somebody has a copy: the session
        ends. A forged one ends nobody's. Raises Limited for a session that is refreshed too often: nothing is used up.
        """
        parsed = self._refresh_tokens.read(refresh_token)
        if parsed is None:
            raise BadCredentials
        id, generation = parsed
        successor = self._refresh_tokens.successor(refresh_token)
        now, idle = self._clock(), self._granting.refresh_idle * 1000
        presented = sha256(refresh_token)
        state = await self._sessions.refreshable(id, now=millis(now), idle=idle)
        if state is not None and compare_digest(presented, state[2]):  # a made-up one never waits for the writer
            self._granting.allow_refresh(state[0], generation, now)
            rotated = await self._sessions.rotate(
                id,
                presented=presented,
                generation=generation,
                successor=sha256(successor),
                now=millis(now),
                idle=idle,
            )
            if rotated is not None:
                log.info("refreshed", extra={"session": id, "address": address})
                return self._granting.user(*rotated, successor, now)
            state = await self._sessions.refreshable(id, now=millis(now), idle=idle)  # another was quicker
        if state is None:
            raise BadCredentials
        session, user, stored, current, rotated_at = state
        if not await self._refresh_tokens.leads_to(successor, stored, steps=current - generation - 1):
            raise BadCredentials
        if generation == current - 1 and millis(now) - rotated_at <= self._refresh_grace * 1000:
            log.info("last refresh answered again", extra={"session": id, "address": address})
            return self._granting.user(session, user, successor, now)
        log.warning("a used refresh token came back", extra={"session": id, "address": address})
        by = Actor(GATEWAY_CLIENT, address, request_id)
        detail = {"user": user.id, "generation": generation, "current": current}
        await self._end_session(id, by, ("refresh_reuse", detail))
        raise BadCredentials

    async def authenticate_client(
        self, client_id: str, secret: str, *, address: str | None = None, request_id: str | None = None
    ) -> Client:
        """The client whose secret this is. Raises BadCredentials, TooManyAttempts."""
        async with self._attempt(self._attempts.of_client(client_id, address), address, request_id) as attempt:
            client = await self._clients.authenticate(client_id, secret_hash=sha256(secret))
            if client is None:
                await attempt.failed()
                named = client_id[:64] if client_id.startswith("c~") else None
                await self._trail.failed(named, "client", address, request_id)
                raise BadCredentials
        return client

    async def client_credentials(
        self,
        client_id: str,
        secret: str,
        *,
        scope: str | None,
        address: str | None = None,
        request_id: str | None = None,
    ) -> TokenAnswer:
        """An access token of a client, for ``scope`` (space separated) or all it may have.

        Raises BadCredentials, or Invalid ``invalid_scope`` for one it may not have (RFC 6749 section 5.2).
        """
        now = self._clock()
        # Read before the secret is checked: a revocation of the client that commits meanwhile has a later cut, which
        # must catch this token. (A rotated secret cuts nothing off.)
        issued_at = self._granting.issued_at(client_id, now)
        client = await self.authenticate_client(client_id, secret, address=address, request_id=request_id)
        wanted = frozenset((scope or "").split()) or client.scopes
        if not wanted <= client.scopes:
            raise Invalid("The client may not have this scope.", code="invalid_scope")
        log.info("signed in", extra={"client": client.client_id, "address": address})
        return self._granting.client(client, wanted, issued_at=issued_at, now=now)

    async def change_password(
        self, principal: Principal, current: str, new: str, *, address: str | None, request_id: str | None = None
    ) -> None:
        """Every session but the principal's own ends. Raises BadCredentials, TooManyAttempts, Limited (changed too
        often), or Invalid for a bad new one."""
        id = principal.subject
        username = (await self._users.get(id)).username
        self._passwords.check_new(new, username=username, pointer="/new_password")
        async with self._attempt(self._attempts.of_account(username, address), address, request_id) as attempt:
            stored = await self._users.password_hash(id)
            ok, _ = await self._passwords.verify(current, stored)
            if not ok:
                await attempt.failed()
                await self._trail.failed(id, "current_password", address, request_id)
                raise BadCredentials
            await attempt.succeeded()
        await self._granting.allow(id)
        hashed = await self._passwords.hash(new)
        now = millis(self._clock())
        bans = await self._users.set_password(
            id,
            password_hash=hashed,
            keep_session=principal.claims.session,
            by=Actor(id, address, request_id),
            now=now,
            until=ban_until(now, self._granting.access_ttl),
            replaces=stored,  # an admin's reset while this one was being hashed stands
        )
        self._apply_bans(bans)

    async def hash_new(self, password: str, *, username: str) -> str:
        """The hash of a password somebody else sets for ``username``: an admin, the first start. Raises Invalid."""
        self._passwords.check_new(password, username=username)
        return await self._passwords.hash(password)

    async def _begun(
        self, user: User, password: str, hashes: set[str], *, device: str | None, by: Actor, now: float
    ) -> tuple[Session, User, str]:
        """The session of who has shown the password, which was one of ``hashes`` then. A reset that committed while it
        was being hashed, and the better hash of another sign-in, are looked at once more."""
        for _ in range(ROUNDS):
            try:
                return await self._granting.begin(
                    user.id, device=device, by=by, detail={"device": device}, now=now, hashes=frozenset(hashes)
                )
            except CredentialsChanged:
                found = await self._users.credentials(user.username)
                if found is None or found[0].id != user.id or not (await self._passwords.verify(password, found[1]))[0]:
                    break
                hashes = {found[1]}
        await self._trail.failed(user.id, "password", by.address, by.request_id)
        raise BadCredentials

    async def _verified(
        self, attempt: Attempt, username: str, password: str, address: str | None, request_id: str | None
    ) -> tuple[User, str, str | None]:
        """The user whose password this is, its hash, and a better one if that is weak."""
        found = await self._users.credentials(username)
        user, stored = found if found is not None else (None, None)
        ok, better = await self._passwords.verify(password, stored)
        if user is None or stored is None or not ok:
            await attempt.failed()
            await self._trail.failed(user.id if user is not None else None, "password", address, request_id)
            raise BadCredentials
        if user.disabled:
            await attempt.failed()
            await self._trail.failed(user.id, "disabled", address, request_id)
            raise UserDisabled
        await attempt.succeeded()
        return user, stored, better

    @asynccontextmanager
    async def _attempt(
        self, admitted: AbstractAsyncContextManager[Attempt], address: str | None, request_id: str | None
    ) -> AsyncIterator[Attempt]:
        """``admitted``, and one that is not stands in the audit trail."""
        try:
            async with admitted as attempt:
                yield attempt
        except TooManyAttempts as refusal:
            await self._trail.limited(refusal, address, request_id)
            raise
