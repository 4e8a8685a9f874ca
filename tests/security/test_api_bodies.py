"""API-10, 11, 12: what a body may be: its type, its size, its JSON. What is done with it is told elsewhere."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import orjson
import pytest
from hostile import is_problem
from rawpeer import Raw
from wire import Node, Socket, User, running

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def ada(node: Node) -> User:
    return node.user()


@pytest.fixture(scope="module")
def token(ada: User) -> str:
    return ada.token()


# -- API-10, 12: the body ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "limit"), [("/notifications", 64 << 10), ("/notifications/batch", 2 << 20)])
def test_API_10_a_body_beyond_the_limit_is_refused_before_it_is_taken_in(
    node: Node, shop: str, path: str, limit: int
) -> None:
    start_line = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shop}\r\nContent-Type: application/json\r\n"
    )
    before = node.resident()
    for declared in (limit + 1, 10 << 30):
        raw = Raw(node.port).send(f"{start_line}Content-Length: {declared}\r\n\r\n".encode())
        with contextlib.closing(raw.sock):
            assert raw.problem()[1]["code"] == "payload_too_large", "not a byte of it was sent"
    for piece in (b"x" * 65_536, b"x" * (limit >> 16)):
        raw = Raw(node.port).send(f"{start_line}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"%x\r\n%s\r\n" % (len(piece), piece)
        with contextlib.closing(raw.sock):
            for _ in range((limit + len(piece)) // len(piece) // 1000 + 1):
                raw.send(chunk * 1000)
            assert raw.problem()[0] == 413
    assert node.resident() - before < 8 << 20
    inside = json.dumps({"title": "x", "user_id": "nobody"}).encode()
    padded = inside + b" " * (limit - len(inside))
    answer = node.request("POST", path, token=shop, content=padded, headers=JSON)
    assert answer.json()["code"] in ("unknown_user", "validation_failed"), "just within it is read"


def test_API_10_a_batch_that_is_slow_to_read_holds_up_nobody(node: Node, shop: str) -> None:
    """Two megabytes of members that stand twice: read two times, the second time to say where."""
    body = b'{"notifications": [%s]}' % b",".join([b'{"a":1,"a":2}'] * 140_000)
    spent: list[float] = []

    def send() -> None:
        began = time.monotonic()
        node.request("POST", "/notifications/batch", token=shop, content=body, headers=JSON, expect=422)
        spent.append(time.monotonic() - began)

    sender = threading.Thread(target=send)
    sender.start()
    longest = 0.0
    with httpx2.Client(base_url=node.url, verify=False) as client:
        while sender.is_alive():
            began = time.monotonic()
            assert client.get("/healthz", timeout=30).status_code == 200
            longest = max(longest, time.monotonic() - began)
    sender.join()
    assert longest < spent[0] / 2


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/xml", "application/json; charset=latin-1", "application/jsonx", "json",
     "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json, text/plain",
     'application/json; charset="utf-16"'],
)  # fmt: skip
def test_API_12_another_content_type_is_415(node: Node, shop: str, ada: User, content_type: str | None) -> None:
    body = json.dumps({"user_id": ada.id, "title": "x"}).encode()
    headers = {} if content_type is None else {"Content-Type": content_type}
    for path in ("/notifications", "/notifications/batch", "/admin/users", "/auth/login"):
        who = node.admin if path.startswith("/admin") else shop
        answer = node.request("POST", path, token=who, content=body, headers=headers)
        is_problem(answer, 415, "unsupported_media_type")
        assert answer.headers["accept"] == "application/json"
    compressed = {**JSON, "Content-Encoding": "gzip"}
    answer = node.request("POST", "/notifications", token=shop, content=body, headers=compressed)
    is_problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; Charset=UTF-8", "application/json;"])
def test_API_12_json_in_utf_8_is_taken_however_it_is_written(node: Node, shop: str, content_type: str) -> None:
    body = json.dumps({"user_id": "nobody", "title": "x"}).encode()
    answer = node.request("POST", "/notifications", token=shop, content=body, headers={"Content-Type": content_type})
    is_problem(answer, 404, "unknown_user")


# -- API-11: what is in it ------------------------------------------------------------------------------------------

HOSTILE = [
    r'"\ud800"', r'"a\udfffb"', r'"\u0000"', r'"a\u0000b"', "NaN", "Infinity", "-Infinity", "1e999", "-1e999",
    "9007199254740992", "-9007199254740992", "1" + "0" * 400, '{"a": 1, "a": 1}', '{"a": {"b": 1, "b": 2}}',
    "[" * 40 + "]" * 40, '{"a":' * 40 + "1" + "}" * 40, r'{"\ud800": 1}', r'{"\u0000": 1}',
    "{" + ", ".join(f'"k{number}": 1' for number in range(1000)) + "}",
]  # fmt: skip


@pytest.mark.parametrize("literal", HOSTILE, ids=lambda literal: literal[:16])
def test_API_11_what_two_readers_would_read_differently_is_refused_and_nothing_is_stored(
    node: Node, shop: str, ada: User, token: str, literal: str
) -> None:
    before = node.inbox(token)["head"]
    push = f'{{"user_id": "{ada.id}", "title": "x", "data": {{"here": {literal}}}}}'
    answer = node.request("POST", "/notifications", token=shop, content=push.encode(), headers=JSON)
    assert is_problem(answer, 422, "validation_failed")["errors"]
    answer = node.request(
        "POST", "/notifications/batch", token=shop, content=f'{{"notifications": [{push}]}}'.encode(), headers=JSON
    )
    if answer.status_code == 200:
        (item,) = answer.json()["results"]
        assert (item["status"], item["code"]) == (422, "validation_failed")
    else:
        is_problem(answer, 422, "validation_failed")
    for method, path, body, who in (
        ("POST", "/admin/users", f'{{"username": "n", "password": "long-enough-7", "id": {literal}}}', node.admin),
        ("POST", "/auth/login", f'{{"username": {literal}, "password": "x"}}', None),
        ("POST", "/inbox/ack", f'{{"seq": 0, "epoch": {literal}}}', token),
    ):
        answer = node.request(method, path, token=who, content=body.encode(), headers=JSON)
        is_problem(answer, 422, "validation_failed")
    assert node.inbox(token)["head"] == before


@pytest.fixture(params=["sqlite", "postgres"])
def keeping(request: pytest.FixtureRequest, node: Node, tmp_path: Path) -> Iterator[Node]:
    """A gateway on either database."""
    if request.param == "sqlite":
        yield node
        return
    new: Callable[[], str] = request.getfixturevalue("database")
    with running(tmp_path, database_url=new(), log_level="info") as other:
        yield other


async def test_API_11_what_is_taken_comes_back_byte_for_byte_on_either_database(keeping: Node) -> None:
    node = keeping
    user, shop = node.user(), node.client_token()
    token = user.token()
    device = await node.raw(token)
    await Socket(device).next("hello")
    data = {
        "z": [1.5, -0.0, 1e-7, 1e300, 9007199254740991, -9007199254740991, True, False, None, 0.1, 1.0],
        "": {"\u2028": "\u0001 \" \\ / é 🔑 \u202e </script>", "a/b~c": [], "nested": [[[[{}]]]]},
    }  # fmt: skip
    for text in ("plain", "\u202e\U0001f511 é\n\t\\\"'</script>", "e\u0301 \u00e9"):
        sent = {"user_id": user.id, "title": text, "body": text * 3, "data": data, "category": text}
        rendered = orjson.dumps({name: sent[name] for name in ("title", "body", "data", "category")})[1:-1]
        answer = node.request("POST", "/notifications", token=shop, json=sent, expect=201)
        frame = await device.recv()
        one = node.request("GET", f"/inbox/{answer.json()['id']}", token=token, expect=200)
        listed = node.request("GET", "/inbox?limit=1", token=token, expect=200)
        for came in (str(frame).encode(), one.content, listed.content):
            assert rendered in came
