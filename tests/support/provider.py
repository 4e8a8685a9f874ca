"""An OpenID Connect provider made of Authlib, as a process: a person signs in with a password, an application gets a
code and exchanges it for an access token (RFC 9068) and an ID token. ``python provider.py PORT``; no part of a test.

Everything a token says, and how it is signed and its keys are published, is the library's. ``POST /rotate`` (of the
operator) makes a new signing key and withdraws the old one.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, ClientMixin, grants
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from authlib.oidc.core import UserInfo
from authlib.oidc.core.grants import OpenIDCode
from authlib.oidc.discovery import OpenIDProviderMetadata
from flask import Flask, jsonify, request
from joserfc.jwk import ECKey, KeySet, RSAKey
from werkzeug.serving import make_server

APPLICATION = "staff-app"
AUDIENCE = "notifications"
CALLBACK = "http://127.0.0.1/callback"
PEOPLE = {"ada": "a password of ada", "bob": "a password of bob"}


@dataclass
class Person:
    name: str

    def get_user_id(self) -> str:
        return f"emp-{self.name}"


class Application(ClientMixin):  # type: ignore[misc]
    def get_client_id(self) -> str:
        return APPLICATION

    def get_default_redirect_uri(self) -> str:
        return CALLBACK

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri == CALLBACK

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "none"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "authorization_code"


@dataclass
class Code(AuthorizationCodeMixin):  # type: ignore[misc]
    code: str
    person: Person
    scope: str
    nonce: str | None
    code_challenge: str
    code_challenge_method: str

    def get_redirect_uri(self) -> str:
        return CALLBACK

    def get_scope(self) -> str:
        return self.scope

    def get_nonce(self) -> str | None:
        return self.nonce

    def get_auth_time(self) -> None: ...

    def get_acr(self) -> None: ...

    def get_amr(self) -> None: ...


class Provider:
    def __init__(self, url: str) -> None:
        self.url = url
        self.codes: dict[str, Code] = {}
        self.key: RSAKey | ECKey = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)

    def signing(self) -> KeySet:
        return KeySet([self.key])

    def rotate(self) -> None:
        self.key = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)


def application(url: str) -> Flask:
    provider, client = Provider(url), Application()
    app = Flask(__name__)
    server = AuthorizationServer(app, query_client=lambda _: client, save_token=lambda *_: None)

    class AccessTokens(JWTBearerTokenGenerator):  # type: ignore[misc]
        def get_jwks(self) -> KeySet:
            return provider.signing()

        def access_token_generator(self, **asked: Any) -> str:
            self.alg = provider.key.alg  # that of the newest key: the library reads it before it asks for the keys
            return str(super().access_token_generator(**asked))

        def get_audiences(self, client: Any, user: Any, scope: str) -> list[str]:
            return [AUDIENCE]

        def get_extra_claims(self, client: Any, grant_type: str, user: Any, scope: str) -> dict[str, Any]:
            return {"azp": client.get_client_id()}

    class CodeGrant(grants.AuthorizationCodeGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

        def save_authorization_code(self, code: str, request: Any) -> None:
            asked = request.payload.data
            provider.codes[code] = Code(
                code, request.user, request.payload.scope, asked.get("nonce"), asked["code_challenge"],
                asked["code_challenge_method"],
            )  # fmt: skip

        def query_authorization_code(self, code: str, client: Any) -> Code | None:
            return provider.codes.get(code)

        def delete_authorization_code(self, authorization_code: Code) -> None:
            del provider.codes[authorization_code.code]

        def authenticate_user(self, authorization_code: Code) -> Person:
            return authorization_code.person

    class IdTokens(OpenIDCode):  # type: ignore[misc]
        def resolve_client_private_key(self, client: Any) -> KeySet:
            return provider.signing()

        def get_client_algorithm(self, client: Any) -> str:
            return str(provider.key.alg)

        def get_client_claims(self, client: Any) -> dict[str, Any]:
            return {"iss": url, "aud": [APPLICATION]}

        def exists_nonce(self, nonce: str, request: Any) -> bool:
            return any(code.nonce == nonce for code in provider.codes.values())

        def generate_user_info(self, user: Person, scope: str) -> UserInfo:
            return UserInfo(sub=user.get_user_id(), preferred_username=user.name, name=user.name.title())

    server.register_grant(CodeGrant, [IdTokens(require_nonce=True), CodeChallenge(required=True)])
    server.register_token_generator("default", AccessTokens(issuer=url))

    @app.post("/authorize")
    def authorize() -> Any:
        name = request.form.get("username", "")
        if PEOPLE.get(name) != request.form.get("password"):
            return "Wrong name or password.", 403
        person = Person(name)
        return server.create_authorization_response(grant_user=person, grant=server.get_consent_grant(end_user=person))

    @app.post("/token")
    def token() -> Any:
        return server.create_token_response()

    @app.get("/jwks")
    def jwks() -> Any:
        answer = jsonify(provider.signing().as_dict(private=False))
        answer.headers["Cache-Control"] = "public, max-age=3600"
        return answer

    @app.get("/.well-known/openid-configuration")
    def configuration() -> Any:
        metadata = OpenIDProviderMetadata(
            {
                "issuer": url, "authorization_endpoint": f"{url}/authorize", "token_endpoint": f"{url}/token",
                "jwks_uri": f"{url}/jwks", "response_types_supported": ["code"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            }
        )  # fmt: skip
        return jsonify(metadata)

    @app.post("/rotate")
    def rotate() -> Any:
        provider.rotate()
        return "", 204

    return app


def main() -> None:
    port = int(sys.argv[1])
    make_server("127.0.0.1", port, application(f"http://127.0.0.1:{port}"), threaded=True).serve_forever()


if __name__ == "__main__":
    main()
