"""What a stranger writes into a log: one line each, with nothing in it that a terminal or a reader of lines obeys."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

import pytest
from logged import events
from rawpeer import Raw
from wire import Node, eventually

LINE = '{"event": "forged", "level": "info"}'
HOSTILE = f"a\r\n{LINE}\r\n2026-01-01T00:00:00.000Z info    forged\x1b[2J\x9b31m\x85{LINE}\u2028{LINE}\u2029\u202ex\x7f"
HOSTILE += "\u061c\u2060\xad\U000e0041"
OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u2028\u2029\u202a-\u202e\u2060-\u2064\u2066-\u2069\U000e0000-\U000e007f]"
)
TEXT_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (debug|info|warning|error|critical) .*\[[a-z_.0-9]+\] ?"
)


def requests(secret: str) -> list[bytes]:
    """Heads with hostile bytes wherever HTTP allows any: header fields hold no CR, LF or NUL, targets no control at
    all, but both may be percent-encoded, in Latin-1 or in UTF-8."""
    raw = HOSTILE.replace("\r", "").replace("\n", "").encode()
    encoded = "".join(f"%{byte:02x}" for byte in HOSTILE.encode()).encode()
    common = b"Host: localhost\r\nConnection: close\r\n"
    socket = b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    fields = b"".join(
        b"%s: %s\r\n" % (name, raw)
        for name in (b"X-Request-Id", b"Origin", b"User-Agent", b"Referer", b"X-Forwarded-For", b"Authorization")
    )
    websocket = common.replace(b"close", b"Upgrade") + socket
    return [
        b"GET /nowhere HTTP/1.1\r\n" + common + fields + b"\r\n",
        b"GET /%s?%s=%s HTTP/1.1\r\n" % (encoded, encoded, encoded) + common + b"\r\n",
        b"GET /ws?token=%s HTTP/1.1\r\n" % encoded + websocket + b"\r\n",
        b"GET /ws HTTP/1.1\r\n" + websocket + fields + b"\r\n",
        b"GET /ws?token=x HTTP/1.1\r\n" + websocket + b"X-Request-Id: " + raw + b"\r\n\r\n",
        b"GET /ws%s HTTP/1.1\r\n" % encoded + websocket + b"\r\n",
        b"%s / HTTP/1.1\r\n" % raw + common + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: " + raw + b"\r\n\r\n",
    ]


def exercise(node: Node) -> None:
    for head in requests(node.admin):
        peer = Raw(node.port)
        peer.send(head)
        peer.more()  # it was answered, so it is logged
        peer.shut()
    password = "a password of some length"
    node.request("POST", "/auth/login", json={"username": HOSTILE[:60], "password": HOSTILE, "device": "x"})
    node.request("POST", "/auth/token", data={"grant_type": HOSTILE, "username": HOSTILE, "client_id": HOSTILE})
    node.request("POST", "/auth/refresh", json={"refresh_token": HOSTILE})
    user = node.user()
    for device in (HOSTILE[:60], HOSTILE):
        body = {"username": user.username, "password": user.password, "device": device}
        node.request("POST", "/auth/login", json=body)
    node.request("POST", "/admin/users", token=node.admin, json={"username": HOSTILE[:60], "password": password})
    node.request("POST", "/admin/clients", token=node.admin, json={"name": HOSTILE[:60]})
    node.request("POST", "/admin/revocations", token=node.admin, json={"user_id": user.id, "reason": HOSTILE})
    node.request("POST", "/admin/revocations", token=node.admin, json={"session": HOSTILE[:60]})
    node.request("POST", "/admin/revocations", token=node.admin, json={"jti": HOSTILE[:60]})
    node.push(node.admin, user_id=HOSTILE[:60], title=HOSTILE, expect=None)


@pytest.mark.parametrize("format", ["json", "text"])
def test_LOG_02_hostile_strings_stay_on_their_line(start: Callable[..., Node], format: Literal["json", "text"]) -> None:
    node = start(log_format=format)
    before = node.log_text()
    exercise(node)
    node.request("GET", "/healthz", headers={"X-Request-Id": "the-last-one"}, expect=200)
    eventually(lambda: "the-last-one" in node.log_text(), what="all is logged")
    assert node.stop() == 0
    told = node.log.read_bytes().decode()[len(before) :]
    assert "forged" in told, "it is told, and harmless"
    assert "Traceback" not in told
    assert OBEYED.findall(told) == []
    lines = [line for line in told.split("\n") if line]
    assert len(lines) > 15
    if format == "json":
        assert all(line.startswith("{") for line in lines)
        assert all(event["event"] != "forged" for event in events(node))
    else:
        assert [line for line in lines if TEXT_LINE.fullmatch(line) is None] == []
        assert not any(re.match(r"\S+ \w+ +forged", line) for line in lines)


def test_LOG_02_a_long_path_is_told_by_its_beginning(node: Node) -> None:
    path = "/the-beginning/" + "%1b" * 2500
    node.request("GET", path, expect=404)
    eventually(lambda: "/the-beginning/" in node.log_text(), what="it is logged")
    (line,) = [line for line in node.log_text().split("\n") if "/the-beginning/" in line]
    assert len(line) < 1000
