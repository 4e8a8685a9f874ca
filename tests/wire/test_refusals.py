"""Contract section 4: who may open ``/ws``, and what the others see. An open one: ``test_sockets.py``."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator

import pytest
from rawpeer import Raw, head
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response
from wire import HS256_KEYS, Node, Socket, User, claims_of, eventually, eventually_async, forged, running

ORIGINS = "https://app.example,https://app.example:8443"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(
        tmp_path_factory.mktemp("node"), signing_keys=HS256_KEYS, allowed_origins=ORIGINS, connections_per_user=3
    ) as node:
        yield node


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def denial(node: Node, token: str, **headers: str) -> Response:
    """The HTTP answer to an upgrade that was refused without one."""
    with pytest.raises(InvalidStatus) as refused:
        await node.raw(token, headers=headers)
    return refused.value.response


# -- what opens it ---------------------------------------------------------------------------------------------------


async def test_the_token_stands_in_the_query_or_in_the_authorization_header(node: Node) -> None:
    user = node.user()
    token = user.token()
    for connection in (await node.raw(token), await node.raw(None, headers=bearer(token))):
        hello = await Socket(connection).next("hello")
        assert (hello["user"], hello["session"]) == (user.id, claims_of(token)["sid"])


async def test_two_credentials_of_one_session_are_taken(node: Node) -> None:
    signed_in = node.user().sign_in()
    body = {"refresh_token": signed_in["refresh_token"]}
    fresh = node.request("POST", "/auth/refresh", json=body, expect=200).json()["access_token"]
    await node.open(signed_in["access_token"], headers=bearer(fresh))


@pytest.mark.parametrize("origin", ["https://app.example", "https://app.example:8443", "http://{host}"])
async def test_WSH_04_an_allowed_origin_and_the_own_one_are_let_in(node: Node, origin: str) -> None:
    await node.open(node.user().token(), headers={"Origin": origin.format(host=f"127.0.0.1:{node.port}")})


# -- what is refused, and with which word ----------------------------------------------------------------------------


def tampered(token: str, **changed: object) -> str:
    """Other claims under the old signature."""
    header, _, signature = token.split(".")
    text = json.dumps({**claims_of(token), **changed}).encode()
    return f"{header}.{base64.urlsafe_b64encode(text).decode().rstrip('=')}.{signature}"


def unsigned(token: str) -> str:
    text = json.dumps({"alg": "none", "kid": "test", "typ": "at+jwt"}).encode()
    return f"{base64.urlsafe_b64encode(text).decode().rstrip('=')}.{token.split('.')[1]}."


def after(node: Node, method: str, path: str, signed_in: str, *, by_admin: bool, body: object = None) -> str:
    """The token, once that request has been answered."""
    token = node.admin if by_admin else signed_in
    answer = node.request(method, path, token=token, json=body)
    assert answer.is_success, answer.text
    return signed_in


Bad = Callable[[Node, User], str]
NOW = time.time
BAD: dict[str, tuple[Bad, str]] = {
    "empty": (lambda node, user: "", "token_missing"),
    "garbage": (lambda node, user: "garbage", "token_invalid"),
    "three parts of garbage": (lambda node, user: "a.b.c", "token_invalid"),
    "tampered with": (lambda node, user: tampered(user.token(), sub="admin"), "token_invalid"),
    "another signature": (lambda node, user: user.token()[:-4] + "AAAA", "token_invalid"),
    "unsigned": (lambda node, user: unsigned(user.token()), "token_invalid"),
    "of another issuer": (lambda node, user: forged(user.token(), iss="elsewhere"), "token_invalid"),
    "for another audience": (lambda node, user: forged(user.token(), aud="elsewhere"), "token_invalid"),
    "without a session": (lambda node, user: forged(user.token(), sid=None), "token_invalid"),
    "valid for too long": (lambda node, user: forged(user.token(), exp=int(NOW()) + 10**6), "token_invalid"),
    "from the future": (lambda node, user: forged(user.token(), nbf=int(NOW()) + 60), "token_invalid"),
    "a refresh token": (lambda node, user: str(user.sign_in()["refresh_token"]), "token_invalid"),
    "expired": (lambda node, user: forged(user.token(), iat=int(NOW()) - 99, exp=int(NOW()) - 9), "token_expired"),
    "of a client": (lambda node, user: node.client_token(), "insufficient_scope"),
    "without the scope": (lambda node, user: forged(user.token(), scope="other"), "insufficient_scope"),
    "signed out": (
        lambda node, user: after(node, "POST", "/auth/logout", user.token(), by_admin=False),
        "token_revoked",
    ),
    "revoked": (
        lambda node, user: (token := user.token(), node.revoke(jti=claims_of(token)["jti"]))[0],
        "token_revoked",
    ),
    "of a session that never was": (lambda node, user: forged(user.token(), sid="never"), "token_revoked"),
    "of a disabled user": (
        lambda node, user: after(
            node, "PATCH", f"/admin/users/{user.id}", user.token(), by_admin=True, body={"disabled": True}
        ),
        "user_disabled",
    ),
    "of a deleted user": (
        lambda node, user: after(node, "DELETE", f"/admin/users/{user.id}", user.token(), by_admin=True),
        "token_revoked",
    ),
}


@pytest.mark.parametrize("what", list(BAD))
async def test_a_bad_token_is_closed_with_1008_and_its_slug_on_the_wire(node: Node, what: str) -> None:
    make, slug = BAD[what]
    token = make(node, node.user())
    assert await node.refusal(token) == (1008, slug)
    if token:
        assert await node.refusal(None, headers=bearer(token)) == (1008, slug), "and so it is in the header"


@pytest.mark.parametrize(
    "query", ["after=1", "epoch=e", "after=x&epoch=e", "after=-1&epoch=e", "after=1&after=2&epoch=e"]
)
async def test_a_starting_point_that_cannot_be_read_is_an_invalid_request(node: Node, query: str) -> None:
    assert await node.refusal(f"{node.user().token()}&{query}") == (1008, "invalid_request")


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example", "null", "https://app.example.evil.example", "https://app.example:9443",
        "HTTPS://APP.EXAMPLE", "http://app.example", "https://{host}",
    ],
)  # fmt: skip
async def test_WSH_04_any_other_origin_is_http_403(node: Node, origin: str) -> None:
    token = node.user().token()
    response = await denial(node, token, Origin=origin.format(host=f"127.0.0.1:{node.port}"))
    assert response.status_code == 403
    assert json.loads(response.body or b"")["code"] == "origin_refused"


async def test_under_ws_reject_http_a_refusal_is_a_plain_403_and_an_open_socket_is_closed_as_ever(
    start: Callable[..., Node],
) -> None:
    node = start(ws_reject="http", signing_keys=HS256_KEYS)
    token = node.user().token()
    for bad in ("", "garbage", forged(token, exp=int(NOW()) - 9, iat=int(NOW()) - 99)):
        assert (await denial(node, bad)).status_code == 403
    assert (await denial(node, token, Origin="https://evil.example")).status_code == 403
    device = await node.open(token)
    node.request("POST", "/auth/logout", token=token, expect=204)
    assert await device.closed() == (1008, "token_revoked")
    assert (await denial(node, token)).status_code == 403
    assert node.stop() == 0


# -- and leaves nothing behind ---------------------------------------------------------------------------------------


async def test_a_refusal_leaves_nothing_behind(node: Node, shop: str) -> None:
    user = node.user()
    token = user.token()
    node.request("POST", "/auth/logout", token=token, expect=204)
    before = node.open_files()
    for bad in (token, "garbage", None, node.client_token()):
        for _ in range(5):
            await node.refusal(bad)
    for _ in range(5):
        assert (await denial(node, token, Origin="https://evil.example")).status_code == 403
        Raw(node.port).send(head("/ws?token=garbage")).shut()
    assert node.connections(user) == []
    assert node.push(shop, user_id=user.id)["online"] is False
    await eventually_async(lambda: node.open_files() <= before, what="the descriptors are back")


async def test_REV_05_a_revocation_during_the_handshake_finds_the_socket_or_is_found(node: Node, shop: str) -> None:
    user = node.user()
    for _ in range(8):
        token = user.token()
        connection, _ = await asyncio.gather(
            node.raw(token), asyncio.to_thread(node.revoke, session=claims_of(token)["sid"])
        )
        late = node.push(shop, user_id=user.id)
        frames, close = await Socket(connection).until_closed(within=2)
        assert close == (1008, "token_revoked")
        assert late["id"] not in [frame.get("id") for frame in frames]
    eventually(lambda: node.connections(user) == [], what="nothing is left")
