"""API-07: the process dies between the commit of a push and its answer, or just before the commit. On both databases.

At random moments and under load the same is a row of ``tests/faults/test_kill.py``.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from silent import SilentNode
from wire import eventually

KEY = "k-07"


@pytest.fixture(params=["sqlite", "postgres"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SilentNode]:
    kept: dict[str, str] = {}
    if request.param == "postgres":
        new: Callable[[], str] = request.getfixturevalue("database")
        kept["database_url"] = new()
    node = SilentNode(tmp_path, log_level="info", **kept)
    try:
        yield node.start()
    finally:
        node.kill()


def ask(node: SilentNode, token: str, body: dict[str, str]) -> socket.socket:
    """Send a push whose answer will never come."""
    text = json.dumps(body).encode()
    head = (
        f"POST /notifications HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nIdempotency-Key: {KEY}\r\nContent-Length: {len(text)}\r\n\r\n"
    )
    sock = socket.create_connection(("127.0.0.1", node.port), 30)
    sock.sendall(head.encode() + text)
    return sock


@pytest.mark.parametrize("moment", ["after", "before"])
async def test_API_07_killed_around_the_commit_a_retry_with_the_key_makes_it_exactly_one(
    node: SilentNode, moment: str
) -> None:
    shop, user = node.client_token(), node.user()
    token = user.token()
    body = {"user_id": user.id, "title": "once"}
    node.silence(moment)
    with ask(node, shop, body) as sock:
        eventually(node.waiting.exists, what="it stands still")
        stored = node.inbox(token, after=0)["items"]
        assert len(stored) == (1 if moment == "after" else 0), "at this side of the commit"
        node.kill()
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b"", "it was answered: this is another moment"
    node.start()
    first, again = (
        node.request("POST", "/notifications", token=shop, json=body, headers={"Idempotency-Key": KEY}, expect=201)
        for _ in range(2)
    )
    assert first.headers.get("idempotency-replayed") == ("true" if moment == "after" else None)
    assert again.headers["idempotency-replayed"] == "true"
    assert first.content == again.content
    (item,) = node.inbox(token, after=0)["items"]
    assert (item["id"], item["seq"]) == (first.json()["id"], 1)
    assert moment == "before" or item["id"] == stored[0]["id"]
    device = await node.open(token)
    assert (await device.next("notification"))["id"] == item["id"]
    await device.quiet()
    assert node.stop() == 0
