"""TOK-16 … TOK-20: which keys count, at the start and after a rotation, and what is told of them. Forges no claims."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hostile import ELLIPTIC, SIGNING_KEYS, Victim, b64, by_secret, forge, header, pem, refused_over_http
from wire import ADMIN_PASSWORD, SECRET, Node, claims_of, eventually, running

OLD_SECRET = "5b0d5c1f8f4a4be0a7d0c7a2f1b6e93d8c44a1e7726b3f59"
OLD = {"kid": "old", "alg": "HS256", "key": OLD_SECRET}
NEW = {"kid": "test", "alg": "HS256", "key": SECRET}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("node"), signing_keys=SIGNING_KEYS) as node:
        yield node


@pytest.fixture(scope="module")
def victim(node: Node) -> Victim:
    return Victim(node, node.user())


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Another deployment, which has one of our keys by accident."""
    with running(
        tmp_path_factory.mktemp("elsewhere"), signing_keys=json.dumps([NEW]), issuer="elsewhere", audience="elsewhere"
    ) as node:
        yield node


# -- at the start -----------------------------------------------------------------------------------------------------


PUBLIC = base64.b64encode(b"public").decode()
UNUSABLE = {
    "short": "x" * 31,
    "empty": "",
    "example": "your-256-bit-secret-your-256-bit-secret",
    "tutorial": "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "placeholder": "change-me-change-me-change-me-change-me",
    "private PEM": pem(ELLIPTIC),
    "public PEM": f"-----BEGIN PUBLIC KEY-----\n{PUBLIC * 8}\n-----END PUBLIC KEY-----",
    "SSH": f"ssh-ed25519 {PUBLIC * 8}",
    "JWK": json.dumps({"kty": "EC", "crv": "P-256", "x": PUBLIC * 4, "y": PUBLIC * 4}),
    "public key without its first and last line": base64.b64encode(
        ELLIPTIC.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).decode(),
}


@pytest.mark.parametrize("what", [*UNUSABLE, "no JSON", "two of one kid", "PEM of another kind"])
def test_TOK_16_the_gateway_does_not_start_with_a_key_that_is_none(tmp_path: Path, what: str) -> None:
    keys: object = [{"kid": "k", "alg": "HS256", "key": UNUSABLE.get(what, "")}]
    if what == "two of one kid":
        keys = [NEW, NEW]
    elif what == "PEM of another kind":
        keys = [{"kid": "k", "alg": "RS256", "key": pem(ELLIPTIC)}]
    node = Node(tmp_path, signing_keys=json.dumps(keys) if what != "no JSON" else "secret-secret-secret-secret-secret")
    status, said, complained = node.command("serve")
    assert status not in (0, None)
    assert "GATEWAY_SIGNING_KEYS" in complained
    assert "Traceback" not in said + complained
    for secret in (UNUSABLE.get(what) or "secret-secret", pem(ELLIPTIC).splitlines()[1]):
        assert secret not in said + complained


def test_TOK_11_more_than_half_a_minute_cannot_be_forgiven(tmp_path: Path) -> None:
    status, _, complained = Node(tmp_path, token_leeway=31).command("serve")
    assert status == 2
    assert "GATEWAY_TOKEN_LEEWAY" in complained


# -- a rotation -------------------------------------------------------------------------------------------------------


async def test_TOK_17_two_keys_count_during_a_rotation_and_the_old_one_no_more_after_it(
    start: Callable[..., Node],
) -> None:
    node = start(signing_keys=json.dumps([OLD]))
    victim = Victim(node, node.user())
    node.admin  # noqa: B018 - signs in while the old key signs

    def restart_with(*keys: dict[str, str]) -> None:
        assert node.stop() == 0
        node.settings["signing_keys"] = json.dumps(keys)
        node.start()

    restart_with(OLD, NEW)
    fresh = victim.user.token()
    assert (header_of(victim.good)["kid"], header_of(fresh)["kid"]) == ("old", "test")
    for token in (victim.good, fresh):
        await victim.is_taken(token)
    restart_with(NEW)
    node.request("GET", "/admin/users", token=node.admin, expect=401)
    node.forget_admin()
    await victim.is_refused(victim.good)
    await victim.is_refused(forge(header(kid="old"), victim.claims(), by_secret(OLD_SECRET.encode())))
    await victim.is_taken(fresh)
    body = {"refresh_token": victim.tokens["refresh_token"]}
    renewed = node.request("POST", "/auth/refresh", json=body, expect=200).json()
    await victim.is_taken(renewed["access_token"])


def header_of(token: str) -> dict[str, str]:
    part = token.split(".")[0]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


@contextlib.contextmanager
def traced(node: Node) -> Iterator[Path | None]:
    """Every file the process asks for, written down; None where no process may look at another."""
    trace = node.directory / "trace"
    command = ["strace", "-f", "-qq", "-e", "trace=%file", "-o", str(trace), "-p", str(node.pid)]
    try:
        tracer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        yield None
        return

    def begun() -> bool:
        refused_over_http(node, "a.b.c")
        node.inbox(node.admin)  # looks whether the database is still there
        return tracer.poll() is not None or "gateway.db" in trace.read_text()

    eventually(lambda: trace.exists() or tracer.poll() is not None, what="the tracer has begun")
    eventually(begun, what="the tracer sees what the gateway opens")
    yield trace if tracer.poll() is None else None
    if tracer.poll() is None:
        tracer.terminate()
    tracer.wait(10)


async def test_TOK_17_a_kid_is_a_name_and_never_a_path(victim: Victim) -> None:
    node = victim.node
    secret = node.directory / "secret"
    secret.write_bytes(b"what the attacker knows of this machine\n")
    kids: list[object] = [
        "unknown", "../../x", str(secret), "../" * 20 + "dev/null", "/dev/null", "x" * 1100, "x" * 4000, "", " test",
        "test\0", "TEST", None, 0, True, ["test"], {"test": 1}, "' OR 1=1 --", "file:///dev/null", "|id",
    ]  # fmt: skip
    with traced(node) as trace:
        for kid in kids:
            for by in (by_secret(), by_secret(b""), by_secret(secret.read_bytes())):
                token = victim.token(head=header(kid=kid), by=by)
                refused_over_http(node, token)
                assert await node.refusal(token) == (1008, "token_invalid")
        victim.is_not_there()
        refused_over_http(node, victim.token(head=header(kid="x" * 10_000)))
    if trace is not None:
        told = trace.read_text().splitlines()
        assert not [line for line in told if str(secret) in line or "dev/null" in line or "../" in line]
    else:
        unable = pytest.fail if os.environ.get("CI") else pytest.skip
        unable("strace is not installed, or may not watch another process: nothing else shows what was opened")


# -- what is told -----------------------------------------------------------------------------------------------------


def test_TOK_18_the_published_keys_are_public(node: Node, victim: Victim) -> None:
    answer = node.request("GET", "/.well-known/jwks.json", expect=200)
    assert "max-age" in answer.headers["cache-control"]
    keys = {key.pop("kid"): key for key in answer.json()["keys"]}
    assert set(keys) == {"ec", "rsa"}, "the secret is not among them"
    assert set(keys["ec"]) == {"kty", "alg", "use", "crv", "x", "y"}
    assert set(keys["rsa"]) == {"kty", "alg", "use", "n", "e"}
    assert [(keys[kid]["alg"], keys[kid]["use"]) for kid in ("ec", "rsa")] == [("ES256", "sig"), ("RS256", "sig")]
    point = ELLIPTIC.public_key().public_numbers()
    assert keys["ec"]["x"] == b64(point.x.to_bytes(32, "big"))
    assert SECRET not in answer.text


def test_TOK_18_with_secrets_only_nothing_is_published(elsewhere: Node) -> None:
    answer = elsewhere.request("GET", "/.well-known/jwks.json", expect=404)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "unknown_keys"


def test_TOK_19_a_token_says_nothing_about_the_person(node: Node) -> None:
    user = node.user("grace.hopper@navy.test", id="42")
    signed_in = user.sign_in(device="Grace's phone")
    token = signed_in["access_token"]
    assert set(header_of(token)) == {"alg", "kid", "typ"}
    claims = claims_of(token)
    assert set(claims) == {"iss", "sub", "aud", "iat", "nbf", "exp", "jti", "client_id", "scope", "sid"}
    assert (claims["sub"], claims["client_id"], claims["scope"]) == ("42", "c~gateway", "inbox")
    for private in ("grace", "navy", "phone", "argon2", user.password, ADMIN_PASSWORD):
        assert private not in json.dumps(claims)
    client = claims_of(node.client_token())
    assert set(client) == set(claims) - {"sid"}
    assert client["sub"] == client["client_id"]
    assert client["client_id"].startswith("c~")


async def test_TOK_20_a_token_of_another_deployment_is_refused_though_its_key_is_ours(
    victim: Victim, elsewhere: Node
) -> None:
    theirs = Victim(elsewhere, elsewhere.user(id=victim.user.id))
    await theirs.is_taken(theirs.good)
    await victim.is_refused(theirs.good)
    refused_over_http(elsewhere, victim.good)
