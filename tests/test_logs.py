"""One event is one line, in UTC, with its request; no credential gets through, at any level, in any place."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from gateway import logs

SIGNED = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b'{"alg":"ES256"}', b'{"sub":"4"}', b"s" * 64)
)
REFRESH = "01KARR8Z0V6Q6T0V6N4Q5W7X8Y.12.AxHRc4mvOrSHBgjovtk2S_BpdvEnhLURWTGqEP1FLDg"
CLIENT_SECRET = base64.urlsafe_b64encode(hashlib.sha256(b"0").digest()).decode().rstrip("=")
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
HOSTILE = "line\r\n2026-01-01T00:00:00.000Z info forged\x1b[2J\x9b31m\u2028\u202e\x7f"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Logging belongs to the process: whatever ``configure`` changed is put back."""
    root = logging.getLogger()
    names = ("gateway", *logs.ROUTED, *logs.NOISY)
    before = root.level, list(root.handlers), {name: logging.getLogger(name).level for name in names}
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for name, level in before[2].items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def written(format: logs.Format, *, level: str = "info", stream: io.StringIO | None = None) -> io.StringIO:
    stream = stream or io.StringIO()
    logs.configure(level=level, format=format, stream=stream)
    return stream


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("format", ["json", "text"])
def test_LOG_02_a_hostile_string_stays_on_one_line(format: logs.Format) -> None:
    stream = written(format)
    logging.getLogger("gateway.test").info("said %s", HOSTILE, extra={"who": HOSTILE, HOSTILE: 1})
    text = stream.getvalue()
    assert len(text.splitlines()) == 1
    assert not set(text[:-1]) & set("\r\n\x1b\x9b\u2028\u202e\x7f")


def test_LOG_02_nothing_is_written_that_is_no_visible_character() -> None:
    """By category: what controls, reorders, hides, or is no character at all. Spaces and letters of all kinds stay."""
    hidden = [chr(number) for number in range(0x110000) if unicodedata.category(chr(number)) in HIDDEN]
    assert {"\u061c", "\u180e", "\u2060", "\u2064", "\ufff9", "\xad", "\U000e0041"} <= set(hidden)
    for at in range(0, len(hidden), 50_000):
        told = logs.escape("".join(hidden[at : at + 50_000]))
        assert told.isascii()
        assert told.isprintable()
    assert logs.escape("\U000e0041\u061c\xad\n") == "\\U000e0041\\u061c\\xad\\n"
    visible = "Zoë 渋谷 \u00a0\u3000 שלום 🔑 e\u0301"
    assert logs.escape(visible) == visible
    for format in ("text", "json"):
        stream = written(format)
        logging.getLogger("gateway.test").info("x", extra={"who": "a\u061c\U000e0041\ufff9b", "a\u2060b": 1})
        assert stream.getvalue().strip().isascii()


@pytest.mark.parametrize("format", ["json", "text"])
def test_LOG_02_of_a_long_value_the_beginning_is_written(format: logs.Format) -> None:
    stream = written(format)
    secret = REFRESH.rpartition(".")[2]
    told = "/" + "x" * (logs.MAX_VALUE - 20) + f" {secret} " + "y" * 8000
    logging.getLogger("gateway.test").info("told", extra={"path": told, "many": [told.encode(), {"deep": told}]})
    text = stream.getvalue()
    assert text.count("more)") == 3
    assert len(text) < 3 * (logs.MAX_VALUE + 40) + 200
    assert secret[:10] not in text, "no secret is cut into something that looks like none"
    logging.getLogger("gateway.test").info("z" * 2000)
    assert "z" * 2000 in stream.getvalue(), "what the code says stays whole"


def test_a_traceback_in_text_cannot_pose_as_an_event() -> None:
    stream = written("text")
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("gateway.test").exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("failed [gateway.test]")
    assert rest
    assert all(line.startswith("    | ") for line in rest)


def test_LOG_01_an_event_is_json_with_utc_time_and_its_request() -> None:
    stream = written("json")
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        logging.getLogger("gateway.http").warning("answered %d", 503, extra={"path": "/inbox"})
        structlog.get_logger("gateway.other").info("told", user="42")
    one, other = events(stream)
    assert one["time"].endswith("Z")
    assert len(one["time"]) == len("2026-11-20T16:05:00.123Z")
    assert (one["event"], one["level"], one["logger"]) == ("answered 503", "warning", "gateway.http")
    assert (one["request_id"], one["path"]) == ("r-1", "/inbox")
    assert (other["event"], other["user"], other["request_id"]) == ("told", "42", "r-1")


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (SIGNED, SIGNED),
        (f"%3D{SIGNED}", SIGNED),
        (SIGNED.rpartition(".")[0], SIGNED.rpartition(".")[0]),
        (REFRESH, REFRESH),
        (CLIENT_SECRET, CLIENT_SECRET),
        ("GET /ws?token=opaque-7&after=3", "opaque-7"),
        ("GET /ws?after=3&TOKEN=opaque-7", "opaque-7"),
        ("/ws%3Ftoken%3Dopaque-7", "opaque-7"),
        ("refresh_token=opaque-7", "opaque-7"),
        ("grant_type=password&password=opaque-7&x=1", "opaque-7"),
        ('{"password": "opa\\"que-7"}', "que-7"),
        ("{'refresh_token': 'opaque-7'}", "opaque-7"),
        ("Authorization: Bearer opaque-7", "opaque-7"),
        ("authorization: opaque-7", "opaque-7"),
        ("[(b'host', b'x'), (b'authorization', b'Basic opaque7=')]", "opaque7="),
        ("Bearer opaque-7-opaque-7", "opaque-7-opaque-7"),
        ("Cookie: __Host-session=opaque-7", "opaque-7"),
        ("postgresql://gateway:opaque-7@db/x", "opaque-7"),
        ("postgresql://gateway:p@opaque-7@db/x", "opaque-7"),
        ("redis://g@te:p@@opaque-7@db?x=@y", "opaque-7"),
        ("redis://:opaque-7'7@db", "7'7"),
        ("$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$b3BhcXVl", "b3BhcXVl"),
    ],
)
@pytest.mark.parametrize("format", ["json", "text"])
def test_LOG_03_nothing_shaped_like_a_credential_is_written(format: logs.Format, text: str, secret: str) -> None:
    stream = written(format, level="debug")
    log = logging.getLogger("gateway.test")
    log.debug("%s", text)
    log.info(text)  # a careless caller
    log.info(
        "x", extra={"path": text, "raw": text.encode(), "many": [{"deep": (text,)}], "error": ValueError(text), text: 1}
    )
    structlog.get_logger("gateway.test").info("x", path=text)
    try:
        raise RuntimeError(text)
    except RuntimeError:
        log.exception("failed")
    assert secret not in stream.getvalue()
    assert logs.REDACTED in stream.getvalue()


@pytest.mark.parametrize(
    "name", ["token", "password", "Authorization", "client_secret", "refresh_token", "cookie", "ticket"]
)
def test_a_value_named_as_a_secret_is_masked_whatever_it_looks_like(name: str) -> None:
    stream = written("json")
    logging.getLogger("gateway.test").info("x", extra={name: "short", "nested": {name: "short"}})
    assert "short" not in stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "user 42 signed in, session 01KARR8Z0V6Q6T0V6N4Q5W7X8Y",
        "token_expired",
        "authorization is checked before accept",
        "test_a_slow_client_on_a_lossy_bus_hears_it_all",
        "http://127.0.0.1:8000/inbox",
        "http://127.0.0.1:8000/inbox of ada@example.com",
        "http://127.0.0.1:8000/@ada",
        "https://idp.example:8443?who=ada@example.com",
        "the refresh token came back",
    ],
)
def test_what_is_no_credential_is_left_alone(text: str) -> None:
    assert logs.redact(text) == text


def test_debug_opens_our_own_loggers_and_no_library_that_prints_what_it_carries() -> None:
    stream = written("json", level="debug")
    logging.getLogger("gateway.test").debug("ours")
    for name in (
        "sqlalchemy.engine.Engine",
        "httpcore2.connection",
        "websockets.client",
        "uvicorn.access",
    ):
        logging.getLogger(name).info("INSERT parameters")
    for name in ("uvicorn.error", "asyncio", "anything.else"):
        logging.getLogger(name).debug("> TEXT frame")
        logging.getLogger(name).info("told")
    assert [event["event"] for event in events(stream)] == ["ours", "told", "told", "told"]


def test_uvicorn_is_routed_through_the_one_handler() -> None:
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler(io.StringIO()))
    stream = written("json")
    logging.getLogger("uvicorn.error").info("Started", extra={"color_message": "\x1b[1mStarted", "websocket": object()})
    (event,) = events(stream)
    assert event["logger"] == "uvicorn.error"
    assert not {"color_message", "websocket"} & event.keys()


def test_a_record_that_cannot_be_rendered_is_named_but_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = written("json")
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers[-1:])  # pytest's own handlers raise on it
    logging.getLogger("gateway.test").info("%d bytes", "opaque-7")
    assert "gateway.test" in stream.getvalue()
    assert "opaque-7" not in stream.getvalue()


def test_auto_is_text_on_a_terminal_and_json_elsewhere() -> None:
    terminal = written("auto", stream=Terminal())
    logging.getLogger("gateway.test").warning("hello")
    assert "hello" in terminal.getvalue()
    assert "\x1b[33m" in terminal.getvalue()
    pipe = written("auto")
    logging.getLogger("gateway.test").warning("hello")
    assert events(pipe)[0]["event"] == "hello"


def test_configuring_again_replaces_and_does_not_double() -> None:
    first = written("json")
    second = written("json", level="error")
    logging.getLogger("gateway.test").warning("too quiet")
    logging.getLogger("gateway.test").error("once")
    assert first.getvalue() == ""
    assert [event["event"] for event in events(second)] == ["once"]
