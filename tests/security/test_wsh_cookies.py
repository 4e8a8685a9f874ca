"""Sign-in by cookie (contract section 9): which requests a cookie counts on, and for the pages of which origin."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from rawpeer import Raw
from wire import ADMIN_PASSWORD, Node, Socket, User, claims_of, running

ACCESS, REFRESH = "__Host-gateway-access", "__Host-gateway-refresh"
LISTED = "https://app.example"
SET = re.compile(r"(?P<name>[^=]+)=(?P<value>[^;]*); Max-Age=(?P<age>\d+); Path=/; Secure; HttpOnly; SameSite=Strict")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("node"), allowed_origins=LISTED) as node:
        yield node


def own(node: Node) -> dict[str, str]:
    return {"Origin": f"http://127.0.0.1:{node.port}"}


def cookies_set(answer: httpx2.Response) -> dict[str, tuple[str, int]]:
    """Name → value and Max-Age; every one with all of its attributes and no Domain."""
    found = {}
    for line in answer.headers.get_list("set-cookie"):
        match = SET.fullmatch(line)
        assert match is not None, line
        found[match["name"]] = (match["value"], int(match["age"]))
    return found


def jar(**values: str) -> dict[str, str]:
    names = {"access": ACCESS, "refresh": REFRESH}
    return {"Cookie": "; ".join(f"{names[name]}={value}" for name, value in values.items())}


def sign_in(
    node: Node, user: User, headers: dict[str, str], *, expect: int = 200, query: str = "cookie=true"
) -> httpx2.Response:
    body = {"username": user.username, "password": user.password}
    return node.request("POST", f"/auth/login?{query}", json=body, headers=headers, expect=expect)


def signed_in(node: Node, user: User) -> dict[str, str]:
    """access and refresh, as a browser would keep them."""
    found = cookies_set(sign_in(node, user, own(node)))
    return {"access": found[ACCESS][0], "refresh": found[REFRESH][0]}


def test_the_answer_holds_no_token_and_the_cookies_are_bound_to_the_host(node: Node) -> None:
    user = node.user()
    answer = sign_in(node, user, own(node))
    body = answer.json()
    assert body.keys() == {"expires_in", "refresh_expires_in", "scope"}
    found = cookies_set(answer)
    assert found.keys() == {ACCESS, REFRESH}
    assert found[ACCESS][1] == body["expires_in"]
    assert found[REFRESH][1] == body["refresh_expires_in"]
    assert claims_of(found[ACCESS][0])["sub"] == user.id
    for value, _ in found.values():
        assert value not in answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_without_the_parameter_tokens_are_answered_and_no_cookie(node: Node) -> None:
    for query in ("", "cookie=false"):
        answer = sign_in(node, node.user(), own(node), query=query)
        assert "access_token" in answer.json()
        assert "set-cookie" not in answer.headers
    sign_in(node, node.user(), own(node), query="cookie=perhaps", expect=422)


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
    ],
)  # fmt: skip
def test_nobody_is_signed_in_by_the_page_of_somebody_else(node: Node, headers: dict[str, str]) -> None:
    answer = sign_in(node, node.user(), headers, expect=403)
    assert answer.json()["code"] == "origin_refused"
    assert "set-cookie" not in answer.headers


def test_a_listed_page_and_one_by_the_word_of_the_browser_may(node: Node) -> None:
    for headers in ({"Origin": LISTED}, {"Sec-Fetch-Site": "same-origin"}):
        assert cookies_set(sign_in(node, node.user(), headers)).keys() == {ACCESS, REFRESH}


async def test_the_access_cookie_opens_a_socket_and_gets_a_ticket(node: Node) -> None:
    kept = signed_in(node, node.user())
    session = claims_of(kept["access"])["sid"]
    device = await node.open("", headers={**own(node), **jar(access=kept["access"])})
    assert device.hello["session"] == session
    answer = node.request("POST", "/auth/ticket", headers={**own(node), **jar(**kept)}, expect=201)
    opened = await node.open(answer.json()["ticket"], headers={**own(node), **jar(**kept)})
    assert opened.hello["session"] == session


def test_a_cookie_counts_nowhere_else(node: Node) -> None:
    kept = signed_in(node, node.user())
    for method, path in (
        ("GET", "/inbox"), ("GET", "/auth/me"), ("GET", "/auth/sessions"), ("POST", "/inbox/read"),
        ("PUT", "/auth/password"), ("POST", "/notifications"), ("GET", "/admin/users"), ("GET", "/metrics"),
    ):  # fmt: skip
        answer = node.request(method, path, headers={**own(node), **jar(**kept)}, expect=401)
        assert answer.json()["code"] == "token_missing", path


@pytest.mark.parametrize("path", ["/auth/ticket", "/auth/refresh", "/auth/logout"])
def test_it_counts_for_its_own_page_alone(node: Node, path: str) -> None:
    kept = signed_in(node, node.user())
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"https://127.0.0.1:{node.port}"},
    ):
        answer = node.request("POST", path, headers={**headers, **jar(**kept)}, expect=403)
        assert answer.json()["code"] == "origin_refused"
        assert "set-cookie" not in answer.headers
    for more in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "none"}):
        answer = node.request("POST", path, headers={**more, **jar(**kept)}, expect=401)
        assert answer.json()["code"] == "token_missing"
    node.request("POST", "/auth/ticket", headers={**own(node), **jar(**kept)}, expect=201)


def refresh(node: Node, **kept: str) -> httpx2.Response:
    return node.request("POST", "/auth/refresh", headers={**own(node), **jar(**kept)})


def test_a_refresh_sets_both_anew_and_answers_an_access_token_alone(node: Node) -> None:
    kept = signed_in(node, node.user())
    answer = refresh(node, refresh=kept["refresh"])
    assert answer.status_code == 200
    assert answer.json().keys() == {"access_token", "token_type", "expires_in", "scope"}
    found = cookies_set(answer)
    assert found[ACCESS][0] == answer.json()["access_token"]
    assert found[REFRESH][0] != kept["refresh"]
    node.request("GET", "/auth/me", token=answer.json()["access_token"], expect=200)


def test_two_tabs_that_refresh_at_once_keep_one_session(node: Node) -> None:
    kept = signed_in(node, node.user())
    for _ in range(5):
        together = threading.Barrier(4)

        def tab(cookie: str = kept["refresh"], together: threading.Barrier = together) -> httpx2.Response:
            together.wait()
            return refresh(node, refresh=cookie)

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: tab(), range(4)))
        assert [answer.status_code for answer in answers] == [200] * 4
        successors = {cookies_set(answer)[REFRESH][0] for answer in answers}
        assert len(successors) == 1
        kept["refresh"] = successors.pop()


def test_cookies_that_do_not_count_any_more_are_taken_back(node: Node) -> None:
    """And only they: what could not be asked now, or was no cookie of this page, may still count."""
    user = node.user()
    kept = signed_in(node, user)
    node.request("POST", "/auth/logout", headers={**own(node), **jar(**kept)}, expect=204)
    answer = refresh(node, **kept)
    assert (answer.status_code, answer.json()["code"]) == (401, "bad_credentials")
    assert cookies_set(answer) == {ACCESS: ("", 0), REFRESH: ("", 0)}
    assert answer.headers["content-type"] == "application/problem+json"
    body = {"refresh_token": kept["refresh"]}
    answer = node.request("POST", "/auth/refresh", json=body, headers={**own(node), **jar(**kept)}, expect=401)
    assert "set-cookie" not in answer.headers
    foreign = {"Origin": "https://evil.example", **jar(**kept)}
    assert "set-cookie" not in node.request("POST", "/auth/refresh", headers=foreign, expect=403).headers


def test_an_access_cookie_refreshes_nothing_and_a_refresh_cookie_opens_nothing(node: Node) -> None:
    kept = signed_in(node, node.user())
    assert refresh(node, refresh=kept["access"]).json()["code"] == "bad_credentials"
    assert refresh(node, access=kept["access"]).json()["code"] == "token_missing"
    crossed = {**own(node), **jar(access=kept["refresh"])}
    assert node.request("POST", "/auth/ticket", headers=crossed, expect=401).json()["code"] == "token_invalid"


def test_a_refresh_with_a_body_is_the_bodys(node: Node) -> None:
    user, other = node.user(), node.user()
    kept, body = signed_in(node, user), {"refresh_token": other.sign_in()["refresh_token"]}
    answer = node.request("POST", "/auth/refresh", json=body, headers={**own(node), **jar(**kept)}, expect=200)
    assert claims_of(answer.json()["access_token"])["sub"] == other.id
    assert "refresh_token" in answer.json()
    assert "set-cookie" not in answer.headers
    for content in (b"{}", b"garbage"):
        headers = {**own(node), **jar(**kept), "Content-Type": "application/json"}
        assert node.request("POST", "/auth/refresh", content=content, headers=headers).status_code == 422
    assert node.request("POST", "/auth/refresh", content=b"x", headers=jar(**kept)).status_code == 415
    assert refresh(node, refresh=kept["refresh"]).status_code == 200


@pytest.mark.parametrize("left", ["access refresh", "access", "refresh"])
async def test_signing_out_ends_the_session_and_takes_the_cookies_back(node: Node, left: str) -> None:
    kept = signed_in(node, node.user())
    device = await node.open(kept["access"])
    cookies = {name: kept[name] for name in left.split()}
    answer = node.request("POST", "/auth/logout", headers={**own(node), **jar(**cookies)}, expect=204)
    assert cookies_set(answer) == {ACCESS: ("", 0), REFRESH: ("", 0)}
    assert await device.closed() == (1008, "token_revoked")
    assert refresh(node, refresh=kept["refresh"]).status_code == 401
    again = node.request("POST", "/auth/logout", headers={**own(node), **jar(**cookies)}, expect=204)
    assert cookies_set(again).keys() == {ACCESS, REFRESH}, "cookies that no longer count are taken back too"


def test_signing_out_with_nothing_is_401(node: Node) -> None:
    answer = node.request("POST", "/auth/logout", headers=own(node), expect=401)
    assert answer.json()["code"] == "token_missing"
    assert "set-cookie" not in answer.headers


async def test_credentials_of_different_sessions_and_a_cookie_twice_are_refused(node: Node) -> None:
    user = node.user()
    kept, other = signed_in(node, user), user.token()
    conflict = (1008, "credentials_conflict")
    page = {**own(node), **jar(access=kept["access"])}
    assert await node.refusal(other, headers=page) == conflict
    assert await node.refusal(None, headers={**page, "Authorization": f"Bearer {other}"}) == conflict
    ticket = node.request("POST", "/auth/ticket", token=other, expect=201).json()["ticket"]
    assert await node.refusal(ticket, headers=page) == conflict
    answer = node.request("POST", "/auth/ticket", token=other, headers=page, expect=401)
    assert answer.json()["code"] == "credentials_conflict"
    twice = {**own(node), "Cookie": f"{ACCESS}={kept['access']}; a=b; {ACCESS}={kept['access']}"}
    assert await node.refusal(None, headers=twice) == conflict
    answer = node.request("POST", "/auth/ticket", headers=twice, expect=401)
    assert answer.json()["code"] == "credentials_conflict"
    # Of one session they are taken together.
    Socket(await node.raw(kept["access"], headers=page))
    node.request("POST", "/auth/ticket", token=kept["access"], headers=page, expect=201)


async def test_names_that_only_look_like_ours_are_not(node: Node) -> None:
    token = node.user().token()
    for name in ("gateway-access", "__host-gateway-access", "__Host-gateway-access2", "__Secure-gateway-access"):
        headers = {**own(node), "Cookie": f"{name}={token}; {name.upper()}={token}"}
        assert await node.refusal(None, headers=headers) == (1008, "token_missing")


def test_no_token_of_a_cookie_is_in_the_log_or_the_database(start: Callable[..., Node]) -> None:
    node = start()
    body = {"username": "admin", "password": ADMIN_PASSWORD}
    answer = node.request("POST", "/auth/login?cookie=true", json=body, headers=own(node), expect=200)
    found = {name: value for name, (value, _) in cookies_set(answer).items()}
    kept = {"access": found[ACCESS], "refresh": found[REFRESH]}
    asyncio.run(node.refusal(None, headers=jar(**kept)))
    node.request("POST", "/auth/logout", headers={**own(node), **jar(**kept)}, expect=204)
    assert node.stop() == 0
    kept_files = [path.read_bytes().decode("latin-1") for path in node.directory.glob("gateway.db*")]
    texts = [node.log_text(), *kept_files]
    for secret in kept.values():
        assert not any(secret.rpartition(".")[2] in text for text in texts)


@pytest.mark.parametrize("before", [b"\xa0", b"\x85", b"\x1f", b"\x0b"])
def test_what_a_browser_takes_for_another_name_is_one(node: Node, before: bytes) -> None:
    """It keeps such a cookie from a neighbouring host: only names that begin with ``__Host-`` are bound to ours."""
    kept = signed_in(node, node.user())
    port = str(node.port).encode()
    head = b"POST /auth/ticket HTTP/1.1\r\nHost: 127.0.0.1:" + port + b"\r\nOrigin: http://127.0.0.1:" + port
    cookie = ACCESS.encode() + b"=" + kept["access"].encode()
    end = b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    for written, expected in ((before + cookie, {400, 401}), (b"\t" + cookie, {201})):
        raw = Raw(node.port).send(head + b"\r\nCookie: a=b; " + written + end)
        assert raw.response()[0] in expected
        raw.sock.close()
