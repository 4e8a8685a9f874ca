"""What a token may and may not be: the rules TOK-01 … TOK-20, each against the real wrapper."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.auth.tokens import LONGEST, Keyring, generate_signing_key
from gateway.errors import TokenExpired, TokenInvalid
from gateway.model import Claims, SigningKey

NOW = 1_800_000_000.25
ISSUER, AUDIENCE = "https://gateway.test", "notifications"
SECRET = "kP9#vT2!xQ7@mL4$wZ8%rB6^nC3&yF5*"
LEEWAY, MAX_TTL = 5, 900
HMAC_KEY = SigningKey("h", "HS256", SECRET)
EC_KEY = generate_signing_key(NOW)


def ring(*keys: SigningKey, issuer: str = ISSUER, audience: str = AUDIENCE, leeway: int = LEEWAY) -> Keyring:
    return Keyring(keys or (HMAC_KEY,), issuer=issuer, audience=audience, max_ttl=MAX_TTL, leeway=leeway)


def sign(keyring: Keyring, **changed: Any) -> str:
    said: dict[str, Any] = {
        "subject": "alice",
        "client_id": "c~gateway",
        "scopes": frozenset({"inbox"}),
        "session": "S1",
        "token_id": "T1",
        "now": NOW,
        "ttl": MAX_TTL,
    }
    return keyring.sign(**(said | changed))


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def hs256(signing_input: bytes) -> bytes:
    return hmac.digest(SECRET.encode(), signing_input, "sha256")


def header(**changed: Any) -> dict[str, Any]:
    members = {"alg": "HS256", "kid": "h", "typ": "at+jwt"} | changed
    return {name: value for name, value in members.items() if value is not ...}


def claims(**changed: Any) -> dict[str, Any]:
    members = {
        "iss": ISSUER,
        "sub": "alice",
        "aud": AUDIENCE,
        "iat": int(NOW),
        "nbf": int(NOW),
        "exp": int(NOW) + 600,
        "jti": "T1",
        "client_id": "c~gateway",
        "scope": "inbox",
        "sid": "S1",
    } | changed
    return {name: value for name, value in members.items() if value is not ...}


def forge(
    head: dict[str, Any] | str | None = None,
    body: dict[str, Any] | str | None = None,
    *,
    by: Callable[[bytes], bytes] = hs256,
) -> str:
    """A token of exactly these JSON texts, signed with the test's own hand: python-jose has no part in it."""
    texts = [
        part if isinstance(part, str) else json.dumps(part)
        for part in (header() if head is None else head, claims() if body is None else body)
    ]
    signing_input = ".".join(b64(text.encode("utf-8", "surrogatepass")) for text in texts)
    return f"{signing_input}.{b64(by(signing_input.encode()))}"


def refused(raw: Any, keyring: Keyring | None = None, now: float = NOW) -> None:
    with pytest.raises(TokenInvalid):
        (keyring or ring()).verify(raw, now=now)


def test_what_was_signed_is_what_is_read() -> None:
    for key in (HMAC_KEY, EC_KEY, RSA_KEY):
        keyring = ring(key)
        assert keyring.verify(sign(keyring, scopes=frozenset({"inbox", "admin"})), now=NOW) == Claims(
            subject="alice",
            client_id="c~gateway",
            scopes=frozenset({"inbox", "admin"}),
            session="S1",
            token_id="T1",
            issued_at=int(NOW),
            expires_at=int(NOW) + MAX_TTL,
            kid=key.kid,
        )


def test_the_header_is_exactly_alg_kid_typ_and_the_claims_are_those_of_the_contract() -> None:
    head, body, _ = (base64.urlsafe_b64decode(part + "==") for part in sign(ring(EC_KEY)).split("."))
    assert json.loads(head) == {"alg": "ES256", "kid": EC_KEY.kid, "typ": "at+jwt"}
    assert json.loads(body) == claims(exp=int(NOW) + MAX_TTL)
    client = sign(ring(), subject="c~shop", client_id="c~shop", session=None)
    assert "sid" not in json.loads(base64.urlsafe_b64decode(client.split(".")[1] + "=="))


def test_a_token_forged_by_the_test_is_accepted_so_the_refusals_below_mean_something() -> None:
    assert ring().verify(forge(), now=NOW).subject == "alice"


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "", None, ["HS256"]])
def test_TOK_01_no_algorithm_is_refused(alg: object) -> None:
    refused(forge(header(alg=alg)))
    refused(forge(header(alg=alg)).rpartition(".")[0] + ".")


def _public_forms(key: SigningKey) -> list[bytes]:
    private = load_pem_private_key(key.material.encode(), None)
    assert isinstance(private, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey))
    public = private.public_key()
    jwks = ring(key).jwks()
    assert jwks is not None
    return [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        json.dumps(jwks["keys"][0]).encode(),
        b"",
    ]


@pytest.mark.parametrize("digest", [256, 384, 512])
def test_TOK_02_a_public_key_is_no_hmac_secret(digest: int) -> None:
    for key in (EC_KEY, RSA_KEY):
        for form in _public_forms(key):

            def by(signing_input: bytes, form: bytes = form) -> bytes:
                return hmac.digest(form, signing_input, f"sha{digest}")

            refused(forge(header(alg=f"HS{digest}", kid=key.kid), by=by), ring(key, HMAC_KEY))


def test_TOK_03_the_kid_pins_the_algorithm() -> None:
    def hs384(signing_input: bytes) -> bytes:
        return hmac.digest(SECRET.encode(), signing_input, "sha384")

    refused(forge(header(alg="HS384"), by=hs384))
    refused(forge(header(alg="HS2")))
    refused(forge(header(kid=EC_KEY.kid)), ring(HMAC_KEY, EC_KEY))
    refused(forge(header(alg="RS256", kid=EC_KEY.kid)), ring(HMAC_KEY, EC_KEY))


@pytest.mark.parametrize(
    "extra",
    [{"jku": "http://127.0.0.1:9/"}, {"x5u": "http://127.0.0.1:9/"}, {"jwk": {"kty": "oct", "k": "AA"}}, {"x5c": []}],
)
def test_TOK_04_a_header_that_brings_its_own_key_is_refused(extra: dict[str, Any]) -> None:
    refused(forge(header(**extra)))


@pytest.mark.parametrize("extra", [{"crit": ["zzz"]}, {"crit": []}, {"b64": False}, {"zip": "DEF"}, {"cty": "JWT"}])
def test_TOK_05_crit_b64_zip_are_refused(extra: dict[str, Any]) -> None:
    refused(forge(header(**extra)))


@pytest.mark.parametrize("typ", [..., "JWT", "refresh+jwt", "evil", "", None, 1, ["at+jwt"]])
def test_TOK_06_only_an_access_token_is_one(typ: object) -> None:
    refused(forge(header(typ=typ)))


def test_TOK_06_the_long_name_of_the_type_is_the_same_type() -> None:
    assert ring().verify(forge(header(typ="application/at+jwt")), now=NOW).token_id == "T1"


@pytest.mark.parametrize("iss", [..., "https://other.test", "", None, [ISSUER], ISSUER.upper()])
def test_TOK_08_another_issuer_is_refused(iss: object) -> None:
    refused(forge(body=claims(iss=iss)))


@pytest.mark.parametrize("aud", [..., "other", "", None, [], ["other"], {AUDIENCE: 1}, f"x{AUDIENCE}"])
def test_TOK_08_a_token_for_others_is_refused(aud: object) -> None:
    refused(forge(body=claims(aud=aud)))


def test_TOK_08_a_list_of_audiences_with_us_in_it_is_accepted() -> None:
    assert ring().verify(forge(body=claims(aud=["other", AUDIENCE])), now=NOW).subject == "alice"


@pytest.mark.parametrize("name", ["exp", "iat", "nbf", "sub", "jti", "client_id", "aud", "iss", "sid", "scope"])
def test_TOK_09_every_claim_is_required(name: str) -> None:
    refused(forge(body=claims(**{name: ...})))


@pytest.mark.parametrize("name", ["sub", "jti", "client_id", "sid"])
@pytest.mark.parametrize("value", ["", None, 1, True, [], {}, "a b", "a\x00", "\ud800", "x" * 256])
def test_TOK_09_a_claim_that_names_something_is_short_visible_text(name: str, value: object) -> None:
    refused(forge(body=claims(**{name: value})))


@pytest.mark.parametrize("value", [None, 1, ["inbox"], "a\nb", "x" * 1025])
def test_TOK_09_scope_is_text(value: object) -> None:
    refused(forge(body=claims(scope=value)))


def test_TOK_10_a_token_ends_at_exp_and_the_leeway() -> None:
    keyring = ring()

    def at(exp: int) -> Claims:
        return keyring.verify(forge(body=claims(iat=int(NOW) - 60, nbf=int(NOW) - 60, exp=exp)), now=NOW)

    assert at(int(NOW) + 2)
    assert at(int(NOW) - LEEWAY + 1)
    for exp in (int(NOW) - LEEWAY, int(NOW) - LEEWAY - 1):
        with pytest.raises(TokenExpired):
            at(exp)


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "literal",
    [
        '"1800000600"', "1800000600.0", "true", "null", "[1800000600]", "{}", "Infinity", "-Infinity", "NaN",
        "1e400", "1e9", "0", "-1", "8589934592", "9" * 5000, "9" * 300, "-" + "9" * 300,
    ],
)  # fmt: skip
def test_TOK_10_a_time_is_a_whole_number_of_seconds(name: str, literal: str) -> None:
    text = json.dumps(claims(**{name: "HERE"})).replace('"HERE"', literal)
    refused(forge(body=text))


@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_TOK_11_a_token_from_the_future_is_refused(name: str) -> None:
    ahead = {"exp": int(NOW) + 700}
    assert ring().verify(forge(body=claims(**ahead, **{name: int(NOW) + LEEWAY})), now=NOW)
    refused(forge(body=claims(**ahead, **{name: int(NOW) + LEEWAY + 1})))
    assert ring(leeway=0).verify(forge(body=claims(**ahead, **{name: int(NOW) + 1})), now=NOW)
    refused(forge(body=claims(**ahead, **{name: int(NOW) + 2})), ring(leeway=0))


def test_TOK_12_a_lifetime_beyond_the_maximum_is_refused() -> None:
    start = int(NOW)
    assert ring().verify(forge(body=claims(iat=start, exp=start + MAX_TTL)), now=NOW)
    refused(forge(body=claims(iat=start, exp=start + MAX_TTL + 1)))
    refused(forge(body=claims(iat=start, exp=start)))
    refused(forge(body=claims(iat=start, exp=start - 100)))


def test_TOK_12_only_a_token_that_is_otherwise_right_has_expired() -> None:
    old = {"iat": int(NOW) - 600, "nbf": int(NOW) - 600, "exp": int(NOW) - 300}
    with pytest.raises(TokenExpired):
        ring().verify(forge(body=claims(**old)), now=NOW)
    refused(forge(body=claims(**old, aud="other")))
    refused(forge(body=claims(**old, sid=...)))
    refused(forge(header(typ="JWT"), claims(**old)))
    refused(forge(body=claims(**old))[:-4] + "AAAA")
    refused(forge(body=claims(**(old | {"iat": 1, "nbf": 1}))))


def test_TOK_13_a_token_has_one_spelling() -> None:
    good = forge()
    signing_input, _, signature = good.rpartition(".")
    for spelling in (good + "=", good + "==", f"{signing_input}.{signature[:20]}!!\n{signature[20:]}", good + "\n"):
        refused(spelling)
        refused(" " + good)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = good[:-1] + alphabet[alphabet.index(good[-1]) ^ 1]
    assert base64.urlsafe_b64decode(twin.split(".")[2] + "=") == base64.urlsafe_b64decode(signature + "=")
    refused(twin)
    refused(good.replace("-", "+").replace("_", "/") if set("-_") & set(good) else good + "+")


@pytest.mark.parametrize(
    "raw",
    [
        "", ".", "..", "...", "a.b", "a.b.c.d", "a.b.c.d.e", "a.b.c", "\x00.\x00.\x00", "é.é.é", "\ud800.a.b", None, 7,
        b"a.b.c", [], {}, object(), "A" * 1_000_000, "A." * 500_000, forge() + "\x00", forge().encode(), "٠.٠.٠",
    ],
)  # fmt: skip
def test_TOK_14_what_is_no_token_is_an_invalid_token(raw: object) -> None:
    refused(raw)


def test_TOK_14_deep_json_is_an_invalid_token() -> None:
    deep = "[" * 1200
    refused(f"{b64(deep.encode())}.{b64(b'{}')}.{b64(b'x' * 32)}")
    refused(forge(body=deep))
    refused(forge(head="[" * 100_000))
    refused(forge(head='"alg"'))
    refused(forge(body="[]"))
    refused(forge(body="\ud800"))


def test_TOK_14_a_token_longer_than_the_limit_is_refused_even_if_it_is_right() -> None:
    fits = forge(body=claims(scope="x" * 1000))
    assert len(fits) <= LONGEST
    assert ring().verify(fits, now=NOW)
    refused(forge(body=claims(extra="x" * 1600)))


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ('{"alg":"HS256","kid":"h","typ":"at+jwt","typ":"at+jwt"}', None),
        ('{"alg":"none","alg":"HS256","kid":"h","typ":"at+jwt"}', None),
        (None, json.dumps(claims()).replace('"sub": "alice"', '"sub": "bob", "sub": "alice"')),
        (None, json.dumps(claims(x={})).replace('"x": {}', '"x": {"a": 1, "a": 2}')),
    ],
)
def test_TOK_15_duplicate_members_are_refused(head: str | None, body: str | None) -> None:
    refused(forge(head, body))


def test_TOK_17_two_keys_verify_while_the_newest_that_has_begun_signs() -> None:
    old = SigningKey("old", "HS256", SECRET, signs_from=1000)
    new = SigningKey("new", "HS256", SECRET[::-1], signs_from=int(NOW * 1000) + 5000)
    keyring = ring(new, old)

    def kid(raw: str) -> object:
        return json.loads(base64.urlsafe_b64decode(raw.split(".")[0] + "=="))["kid"]

    before, after = sign(keyring), sign(keyring, now=NOW + 5)
    assert (kid(before), kid(after)) == ("old", "new")
    assert keyring.verify(before, now=NOW + 5)
    assert keyring.verify(after, now=NOW + 5)
    keyring.replace([new])
    refused(before, keyring, NOW + 5)
    assert keyring.verify(after, now=NOW + 5)
    assert kid(sign(keyring)) == "new"  # nothing has begun: better this one than none


def test_TOK_17_of_keys_that_begin_together_the_last_signs() -> None:
    first, last = SigningKey("a", "HS256", SECRET), SigningKey("b", "HS256", SECRET[::-1])
    refused(sign(ring(first, last)), ring(first))
    assert ring(last).verify(sign(ring(first, last)), now=NOW)


def test_TOK_17_a_bad_set_of_keys_leaves_the_old_one_in_place() -> None:
    keyring = ring()
    raw = sign(keyring)
    for bad in ([], [SigningKey("x", "HS256", "short")], [EC_KEY, EC_KEY]):
        with pytest.raises(ValueError, match="key"):
            keyring.replace(bad)
    assert keyring.verify(raw, now=NOW)


@pytest.mark.parametrize("kid", [..., "unknown", "../../etc/passwd", "k" * 1000, "", None, 1, ["h"], {"h": 1}])
def test_TOK_17_an_unknown_kid_is_refused(kid: object) -> None:
    refused(forge(header(kid=kid)))


def test_TOK_18_the_published_keys_have_public_members_only() -> None:
    published = ring(HMAC_KEY, EC_KEY, RSA_KEY).jwks()
    assert published is not None
    by_kid = {key["kid"]: key for key in published["keys"]}
    assert by_kid.keys() == {EC_KEY.kid, RSA_KEY.kid}
    assert by_kid[EC_KEY.kid].keys() == {"kty", "crv", "x", "y", "alg", "use", "kid"}
    assert by_kid[RSA_KEY.kid].keys() == {"kty", "n", "e", "alg", "use", "kid"}
    assert {key["use"] for key in published["keys"]} == {"sig"}
    assert by_kid[EC_KEY.kid]["alg"] == "ES256"
    json.dumps(published)
    assert ring(HMAC_KEY).jwks() is None


def test_TOK_18_a_stranger_can_verify_with_the_published_key() -> None:
    published = ring(EC_KEY).jwks()
    assert published is not None
    key = published["keys"][0]
    x, y = (int.from_bytes(base64.urlsafe_b64decode(key[name] + "=="), "big") for name in "xy")
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    signing_input, _, signature = sign(ring(EC_KEY)).rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    public.verify(der, signing_input.encode(), ec.ECDSA(SHA256()))


def test_TOK_20_a_token_of_another_deployment_with_the_same_key_is_refused() -> None:
    refused(sign(ring(issuer="https://staging.test")))
    refused(sign(ring(audience="staging")))


def test_a_client_is_its_own_client_and_has_no_session() -> None:
    shop = {"sub": "c~shop", "client_id": "c~shop", "scope": "notifications:write"}
    assert ring().verify(forge(body=claims(**shop, sid=...)), now=NOW).session is None
    refused(forge(body=claims(**shop)))
    refused(forge(body=claims(**(shop | {"client_id": "c~other"}), sid=...)))


def test_a_der_signature_is_no_jws_signature() -> None:
    private = load_pem_private_key(EC_KEY.material.encode(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)

    def der(signing_input: bytes) -> bytes:
        return private.sign(signing_input, ec.ECDSA(SHA256()))

    def jws(signing_input: bytes) -> bytes:
        r, s = decode_dss_signature(der(signing_input))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    head = header(alg="ES256", kid=EC_KEY.kid)
    assert ring(EC_KEY).verify(forge(head, by=jws), now=NOW)
    refused(forge(head, by=der), ring(EC_KEY))
    refused(forge(head, by=lambda _: bytes(64)), ring(EC_KEY))


def test_the_reason_of_a_refusal_holds_nothing_of_the_token() -> None:
    canary = "canary" * 8
    for raw in (
        canary,
        forge(header(kid=canary)),
        forge(body=claims(sub=canary, exp=canary)),
        forge(body='{"' + canary),
    ):
        with pytest.raises(TokenInvalid) as refusal:
            ring().verify(raw, now=NOW)
        assert "canary" not in f"{refusal.value!r} {refusal.value} {refusal.value.why}"
        assert refusal.value.__cause__ is None
        assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


def test_a_name_that_makes_tokens_too_long_stops_the_start() -> None:
    with pytest.raises(ValueError, match="longer than 2048 characters: shorten the issuer"):
        ring(issuer="é" * 255)


GOOD = [sign(ring(HMAC_KEY)), sign(ring(EC_KEY))]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(raw=st.text() | st.binary() | json_values | st.from_regex(r"\A[\w-]{1,40}\.[\w-]{1,80}\.[\w-]{1,40}\Z"))
@example(raw="eyJhbGciOiJIUzI1NiJ9..")
def test_no_input_whatever_raises_anything_but_the_two(raw: Any) -> None:
    with pytest.raises((TokenInvalid, TokenExpired)):
        ring(HMAC_KEY, EC_KEY).verify(raw, now=NOW)


@settings(max_examples=300, deadline=None)
@given(
    head=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "jwk"]), json_values, max_size=2),
    body=st.dictionaries(st.sampled_from([*claims(), "x"]), json_values, max_size=3),
)
def test_a_signed_token_with_members_of_any_kind_is_claims_or_one_of_the_two(
    head: dict[str, Any], body: dict[str, Any]
) -> None:
    try:
        read = ring().verify(forge(header(**head), claims(**body)), now=NOW)
    except (TokenInvalid, TokenExpired):
        return
    assert isinstance(read, Claims)
    assert all(type(value) is int for value in (read.issued_at, read.expires_at))


@settings(max_examples=300, deadline=None)
@given(which=st.sampled_from(GOOD), at=st.integers(0, 10_000), by=st.text(min_size=0, max_size=2))
def test_a_token_changed_anywhere_is_refused(which: str, at: int, by: str) -> None:
    at %= len(which)
    changed = which[:at] + by + which[at + 1 :]
    if changed != which:
        refused(changed, ring(HMAC_KEY, EC_KEY))


def _rsa_key() -> SigningKey:
    private = rsa.generate_private_key(65537, 2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return SigningKey("r" + hashlib.sha256(pem.encode()).hexdigest()[:8], "RS256", pem)


RSA_KEY = _rsa_key()
