"""WSH-04: which pages may open a socket, by an exact match of Origin, in every mode; and what a cookie asks besides."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from rawpeer import Raw, head
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response
from wire import Node, claims_of, running

GOOD = "https://good.example"


@pytest.fixture(scope="module", params=["close", "http"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(
        tmp_path_factory.mktemp("node"), allowed_origins=f"{GOOD},https://good.example:8443", ws_reject=request.param
    ) as node:
        yield node


async def denial(node: Node, token: str | None, **headers: str) -> Response:
    with pytest.raises(InvalidStatus) as refused:
        await node.raw(token, headers=headers)
    return refused.value.response


def ticket_of(node: Node, token: str) -> str:
    return str(node.request("POST", "/auth/ticket", token=token, expect=201).json()["ticket"])


async def test_WSH_04_the_listed_and_the_own_origin_may(node: Node) -> None:
    token = node.user().token()
    for origin in (GOOD, "https://good.example:8443", f"http://127.0.0.1:{node.port}"):
        await node.open(token, headers={"Origin": origin})
    await node.open(token)
    await node.open(ticket_of(node, token))


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example", "null", "", "https://good.com.evil.com", "https://good.example.evil.example",
        "https://good.exampl", "https://good.example.", "https://goodXexample", "https://www.good.example",
        "HTTPS://GOOD.EXAMPLE", "https://Good.example", "https://good.example:443", "https://good.example:9443",
        "http://good.example", "https://good.example/", "https://{host}", "http://127.0.0.1", "http://localhost:{port}",
        "https://good.example, https://evil.example", "*", "file://", "https://good.example@evil.example",
    ],
)  # fmt: skip
async def test_WSH_04_any_other_is_403_in_every_mode(node: Node, origin: str) -> None:
    token = node.user().token()
    said = origin.format(host=f"127.0.0.1:{node.port}", port=node.port)
    for credential in (token, ticket_of(node, token), None, "garbage"):
        response = await denial(node, credential, Origin=said)
        assert response.status_code == 403
        problem = json.loads(response.body or b"")
        assert (problem["code"], problem["status"]) == ("origin_refused", 403)
    assert "access-control-allow-origin" not in response.headers


async def test_WSH_04_two_origins_are_no_handshake(node: Node) -> None:
    token = node.user().token()
    raw = Raw(node.port)
    raw.send(head(f"/ws?token={token}", f"Host: 127.0.0.1:{node.port}", f"Origin: {GOOD}", f"oRigin: {GOOD}"))
    assert raw.response()[0] == 400
    raw.sock.close()


async def test_WSH_04_a_cookie_needs_an_origin_or_the_word_of_the_browser(node: Node) -> None:
    token = node.user().token()
    cookie = {"Cookie": f"__Host-gateway-access={token}"}
    own = f"http://127.0.0.1:{node.port}"
    for more in ({"Origin": own}, {"Origin": GOOD}, {"Sec-Fetch-Site": "same-origin"}):
        device = await node.open("", headers={**cookie, **more})
        assert device.hello["session"] == claims_of(token)["sid"]
    for more in (
        {}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "Same-Origin"}, {"Sec-Fetch-Site": "same-origin, same-origin"},
    ):  # fmt: skip
        if node.settings["ws_reject"] == "http":
            assert (await denial(node, None, **cookie, **more)).status_code == 403
        else:
            assert await node.refusal(None, headers={**cookie, **more}) == (1008, "token_missing"), more
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"}
    assert (await denial(node, None, **cookie, **foreign)).status_code == 403


async def test_WSH_04_where_all_origins_may_a_cookie_still_counts_for_the_own_alone(
    start: Callable[..., Node],
) -> None:
    node = start(allowed_origins="*")
    token = node.user().token()
    cookie = {"Cookie": f"__Host-gateway-access={token}"}
    evil = {"Origin": "https://evil.example"}
    await node.open(token, headers=evil)
    await node.open(token, headers={**evil, **cookie})
    for origin in ("https://evil.example", "null"):
        response = await denial(node, None, Origin=origin, **cookie)
        assert response.status_code == 403
        assert json.loads(response.body or b"")["code"] == "origin_refused"
    await node.open("", headers={"Origin": f"http://127.0.0.1:{node.port}", **cookie})
    assert node.stop() == 0
