"""Refresh tokens as text: made, read, and chained by a key. Stores nothing and decides nothing about a session.

A token is ``<session id>.<generation>.<43 characters of base64url>``; only its SHA-256 is ever stored. The secret of
generation n+1 is HMAC-SHA256(server key, whole text of generation n), so whoever retries the last rotation (a lost
answer, two tabs, two nodes) can be given the same successor, and a chain never forks.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import secrets

FARTHEST = 5000
"""Generations a token is traced forward. A copy older than that proves nothing any more: it is only refused."""

_SHAPE = re.compile(r"([A-Za-z0-9_-]{1,64})\.(0|[1-9][0-9]{0,8})\.[A-Za-z0-9_-]{43}", re.ASCII)


class RefreshTokens:
    """``key``: at least 32 bytes, the same on every node, for as long as the sessions live."""

    def __init__(self, key: bytes) -> None:
        if len(key) < 32:
            raise ValueError("the server key must have at least 32 bytes")
        self._key = key

    def first(self, session: str) -> str:
        """Generation 0 of a new session: 256 random bits."""
        return f"{session}.0.{_base64url(secrets.token_bytes(32))}"

    def read(self, token: str) -> tuple[str, int] | None:
        """(session id, generation) as the text has them, or None if it is no refresh token. Proves nothing."""
        parsed = _SHAPE.fullmatch(token)
        return None if parsed is None else (parsed[1], int(parsed[2]))

    def successor(self, token: str) -> str:
        """What comes after ``token``, which ``read`` must have taken."""
        session, generation, _ = token.split(".")
        secret = hmac.digest(self._key, token.encode("ascii"), "sha256")
        return f"{session}.{int(generation) + 1}.{_base64url(secret)}"

    async def leads_to(self, token: str, digest: bytes, *, steps: int) -> bool:
        """Whether ``token`` has become the token with this digest in ``steps`` generations (False beyond ``FARTHEST``).

        Nobody without the key can make up one that has: True proves that ``token`` was genuine.
        """
        if not 0 <= steps <= FARTHEST:
            return False
        for step in range(1, steps + 1):
            token = self.successor(token)
            if step % 250 == 0:
                await asyncio.sleep(0)  # half a millisecond each: the sockets must not feel somebody's forgeries
        return hmac.compare_digest(sha256(token), digest)


def sha256(text: str) -> bytes:
    """What is stored of a refresh token or a client secret: both have 256 random bits, so no slow hash is needed."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
