"""Who asks is settled before the body is read, its type before its size, its size before it is kept (API-10, 12)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.types import Message

from gateway.api.routes import MAX_BATCH_BODY, MAX_BODY

JSON_ROUTES = [("POST", "/notifications"), ("POST", "/notifications/batch"), ("POST", "/admin/users")]


class Sender:
    """A client that sends chunk by chunk and counts how often it was asked for one."""

    def __init__(self, app: FastAPI, services: SimpleNamespace) -> None:
        self._app, self._services = app, services
        self.asked = 0
        self.sent: list[Message] = []

    async def post(self, path: str, chunks: list[bytes], *headers: tuple[bytes, bytes]) -> int:
        async def receive() -> Message:
            self.asked += 1
            body = chunks[self.asked - 1]
            return {"type": "http.request", "body": body, "more_body": self.asked < len(chunks)}

        async def send(message: Message) -> None:
            self.sent.append(message)

        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": list(headers),
            "client": ("::1", 1),
            "server": ("::1", 2),
            "state": {"services": self._services},
        }
        await self._app(scope, receive, send)
        return int(self.sent[0]["status"])


@pytest.fixture
def sender(app: FastAPI, services: SimpleNamespace) -> Sender:
    return Sender(app, services)


SHOP = (b"authorization", b"Bearer shop")
ROOT = (b"authorization", b"Bearer root")
JSON = (b"content-type", b"application/json")


@pytest.mark.parametrize("path", ["/notifications", "/notifications/batch", "/admin/users"])
async def test_a_stranger_is_refused_before_the_body_is_read(sender: Sender, path: str) -> None:
    assert await sender.post(path, [b"x"], JSON) == 401
    assert sender.asked == 0


async def test_a_declared_length_beyond_the_limit_is_refused_before_the_body_is_read(sender: Sender) -> None:
    assert await sender.post("/notifications", [b"{}"], SHOP, JSON, (b"content-length", b"65537")) == 413
    assert sender.asked == 0
    assert (b"connection", b"close") in sender.sent[0]["headers"]


@pytest.mark.parametrize(
    ("path", "limit", "who"),
    [
        ("/notifications", MAX_BODY, SHOP),
        ("/notifications/batch", MAX_BATCH_BODY, SHOP),
        ("/admin/users", MAX_BODY, ROOT),
    ],
)
async def test_a_body_without_a_length_is_cut_off_at_the_limit(sender: Sender, path: str, limit: int, who: Any) -> None:
    chunk = b" " * 16384
    assert await sender.post(path, [chunk] * 1000, who, JSON) == 413
    assert sender.asked == limit // len(chunk) + 1


async def test_a_body_in_chunks_is_put_together(sender: Sender, services: SimpleNamespace) -> None:
    chunks = [b'{"user_id":"ada",', b"", b'"title":"hi"}', b""]
    assert await sender.post("/notifications", chunks, SHOP, JSON) == 201
    assert len(services.publisher.pushed) == 1


async def test_64_kib_are_taken_and_one_byte_more_is_not(sender: Sender) -> None:
    body = b'{"user_id":"ada","title":"hi"}'
    assert await sender.post("/notifications", [body.ljust(MAX_BODY)], SHOP, JSON) == 201


async def test_one_byte_more_than_64_kib_is_not_taken(sender: Sender, services: SimpleNamespace) -> None:
    body = b'{"user_id":"ada","title":"hi"}'
    assert await sender.post("/notifications", [body.ljust(MAX_BODY + 1)], SHOP, JSON) == 413
    assert not services.publisher.pushed


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "application/jsonx",
    ],
)
@pytest.mark.parametrize(("method", "path"), JSON_ROUTES)
async def test_another_type_or_charset_is_415(
    http: httpx2.AsyncClient, as_: Any, method: str, path: str, content_type: str | None
) -> None:
    headers = as_("root") | ({"Content-Type": content_type} if content_type is not None else {})
    answer = await http.request(method, path, content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert answer.json()["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"']
)
async def test_json_in_utf8_is_taken_however_it_is_spelled(
    http: httpx2.AsyncClient, as_: Any, content_type: str
) -> None:
    body = b'{"user_id":"ada","title":"hi"}'
    answer = await http.post("/notifications", content=body, headers=as_("shop") | {"Content-Type": content_type})
    assert answer.status_code == 201


async def test_a_compressed_body_is_415(http: httpx2.AsyncClient, as_: Any) -> None:
    headers = as_("shop") | {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert (await http.post("/notifications", content=b"{}", headers=headers)).status_code == 415


async def test_a_body_of_no_length_is_422(http: httpx2.AsyncClient, as_: Any) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    headers = as_("root") | {"Content-Type": "application/json"}
    answer = await http.post("/admin/users", content=nothing(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_json")


@pytest.mark.parametrize("raw", [b'{"seq":1,"seq":2,"epoch":"e1"}', b'{"seq":1e999,"epoch":"e1"}', b"[" * 50_000])
async def test_models_are_read_as_strictly_as_pushes(http: httpx2.AsyncClient, as_: Any, raw: bytes) -> None:
    headers = as_("ada") | {"Content-Type": "application/json"}
    assert (await http.post("/inbox/ack", content=raw, headers=headers)).status_code == 422
