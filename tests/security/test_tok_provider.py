"""Token exchange with the tokens of a real OpenID Connect provider (Authlib, a process of its own): a person signs in
there, and is signed in here."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from freeport import free_port
from wire import ROOT, Node, claims_of, eventually, running

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE = "urn:ietf:params:oauth:token-type:"
APPLICATION, CALLBACK = "staff-app", "http://127.0.0.1/callback"


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address. What it is made of is only in ``provider.py``: this process does not load it."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    # Plain HTTP on loopback, which Authlib takes for a mistake unless told otherwise.
    environment = {**os.environ, "AUTHLIB_INSECURE_TRANSPORT": "1"}
    log = tmp_path_factory.mktemp("provider") / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/support/provider.py"), str(port)],
            env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return httpx2.get(f"{url}/.well-known/openid-configuration", timeout=5, verify=False).is_success
            except httpx2.HTTPError:
                return False

        try:
            eventually(ready, within=180, what="the provider")
            yield url
        finally:
            process.kill()
            process.wait(10)


@pytest.fixture(scope="module")
def federated(provider: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Access tokens of the provider are for us; ID tokens are for the application, which is trusted as well."""
    found = httpx2.get(f"{provider}/.well-known/openid-configuration", timeout=10, verify=False).json()
    entry = {"issuer": found["issuer"], "jwks_url": found["jwks_uri"], "audience": "notifications", "create": True}
    directory: Path = tmp_path_factory.mktemp("federated")
    with running(directory, trusted_issuers=json.dumps([entry])) as node:
        yield node


def sign_in_there(provider: str, name: str) -> dict[str, Any]:
    """What an application gets: the authorization code flow with PKCE (RFC 7636)."""
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "response_type": "code", "client_id": APPLICATION, "redirect_uri": CALLBACK, "scope": "openid profile",
        "state": "s", "nonce": secrets.token_hex(8), "code_challenge": challenge, "code_challenge_method": "S256",
    }  # fmt: skip
    person = {"username": name, "password": f"a password of {name}"}
    with httpx2.Client(base_url=provider, timeout=30, verify=False) as http:
        answer = http.post("/authorize", params=asked, data=person)
        assert answer.status_code == 302, answer.text
        code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "client_id": APPLICATION,
            "code_verifier": verifier,
        }  # fmt: skip
        got = http.post("/token", data=form)
    assert got.status_code == 200, got.text
    return dict(got.json())


def exchange(node: Node, token: str, kind: str) -> httpx2.Response:
    form = {"grant_type": GRANT, "subject_token": token, "subject_token_type": TYPE + kind}
    return node.request("POST", "/auth/token", data=form)


async def test_who_signed_in_at_the_provider_is_signed_in_here(federated: Node, provider: str) -> None:
    tokens = sign_in_there(provider, "ada")
    answer = exchange(federated, tokens["access_token"], "access_token")
    assert answer.status_code == 200, answer.text
    access = answer.json()["access_token"]
    assert claims_of(access)["sub"] == "emp-ada"
    socket = await federated.open(access)
    federated.push(federated.client_token(), user_id="emp-ada", title="from the company's own id")
    assert (await socket.next("notification"))["title"] == "from the company's own id"


def test_a_token_for_the_application_is_not_for_us(federated: Node, provider: str) -> None:
    """The ID token names the application as its audience, which the setting does not."""
    tokens = sign_in_there(provider, "bob")
    answer = exchange(federated, tokens["id_token"], "id_token")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_an_id_token_is_taken_where_the_application_is_the_audience(provider: str, tmp_path: Path) -> None:
    entry = {"issuer": provider, "jwks_url": f"{provider}/jwks", "audience": APPLICATION, "create": True}
    with running(tmp_path, trusted_issuers=json.dumps([entry])) as node:
        answer = exchange(node, sign_in_there(provider, "bob")["id_token"], "id_token")
        assert answer.status_code == 200, answer.text
        me = node.request("GET", "/auth/me", token=answer.json()["access_token"], expect=200).json()
        assert (me["id"], me["username"]) == ("emp-bob", "bob")


def test_the_provider_takes_a_new_key_of_another_kind(federated: Node, provider: str) -> None:
    """RS256 before, ES256 after: the new key is fetched when the first token names it, the old one no longer counts."""
    before = sign_in_there(provider, "ada")["access_token"]
    assert exchange(federated, before, "jwt").status_code == 200
    httpx2.post(f"{provider}/rotate", timeout=10, verify=False).raise_for_status()
    after = sign_in_there(provider, "ada")["access_token"]
    eventually(lambda: exchange(federated, after, "jwt").status_code == 200, within=60, what="the new key")
    assert exchange(federated, before, "jwt").status_code == 400
