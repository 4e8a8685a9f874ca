"""Another issuer as an operator meets it: keys, tokens signed with them, and a JWKS address that can misbehave."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jose import jwk, jws

AUDIENCE = "notifications"
_CURVES: Mapping[str, type[ec.EllipticCurve]] = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


def number(value: int, size: int | None = None) -> str:
    """As a JWK writes it."""
    raw = value.to_bytes(size or (value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class IssuerKey:
    """A private key, and its public half as a JWK."""

    def __init__(self, kid: str | None, algorithm: str = "ES256", *, bits: int = 2048) -> None:
        self.kid, self.algorithm = kid, algorithm
        private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
        if algorithm in _CURVES:
            private = ec.generate_private_key(_CURVES[algorithm]())
        else:
            private = rsa.generate_private_key(65537, bits)
        self.pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        self.signs = jwk.construct(self.pem, algorithm)
        if isinstance(private, rsa.RSAPrivateKey):
            public = private.public_key().public_numbers()
            self.jwk: dict[str, Any] = {"kty": "RSA", "n": number(public.n), "e": number(public.e)}
        else:
            point = private.public_key().public_numbers()
            size = (private.curve.key_size + 7) // 8
            names = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
            self.jwk = {"kty": "EC", "crv": names[algorithm], "x": number(point.x, size), "y": number(point.y, size)}
        self.jwk |= {"use": "sig", "alg": algorithm} | ({} if kid is None else {"kid": kid})

    def sign(self, claims: Mapping[str, Any], *, header: Mapping[str, Any] | None = None) -> str:
        """A token; ``header`` adds to the usual one, or takes away with None."""
        usual: dict[str, Any] = {"typ": "JWT", "kid": self.kid, **(header or {})}
        wanted = {name: value for name, value in usual.items() if value is not None}
        token = str(jws.sign(dict(claims), self.signs, headers=wanted, algorithm=self.algorithm))
        return token if "typ" in wanted else self._bare(token)

    def text(self, head: str | Mapping[str, Any], body: str | Mapping[str, Any]) -> str:
        """A token of exactly this header and payload, as JSON text or as what becomes JSON."""
        parts = [part if isinstance(part, str) else json.dumps(part) for part in (head, body)]
        signed = ".".join(base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in parts)
        signature = self.signs.sign(signed.encode())
        return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    def _bare(self, token: str) -> str:
        """The same without ``typ``, which python-jose always writes."""
        head, body, _ = token.split(".")
        header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in (head, body))
        del header["typ"]
        return self.text(header, claims)


def claims(issuer: str, subject: str = "ada", **more: Any) -> dict[str, Any]:
    """What a good token says; None takes a claim away."""
    now = int(time.time())
    usual = {"iss": issuer, "sub": subject, "aud": AUDIENCE, "iat": now, "exp": now + 600, **more}
    return {name: value for name, value in usual.items() if value is not None}


class Issuer:
    """A JWKS address on loopback. ``asked`` counts the requests; what it answers can be changed between them."""

    def __init__(self, *keys: IssuerKey) -> None:
        self.keys = list(keys) or [IssuerKey("k1")]
        self.asked = 0
        self.paths: list[str] = []
        self.status, self.headers, self.delay = 200, dict[str, str](), 0.0
        self.body: bytes | None = None
        self.server: ThreadingHTTPServer | None = None
        self.port = 0
        self.url = ""

    @property
    def jwks_url(self) -> str:
        return f"{self.url}/jwks.json"

    def entry(self, **more: Any) -> dict[str, Any]:
        """Its place in GATEWAY_TRUSTED_ISSUERS."""
        return {"issuer": self.url, "jwks_url": self.jwks_url, "audience": AUDIENCE, "create": True, **more}

    def token(self, subject: str = "ada", *, key: IssuerKey | None = None, **more: Any) -> str:
        return (key or self.keys[0]).sign(claims(self.url, subject, **more))

    def document(self) -> bytes:
        return json.dumps({"keys": [key.jwk for key in self.keys]}).encode() if self.body is None else self.body

    def up(self) -> Issuer:
        """Answer from now on, at the same address as before."""
        issuer = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                issuer.paths.append(self.path)
                time.sleep(issuer.delay)
                body = issuer.document()
                try:
                    self.send_response(issuer.status)
                    for name, value in {"Content-Length": str(len(body)), **issuer.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    return  # whoever asked did not wait

            def log_message(self, *_: Any) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self.server = Server(("127.0.0.1", self.port), Answers)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def down(self) -> None:
        """Nobody listens at its address any more."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None


@contextmanager
def issuing(*keys: IssuerKey) -> Iterator[Issuer]:
    issuer = Issuer(*keys).up()
    try:
        yield issuer
    finally:
        issuer.down()
