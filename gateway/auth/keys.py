"""What may be a signing key: generated, read from a setting, and refused when weak. Signs and verifies nothing."""

from __future__ import annotations

import base64
import json
import re
import secrets

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509 import load_der_x509_certificate

from gateway.auth.compact import no_constant, unique_members
from gateway.model import SigningKey, millis

ALGORITHMS = ("ES256", "RS256", "HS256")
GENERATED = ("ES256", "RS256")
"""What may lie in the database: a secret that signs and verifies is for who shares it, and then it is a setting."""
_KID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

_PUBLISHED_SECRETS = (
    "your-256-bit-secret",
    "your-secret-key",
    "your_secret_key",
    "yoursecretkey",
    "a-string-secret-at-least-256-bits-long",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "changeme",
    "change-me",
    "change_me",
    "change-this",
    "changethis",
    "replace-me",
    "replace_me",
    "supersecret",
    "super-secret",
    "abcdefghijklmnopqrstuvwxyz",
    "0123456789abcdef0123456789abcdef",
    "12345678901234567890",
)
"""What stands in tutorials and examples, lower case: a secret that contains one of these is no secret."""

Usable = str | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
"""The secret of an HS256 key, or a parsed private key."""


def generate_signing_key(now: float, algorithm: str = "ES256") -> SigningKey:
    """A new key of one of the kinds GENERATED that signs from ``now`` (seconds) on."""
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if algorithm == "RS256":
        key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    elif algorithm == "ES256":
        key = ec.generate_private_key(ec.SECP256R1())
    else:
        raise ValueError(f"alg must be one of {', '.join(GENERATED)}")
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return SigningKey(secrets.token_hex(8), algorithm, pem.decode("ascii"), signs_from=millis(now))


def parse_signing_keys(text: str) -> list[SigningKey]:
    """The keys of ``GATEWAY_SIGNING_KEYS``: a JSON list of ``{"kid", "alg", "key"}``; the last one signs.

    ``key`` is a private key as PEM text (ES256, RS256) or the secret itself (HS256). Raises ValueError with a text
    that says which key is wrong and how, and never holds key material.
    """
    try:
        listed = json.loads(text, object_pairs_hook=unique_members, parse_constant=no_constant)
    except (ValueError, RecursionError):
        raise ValueError('is not a JSON list of {"kid", "alg", "key"}') from None  # the error's text quotes the input
    if not isinstance(listed, list) or not listed:
        raise ValueError('must be a JSON list of at least one {"kid", "alg", "key"}')
    keys: dict[str, SigningKey] = {}
    for position, item in enumerate(listed, 1):
        if not isinstance(item, dict) or item.keys() != {"kid", "alg", "key"}:
            raise ValueError(f"key {position} must have exactly the members kid, alg and key")
        if not all(isinstance(value, str) for value in item.values()):
            raise ValueError(f"key {position}: kid, alg and key must be strings")
        key = SigningKey(item["kid"], item["alg"], item["key"])
        usable(key)
        if key.kid in keys:
            raise ValueError(f"two signing keys have the kid {key.kid!r}")
        keys[key.kid] = key
    return list(keys.values())


def usable(key: SigningKey) -> Usable:
    """The parsed material of ``key``. Raises ValueError that names the key and what is wrong with it."""
    if not _KID.fullmatch(key.kid):
        raise ValueError("a kid must be 1 to 64 of A-Z a-z 0-9 . _ -")
    named = f"signing key {key.kid!r}"
    if key.algorithm not in ALGORITHMS:
        raise ValueError(f"{named}: alg must be one of {', '.join(ALGORITHMS)}")
    if key.algorithm == "HS256":
        _check_secret(key.material, named)
        return key.material
    return _private_key(key.material, key.algorithm, named)


def _check_secret(secret: str, named: str) -> None:
    armoured = "-----BEGIN" in secret or "ssh-" in secret[:16] or "ecdsa-" in secret[:16] or '"kty"' in secret
    if armoured or _is_published(secret):
        # Whoever verifies with such a "secret" may be holding a public key: anybody could sign (RFC 8725 section 2.1).
        raise ValueError(f"{named}: a PEM, SSH or JWK key cannot be an HS256 secret")
    try:
        raw = secret.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{named}: the secret is not valid Unicode") from None
    if len(raw) < 32:
        raise ValueError(f"{named}: an HS256 secret must have at least 32 bytes, this one has {len(raw)}")
    if any(known in secret.lower() for known in _PUBLISHED_SECRETS):
        raise ValueError(f"{named}: the secret is a well-known example; generate a random one")
    if len(set(raw)) < 8 or raw in (raw + raw)[1:-1]:  # the second: a shorter text, repeated
        raise ValueError(f"{named}: the secret is not random; generate one of at least 32 bytes")


def _is_published(secret: str) -> bool:
    """Whether it is a public key or a certificate in base64 alone, as consoles of identity providers show them."""
    try:
        raw = base64.b64decode("".join(secret.split()), validate=True)
    except ValueError:
        return False
    for load in (load_der_public_key, load_der_x509_certificate):
        try:
            load(raw)
        except Exception:  # noqa: S112 - ValueError, UnsupportedAlgorithm and others: it is none
            continue
        return True
    return False


def _private_key(pem: str, algorithm: str, named: str) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except TypeError:
        raise ValueError(f"{named}: the private key is encrypted; give it without a password") from None
    except Exception:  # ValueError, UnsupportedAlgorithm and others: one answer, without the text that was given
        raise ValueError(f"{named}: {_why_not_private(pem)}") from None
    if algorithm == "ES256":
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError(f"{named}: ES256 needs a private key on the curve P-256")
        return key
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError(f"{named}: RS256 needs an RSA private key")
    if key.key_size < 2048:
        raise ValueError(f"{named}: an RSA key must have at least 2048 bits, this one has {key.key_size}")
    return key


def _why_not_private(pem: str) -> str:
    try:
        load_pem_public_key(pem.encode())
    except Exception:  # whatever it is, it is no key
        return "key is not a private key in PEM form"
    return "the private key is missing: this is only a public key"
