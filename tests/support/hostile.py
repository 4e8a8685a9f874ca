"""Tokens as an attacker makes them, byte by byte, and what a refusal looks like. No python-jose: it is too kind."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import httpx2
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from wire import ROOT, SECRET, Node, User, claims_of

Signer = Callable[[bytes], bytes]
Json = dict[str, Any] | str
"""An object, or the very text that shall stand there."""
ABSENT = object()
"""As a claim's or header's value: the member is not there at all."""
ELLIPTIC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_secret(secret: bytes = SECRET.encode(), bits: int = 256) -> Signer:
    return lambda text: hmac.digest(secret, text, f"sha{bits}")


HS256 = by_secret()


def by_es256(text: bytes) -> bytes:
    r, s = decode_dss_signature(ELLIPTIC.sign(text, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def by_rs256(text: bytes) -> bytes:
    return RSA.sign(text, padding.PKCS1v15(), SHA256())


def unsigned(text: bytes) -> bytes:
    return b""


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


SIGNING_KEYS = json.dumps(
    [
        {"kid": "ec", "alg": "ES256", "key": pem(ELLIPTIC)},
        {"kid": "rsa", "alg": "RS256", "key": pem(RSA)},
        {"kid": "test", "alg": "HS256", "key": SECRET},
    ]
)
"""For ``signing_keys``: one of each kind verifies, ``test`` signs, and the test-suite holds all three."""


def header(**changed: object) -> dict[str, Any]:
    members: dict[str, object] = {"alg": "HS256", "kid": "test", "typ": "at+jwt", **changed}
    return {name: value for name, value in members.items() if value is not ABSENT}


def forge(head: Json, body: Json, by: Signer = HS256) -> str:
    """A token of exactly these two JSON texts."""
    texts = [part if isinstance(part, str) else json.dumps(part) for part in (head, body)]
    signed = ".".join(b64(text.encode("utf-8", "surrogatepass")) for text in texts)
    return f"{signed}.{b64(by(signed.encode()))}"


class Victim:
    """A user with a session and a token that counts; ``token`` makes others out of it."""

    def __init__(self, node: Node, user: User) -> None:
        self.node, self.user = node, user
        self.tokens = user.sign_in()
        self.good = str(self.tokens["access_token"])

    def claims(self, **changed: object) -> dict[str, Any]:
        """Those of the good token, issued now."""
        now = int(time.time())
        members = {**claims_of(self.good), "iat": now, "nbf": now, "exp": now + 600, **changed}
        return {name: value for name, value in members.items() if value is not ABSENT}

    def token(self, *, head: Json | None = None, body: Json | None = None, by: Signer = HS256) -> str:
        return forge(header() if head is None else head, self.claims() if body is None else body, by)

    async def is_refused(self, token: str, *, code: str = "token_invalid") -> None:
        """On REST and on ``/ws`` alike, with one and the same answer, and nothing of it stays behind."""
        refused_over_http(self.node, token, code=code)
        assert await self.node.refusal(token) == (1008, code)
        self.is_not_there()

    async def is_taken(self, token: str) -> None:
        self.node.request("GET", "/inbox", token=token, expect=200)
        socket = await self.node.open(token)
        assert socket.hello["user"] == self.user.id
        await socket.close()

    def is_not_there(self) -> None:
        """No connection is registered, and to a sender the user is offline."""
        assert self.node.connections(self.user) == []
        passed = self.node.push(self.node.admin, user_id=self.user.id, ttl=0, expect=202)
        assert passed["online"] is False


DETAILS = {
    "token_invalid": "The token is not valid.",
    "token_expired": "The token has expired.",
    "token_revoked": "The token has been revoked.",
    "user_disabled": "The user is disabled.",
}


def refused_over_http(node: Node, token: str, *, code: str = "token_invalid", path: str = "/inbox") -> None:
    """401 with a challenge, and a problem that says the code and nothing of what is wrong with the token."""
    answer = node.request("GET", path, token=token, expect=401)
    assert answer.json() == {
        "type": f"/problems/{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": 401,
        "detail": DETAILS[code],
        "code": code,
        "instance": path,
    }
    of_auth = {"pragma": "no-cache"} if path.startswith("/auth/") else {}
    assert said_by(answer) == of_auth | {
        "content-type": "application/problem+json",
        "www-authenticate": 'Bearer realm="notification-gateway", error="invalid_token"',
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    }


def said_by(answer: httpx2.Response) -> dict[str, str]:
    """The header fields that are not the same for every answer of a server."""
    passing = {"date", "content-length", "x-request-id", "server", "connection"}
    return {name: value for name, value in answer.headers.items() if name not in passing}


def is_problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """RFC 9457, with all its members and ours, and nothing of what happened inside."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    problem = dict(answer.json())
    assert (problem["status"], problem["code"], problem["type"]) == (status, code, f"/problems/{code}"), problem
    assert problem["instance"] == answer.request.url.path
    for name in ("title", "detail"):
        assert isinstance(problem[name], str)
        assert problem[name]
    gives_nothing_away(answer.text)
    return problem


def gives_nothing_away(text: str) -> None:
    for inside in ("Traceback", "SELECT", "sqlite", "sqlalchemy", ".py", str(ROOT), "eyJ", "gateway.db", "pydantic"):
        assert inside not in text, text
