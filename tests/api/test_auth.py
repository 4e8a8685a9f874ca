"""Signing in over HTTP: JSON calls answer problems, the token endpoint speaks RFC 6749 (contract 3)."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from gateway.errors import Limited
from gateway.model import Target

TOKENS = {
    "access_token": "access",
    "token_type": "Bearer",
    "expires_in": 900,
    "refresh_token": "fresh",
    "refresh_expires_in": 3600,
    "scope": "inbox",
}
CLIENT_TOKENS = {"access_token": "access", "token_type": "Bearer", "expires_in": 900, "scope": "notifications:write"}

SHOP = "c~" + "5" * 32


def basic(client_id: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


async def test_login_answers_tokens_and_keeps_the_label_of_the_device(
    http: httpx2.AsyncClient, services: SimpleNamespace
) -> None:
    body = {"username": "ada", "password": "right", "device": "phone"}
    answer = await http.post("/auth/login", json=body)
    assert (answer.status_code, answer.json(), answer.headers["cache-control"]) == (200, TOKENS, "no-store")
    assert (await http.post("/auth/login", json=body | {"device": None})).status_code == 200
    assert services.login.devices == ["phone", None]


async def test_a_wrong_password_is_401_bad_credentials(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/auth/login", json={"username": "ada", "password": "wrong"})
    assert (answer.status_code, answer.json()["code"]) == (401, "bad_credentials")


@pytest.mark.parametrize("device", ["", "x" * 101, "a\nb", " phone", 7])
async def test_a_label_is_short_and_printable(http: httpx2.AsyncClient, device: Any) -> None:
    answer = await http.post("/auth/login", json={"username": "ada", "password": "right", "device": device})
    assert [one["pointer"] for one in answer.json()["errors"]] == ["/device"]


async def test_refresh_answers_tokens_or_401(http: httpx2.AsyncClient) -> None:
    assert (await http.post("/auth/refresh", json={"refresh_token": "good"})).json() == TOKENS
    assert (await http.post("/auth/refresh", json={"refresh_token": "bad"})).status_code == 401


# -- the token endpoint --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "headers", "tokens"),
    [
        ({"grant_type": "password", "username": "ada", "password": "right"}, {}, TOKENS),
        ({"grant_type": "password", "username": "ada", "password": "right", "scope": "", "state": "x"}, {}, TOKENS),
        ({"grant_type": "refresh_token", "refresh_token": "good"}, {}, TOKENS),
        ({"grant_type": "client_credentials", "client_id": SHOP, "client_secret": "right"}, {}, CLIENT_TOKENS),
        ({"grant_type": "client_credentials"}, basic(SHOP, "right"), CLIENT_TOKENS),
        ({"grant_type": "client_credentials"}, basic(SHOP.replace("~", "%7E"), "righ%74"), CLIENT_TOKENS),
        ({"grant_type": "client_credentials", "client_id": SHOP}, basic(SHOP, "right"), CLIENT_TOKENS),
    ],
)
async def test_every_grant_answers_tokens(
    http: httpx2.AsyncClient, form: dict[str, str], headers: dict[str, str], tokens: dict[str, Any]
) -> None:
    answer = await http.post("/auth/token", data=form, headers=headers)
    assert (answer.status_code, answer.json()) == (200, tokens)
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")


@pytest.mark.parametrize(
    ("form", "headers", "error"),
    [
        ("", {}, "invalid_request"),
        ("grant_type=", {}, "invalid_request"),
        ("grant_type=magic", {}, "unsupported_grant_type"),
        ("grant_type=password&username=ada", {}, "invalid_request"),
        ("grant_type=password&username=ada&password=wrong", {}, "invalid_grant"),
        ("grant_type=password&username=ada&username=bob&password=right", {}, "invalid_request"),
        ("grant_type=password&grant_type=password&username=ada&password=right", {}, "invalid_request"),
        ("grant_type=password&username=%FF&password=right", {}, "invalid_request"),
        ("grant_type=password&username=a%00&password=right", {}, "invalid_request"),
        ("grant_type=password&username=\u00e4&password=right", {}, "invalid_request"),
        ("&".join(f"a{at}=1" for at in range(60)), {}, "invalid_request"),
        ("grant_type=refresh_token&refresh_token=bad", {}, "invalid_grant"),
        (f"grant_type=client_credentials&client_id={SHOP}&client_secret=right&scope=admin", {}, "invalid_scope"),
        ("grant_type=client_credentials&client_secret=right", basic(SHOP, "right"), "invalid_request"),
        ("grant_type=client_credentials&client_id=c~mail", basic(SHOP, "right"), "invalid_request"),
        ("grant_type=client_credentials&client_id=c~mail", basic("c~shop", "right"), "invalid_request"),
    ],
)
async def test_what_the_token_endpoint_refuses_is_400_with_a_word_of_the_rfc(
    http: httpx2.AsyncClient, form: str, headers: dict[str, str], error: str
) -> None:
    headers = headers | {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await http.post("/auth/token", content=form.encode(), headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert set(answer.json()) == {"error", "error_description"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ({}, {}),
        ({"client_id": SHOP, "client_secret": "wrong"}, {}),
        ({"client_id": SHOP}, {}),
        ({}, basic(SHOP, "wrong")),
        ({}, {"Authorization": "Basic !!!"}),
        ({}, {"Authorization": "Basic " + base64.b64encode(b"no colon").decode()}),
        ({}, {"Authorization": "Basic " + base64.b64encode(b"\xff:\xff").decode()}),
        ({}, {"Authorization": "Bearer shop"}),
    ],
)
async def test_a_client_that_is_not_itself_is_401_with_a_basic_challenge(
    http: httpx2.AsyncClient, form: dict[str, str], headers: dict[str, str]
) -> None:
    answer = await http.post("/auth/token", data={"grant_type": "client_credentials"} | form, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert answer.headers["www-authenticate"] == 'Basic realm="notification-gateway"'


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=x", "text/plain"])
async def test_the_token_endpoint_takes_forms_only(http: httpx2.AsyncClient, content_type: str) -> None:
    answer = await http.post("/auth/token", content=b"grant_type=password", headers={"Content-Type": content_type})
    assert answer.status_code == 415


async def test_a_form_beyond_64_kib_is_413(http: httpx2.AsyncClient) -> None:
    assert (await http.post("/auth/token", data={"grant_type": "x" * 65536})).status_code == 413


async def test_too_many_sign_ins_are_429_at_the_token_endpoint_too(
    http: httpx2.AsyncClient, services: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def limited(*args: object, **more: object) -> None:
        raise Limited("login", retry_after=30, quota=10, window=60)

    monkeypatch.setattr(services.login, "password", limited)
    answer = await http.post("/auth/token", data={"grant_type": "password", "username": "a", "password": "b"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")


# -- one's own sessions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("who", "target"), [("ada", Target(session="s-ada")), ("shop", Target(token_id="jti-c~shop"))])
async def test_logout_ends_the_session_or_a_clients_token(
    http: httpx2.AsyncClient, services: SimpleNamespace, as_: Any, who: str, target: Target
) -> None:
    answer = await http.post("/auth/logout", headers=as_(who))
    assert (answer.status_code, answer.content) == (204, b"")
    assert [(one, reason) for one, reason, _ in services.revoker.revoked] == [(target, None)]


async def test_me_is_what_the_store_says_of_the_user_now(http: httpx2.AsyncClient, as_: Any) -> None:
    assert (await http.get("/auth/me", headers=as_("ada"))).json() == {
        "id": "ada",
        "username": "ada",
        "role": "user",
        "session": "s-ada",
        "scope": "inbox",
        "token_expires_at": "2027-01-15T08:15:00.000Z",
    }


async def test_one_sees_ones_own_sessions_only(http: httpx2.AsyncClient, as_: Any) -> None:
    answer = (await http.get("/auth/sessions", headers=as_("ada"))).json()
    assert [(one["id"], one["current"], one["device"]) for one in answer["items"]] == [("s-ada", True, "phone")]
    assert answer["next"] is None


@pytest.mark.parametrize(("who", "status"), [("ada", 204), ("root", 204), ("bob", 404)])
async def test_a_session_is_ended_by_its_owner_or_an_admin(
    http: httpx2.AsyncClient, services: SimpleNamespace, as_: Any, who: str, status: int
) -> None:
    assert (await http.delete("/auth/sessions/s-ada", headers=as_(who))).status_code == status
    assert len(services.revoker.revoked) == (status == 204)


async def test_the_public_keys_may_be_kept_for_a_while(http: httpx2.AsyncClient, services: SimpleNamespace) -> None:
    answer = await http.get("/.well-known/jwks.json")
    assert (answer.json(), answer.headers["cache-control"]) == ({"keys": [{"kid": "k"}]}, "public, max-age=300")
    services.keyring.jwks = lambda: None
    assert (await http.get("/.well-known/jwks.json")).status_code == 404


async def test_an_answer_without_a_body_has_no_type(http: httpx2.AsyncClient, as_: Any) -> None:
    answer = await http.post("/auth/logout", headers=as_("ada"))
    assert answer.status_code == 204
    assert "content-type" not in answer.headers
