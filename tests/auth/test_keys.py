"""TOK-16: what is no signing key stops the start, and the message says what is wrong without saying the key."""

from __future__ import annotations

import base64
import json
import secrets

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from gateway.auth.tokens import Keyring, generate_signing_key, parse_signing_keys

PRIVATE = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
RSA_2048 = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())


def pem(key: PRIVATE, form: PrivateFormat = PrivateFormat.PKCS8, lock: KeySerializationEncryption | None = None) -> str:
    return key.private_bytes(Encoding.PEM, form, lock or NoEncryption()).decode()


def public_pem(key: PRIVATE) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def der(key: PRIVATE) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def listed(alg: str, key: str, kid: str = "k1") -> str:
    return json.dumps([{"kid": kid, "alg": alg, "key": key}])


def test_keys_are_read_in_order_and_the_last_signs() -> None:
    secret = secrets.token_urlsafe(32)
    text = json.dumps(
        [
            {"kid": "a", "alg": "ES256", "key": pem(P256, PrivateFormat.TraditionalOpenSSL)},
            {"kid": "b", "alg": "RS256", "key": pem(RSA_2048)},
            {"kid": "c.1_-", "alg": "HS256", "key": secret},
        ]
    )
    keys = parse_signing_keys(text)
    assert [(key.kid, key.algorithm) for key in keys] == [("a", "ES256"), ("b", "RS256"), ("c.1_-", "HS256")]
    assert secret not in repr(keys)
    ring = Keyring(keys, issuer="i", audience="a", max_ttl=60, leeway=0)
    token = ring.sign(
        subject="u", client_id="c", scopes=frozenset(), session="s", token_id="t", now=1_800_000_000, ttl=60
    )
    ring.replace(keys[2:])
    assert ring.verify(token, now=1_800_000_000).subject == "u"


def test_a_generated_key_is_one_that_may_be_used() -> None:
    first, second = generate_signing_key(12.5), generate_signing_key(12.5)
    assert first.kid != second.kid
    assert (first.algorithm, first.signs_from) == ("ES256", 12_500)
    assert parse_signing_keys(listed("ES256", first.material, first.kid))[0].material == first.material
    assert "PRIVATE" not in repr(first)


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        ("", "at least 32 bytes, this one has 0"),
        ("kP9#vT2!xQ7@mL4$wZ8%rB6^nC3&yF5", "at least 32 bytes, this one has 31"),
        ("a" * 64, "not random"),
        ("0" * 32, "not random"),
        ("correct-horse-batt" * 3, "not random"),
        ("aabbabababbbaababbabaabbbabaababc", "not random"),
        ("your-256-bit-secret-your-256-bit-secret", "well-known example"),
        ("a-string-secret-at-least-256-bits-long", "well-known example"),
        ("09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7", "well-known example"),
        ("please-ChangeMe-before-production-1234", "well-known example"),
        ("\ud800" + "kP9#vT2!xQ7@mL4$wZ8%rB6^nC3&yF5*", "not valid Unicode"),
        (public_pem(RSA_2048), "cannot be an HS256 secret"),
        (public_pem(P256), "cannot be an HS256 secret"),
        (pem(P256), "cannot be an HS256 secret"),
        (base64.b64encode(der(P256)).decode(), "cannot be an HS256 secret"),
        (base64.encodebytes(der(RSA_2048)).decode(), "cannot be an HS256 secret"),
        ("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ== somebody@somewhere", "cannot be an HS256 secret"),
        ('{"kty":"RSA","n":"sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri","e":"AQAB"}', "cannot be an HS256 secret"),
    ],
)
def test_TOK_16_a_weak_secret_is_refused(secret: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refusal:
        parse_signing_keys(listed("HS256", secret))
    assert "'k1'" in str(refusal.value)
    assert secret == "" or secret not in str(refusal.value)


@pytest.mark.parametrize(
    ("alg", "key", "says"),
    [
        ("RS256", pem(rsa.generate_private_key(65537, 1024)), "at least 2048 bits, this one has 1024"),
        ("RS256", pem(P256), "needs an RSA private key"),
        ("RS256", public_pem(RSA_2048), "private key is missing"),
        ("RS256", "not a key", "not a private key in PEM form"),
        ("RS256", "", "not a private key in PEM form"),
        ("RS256", "\ud800", "not a private key in PEM form"),
        ("ES256", pem(ec.generate_private_key(ec.SECP384R1())), "curve P-256"),
        ("ES256", pem(ec.generate_private_key(ec.SECP256K1())), "curve P-256"),
        ("ES256", pem(RSA_2048), "curve P-256"),
        ("ES256", pem(ed25519.Ed25519PrivateKey.generate()), "curve P-256"),
        ("ES256", public_pem(P256), "private key is missing"),
        ("ES256", pem(P256, lock=BestAvailableEncryption(b"x")), "is encrypted"),
        ("none", "x" * 40, "alg must be one of ES256, RS256, HS256"),
        ("HS384", "sDqHmfXbqeZvFhE1lx4L7ufeF19Fj5RV2G-5Pi1u9SRit997odq8uAC2KsX8Cjf", "alg must be one of"),
        ("EdDSA", pem(ed25519.Ed25519PrivateKey.generate()), "alg must be one of"),
        ("", "x" * 40, "alg must be one of"),
    ],
)
def test_TOK_16_a_key_that_does_not_fit_its_algorithm_is_refused(alg: str, key: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refusal:
        parse_signing_keys(listed(alg, key))
    assert "'k1'" in str(refusal.value)


@pytest.mark.parametrize("kid", ["", "a b", "../../x", "k" * 65, "é", "k\n", "~"])
def test_a_kid_has_its_shape(kid: str) -> None:
    with pytest.raises(ValueError, match="a kid must be 1 to 64 of"):
        parse_signing_keys(listed("HS256", secrets.token_urlsafe(32), kid))


def test_a_kid_names_one_key() -> None:
    item = {"kid": "k", "alg": "HS256", "key": secrets.token_urlsafe(32)}
    with pytest.raises(ValueError, match="two signing keys have the kid 'k'"):
        parse_signing_keys(json.dumps([item, item]))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a JSON list"),
        ("secretsecretsecret", "is not a JSON list"),
        ("[" * 100_000, "is not a JSON list"),
        ("[NaN]", "is not a JSON list"),
        ('[{"kid":"a","kid":"b","alg":"HS256","key":"x"}]', "is not a JSON list"),
        ("[]", "at least one"),
        ('{"kid":"a","alg":"HS256","key":"x"}', "must be a JSON list"),
        ("null", "must be a JSON list"),
        ('["secret"]', "key 1 must have exactly the members"),
        ('[{"kid":"a","alg":"HS256"}]', "key 1 must have exactly the members"),
        ('[{"kid":"a","alg":"HS256","key":"x","use":"sig"}]', "key 1 must have exactly the members"),
        ('[{"kid":1,"alg":"HS256","key":"x"}]', "key 1: kid, alg and key must be strings"),
    ],
)
def test_what_is_no_list_of_keys_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refusal:
        parse_signing_keys(text)
    assert "secret" not in str(refusal.value)
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


def test_python_jose_must_use_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    import jose.backends
    from jose.backends.ecdsa_backend import ECDSAECKey

    monkeypatch.setattr(jose.backends, "ECKey", ECDSAECKey)
    with pytest.raises(RuntimeError, match=r"install python-jose\[cryptography\]"):
        Keyring([generate_signing_key(0)], issuer="i", audience="a", max_ttl=60, leeway=0)
