"""Tokens of other issuers: text → who that issuer says somebody is. Strict as ``tokens``; no I/O, no clock, no users.

In two steps, because a key may have to be fetched between them: ``read`` says what a token claims, and refuses
everything that needs no key to be refused; ``Presented.proven`` is the only way from there to somebody's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jose import jwk, jws

from gateway.auth.compact import SHAPE, date, decoded, members
from gateway.auth.issuers import TrustedIssuer
from gateway.auth.jwks import ForeignKey
from gateway.errors import TokenExpired, TokenInvalid

LONGEST = 8192
"""Characters in a token. Theirs carry groups and roles; what is longer is not even split."""
OLDEST = 86_400
"""Seconds since ``iat``. An exchange is a sign-in: it is done with a token that was just issued."""

_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
_REFUSED = ("crit", "b64", "zip", "jku", "jwk", "x5u", "x5c", "enc")
"""Header members that would change what is verified, or with what (RFC 7515 section 4.1, RFC 8725 section 3.10)."""
_KID = re.compile(r"[\x20-\x7e]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Proven:
    """What a trusted issuer has said. ``subject`` is the value of its ``claim``; ``username`` a suggestion."""

    issuer: TrustedIssuer
    subject: str
    username: str | None


@dataclass(frozen=True, slots=True)
class Presented:
    """A token that is right in everything but its signature, which nobody has looked at yet: nothing in it is true."""

    issuer: TrustedIssuer
    kid: str | None
    algorithm: str
    _raw: str = field(repr=False)
    _said: Proven = field(repr=False)

    def proven(self, key: ForeignKey) -> Proven:
        """What it says, if ``key`` signed it. Raises TokenInvalid."""
        try:
            if self.algorithm not in key.algorithms:
                raise TokenInvalid("key")
            jws.verify(self._raw, jwk.construct(key.public, self.algorithm), [self.algorithm])
        except TokenInvalid:
            raise
        except Exception:  # jose raises several kinds; their text can hold parts of the token
            raise TokenInvalid("signature") from None
        return self._said


def read(raw: object, issuers: Mapping[str, TrustedIssuer], *, now: float, leeway: int) -> Presented:
    """What ``raw`` says of itself. ``now``, ``leeway``: seconds.

    Raises TokenExpired for a token that is only too old, TokenInvalid for anything else (an issuer that is not trusted,
    another audience, …), and nothing else whatever ``raw`` is.
    """
    try:
        return _read(raw, issuers, now, leeway)
    except (TokenInvalid, TokenExpired):
        raise
    except KeyError as error:
        raise TokenInvalid(f"no {str(error.args[0])[:20]}") from None
    except Exception as error:  # json and base64 raise half a dozen kinds
        raise TokenInvalid(type(error).__name__) from None


def _read(raw: object, issuers: Mapping[str, TrustedIssuer], now: float, leeway: int) -> Presented:
    if not isinstance(raw, str) or len(raw) > LONGEST or not SHAPE.fullmatch(raw):
        raise TokenInvalid("shape")
    head, body, signature = raw.split(".")
    decoded(signature)  # for its spelling: jose forgives there what is not canonical
    header = members(decoded(head))
    claims = members(decoded(body))
    name = claims["iss"]
    issuer = issuers.get(name) if isinstance(name, str) else None
    if issuer is None:
        raise TokenInvalid("issuer")
    algorithm, kid = header["alg"], header.get("kid")
    if algorithm not in issuer.algorithms:
        raise TokenInvalid("algorithm")
    if not (kid is None or (isinstance(kid, str) and _KID.fullmatch(kid))):
        raise TokenInvalid("kid")
    if any(one in header for one in _REFUSED):
        raise TokenInvalid("header")
    # Access tokens and ID tokens are both seen, with the type and without. Not those of another kind (RFC 8725
    # section 3.12): logout+jwt, secevent+jwt, dpop+jwt. The word ignores case, as media types do.
    if "typ" in header and (not isinstance(header["typ"], str) or header["typ"].lower() not in _TYPES):
        raise TokenInvalid("type")
    return Presented(issuer, kid, algorithm, raw, _claims(claims, issuer, now, leeway))


def _claims(claims: dict[str, Any], issuer: TrustedIssuer, now: float, leeway: int) -> Proven:
    audience = claims["aud"]
    # ``azp`` is not looked at: in an access token it names the application that asked, whatever that is. A token that
    # names us among its audiences was made for us, which is all that ``aud`` is there to say (RFC 7519 section 4.1.3).
    if not (audience == issuer.audience or (isinstance(audience, list) and issuer.audience in audience)):
        raise TokenInvalid("audience")
    # ``events``: a security event or a logout, which says nothing about who holds it (RFC 8417 section 2.2). ``cnf``:
    # good only together with a key of its holder, which nobody has shown here (RFC 7800 section 3.1).
    if "events" in claims or "cnf" in claims:
        raise TokenInvalid("purpose")
    subject = claims[issuer.claim]
    if not isinstance(subject, str) or not 1 <= len(subject) <= 255 or not subject.isprintable():
        raise TokenInvalid(issuer.claim)
    username = claims.get(issuer.username_claim)
    issued_at, expires_at = date(claims, "iat"), date(claims, "exp")
    begins = max(issued_at, date(claims, "nbf")) if "nbf" in claims else issued_at
    if begins > now + leeway:
        raise TokenInvalid("from the future")
    if now >= expires_at + leeway or now >= issued_at + OLDEST + leeway:
        raise TokenExpired
    return Proven(issuer, subject, username if isinstance(username, str) else None)
