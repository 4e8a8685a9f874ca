"""``/ws`` under another ASGI server: Starlette's TestClient, in this process. Not ours: the endpoint loops itself."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse, WebSocketTestSession
from starlette.types import Message
from starlette.websockets import WebSocketDisconnect
from wire import ADMIN_PASSWORD, HS256_KEYS, claims_of, eventually, forged

from gateway.app import create_app
from gateway.settings import read_settings


class Gateway:
    """An application under TestClient, and what its users do to it."""

    def __init__(self, http: TestClient) -> None:
        self.http = http
        self.names = iter(f"user-{number}" for number in range(1000))
        self.admin = self.sign_in("admin", ADMIN_PASSWORD)["access_token"]

    def call(self, method: str, path: str, token: str, status: int, body: object = None) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        answer = self.http.request(method, path, headers=headers, json=body)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def sign_in(self, username: str, password: str) -> dict[str, Any]:
        answer = self.http.post("/auth/login", json={"username": username, "password": password})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def user(self) -> tuple[str, str]:
        """The id of a new user, and a token."""
        name = next(self.names)
        body = {"username": name, "password": f"pw of {name}"}
        user = self.call("POST", "/admin/users", self.admin, 201, body)
        return user["id"], str(self.sign_in(name, body["password"])["access_token"])

    def push(self, user: str, **more: Any) -> dict[str, Any]:
        return dict(self.call("POST", "/notifications", self.admin, 201, {"user_id": user, "title": "hello", **more}))

    def connect(self, query: str, **headers: str) -> contextlib.AbstractContextManager[WebSocketTestSession]:
        return self.http.websocket_connect(f"/ws?{query}", subprotocols=["notify.v1"], headers=headers)

    def refusal(self, query: str, **headers: str) -> tuple[int, str]:
        with pytest.raises(WebSocketDisconnect) as refused, self.connect(query, **headers):
            pass
        return refused.value.code, refused.value.reason


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with opened(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@contextlib.contextmanager
def opened(directory: Path, **settings: str) -> Iterator[Gateway]:
    environment = {
        "GATEWAY_DATABASE_URL": f"sqlite+aiosqlite:///{directory}/gateway.db",
        "GATEWAY_BOOTSTRAP_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "GATEWAY_SIGNING_KEYS": HS256_KEYS,
        "GATEWAY_PRESENCE_LINGER": "0",
        **settings,
    }
    with TestClient(create_app(read_settings(environment))) as http:
        yield Gateway(http)


def closed(socket: WebSocketTestSession) -> tuple[int, str]:
    """How it ended; no frame may come before."""
    with pytest.raises(WebSocketDisconnect) as ended:
        socket.receive_json()
    return ended.value.code, ended.value.reason


# -- refused before accept -------------------------------------------------------------------------------------------


def test_without_a_token_it_is_closed_before_accept(gateway: Gateway) -> None:
    assert gateway.refusal("") == (1008, "token_missing")
    assert gateway.refusal("token=") == (1008, "token_missing")


BAD: dict[str, tuple[Callable[[str], str], str]] = {
    "garbage": (lambda token: "garbage", "token_invalid"),
    "another signature": (lambda token: token[:-4] + "AAAA", "token_invalid"),
    "expired": (lambda token: forged(token, iat=int(time.time()) - 99, exp=int(time.time()) - 9), "token_expired"),
    "without the scope": (lambda token: forged(token, scope="other"), "insufficient_scope"),
    "twice": (lambda token: f"{token}&token={token}", "credentials_conflict"),
    "after what": (lambda token: f"{token}&after=1", "invalid_request"),
}


@pytest.mark.parametrize("what", list(BAD))
def test_a_bad_token_is_closed_before_accept_with_1008_and_its_slug(gateway: Gateway, what: str) -> None:
    change, slug = BAD[what]
    assert gateway.refusal(f"token={change(gateway.user()[1])}") == (1008, slug)


def test_a_revoked_token_and_a_disabled_user_are_refused(gateway: Gateway) -> None:
    _, token = gateway.user()
    gateway.call("POST", "/auth/logout", token, 204)
    assert gateway.refusal(f"token={token}") == (1008, "token_revoked")
    assert gateway.refusal("", Authorization=f"Bearer {token}") == (1008, "token_revoked")
    user, token = gateway.user()
    gateway.call("PATCH", f"/admin/users/{user}", gateway.admin, 200, {"disabled": True})
    assert gateway.refusal(f"token={token}") == (1008, "user_disabled")


def test_a_token_of_a_session_that_never_was_is_closed_without_a_frame(gateway: Gateway) -> None:
    _, token = gateway.user()
    with gateway.connect(f"token={forged(token, sid='never')}") as socket:
        assert closed(socket) == (1008, "token_revoked")


def test_another_origin_is_http_403(gateway: Gateway) -> None:
    _, token = gateway.user()
    with pytest.raises(WebSocketDenialResponse) as refused, gateway.connect(f"token={token}", Origin="https://evil"):
        pass
    assert refused.value.status_code == 403
    with gateway.connect(f"token={token}", Origin="http://testserver") as socket:
        assert socket.receive_json()["type"] == "hello"


def test_a_user_has_so_many_connections_and_a_refusal_leaves_nothing_behind(tmp_path: Path) -> None:
    with opened(tmp_path, GATEWAY_CONNECTIONS_PER_USER="1") as gateway:
        user, token = gateway.user()
        for _ in range(3):
            gateway.refusal("token=garbage")
        assert gateway.call("GET", "/admin/connections", gateway.admin, 200)["items"] == []
        assert gateway.push(user)["online"] is False
        with gateway.connect(f"token={token}") as socket:
            assert socket.receive_json()["type"] == "hello"
            assert gateway.push(user)["online"] is True
            assert gateway.refusal(f"token={token}") == (1008, "connection_limit")
        assert gateway.push(user)["online"] is False
        with gateway.connect(f"token={token}") as socket:
            assert socket.receive_json()["head"] == 3


# -- accepted --------------------------------------------------------------------------------------------------------


def test_hello_then_what_was_missed_then_what_is_new(gateway: Gateway) -> None:
    user, token = gateway.user()
    missed = [gateway.push(user)["id"] for _ in range(3)]
    with gateway.connect(f"token={token}") as socket:
        assert socket.accepted_subprotocol == "notify.v1"
        hello = socket.receive_json()
        (listed,) = gateway.call("GET", f"/admin/connections?user_id={user}", gateway.admin, 200)["items"]
        assert (hello["type"], hello["head"], hello["after"], hello["connection"]) == ("hello", 3, 0, listed["id"])
        assert [socket.receive_json()["id"] for _ in range(3)] == missed
        live = gateway.push(user, data={"n": 1})
        frame = socket.receive_json()
        assert (frame["id"], frame["seq"], frame["data"]) == (live["id"], 4, {"n": 1})
        socket.send_json({"type": "ack", "seq": 4, "ref": "a"})
        assert socket.receive_json() == {"type": "ok", "ref": "a"}
    with gateway.connect("", Authorization=f"Bearer {token}") as socket:
        assert socket.receive_json()["cursor"] == 4
        socket.send_json({"type": "ping", "ref": 1})
        assert socket.receive_json() == {"type": "pong", "ref": 1}


def test_a_large_backlog_comes_whole(gateway: Gateway) -> None:
    user, token = gateway.user()
    item = {"user_id": user, "title": "big", "body": "x" * 4000}
    gateway.call("POST", "/notifications/batch", gateway.admin, 200, {"notifications": [item] * 300})
    with gateway.connect(f"token={token}") as socket:
        assert socket.receive_json()["head"] == 300
        assert [socket.receive_json()["seq"] for _ in range(300)] == list(range(1, 301))


def test_read_and_withdrawn_are_heard_by_all_tabs(gateway: Gateway) -> None:
    user, token = gateway.user()
    with gateway.connect(f"token={token}") as one, gateway.connect(f"token={token}") as two:
        id = gateway.push(user)["id"]
        for socket in (one, two):
            assert [socket.receive_json()["type"] for _ in range(2)] == ["hello", "notification"]
        one.send_json({"type": "read", "ids": [id]})
        for socket in (one, two):
            assert socket.receive_json() == {"type": "read", "ids": [id], "unread": 0, "rev": 1}
        gateway.call("DELETE", f"/notifications/{id}", gateway.admin, 204)
        for socket in (one, two):
            assert socket.receive_json() == {"type": "withdrawn", "id": id, "seq": 1, "unread": 0, "rev": 2}


def test_a_revocation_closes_it(gateway: Gateway) -> None:
    user, token = gateway.user()
    with gateway.connect(f"token={token}") as socket:
        assert socket.receive_json()["type"] == "hello"
        body = {"session": claims_of(token)["sid"]}
        assert gateway.call("POST", "/admin/revocations", gateway.admin, 201, body)["connections_closed"] == 1
        gateway.push(user)
        assert closed(socket) == (1008, "token_revoked")


def test_it_ends_when_its_token_expires_unless_a_fresh_one_moves_the_deadline(gateway: Gateway) -> None:
    _, token = gateway.user()
    expires = int(time.time()) + 2
    short = forged(token, exp=expires)
    with gateway.connect(f"token={short}") as ends, gateway.connect(f"token={short}") as stays:
        assert (ends.receive_json()["type"], stays.receive_json()["type"]) == ("hello", "hello")
        stays.send_json({"type": "token", "token": "garbage"})
        assert stays.receive_json()["code"] == "token_invalid"
        stays.send_json({"type": "token", "token": token, "ref": 1})
        assert stays.receive_json()["type"] == "ok"
        assert closed(ends) == (1008, "token_expired")
        assert abs(time.time() - expires) <= 1
        stays.send_json({"type": "ping"})
        assert stays.receive_json() == {"type": "pong"}
        sooner = int(time.time()) + 2
        stays.send_json({"type": "token", "token": forged(token, exp=sooner), "ref": 2})
        assert stays.receive_json()["type"] == "ok"
        assert closed(stays) == (1008, "token_expired"), "long before its heartbeat would notice"
        assert abs(time.time() - sooner) <= 1


BREAKING: dict[str, tuple[Callable[[WebSocketTestSession], None], tuple[int, str]]] = {
    "binary": (lambda socket: socket.send_bytes(b"binary"), (1003, "binary_frame")),
    "long": (lambda socket: socket.send_text("x" * (16 * 1024 + 1)), (1009, "message_too_big")),
    "long in bytes": (lambda socket: socket.send_text("é" * (8 * 1024 + 1)), (1009, "message_too_big")),
    "a lone surrogate": (lambda socket: socket.send_text("\ud800"), (1007, "invalid_text")),
}


@pytest.mark.parametrize("what", list(BREAKING))
def test_what_breaks_the_protocol_ends_it(gateway: Gateway, what: str) -> None:
    send, close = BREAKING[what]
    with gateway.connect(f"token={gateway.user()[1]}") as socket:
        assert socket.receive_json()["type"] == "hello"
        send(socket)
        assert closed(socket) == close


def test_a_frame_that_cannot_be_taken_gets_an_error_and_a_flood_ends_it(gateway: Gateway) -> None:
    with gateway.connect(f"token={gateway.user()[1]}") as socket:
        assert socket.receive_json()["type"] == "hello"
        socket.send_text("no json")
        assert socket.receive_json()["code"] == "invalid_json"
        for _ in range(200):
            socket.send_text(json.dumps({"type": "ping"}))
        while (message := socket.receive())["type"] == "websocket.send":
            assert message["text"] == '{"type":"pong"}'
        assert (message["code"], message["reason"]) == (1008, "rate_limited")


def test_a_server_that_cannot_accept_leaves_no_connection_behind(gateway: Gateway) -> None:
    user, token = gateway.user()
    scope = {
        "type": "websocket", "path": "/ws", "query_string": f"token={token}".encode(), "headers": [],
        "client": ("127.0.0.1", 1), "subprotocols": [], "state": gateway.http.app_state,
    }  # fmt: skip

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        assert message["type"] == "websocket.accept"
        raise OSError("the peer has left")

    assert gateway.http.portal is not None
    with pytest.raises(OSError, match="has left"):
        gateway.http.portal.call(gateway.http.app, scope, receive, send)
    assert gateway.call("GET", f"/admin/connections?user_id={user}", gateway.admin, 200)["items"] == []
    assert gateway.push(user)["online"] is False


def test_stopping_the_application_ends_what_is_open(tmp_path: Path) -> None:
    """TestClient ends its sockets itself; nothing may be left over that would warn or hang."""
    with opened(tmp_path) as gateway:
        _, token = gateway.user()
        with gateway.connect(f"token={token}") as socket:
            assert socket.receive_json()["type"] == "hello"


# -- streams of events ------------------------------------------------------------------------------------------------


def test_a_stream_of_events_is_told_the_same_and_ends_with_its_session(gateway: Gateway) -> None:
    user, token = gateway.user()
    with ThreadPoolExecutor(1) as pool:
        listening = pool.submit(gateway.http.get, f"/events?token={token}")
        listed = f"/admin/connections?user_id={user}"
        eventually(lambda: gateway.call("GET", listed, gateway.admin, 200)["items"], what="it is open")
        stored = gateway.push(user)
        eventually(lambda: not gateway.call("GET", listed, gateway.admin, 200)["items"][0]["behind"], what="it is told")
        gateway.call("POST", "/auth/logout", token, 204)
        answer = listening.result(10)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    events = [dict(line.split(": ", 1) for line in event.splitlines()) for event in answer.text.split("\n\n")[1:-1]]
    hello, told, end = (json.loads(event["data"]) for event in events)
    assert (hello["type"], told["id"], end["reason"]) == ("hello", stored["id"], "token_revoked")
    assert events[1]["id"] == f"{hello['epoch']}:1"
    refused = gateway.http.get(f"/events?token={token}")
    assert refused.text.endswith('data: {"type":"close","code":1008,"reason":"token_revoked"}\n\n')
    assert gateway.http.get("/events", headers={"Origin": "https://evil"}).status_code == 403
