"""The public keys of another issuer: a JWK Set (RFC 7517) as text → keys that verify. Fetches nothing.

A set may hold keys for other purposes and of kinds we do not know: those are passed over (section 5). python-jose would
try every key of a set for every token, whatever ``kid``, ``use`` and ``alg`` say; here a token finds one key or none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway.auth.compact import decoded, members

LARGEST = 256 * 1024
"""Bytes of a set."""
MOST = 100
"""Keys in a set."""
RSA_BITS = range(2048, 8193)

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

_CURVES: Mapping[str, tuple[type[ec.EllipticCurve], int, str]] = {
    "P-256": (ec.SECP256R1, 32, "ES256"),
    "P-384": (ec.SECP384R1, 48, "ES384"),
    "P-521": (ec.SECP521R1, 66, "ES512"),
}
_RSA = ("RS256", "RS384", "RS512")


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """One key; ``algorithms``: those it may verify (its own ``alg`` if it says one, else all of its kind)."""

    kid: str | None
    algorithms: tuple[str, ...]
    public: PublicKey


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of an issuer."""

    keys: Sequence[ForeignKey] = ()

    def find(self, kid: str | None, algorithm: str) -> ForeignKey | None:
        """The key with this ``kid`` that verifies ``algorithm``; without a ``kid``, the only one that does.

        None if there is none, and if there are several: which one is meant is not guessed.
        """
        found = [key for key in self.keys if algorithm in key.algorithms and kid in (None, key.kid)]
        return found[0] if len(found) == 1 else None


def parse_jwks(raw: bytes) -> KeySet:
    """The keys of a set, those that cannot be used left out. Raises ValueError if it is no set or too large."""
    if len(raw) > LARGEST:
        raise ValueError(f"more than {LARGEST} bytes")
    try:
        listed = members(raw).get("keys")
    except Exception:  # json, UTF-8, nesting: the text of the error may quote what came
        raise ValueError("not a JSON object") from None
    if not isinstance(listed, list):
        raise ValueError("no JWK Set: it has no list of keys")
    if len(listed) > MOST:
        raise ValueError(f"more than {MOST} keys")
    return KeySet(tuple(key for item in listed if (key := _key(item)) is not None))


def _key(item: object) -> ForeignKey | None:
    if not isinstance(item, dict):
        return None
    try:
        return _usable(item)
    except Exception:  # a key that is no key: base64, a point off its curve, a missing member
        return None


def _usable(item: Mapping[str, Any]) -> ForeignKey | None:
    kid, algorithm = item.get("kid"), item.get("alg")
    if not (kid is None or isinstance(kid, str)) or item.get("use", "sig") != "sig":
        return None
    if "key_ops" in item and "verify" not in item["key_ops"]:
        return None
    public: PublicKey
    if item["kty"] == "RSA":
        public = rsa.RSAPublicNumbers(_number(item["e"]), _number(item["n"])).public_key()
        if public.key_size not in RSA_BITS:
            return None
        fitting: tuple[str, ...] = _RSA
    elif item["kty"] == "EC":
        curve, size, only = _CURVES[item["crv"]]
        x, y = _number(item["x"], size), _number(item["y"], size)
        public = ec.EllipticCurvePublicNumbers(x, y, curve()).public_key()
        fitting = (only,)
    else:  # OKP; oct, which is a secret and has no place in a public set
        return None
    if algorithm is not None:
        fitting = tuple(one for one in fitting if one == algorithm)
    return ForeignKey(kid, fitting, public) if fitting else None


def _number(text: str, size: int | None = None) -> int:
    raw = decoded(text)
    if size is not None and len(raw) != size:  # RFC 7518 section 6.2.1.2
        raise ValueError("size")
    return int.from_bytes(raw, "big")
