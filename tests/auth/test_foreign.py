"""What the token of another issuer has to be, and what a key of its set: hostile ones, one rule each. No network."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from issuers import AUDIENCE, IssuerKey, claims, number
from jose import jws

from gateway.auth import foreign
from gateway.auth.foreign import LONGEST, OLDEST, Proven, read
from gateway.auth.issuers import TrustedIssuer, parse_trusted_issuers
from gateway.auth.jwks import KeySet, parse_jwks
from gateway.errors import TokenExpired, TokenInvalid

IDP = "https://idp.example"
LEEWAY = 5
EC, RSA = IssuerKey("ec"), IssuerKey("rsa", "RS256")
LATER = 1 << 32
HEAD, GOOD_BODY = '{"alg":"ES256","kid":"ec"}', json.dumps(claims(IDP))
ALL = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512")


def keys(*given: IssuerKey) -> KeySet:
    return parse_jwks(json.dumps({"keys": [key.jwk for key in given or (EC, RSA)]}).encode())


def issuer(**more: Any) -> TrustedIssuer:
    return TrustedIssuer(IDP, f"{IDP}/jwks", AUDIENCE, **more)


def accept(token: Any, *, of: TrustedIssuer | None = None, known: KeySet | None = None) -> Proven:
    trusted = of or issuer()
    presented = read(token, {trusted.issuer: trusted}, now=time.time(), leeway=LEEWAY)
    key = (known or keys()).find(presented.kid, presented.algorithm)
    if key is None:
        raise TokenInvalid("key")
    return presented.proven(key)


def refused(token: Any, **more: Any) -> str:
    with pytest.raises(TokenInvalid) as refusal:
        accept(token, **more)
    return refusal.value.why


# -- what is taken ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALL)
def test_every_algorithm_of_the_list_verifies(algorithm: str) -> None:
    key = IssuerKey("k", algorithm)
    assert accept(key.sign(claims(IDP)), of=issuer(algorithms=ALL), known=keys(key)).subject == "ada"


@pytest.mark.parametrize("kind", [None, "JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
def test_access_tokens_and_id_tokens_are_taken_with_and_without_their_type(kind: str | None) -> None:
    assert accept(EC.sign(claims(IDP), header={"typ": kind})).subject == "ada"


def test_what_a_header_says_that_changes_nothing_is_passed_over() -> None:
    assert accept(EC.sign(claims(IDP), header={"x5t": "abc", "nonce": "n"})).subject == "ada"


def test_another_claim_can_say_who_it_is() -> None:
    trusted = issuer(claim="employee", username_claim="email")
    proven = accept(EC.sign(claims(IDP, employee="42", email="ada@example.org")), of=trusted)
    assert (proven.subject, proven.username) == ("42", "ada@example.org")
    assert refused(EC.sign(claims(IDP)), of=trusted) == "no employee"


def test_an_audience_among_several_is_enough_whoever_asked_for_the_token() -> None:
    assert accept(EC.sign(claims(IDP, aud=["account", AUDIENCE], azp="some-app"))).subject == "ada"


# -- what is not --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"iss": "https://other.example"}, "issuer"),
        ({"iss": IDP + "/"}, "issuer"),
        ({"iss": [IDP]}, "issuer"),
        ({"iss": None}, "no iss"),
        ({"aud": "other"}, "audience"),
        ({"aud": ["other"]}, "audience"),
        ({"aud": {AUDIENCE: 1}}, "audience"),
        ({"aud": f"{AUDIENCE} other"}, "audience"),
        ({"aud": None}, "no aud"),
        ({"sub": None}, "no sub"),
        ({"sub": ""}, "sub"),
        ({"sub": 42}, "sub"),
        ({"sub": "a" * 256}, "sub"),
        ({"sub": "a\nb"}, "sub"),
        ({"sub": "a\0b"}, "sub"),
        ({"sub": "\ud800"}, "sub"),
        ({"exp": None}, "no exp"),
        ({"iat": None}, "no iat"),
        *(({"exp": "1"}, "exp"), ({"exp": 1e9}, "exp"), ({"exp": True}, "exp"), ({"exp": []}, "exp")),
        *(({"exp": -1}, "exp"), ({"exp": 1 << 40}, "exp")),
        ({"nbf": "soon"}, "nbf"),
        ({"iat": LATER}, "from the future"),
        ({"nbf": LATER}, "from the future"),
        ({"events": {}}, "purpose"),
        ({"cnf": {"jkt": "x"}}, "purpose"),
    ],
    ids=repr,
)
def test_a_token_with_a_wrong_claim_is_refused(changed: dict[str, Any], why: str) -> None:
    usual = claims(IDP)
    body = {name: value for name, value in {**usual, **changed}.items() if value is not None}
    assert refused(EC.text({"alg": "ES256", "kid": "ec"}, body)) == why


def test_one_that_is_too_old_has_expired() -> None:
    now = int(time.time())
    for body in (claims(IDP, exp=now - LEEWAY - 1), claims(IDP, iat=now - OLDEST - LEEWAY - 1)):
        with pytest.raises(TokenExpired):
            accept(EC.sign(body))
    assert accept(EC.sign(claims(IDP, exp=now + 2))).subject == "ada"


@pytest.mark.parametrize("name", ["crit", "b64", "zip", "jku", "jwk", "x5u", "x5c", "enc"])
def test_a_header_that_would_choose_the_key_or_the_rules_is_refused(name: str) -> None:
    value: Any = {"crit": ["exp"], "b64": True, "jwk": EC.jwk, "x5c": ["MIIB"]}.get(name, "https://evil.example/keys")
    assert refused(EC.text({"alg": "ES256", "kid": "ec", name: value}, claims(IDP))) == "header"


@pytest.mark.parametrize("kind", ["logout+jwt", "secevent+jwt", "dpop+jwt", "refresh+jwt", "", 1, None, ["JWT"]])
def test_a_token_of_another_kind_is_refused(kind: Any) -> None:
    assert refused(EC.text({"alg": "ES256", "kid": "ec", "typ": kind}, claims(IDP))) == "type"


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "ES384", "PS256", "es256", "", None, ["ES256"], 1])
def test_an_algorithm_that_is_not_of_the_list_is_refused(algorithm: Any) -> None:
    assert refused(EC.text({"alg": algorithm, "kid": "ec"}, claims(IDP))) == "algorithm"


def test_a_public_key_is_no_secret() -> None:
    """TOK-02: whoever has read the set signs with what stands in it."""
    for secret in (json.dumps(RSA.jwk), RSA.jwk["n"], "secret"):
        token = jws.sign(claims(IDP), secret, headers={"kid": "rsa"}, algorithm="HS256")
        assert refused(token) == "algorithm"
        # and if somebody wrote it into the code, no key of a set would fit
        assert refused(token, of=issuer(algorithms=("HS256", "RS256"))) == "key"


def test_a_key_verifies_its_own_algorithm_only() -> None:
    by_512 = IssuerKey("rsa", "RS512")
    by_512.pem, by_512.signs = RSA.pem, type(RSA.signs)(RSA.pem, "RS512")
    token = by_512.sign(claims(IDP))
    assert refused(token, of=issuer(algorithms=ALL)) == "key"  # the set says RS256
    silent = IssuerKey("rsa", "RS256")
    silent.jwk = {name: value for name, value in RSA.jwk.items() if name != "alg"}
    assert accept(token, of=issuer(algorithms=ALL), known=keys(silent)).subject == "ada"
    assert refused(token, known=keys(silent)) == "algorithm"  # the setting does not have it


def test_the_key_is_the_one_that_is_named() -> None:
    other = IssuerKey("other")
    assert refused(other.sign(claims(IDP), header={"kid": "ec"})) == "signature"
    assert refused(EC.sign(claims(IDP), header={"kid": "unknown"})) == "key"
    assert refused(EC.sign(claims(IDP), header={"kid": "rsa"})) == "key"
    for kid in ("", "k" * 256, "käse", 7, ["ec"]):
        assert refused(EC.text({"alg": "ES256", "kid": kid}, claims(IDP))) == "kid"


def test_without_a_name_it_is_the_only_one_that_fits() -> None:
    token = EC.sign(claims(IDP), header={"kid": None})
    assert accept(token).subject == "ada"
    assert refused(token, known=keys(EC, IssuerKey("other"))) == "key"


def test_a_signature_has_one_spelling() -> None:
    """TOK-13."""
    token = EC.sign(claims(IDP))
    head, body, signature = token.split(".")
    last = signature[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    bent = alphabet[alphabet.index(last) ^ 1]
    for other in (f"{signature}=", f"!!\n{signature}", signature[:-1] + bent, signature[:-2], ""):
        assert refused(f"{head}.{body}.{other}") in ("shape", "base64", "Error", "signature")
    assert refused(f"{head}.{body}.{signature[:-1] + bent}") == "base64"


@pytest.mark.parametrize(
    "token",
    [
        *("", ".", "..", "a.b", "a.b.c.d", "a.b.c.d.e", "a.b.c\0", "ä.b.c", None, 5, b"a.b.c", "a.b.c", "e30.e30.e30"),
        "x" * (LONGEST + 1),
        ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (b"[" * 3000, b"{}", b"x")),
        ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (b"{}", b"[]", b"x")),
        EC.text(HEAD, GOOD_BODY[:-1] + ',"sub":"eve"}'),
        EC.text('{"alg":"none","alg":"ES256","kid":"ec"}', GOOD_BODY),
        EC.text(HEAD, GOOD_BODY[:-1] + ',"more":NaN}'),
        EC.text(HEAD, GOOD_BODY[:-1] + ',"nbf":-Infinity}'),
        EC.text(HEAD, GOOD_BODY[:-1] + ',"nbf":1e400}'),
        EC.text(HEAD, GOOD_BODY[:-1] + f',"nbf":{"1" * 5000}}}'),
    ],
    ids=lambda token: repr(token)[:30],
)
def test_what_is_no_token_is_refused_and_nothing_else_is_raised(token: Any) -> None:
    refused(token)


def test_what_is_bent_in_those_was_good_before() -> None:
    assert accept(EC.text(HEAD, GOOD_BODY)).subject == "ada"


def test_a_token_as_long_as_it_may_be_is_read() -> None:
    short = EC.sign(claims(IDP, groups=""))
    room = (LONGEST - len(short)) * 3 // 4 - 2
    token = EC.sign(claims(IDP, groups="g" * room))
    assert LONGEST - 8 < len(token) <= LONGEST
    assert accept(token).subject == "ada"
    assert refused(EC.sign(claims(IDP, groups="g" * (room + 10)))) == "shape"


def test_what_is_not_proven_shows_neither_the_token_nor_whom_it_names() -> None:
    token = EC.sign(claims(IDP, "very-secret-person"))
    shown = repr(foreign.read(token, {IDP: issuer()}, now=time.time(), leeway=LEEWAY))
    assert "very-secret" not in shown
    assert token.split(".")[2] not in shown


# -- sets of keys -------------------------------------------------------------------------------------------------


def test_keys_that_cannot_be_used_are_passed_over() -> None:
    small = IssuerKey("small", "RS256", bits=1024)
    point = {**EC.jwk, "kid": "off", "x": number(1, 32)}
    odd: list[Any] = [
        *(None, 7, [], {}, {"kty": "oct", "k": "c2VjcmV0", "kid": "oct"}, {"kty": "OKP", "crv": "Ed25519", "x": "AA"}),
        *(small.jwk, point, {**EC.jwk, "kid": "enc", "use": "enc"}, {**EC.jwk, "kid": "ops", "key_ops": ["sign"]}),
        *({**EC.jwk, "kid": 7}, {**EC.jwk, "kid": "pad", "x": EC.jwk["x"] + "="}, {**EC.jwk, "crv": "secp256k1"}),
        *({**EC.jwk, "alg": "RS256"}, {**RSA.jwk, "alg": "HS256"}, {**RSA.jwk, "alg": "RSA-OAEP"}),
        {**RSA.jwk, "e": "Ag"},
        {**EC.jwk, "kid": "short", "x": number(5)},
    ]  # fmt: skip
    found = parse_jwks(json.dumps({"keys": [*odd, RSA.jwk, EC.jwk]}).encode())
    assert [key.kid for key in found.keys] == ["rsa", "ec"]


def test_two_keys_of_one_name_are_told_apart_by_their_kind_or_not_at_all() -> None:
    twin = IssuerKey("ec", "RS256")
    assert accept(EC.sign(claims(IDP)), known=keys(EC, twin)).subject == "ada"
    assert refused(EC.sign(claims(IDP)), known=keys(EC, IssuerKey("ec"))) == "key"


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"null", b"[]", b"{}", b'{"keys":{}}', b'{"keys":null}', b"<html>", b"\xff", b"[" * 100_000),
        *(b'{"keys":[],"keys":[]}', b" " * (256 * 1024) + b'{"keys":[]}', b'{"keys":[' + b"1," * 100 + b"1]}"),
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_what_is_no_set_of_keys_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_jwks(raw)


def test_a_set_may_be_empty() -> None:
    assert parse_jwks(b'{"keys":[]}').keys == ()


# -- the setting --------------------------------------------------------------------------------------------------

GOOD = {"issuer": IDP, "jwks_url": f"{IDP}/jwks", "audience": AUDIENCE}


def test_the_setting_names_issuers() -> None:
    full = {**GOOD, "issuer": "b", "claim": "oid", "algorithms": ["ES512"], "create": True, "link": True}
    found = parse_trusted_issuers(json.dumps([GOOD, full]))
    assert found == {
        IDP: issuer(),
        "b": TrustedIssuer("b", f"{IDP}/jwks", AUDIENCE, "oid", ("ES512",), create=True, link=True),
    }
    assert parse_trusted_issuers("[]") == {}


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ("{}", "is not a JSON list"),
        ("nonsense", "is not a JSON list"),
        ('[{"issuer":"a","issuer":"b"}]', "stands twice"),
        ([GOOD, "b"], "is not a JSON list of objects"),
        ([GOOD, GOOD], "entry 2: issuer: 'https://idp.example' stands in an earlier entry"),
        ([{**GOOD, "jwks": 1}], "entry 1: 'jwks' is not a member"),
        ([{"issuer": IDP}], "entry 1: jwks_url: is missing"),
        ([{**GOOD, "audience": ""}], "entry 1: audience: must be a text"),
        ([{**GOOD, "issuer": ["x"]}], "entry 1: issuer: must be a text"),
        ([{**GOOD, "claim": "a\n"}], "entry 1: claim: must be a text"),
        ([{**GOOD, "create": "yes"}], "entry 1: create: must be true or false"),
        ([{**GOOD, "link": 1}], "entry 1: link: must be true or false"),
        *[([{**GOOD, "algorithms": bad}], "entry 1: algorithms: must be a list") for bad in (
            "RS256", [], ["HS256"], ["none"], ["RS256", "PS256"], [["RS256"]], None, ["ES256K"],
        )],
        *[([{**GOOD, "jwks_url": bad}], "entry 1: jwks_url: ") for bad in (
            "http://idp.example/jwks", "ftp://idp.example/", "file:///etc/passwd", "idp.example", "https://", "https://[::1",
            "https://u:p@idp.example/", "https://idp.example:99999/", "http://127.0.0.1.evil.example/", "https://a b/",
            "http://localhost.evil.example/", "https://idp.example/#x",
        )],
        ([GOOD] * 51, "holds 51 issuers"),
    ],
    ids=lambda value: str(value)[:50],
)  # fmt: skip
def test_a_setting_that_is_unsafe_names_the_entry_and_the_member(entries: Any, says: str) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        parse_trusted_issuers(entries if isinstance(entries, str) else json.dumps(entries))
    assert says in str(refusal.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/jwks", "http://[::1]/jwks", "http://localhost/jwks"])
def test_plain_http_is_for_this_machine(url: str) -> None:
    assert parse_trusted_issuers(json.dumps([{**GOOD, "jwks_url": url}]))[IDP].jwks_url == url
