"""REV-01, 02, 07: who holds a token may end it (RFC 7009), and clients may ask what one is (RFC 7662)."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from authlib.integrations.requests_client import OAuth2Session
from wire import HS256_KEYS, Node, User, claims_of, forged, running

REVOKED = (1008, "token_revoked")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("node"), signing_keys=HS256_KEYS) as node:
        yield node


@pytest.fixture(scope="module")
def client(node: Node) -> tuple[str, str]:
    return node.client()


@pytest.fixture
def ada(node: Node) -> User:
    return node.user()


def revoke(node: Node, token: str, **more: Any) -> None:
    """RFC 7009 section 2.2: 200 whatever it is, and nothing in it."""
    answer = node.request("POST", "/auth/revoke", data={"token": token, **more}, expect=200)
    assert answer.content == b""
    assert answer.headers["cache-control"] == "no-store"


def introspect(node: Node, token: str, *, by: tuple[str, str]) -> dict[str, Any]:
    answer = node.request("POST", "/auth/introspect", data={"token": token}, auth=by, expect=200)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    return dict(answer.json())


def refreshed(node: Node, refresh_token: str) -> dict[str, Any]:
    return dict(node.request("POST", "/auth/refresh", json={"refresh_token": refresh_token}, expect=200).json())


def counts(node: Node, token: str) -> bool:
    status = node.request("GET", "/auth/me", token=token).status_code
    assert status in (200, 401)
    return status == 200


def ticket_for(node: Node, token: str) -> str:
    return str(node.request("POST", "/auth/ticket", token=token, expect=201).json()["ticket"])


def audited(node: Node, target: str) -> list[dict[str, Any]]:
    items = node.request("GET", "/admin/audit?limit=200", token=node.admin, expect=200).json()["items"]
    return [row for row in items if row["target"] == target and row["action"] in ("revoked", "session_ended")]


# -- revoke -----------------------------------------------------------------------------------------------------------


async def test_REV_01_an_access_token_ends_with_its_sockets_and_nothing_else_does(node: Node, ada: User) -> None:
    first = ada.sign_in()
    second = refreshed(node, first["refresh_token"])
    old, new = await node.open(first["access_token"]), await node.open(second["access_token"])
    revoke(node, first["access_token"])
    assert await old.closed() == REVOKED
    assert not counts(node, first["access_token"])
    assert await node.refusal(first["access_token"]) == REVOKED
    await new.quiet()
    assert counts(node, second["access_token"])
    refreshed(node, second["refresh_token"])


async def test_REV_01_what_its_holder_ends_is_audited_and_not_among_what_administrators_revoked(
    node: Node, ada: User
) -> None:
    token = ada.token()
    jti = claims_of(token)["jti"]
    for _ in range(3):
        revoke(node, token)
    (row,) = audited(node, jti)  # one: whoever holds a revoked token cannot fill the table with it
    assert (row["actor"], row["address"]) == (ada.id, "127.0.0.1")
    listed = node.request("GET", "/admin/revocations?limit=200", token=node.admin, expect=200).json()["items"]
    assert not [one for one in listed if jti in str(one)]


@pytest.mark.parametrize("hint", ["refresh_token", "access_token", "id_token", "", "x" * 1000])
def test_REV_01_a_hint_that_is_wrong_or_unknown_is_ignored(node: Node, ada: User, hint: str) -> None:
    signed_in = ada.sign_in()
    revoke(node, signed_in["access_token"], token_type_hint=hint)
    assert not counts(node, signed_in["access_token"])
    again = refreshed(node, signed_in["refresh_token"])
    revoke(node, again["refresh_token"], token_type_hint=hint)
    assert not counts(node, again["access_token"])


async def test_REV_01_what_is_no_token_of_ours_or_over_is_nothing_to_do(node: Node, ada: User) -> None:
    signed_in = ada.sign_in()
    token = signed_in["access_token"]
    session = claims_of(token)["sid"]
    now = int(time.time())
    socket = await node.open(token)
    strangers = [
        "x", "a.b.c", "\U0001f511", "t~" + "A" * 60, "t~e30." + "A" * 43, token + "x", token[:-3],
        forged(token, exp=now - 60, iat=now - 120, nbf=now - 120), forged(token, iss="another"), "y" * 20_000,
        *(f"{session}.{generation}.{secrets.token_urlsafe(32)}" for generation in (0, 1, 2, 999_999_999)),
        f"{'0' * 32}.0.{secrets.token_urlsafe(32)}",
    ]  # fmt: skip
    for stranger in strangers:
        revoke(node, stranger)
    await socket.quiet()
    assert counts(node, token)
    revoke(node, token)
    revoke(node, token)
    assert await socket.closed() == REVOKED


@pytest.mark.parametrize(
    "body", [b"", b"token=", b"token_type_hint=access_token", b"token=a&token=b", b"token=%00", b"token=%ff"]
)
@pytest.mark.parametrize("path", ["/auth/revoke", "/auth/introspect"])
def test_REV_01_a_form_without_one_token_is_invalid(
    node: Node, client: tuple[str, str], path: str, body: bytes
) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = node.request("POST", path, content=body, headers=headers, auth=client, expect=400)
    assert answer.json()["error"] == "invalid_request"


def test_REV_01_a_client_ends_its_own_token_and_gets_another(node: Node, client: tuple[str, str]) -> None:
    token, other = node.client_token(client), node.client_token(client)
    revoke(node, token)
    assert not counts(node, token)
    assert counts(node, other)
    assert counts(node, node.client_token(client))


def test_REV_01_nobody_has_to_authenticate_and_who_does_has_to_be_right(
    node: Node, ada: User, client: tuple[str, str]
) -> None:
    token = ada.token()
    for wrong in ((client[0], "wrong"), ("c~nobody", client[1])):
        answer = node.request("POST", "/auth/revoke", data={"token": token}, expect=401, auth=wrong)
        assert answer.json()["error"] == "invalid_client"
        assert answer.headers["www-authenticate"].startswith("Basic")
    form = {"token": token, "client_id": client[0], "client_secret": "wrong"}
    assert node.request("POST", "/auth/revoke", data=form, expect=401).json()["error"] == "invalid_client"
    assert counts(node, token)
    node.request("POST", "/auth/revoke", data={"token": token}, auth=client, expect=200)
    assert not counts(node, token)
    token = ada.token()
    node.request("POST", "/auth/revoke", data={"token": token}, token=token, expect=200)
    assert not counts(node, token)


async def test_REV_01_a_ticket_ends_with_the_token_it_was_made_of(node: Node, ada: User) -> None:
    token = ada.token()
    socket = await node.open(ticket_for(node, token))
    ticket = ticket_for(node, token)
    revoke(node, ticket)
    assert await socket.closed() == REVOKED
    assert not counts(node, token)
    assert await node.refusal(ticket) == REVOKED


# -- a refresh token --------------------------------------------------------------------------------------------------


async def test_REV_02_a_refresh_token_ends_its_session_with_all_it_has(node: Node, ada: User) -> None:
    first = ada.sign_in()
    second = refreshed(node, first["refresh_token"])
    ticket = ticket_for(node, second["access_token"])
    other = ada.token()
    sockets = [await node.open(one["access_token"]) for one in (first, second)]
    bystander = await node.open(other)
    revoke(node, second["refresh_token"])
    for socket in sockets:
        assert await socket.until_closed() == ([], REVOKED)
    assert not counts(node, first["access_token"])
    assert not counts(node, second["access_token"])
    assert await node.refusal(ticket) == REVOKED
    for one in (first, second):
        node.request("POST", "/auth/refresh", json={"refresh_token": one["refresh_token"]}, expect=401)
        revoke(node, one["refresh_token"])  # over already: nothing to do, and 200 all the same
    await bystander.quiet()
    assert counts(node, other)
    (row,) = audited(node, claims_of(first["access_token"])["sid"])
    assert (row["action"], row["actor"]) == ("session_ended", ada.id)


@pytest.mark.parametrize("generation", [0, 1, 2])
async def test_REV_02_a_used_refresh_token_that_is_genuine_ends_it_too(node: Node, ada: User, generation: int) -> None:
    chain = [ada.sign_in()]
    for _ in range(3):
        chain.append(refreshed(node, chain[-1]["refresh_token"]))
    socket = await node.open(chain[-1]["access_token"])
    revoke(node, chain[generation]["refresh_token"])
    assert await socket.closed() == REVOKED
    assert not counts(node, chain[-1]["access_token"])


async def test_REV_02_after_the_answer_no_notification_comes(node: Node, ada: User) -> None:
    shop = node.client_token()
    for number in range(5):
        signed_in = ada.sign_in()
        socket = await node.open(signed_in["access_token"])
        node.push(shop, user_id=ada.id)
        revoke(node, signed_in["refresh_token"])
        node.push(shop, user_id=ada.id, title=f"after revocation {number}")
        frames, close = await socket.until_closed()
        assert close == REVOKED
        assert f"after revocation {number}" not in [frame.get("title") for frame in frames]


# -- introspect -------------------------------------------------------------------------------------------------------


def test_REV_07_an_active_token_says_what_it_is(node: Node, ada: User, client: tuple[str, str]) -> None:
    token = ada.token()
    said = introspect(node, token, by=client)
    assert said == {**claims_of(token), "active": True, "token_type": "Bearer", "username": ada.username}
    own = node.client_token(client)
    assert introspect(node, own, by=client) == {**claims_of(own), "active": True, "token_type": "Bearer"}


def test_REV_07_the_current_refresh_token_is_active_and_asking_is_no_use_of_it(
    node: Node, ada: User, client: tuple[str, str]
) -> None:
    signed_in = ada.sign_in()
    claims = claims_of(signed_in["access_token"])
    for _ in range(3):
        said = introspect(node, signed_in["refresh_token"], by=client)
    assert {name: said[name] for name in ("active", "token_type", "sub", "sid", "username", "scope")} == {
        "active": True,
        "token_type": "refresh_token",
        "sub": ada.id,
        "sid": claims["sid"],
        "username": ada.username,
        "scope": "inbox",
    }
    assert abs(said["exp"] - claims["iat"] - signed_in["refresh_expires_in"]) <= 2
    again = refreshed(node, signed_in["refresh_token"])
    assert introspect(node, signed_in["refresh_token"], by=client) == {"active": False}, "used"
    assert introspect(node, again["refresh_token"], by=client)["active"] is True
    assert counts(node, again["access_token"])


def test_REV_07_what_does_not_count_is_inactive_and_no_more_is_said(node: Node, client: tuple[str, str]) -> None:
    def user() -> tuple[User, dict[str, Any]]:
        one = node.user()
        return one, one.sign_in()

    now = int(time.time())
    (_, good), (_, by_jti), (_, by_refresh), (disabled, off), (deleted, gone), (_, out) = (user() for _ in range(6))
    token = good["access_token"]
    node.revoke(jti=claims_of(by_jti["access_token"])["jti"])
    revoke(node, by_refresh["refresh_token"])
    node.request("PATCH", f"/admin/users/{disabled.id}", token=node.admin, json={"disabled": True}, expect=200)
    node.request("DELETE", f"/admin/users/{deleted.id}", token=node.admin, expect=204)
    node.request("POST", "/auth/logout", token=out["access_token"], expect=204)
    dead_client = node.client()
    of_dead_client = node.client_token(dead_client)
    node.request("DELETE", f"/admin/clients/{dead_client[0]}", token=node.admin, expect=204)
    inactive = [
        "x", "a.b.c", token + "x", "t~" + "A" * 60, "z" * 20_000, by_jti["access_token"], of_dead_client,
        forged(token, exp=now - 60, iat=now - 120, nbf=now - 120), forged(token, iss="another"),
        forged(token, sid="0" * 32), ticket_for(node, token),
        f"{claims_of(token)['sid']}.0.{secrets.token_urlsafe(32)}",
        *(one[kind] for one in (by_refresh, off, gone, out) for kind in ("access_token", "refresh_token")),
    ]  # fmt: skip
    for one in inactive:
        assert introspect(node, one, by=client) == {"active": False}, one
    assert introspect(node, token, by=client)["active"] is True


def test_REV_07_clients_and_admins_may_ask_and_nobody_else(node: Node, ada: User, client: tuple[str, str]) -> None:
    token = ada.token()

    def ask(expect: int, **more: Any) -> httpx2.Response:
        form = {"token": token, **more.pop("form", {})}
        return node.request("POST", "/auth/introspect", data=form, expect=expect, **more)

    secret = {"client_id": client[0], "client_secret": client[1]}
    for allowed in ({"auth": client}, {"form": secret}, {"token": node.client_token(client)}, {"token": node.admin}):
        assert ask(200, **allowed).json()["active"] is True
    nobody = ask(401)
    assert nobody.json()["error"] == "invalid_client"
    assert "Basic" in nobody.headers["www-authenticate"]
    assert "Bearer" in nobody.headers["www-authenticate"]
    for wrong in ({"auth": (client[0], "wrong")}, {"form": {**secret, "client_secret": "wrong"}}):
        assert ask(401, **wrong).json()["error"] == "invalid_client"
    for bad in ("x", token + "x", forged(token, exp=int(time.time()) - 60)):
        refused = ask(401, token=bad)
        assert refused.json()["error"] == "invalid_token"
        assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    user = ask(403, token=token)
    assert user.json()["error"] == "insufficient_scope"
    assert 'error="insufficient_scope"' in user.headers["www-authenticate"]
    assert ask(400, auth=client, form=secret).json()["error"] == "invalid_request"
    assert ask(400, token=node.admin, form=secret).json()["error"] == "invalid_request"
    several = [("Authorization", f"Bearer {node.admin}"), ("Authorization", f"Basic {basic(client)}")]
    answer = httpx2.post(f"{node.url}/auth/introspect", data={"token": token}, headers=several)
    assert answer.status_code in (400, 401)
    assert "active" not in answer.text


def basic(client: tuple[str, str]) -> str:
    return base64.b64encode(":".join(client).encode()).decode()


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_REV_07_a_client_library_asks_and_revokes_as_it_would_anywhere(
    node: Node, ada: User, client: tuple[str, str], method: str
) -> None:
    session = OAuth2Session(*client, token_endpoint_auth_method=method, revocation_endpoint_auth_method=method)
    session.fetch_token(f"{node.url}/auth/token", grant_type="client_credentials")
    signed_in = ada.sign_in()
    for kind in ("access_token", "refresh_token"):
        found = session.introspect_token(f"{node.url}/auth/introspect", token=signed_in[kind], token_type_hint=kind)
        assert (found.json()["active"], found.json()["sub"]) == (True, ada.id)
    ended = session.revoke_token(
        f"{node.url}/auth/revoke", token=signed_in["refresh_token"], token_type_hint="refresh_token"
    )
    assert (ended.status_code, ended.content) == (200, b"")
    for kind in ("access_token", "refresh_token"):
        found = session.introspect_token(f"{node.url}/auth/introspect", token=signed_in[kind])
        assert found.json() == {"active": False}
