"""TOK-01 … TOK-12: forged, confused, incomplete tokens, each on REST and on /ws. Not their spelling, not the keys."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hostile import (
    ABSENT,
    ELLIPTIC,
    RSA,
    SIGNING_KEYS,
    Signer,
    Victim,
    b64,
    by_es256,
    by_rs256,
    by_secret,
    forge,
    header,
    unsigned,
)
from wire import Node, Socket, running

LEEWAY = 5
MAX_TTL = 900


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("node"), signing_keys=SIGNING_KEYS) as node:
        yield node


@pytest.fixture(scope="module")
def victim(node: Node) -> Victim:
    return Victim(node, node.user())


SIGNERS: dict[str, tuple[dict[str, object], Signer]] = {
    "HS256": (header(), by_secret()),
    "ES256": (header(alg="ES256", kid="ec"), by_es256),
    "RS256": (header(alg="RS256", kid="rsa"), by_rs256),
}


@pytest.mark.parametrize("alg", list(SIGNERS))
async def test_what_these_tests_sign_is_taken_so_the_refusals_below_mean_something(victim: Victim, alg: str) -> None:
    head, by = SIGNERS[alg]
    await victim.is_taken(victim.token(head=head, by=by))


# -- who signed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kid", ["test", "ec", ABSENT])
@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "", None, ABSENT, ["HS256"]])
async def test_TOK_01_a_token_without_a_signature_is_refused(victim: Victim, alg: object, kid: object) -> None:
    await victim.is_refused(victim.token(head=header(alg=alg, kid=kid), by=unsigned) + "AA")
    await victim.is_refused(victim.token(head=header(alg=alg, kid=kid), by=unsigned))
    await victim.is_refused(victim.token(head=header(alg=alg, kid=kid)))


def public_forms(node: Node, kid: str) -> list[bytes]:
    """The public key in every spelling that somebody could take for a secret."""
    key = ELLIPTIC.public_key() if kid == "ec" else RSA.public_key()
    (jwk,) = [one for one in node.request("GET", "/.well-known/jwks.json").json()["keys"] if one["kid"] == kid]
    text = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    forms = [text, text.strip(), key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)]
    forms += [json.dumps(jwk).encode(), json.dumps(jwk, separators=(",", ":")).encode()]
    forms.append(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    if kid == "rsa":
        forms.append(key.public_bytes(Encoding.PEM, PublicFormat.PKCS1))
    else:
        forms.append(key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
    return forms


@pytest.mark.parametrize("bits", [256, 384, 512])
@pytest.mark.parametrize("kid", ["ec", "rsa"])
async def test_TOK_02_a_public_key_is_no_secret(victim: Victim, kid: str, bits: int) -> None:
    for form in public_forms(victim.node, kid):
        for named in (kid, "test"):
            token = victim.token(head=header(alg=f"HS{bits}", kid=named), by=by_secret(form, bits))
            await victim.is_refused(token)


def by_ecdsa(key: ec.EllipticCurvePrivateKey, text: bytes, digest: HashAlgorithm) -> bytes:
    r, s = decode_dss_signature(key.sign(text, ec.ECDSA(digest)))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@pytest.mark.parametrize(
    ("alg", "kid", "by"),
    [
        ("HS384", "test", by_secret(bits=384)),
        ("HS512", "test", by_secret(bits=512)),
        ("HS256", "ec", by_secret()),
        ("HS256", "rsa", by_secret()),
        ("RS256", "ec", by_rs256),
        ("RS256", "test", by_rs256),
        ("ES256", "rsa", by_es256),
        ("ES256", "test", by_es256),
        ("ES256", "ec", by_rs256),
        ("RS384", "rsa", lambda text: RSA.sign(text, padding.PKCS1v15(), SHA384())),
        ("RS512", "rsa", lambda text: RSA.sign(text, padding.PKCS1v15(), SHA512())),
        ("PS256", "rsa", lambda text: RSA.sign(text, padding.PSS(padding.MGF1(SHA256()), 32), SHA256())),
        ("ES384", "ec", lambda text: by_ecdsa(ELLIPTIC, text, SHA384())),
        ("HS256 ", "test", by_secret()),
        ("hs256", "test", by_secret()),
    ],
)
async def test_TOK_03_a_key_has_one_algorithm(victim: Victim, alg: str, kid: str, by: Signer) -> None:
    await victim.is_refused(victim.token(head=header(alg=alg, kid=kid), by=by))


@pytest.fixture
def listener() -> Iterator[tuple[str, Callable[[], bool]]]:
    """An attacker's key server: its address, and whether anybody has knocked."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)

        def knocked() -> bool:
            try:
                server.accept()[0].close()
            except BlockingIOError:
                return False
            return True

        yield f"http://127.0.0.1:{server.getsockname()[1]}/keys", knocked


def jwk_of(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    point = key.public_key().public_numbers()
    return {"kty": "EC", "crv": "P-256", "x": b64(point.x.to_bytes(32, "big")), "y": b64(point.y.to_bytes(32, "big"))}


def certificate_of(key: ec.EllipticCurvePrivateKey) -> str:
    """One that is signed by itself, as ``x5c`` has them (RFC 7515 section 4.1.6)."""
    name, today = x509.Name([]), datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(today).not_valid_after(today + timedelta(days=1))
    return base64.b64encode(made.sign(key, SHA256()).public_bytes(Encoding.DER)).decode()


async def test_TOK_04_a_token_cannot_bring_its_own_key_and_nobody_is_asked_for_one(
    victim: Victim, listener: tuple[str, Callable[[], bool]]
) -> None:
    url, knocked = listener
    own = {"kty": "oct", "kid": "test", "alg": "HS256", "k": "YXR0YWNrZXI"}
    extras: list[dict[str, object]] = [
        {"jku": url}, {"x5u": url}, {"jwk": own}, {"x5c": ["MIIB"]}, {"x5t": "AA"}, {"jku": url, "kid": "theirs"},
        {"jwk": own, "kid": ABSENT}, {"kid": url},
    ]  # fmt: skip
    for extra in extras:
        for by in (by_secret(), by_secret(b"attacker")):
            await victim.is_refused(victim.token(head=header(**extra), by=by))
    theirs = ec.generate_private_key(ec.SECP256R1())
    extras = [{"jwk": jwk_of(theirs)}, {"x5c": [certificate_of(theirs)]}, {"jku": url}, {"x5u": url}]
    for extra in extras:
        for kid in ("ec", "theirs", ABSENT):
            head = header(alg="ES256", kid=kid, **extra)
            await victim.is_refused(victim.token(head=head, by=lambda text: by_ecdsa(theirs, text, SHA256())))
            await victim.is_refused(victim.token(head=head, by=by_es256))
    claims = victim.claims(iss=url)
    await victim.is_refused(victim.token(body=claims))
    assert not knocked()
    socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0]))).close()
    assert knocked(), "it would have been noticed"


@pytest.mark.parametrize(
    "extra",
    [{"crit": ["zzz"]}, {"crit": ["exp"]}, {"crit": []}, {"b64": False}, {"b64": False, "crit": ["b64"]},
     {"zip": "DEF"}, {"cty": "JWT"}, {"enc": "A256GCM"}],
    ids=str,
)  # fmt: skip
async def test_TOK_05_a_header_says_three_things_and_no_more(victim: Victim, extra: dict[str, object]) -> None:
    await victim.is_refused(victim.token(head=header(**extra)))


@pytest.mark.parametrize("typ", [ABSENT, "JWT", "refresh+jwt", "evil", "AT+JWT ", "", None, 1, ["at+jwt"]])
async def test_TOK_06_only_an_access_token_is_an_access_token(victim: Victim, typ: object) -> None:
    await victim.is_refused(victim.token(head=header(typ=typ)))


async def test_TOK_06_the_long_name_of_the_type_is_the_same_type(victim: Victim) -> None:
    await victim.is_taken(victim.token(head=header(typ="application/at+jwt")))


async def test_TOK_07_a_token_is_good_for_its_purpose_only(victim: Victim) -> None:
    node, refresh_token = victim.node, str(victim.tokens["refresh_token"])
    await victim.is_refused(refresh_token)
    for token in (victim.good, "garbage", ""):
        answer = node.request("POST", "/auth/refresh", json={"refresh_token": token}, expect=401)
        assert answer.json()["code"] == "bad_credentials"
        form = {"grant_type": "refresh_token", "refresh_token": token or "x"}
        assert node.request("POST", "/auth/token", data=form, expect=400).json()["error"] == "invalid_grant"
    service = node.client_token()
    assert await node.refusal(service) == (1008, "insufficient_scope")
    for token, method, path in ((service, "GET", "/inbox"), (victim.good, "POST", "/notifications")):
        answer = node.request(method, path, token=token, json={"user_id": victim.user.id, "title": "x"}, expect=403)
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
        assert answer.json()["code"] == "insufficient_scope"
    node.request("POST", "/auth/refresh", json={"refresh_token": refresh_token}, expect=200)


# -- what it says -----------------------------------------------------------------------------------------------------

US = "notification-gateway"


@pytest.mark.parametrize("iss", [ABSENT, "https://evil.test", "", None, [US], US.upper(), f"{US} "])
async def test_TOK_08_another_issuer_s_token_is_refused(victim: Victim, iss: object) -> None:
    await victim.is_refused(victim.token(body=victim.claims(iss=iss)))


@pytest.mark.parametrize("aud", [ABSENT, "other", "", None, [], ["other"], {US: 1}, f"x{US}", [[US]], [f"{US} "]])
async def test_TOK_08_a_token_for_others_is_refused(victim: Victim, aud: object) -> None:
    await victim.is_refused(victim.token(body=victim.claims(aud=aud)))


async def test_TOK_08_a_token_for_us_among_others_is_taken(victim: Victim) -> None:
    await victim.is_taken(victim.token(body=victim.claims(aud=["other", US])))


@pytest.mark.parametrize("name", ["exp", "iat", "nbf", "sub", "jti", "client_id", "aud", "iss", "sid", "scope"])
async def test_TOK_09_every_claim_is_required(victim: Victim, name: str) -> None:
    await victim.is_refused(victim.token(body=victim.claims(**{name: ABSENT})))
    await victim.is_refused(victim.token(body=victim.claims(**{name: None})))
    await victim.is_refused(victim.token(body=victim.claims(**{name: {}})))


@pytest.mark.parametrize("body", ["[]", "null", "1", '"x"', "", "{", "\ufeff{}", "{}{}"])
async def test_TOK_09_claims_are_one_object(victim: Victim, body: str) -> None:
    await victim.is_refused(victim.token(body=body))
    await victim.is_refused(victim.token(head=body))


async def test_TOK_10_a_token_ends_at_exp_give_or_take_the_leeway(victim: Victim) -> None:
    now = int(time.time())
    await victim.is_taken(victim.token(body=victim.claims(exp=int(time.time()) + 2)))
    for late in (LEEWAY + 1, 60, 86_400 * 365):
        old = victim.claims(iat=now - late - 60, nbf=now - late - 60, exp=now - late)
        await victim.is_refused(victim.token(body=old), code="token_expired")


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "literal",
    ['"{later}"', "{later}.0", "{later}e0", "true", "false", "null", "[{later}]", "{{}}", "Infinity", "-Infinity",
     "NaN", "1e400", "-1", "0", "9" * 800, "9" * 5000, "-" + "9" * 400, "18446744073709551616"],
    ids=lambda literal: literal[:12],
)  # fmt: skip
async def test_TOK_10_a_time_is_a_whole_number_of_seconds(victim: Victim, name: str, literal: str) -> None:
    value = literal.format(later=int(time.time()) + (600 if name == "exp" else 0)) if "{" in literal else literal
    body = json.dumps(victim.claims(**{name: "HERE"})).replace('"HERE"', value)
    await victim.is_refused(victim.token(body=body))


@pytest.mark.parametrize("name", ["iat", "nbf"])
async def test_TOK_11_a_token_from_the_future_is_refused(victim: Victim, name: str) -> None:
    await victim.is_taken(victim.token(body=victim.claims(**{name: int(time.time()) + 2})))
    soon = int(time.time()) + LEEWAY + 30
    await victim.is_refused(victim.token(body=victim.claims(**{name: soon})))
    await victim.is_refused(victim.token(body=victim.claims(iat=soon, nbf=soon, exp=soon + 600)))


async def test_TOK_12_a_token_that_would_live_too_long_is_refused(victim: Victim) -> None:
    now = int(time.time())
    await victim.is_taken(victim.token(body=victim.claims(iat=now, exp=now + MAX_TTL)))
    for ttl in (MAX_TTL + 1, 86_400, 0, -5):
        await victim.is_refused(victim.token(body=victim.claims(iat=now, exp=now + ttl)))


async def test_TOK_12_what_a_token_claims_to_be_is_consistent(victim: Victim) -> None:
    client, _ = victim.node.client()
    for changed in (
        {"sub": client}, {"sub": client, "client_id": client}, {"sub": "c~x", "client_id": client, "sid": ABSENT},
        {"sub": "a\nb"}, {"jti": "x" * 256}, {"sid": ""}, {"scope": "inbox\u00e9"}, {"scope": ["inbox"]},
    ):  # fmt: skip
        await victim.is_refused(victim.token(body=victim.claims(**changed)))


async def test_a_good_signature_does_not_make_a_session(victim: Victim) -> None:
    """A forger with the key still needs a session that lives, and it must be the user's own."""
    node = victim.node
    another = Victim(node, node.user())
    for changed in ({"sid": "01HZZZZZZZZZZZZZZZZZZZZZZZ"}, {"sid": another.claims()["sid"]}, {"sub": "nobody"}):
        opened = Socket(await node.raw(victim.token(body=victim.claims(**changed))))
        assert await opened.until_closed() == ([], (1008, "token_revoked"))
    victim.is_not_there()
    another.is_not_there()
    assert forge(header(), victim.claims()) != victim.good
