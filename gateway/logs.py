"""How log records are written: one line per event, UTC, secrets taken out. Decides nothing about *what* is logged.

``configure`` is called once by the command line. Everything logs through the standard library
(``logging.getLogger("gateway.…")``, values in ``extra=``) or through structlog; both end in the one handler here.
The redaction is the last line of defence: no code is allowed to rely on it, no token is meant to come this far.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import unicodedata
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

from gateway.model import millis, rfc3339

Format = Literal["auto", "text", "json"]
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
NOISY = (
    "alembic",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "sqlalchemy",
    "uvicorn.access",
    "websockets",
)
"""They print addresses with queries, parameters of SQL statements or whole frames: never below WARNING."""
ROUTED = ("uvicorn", "uvicorn.error", "asyncio", "py.warnings")
REDACTED = "[redacted]"

_MASKED = r"(?:(?:access_|refresh_|id_)?token|ticket|(?:client_)?secret|(?:new_|current_)?password|passwd|api_?key)"
_PATTERNS = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        # name=value of a query or a form, plain or percent-encoded
        (rf"({_MASKED})(=|%3d)[^&\s\"'#;,)\]}}]+", rf"\1\2{REDACTED}"),
        # "name": "value" of JSON or of a repr
        (rf"([\"']{_MASKED}[\"']\s*[:=,]\s*b?)([\"'])(?:(?!\2)[^\\]|\\.)*\2", rf"\1\2{REDACTED}\2"),
        # a header, as text or as a pair of bytes
        (r"((?:proxy-)?authorization[\"']?\s*[:=,]\s*(?:b(?=[\"']))?[\"']?)(?!\[)[^\r\n\"',)]+", rf"\1{REDACTED}"),
        (r"\b((?:set-)?cookie[\"']?\s*[:=,]\s*(?:b(?=[\"']))?[\"']?)[^\r\n\"')]+", rf"\1{REDACTED}"),
        (r"\b(bearer|basic)(\s+|%20)[A-Za-z0-9._~+/=-]{16,}", rf"\1\2{REDACTED}"),
        # scheme://user:password@host: up to the last @ before what ends an authority (RFC 3986 section 3.2)
        (r"(://[^\s/?#:\"]*+):[^\s/?#\"]+@", rf"\1:{REDACTED}@"),
        # a token. Looked for from the start of its word, and only if that ends in a dot: "eyJeyJ…" took 0.4 s for 8 KB
        (
            r"(?-i:(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]++\.)([A-Za-z0-9_-]*?)eyJ[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]*+){1,4}+)",
            rf"\1{REDACTED}",
        ),
        (r"\$argon2[a-z]*\$[^\s\"')]+", REDACTED),
    )
) + tuple(
    (re.compile(pattern), REDACTED)
    for pattern in (
        # a ticket
        r"t(?:~|%7[Ee])[A-Za-z0-9_-]{40,}(?:\.[A-Za-z0-9_-]*)?",
        # <session id>.<generation>.<256 bits>
        r"[A-Za-z0-9_-]{1,64}\.\d{1,10}\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])",
        # 256 bits in base64url by themselves: a client secret. A name in snake_case has no capitals or no digits.
        r"(?<![A-Za-z0-9_-])(?=[A-Za-z_-]*\d)(?=[a-z0-9_-]*[A-Z])(?=[A-Z0-9_-]*[a-z])[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])",
    )
)
_SUSPECT = re.compile(
    r"[Tt][Oo][Kk][Ee][Nn]|icket|ICKET|[Ss]ecret|SECRET|[Pp]assw|PASSW|[Kk][Ee][Yy]|[Aa]uthori|AUTHORI|[Bb]earer|BEARER"
    r"|[Bb]asic|BASIC|[Cc]ookie|COOKIE|eyJ|argon2|ARGON2|://|[A-Za-z0-9_-]{43}"
)
_SECRET_KEY = re.compile(rf"{_MASKED}|(?:proxy-)?authorization|(?:set-)?cookie", re.IGNORECASE)
MAX_VALUE = 512
"""Characters of a value that are logged. A path has up to 8192."""
_WHOLE = ("event", "exception", "stack")


def redact(text: str) -> str:
    """``text`` without anything that has the shape of a credential."""
    if _SUSPECT.search(text) is None:
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def escape(text: str) -> str:
    """``text`` with everything spelled out that is no visible character or space: controls, what ends a line, reorders
    or hides text, and what this Unicode does not know. Safe to print, and never more than one line."""
    return text if text.isprintable() else "".join(map(_spelled, text))


def _spelled(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    known = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    number = ord(character)
    if number > 0xFFFF:
        return f"\\U{number:08x}"
    return known.get(character) or (f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}")


def _cut(text: str) -> str:
    """After redaction: half a secret is none that anybody would recognize."""
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}…({len(text) - MAX_VALUE} more)"


def _clean(value: object) -> object:
    """``value`` as JSON-able data, redacted throughout, long text cut; objects become their text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _cut(redact(value))
    if isinstance(value, bytes | bytearray):
        return _cut(redact(value.decode("utf-8", "backslashreplace")))
    if isinstance(value, Mapping):
        return {_cut(redact(str(name))): _member(str(name), member) for name, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(member) for member in value]
    return _cut(redact(str(value)))


def _member(name: str, value: object) -> object:
    return REDACTED if value is not None and _SECRET_KEY.fullmatch(name) else _clean(value)


def _redact_event(_: Any, __: str, event: EventDict) -> EventDict:
    whole = {name: redact(str(event[name])) for name in _WHOLE if name in event}
    return {_cut(redact(str(name))): _member(str(name), value) for name, value in event.items()} | whole


def _stamp(_: Any, __: str, event: EventDict) -> EventDict:
    """Time and logger of the record itself; libraries' own extras that say nothing (or hold a socket) go."""
    record: logging.LogRecord = event["_record"]
    for name in ("color_message", "websocket"):
        event.pop(name, None)
    return {
        "time": rfc3339(millis(record.created)),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": "",
        **event,
    }


def _without_meta(_: Any, __: str, event: EventDict) -> EventDict:
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event


def _json_line(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    # ASCII only: nothing a log file is shown on can be made to obey a control sequence, and nothing is lost.
    return json.dumps(event, ensure_ascii=True, default=str).replace("\x7f", "\\u007f")


class _TextLine:
    """An event for people. A traceback follows on lines of its own, each marked so that none can pose as an event."""

    def __init__(self, *, colors: bool) -> None:
        self._dim, self._off = ("\x1b[2m", "\x1b[0m") if colors else ("", "")
        self._tint = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31;1m"} if colors else {}

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> str:
        time, level, logger = (escape(str(event.pop(name, ""))) for name in ("time", "level", "logger"))
        words = escape(str(event.pop("event", "")))
        trace = [event.pop(name) for name in ("exception", "stack") if event.get(name)]
        rest = " ".join(f"{escape(str(name))}={_plain(value)}" for name, value in event.items())
        tint = self._tint.get(level, "")
        line = f"{self._dim}{time}{self._off} {tint}{level:<7}{self._off if tint else ''} {words}"
        line += f" {self._dim}{rest + ' ' if rest else ''}[{logger}]{self._off}"
        for text in trace:
            line += "".join(f"\n    | {escape(part)}" for part in str(text).split("\n"))
        return line


def _plain(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return escape(json.dumps(text, ensure_ascii=False) if re.search(r"[\s\"=]", text) or text == "" else text)


class _Handler(logging.StreamHandler[TextIO]):
    """The one handler. What cannot be rendered is not printed: its arguments may be what must not be seen."""

    def handleError(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError, ValueError):  # the stream itself may be gone; there is nobody to tell
            self.stream.write(
                f"a record of {escape(record.name)} could not be logged ({record.module}:{record.lineno})\n"
            )


def bind_request(request_id: str) -> None:
    """From here on, in this task, every event carries ``request_id``."""
    structlog.contextvars.bind_contextvars(request_id=request_id)


def bind_worker(number: int) -> None:
    """From here on every event of this process carries ``worker``."""
    structlog.contextvars.bind_contextvars(worker=number)


def configure(*, level: str = "info", format: Format = "auto", stream: TextIO | None = None) -> None:
    """Route all logging of this process to ``stream`` (default stderr). May be called again: it replaces itself.

    ``auto`` is ``text`` on a terminal and ``json`` elsewhere. ``debug`` opens the gateway's own loggers only; every
    library stays at ``info`` or above, those of ``NOISY`` at ``warning``, because at debug they print what they carry.
    """
    target = sys.stderr if stream is None else stream
    terminal = target.isatty()
    text = format == "text" or (format == "auto" and terminal)
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
    ]
    handler = _Handler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[
                _stamp,
                _without_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                _redact_event,
                _TextLine(colors=terminal) if text else _json_line,
            ],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    wanted = LEVELS[level]
    root.setLevel(max(wanted, logging.INFO))
    logging.getLogger("gateway").setLevel(wanted)
    for name in (*ROUTED, *NOISY):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(wanted, logging.WARNING if name in NOISY else logging.INFO))
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *before[:2],
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
