"""Access tokens: text ↔ Claims, the one strict wrapper of python-jose. No I/O, no clock, no opinion on revocation.

python-jose supplies the signatures and nothing else. It accepts missing claims, any ``typ``, ``crit``, duplicate
members and altered base64, and raises half a dozen kinds of error; every rule here closes one of those (RFC 8725).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jose.backends
from jose import jwk, jws

from gateway.auth.compact import LATEST, SHAPE, date, decoded, members
from gateway.auth.keys import generate_signing_key, parse_signing_keys, usable
from gateway.auth.lifecycle import signing_one
from gateway.errors import TokenExpired, TokenInvalid
from gateway.model import Claims, SigningKey, millis

__all__ = ["LONGEST", "Keyring", "generate_signing_key", "parse_signing_keys"]

CLIENT_PREFIX = "c~"
LONGEST = 2048
"""Characters in a token. Ours have 500–1300; what is longer is not even split."""
REMEMBERED = 1024
"""Tokens whose signature need not be computed again; the oldest is forgotten first."""

_ID = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_SCOPE = re.compile(r"[\x20-\x7e]{0,1024}", re.ASCII)
_TYPES = frozenset({"at+jwt", "application/at+jwt"})  # RFC 9068 section 4


@dataclass(frozen=True, slots=True)
class _Key:
    """A signing key with its parsed halves. ``verifies`` holds no private part (for HS256 there is only one half)."""

    kid: str
    algorithm: str
    signs_from: int
    signs: Any
    verifies: Any


@dataclass(frozen=True, slots=True)
class _Ring:
    by_kid: Mapping[str, _Key]
    oldest_first: tuple[_Key, ...]


class Keyring:
    """All keys that verify; the newest that has begun to sign signs. ``max_ttl`` and ``leeway`` in seconds.

    Raises ValueError if a key cannot be used: what ``parse_signing_keys`` says of it, or a token too long to be read.
    """

    def __init__(self, keys: Sequence[SigningKey], *, issuer: str, audience: str, max_ttl: int, leeway: int) -> None:
        # Without the cryptography extra, python-jose falls back on ecdsa: slow, and open to timing (CVE-2024-23342).
        backend = jose.backends.ECKey.__module__
        if backend != "jose.backends.cryptography_backend":
            raise RuntimeError(f"python-jose uses {backend}: install python-jose[cryptography]")
        self.issuer, self.audience = issuer, audience
        self._max_ttl, self._leeway = max_ttl, leeway
        self._ring = self._build(keys)
        # A backend sends thousands of requests with one token; what was verified once stays so, but for the time.
        self._verified: dict[str, tuple[Claims, int]] = {}
        self._heads: dict[str, _Key] = {}

    @property
    def kids(self) -> frozenset[str]:
        """The keys that verify."""
        return frozenset(self._ring.by_kid)

    def __contains__(self, kid: str) -> bool:
        return kid in self._ring.by_kid

    def replace(self, keys: Sequence[SigningKey]) -> None:
        """From now on these keys, all at once; if one cannot be used (ValueError), the old ones stay."""
        self._ring = self._build(keys)
        self._verified, self._heads = {}, {}

    def sign(
        self,
        *,
        subject: str,
        client_id: str,
        scopes: frozenset[str],
        session: str | None,
        token_id: str,
        now: float,
        ttl: int,
        issued_at: int | None = None,
    ) -> str:
        """A token (RFC 9068) of ``ttl`` seconds. ``issued_at`` (seconds) is ``now`` unless said otherwise.

        The key is the one with the highest ``signs_from`` that is not in the future, the last given of several. While
        none has begun (the clock was set back), it is the first that will.
        """
        return self._sign(
            signing_one(self._ring.oldest_first, now=millis(now)),
            subject=subject,
            client_id=client_id,
            scopes=scopes,
            session=session,
            token_id=token_id,
            issued_at=int(now) if issued_at is None else issued_at,
            ttl=ttl,
        )

    def verify(self, raw: str, *, now: float) -> Claims:
        """What ``raw`` says, if all of it is right. ``now``: seconds since the epoch.

        Raises TokenExpired for a token that is perfect but too old, TokenInvalid for anything else, and nothing else
        whatever ``raw`` is.
        """
        known = self._verified.get(raw) if isinstance(raw, str) else None
        if known is not None:
            claims, not_before = known
            self._check_time(not_before, claims.expires_at, now)
            return claims
        try:
            return self._verify(raw, now)
        except (TokenInvalid, TokenExpired):
            raise
        except Exception as error:  # jose, json and base64 raise seven kinds: a token must never become a 500
            raise TokenInvalid(type(error).__name__) from None  # their text can hold parts of the token

    def jwks(self) -> dict[str, Any] | None:
        """The public keys as a JWK Set (RFC 7517), or None if there are only HMAC keys."""
        public = [key for key in self._ring.oldest_first if key.algorithm != "HS256"]
        if not public:
            return None
        return {"keys": [{**key.verifies.to_dict(), "kid": key.kid, "use": "sig"} for key in public]}

    def _build(self, keys: Sequence[SigningKey]) -> _Ring:
        if not keys:
            raise ValueError("there is no signing key")
        by_kid: dict[str, _Key] = {}
        for key in keys:
            made = _make(key)
            if key.kid in by_kid:
                raise ValueError(f"two signing keys have the kid {key.kid!r}")
            self._measure(made)
            by_kid[key.kid] = made
        return _Ring(by_kid, tuple(sorted(by_kid.values(), key=lambda key: key.signs_from)))

    def _measure(self, key: _Key) -> None:
        """The longest token of ``key`` must be one that ``verify`` reads: better no start than no sign-in."""
        longest = "u" * 64
        token = self._sign(
            key,
            subject=longest,
            client_id=longest,
            scopes=frozenset({longest}),
            session=longest,
            token_id=longest,
            issued_at=LATEST,
            ttl=1,
        )
        if len(token) > LONGEST:
            raise ValueError(
                f"tokens signed with the key {key.kid!r} would be longer than {LONGEST} characters: "
                "shorten the issuer, the audience or the key"
            )

    def _sign(
        self,
        key: _Key,
        *,
        subject: str,
        client_id: str,
        scopes: frozenset[str],
        session: str | None,
        token_id: str,
        issued_at: int,
        ttl: int,
    ) -> str:
        claims: dict[str, object] = {
            "iss": self.issuer,
            "sub": subject,
            "aud": self.audience,
            "iat": issued_at,
            "nbf": issued_at,
            "exp": issued_at + ttl,
            "jti": token_id,
            "client_id": client_id,
            "scope": " ".join(sorted(scopes)),
        }
        if session is not None:
            claims["sid"] = session
        header = {"kid": key.kid, "typ": "at+jwt"}
        token: str = jws.sign(claims, key.signs, headers=header, algorithm=key.algorithm)
        return token

    def _verify(self, raw: object, now: float) -> Claims:
        if not isinstance(raw, str) or len(raw) > LONGEST or not SHAPE.fullmatch(raw):
            raise TokenInvalid("shape")
        head, body, signature = raw.split(".")
        signed = decoded(signature)  # in its one spelling: jose forgives what is not canonical
        key = self._heads.get(head) or self._key(head)
        # The key itself: jws.verify reads the whole token a second time, to find the algorithm that we have just seen.
        if not key.verifies.verify(f"{head}.{body}".encode("ascii"), signed):
            raise TokenInvalid("signature")
        claims, not_before = self._claims(members(decoded(body)), key.kid, now)
        if len(self._verified) >= REMEMBERED:
            del self._verified[next(iter(self._verified))]
        self._verified[raw] = claims, not_before
        return claims

    def _key(self, head: str) -> _Key:
        """The key that a header names. All tokens of one key have the same header: it is read once."""
        header = members(decoded(head))
        # Exactly these three: no crit, b64, zip, jku, jwk, x5u, x5c (RFC 7515 section 4.1.11, RFC 8725 section 3.10).
        if header.keys() != {"alg", "kid", "typ"} or header["typ"] not in _TYPES:
            raise TokenInvalid("header")
        key = self._ring.by_kid.get(header["kid"])
        if key is None or header["alg"] != key.algorithm:
            raise TokenInvalid("key")
        if len(self._heads) < REMEMBERED:  # one can be spelled in a few ways, all harmless
            self._heads[head] = key
        return key

    def _claims(self, claims: Mapping[str, Any], kid: str, now: float) -> tuple[Claims, int]:
        audience = claims["aud"]
        if claims["iss"] != self.issuer or not (
            audience == self.audience or (isinstance(audience, list) and self.audience in audience)
        ):
            raise TokenInvalid("issuer or audience")
        issued_at, not_before, expires_at = (date(claims, name) for name in ("iat", "nbf", "exp"))
        if not 0 < expires_at - issued_at <= self._max_ttl:
            raise TokenInvalid("lifetime")
        subject, client_id, token_id = (_text(claims, name, _ID) for name in ("sub", "client_id", "jti"))
        scope = _text(claims, "scope", _SCOPE)
        if subject.startswith(CLIENT_PREFIX):
            if "sid" in claims or subject != client_id:
                raise TokenInvalid("not a client's")
            session = None
        else:
            session = _text(claims, "sid", _ID)
        begins = max(issued_at, not_before)
        self._check_time(begins, expires_at, now)  # last: only what is otherwise right has merely expired
        made = Claims(
            subject=subject,
            client_id=client_id,
            scopes=frozenset(scope.split()),
            session=session,
            token_id=token_id,
            issued_at=issued_at,
            expires_at=expires_at,
            kid=kid,
        )
        return made, begins

    def _check_time(self, begins: int, expires_at: int, now: float) -> None:
        # One second is always forgiven: who was revoked within this second is issued the next one (login.py).
        if begins > now + max(self._leeway, 1):
            raise TokenInvalid("from the future")
        if now >= expires_at + self._leeway:
            raise TokenExpired


def _make(key: SigningKey) -> _Key:
    """``key`` parsed once: python-jose spends 37 ms on an RSA key given as text, at every signature."""
    signs = jwk.construct(usable(key), key.algorithm)
    verifies = signs if key.algorithm == "HS256" else signs.public_key()
    return _Key(key.kid, key.algorithm, key.signs_from, signs, verifies)


def _text(claims: Mapping[str, Any], name: str, shape: re.Pattern[str]) -> str:
    value = claims[name]
    if not isinstance(value, str) or not shape.fullmatch(value):
        raise TokenInvalid(name)
    return value
