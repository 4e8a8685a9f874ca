"""Which requests are a WebSocket handshake (RFC 6455 section 4.2.1): what is said quickly is what the library says."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sockets import upgrade
from gateway.sockets.upgrade import BadRequest, check

KEY = base64.b64encode(bytes(range(16)))
PLAIN = [
    (b"host", b"example"),
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-key", KEY),
    (b"sec-websocket-version", b"13"),
]
OTHERS = [(b"user-agent", b"x"), (b"origin", b"https://example"), (b"sec-websocket-extensions", b"permessage-deflate")]

names = st.sampled_from(
    [name for name, _ in PLAIN]
    + [b"content-length", b"transfer-encoding", b"x-\xff", b"x"]
    + [b"origin", b"sec-websocket-protocol", b"sec-websocket-extensions"]
)
values = st.sampled_from(
    [value for _, value in PLAIN]
    + [
        b"",
        b"0",
        b"7",
        b"chunked",
        b"h2c",
        b"WebSocket",
        b"websocket, h2c",
        b"keep-alive, Upgrade",
        b"close",
        b"8",
        b"13, 8",
    ]
    + [b"13 ", KEY[:-2] + b"A=", KEY[:-1], KEY * 2, b"A" * 24, b"dGhlIHNhbXBsZSBub25jZQ==", b"\xff", b"up\tgrade"]
)
changes = st.lists(st.tuples(st.sampled_from(["set", "add", "drop"]), names, values), max_size=3)


def changed(wanted: list[tuple[str, bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    fields = [*PLAIN, *OTHERS]
    for how, name, value in wanted:
        if how != "add":
            fields = [field for field in fields if field[0] != name]
        if how != "drop":
            fields.append((name, value))
    return fields


@given(changes, st.sampled_from(["GET", "POST", "get"]), st.sampled_from([b"/ws?token=x", b"/ws?token=\xc3\xa4"]))
def test_what_is_said_quickly_is_what_the_rules_say(
    wanted: list[tuple[str, bytes, bytes]], method: str, target: bytes
) -> None:
    quick = upgrade._plain(method, target, changed(wanted))
    if quick is not None:
        assert quick == upgrade._by_the_rules(method, target, changed(wanted))


@pytest.mark.parametrize("connection", [b"Upgrade", b"keep-alive, Upgrade", b"upgrade"])
def test_what_browsers_send_is_answered_quickly(connection: bytes) -> None:
    fields = changed([("set", b"connection", connection), ("set", b"upgrade", b"WebSocket")])
    assert upgrade._plain("GET", b"/ws?token=x", fields) == "Bz3qJYTGdOe8gUSpLosEdiLKDrk="


def test_the_example_of_the_rfc() -> None:
    fields = changed([("set", b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")])
    assert check("GET", b"/", fields) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize("name", [name for name, _ in PLAIN])
def test_without_any_of_its_fields_it_is_none(name: bytes) -> None:
    with pytest.raises(BadRequest):
        check("GET", b"/", changed([("drop", name, b"")]))
