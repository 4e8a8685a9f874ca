"""What both protocol classes write and measure at the wire: limits, problems, close frames. Parses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import random
import socket
import struct
import termios
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from websockets.frames import EXTERNAL_CLOSE_CODES, Frame, Opcode

from gateway import frames as events
from gateway.closing import Close
from gateway.errors import without_tokens
from gateway.hardening import HARDENING, NO_PAGE

STREAM = "gateway.stream"
"""Name of the extension by which the application of a GET hands a connection over to whoever serves it."""
NO_STATUS = 1005
"""Never on the wire: stands for a close frame without a code (RFC 6455 section 7.4.1)."""
_HARDENING = [f"{name.decode()}: {value.decode()}" for name, value in HARDENING + NO_PAGE]
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class WireLimits:
    """What one TCP connection may cost. Sizes in bytes, times in seconds; the defaults are the product's.

    ``upgrades_at_once``, ``upgrades_waiting``: handshakes of all of them that are under way, and that wait for one.

    ``body_timeout``: without anything of a body. All of it takes as long again, and a second for each ``body_rate``
    bytes that came.
    ``max_control``: ping and pong frames within one read (256 KiB), more is a flood. ``reject``: how a close before
    accept is told: ``close`` answers the upgrade and closes, because a browser cannot read a status; ``http`` is a 403.
    """

    max_size: int = 16 * 1024
    max_fragments: int = 64
    max_control: int = 256
    high_water: int = 16 * 1024
    handshake_timeout: float = 10.0
    close_timeout: float = 5.0
    reject: Literal["close", "http"] = "close"
    max_head: int = 16 * 1024
    max_target: int = 8 * 1024
    max_headers: int = 100
    head_timeout: float = 10.0
    body_timeout: float = 30.0
    body_rate: float = 16 * 1024
    keep_alive: int = 30
    upgrades_at_once: int = 64
    upgrades_waiting: int = 10_000


def denial(reason: str, path: str) -> bytes:
    """The answer to an upgrade that an application refused with ``reason``, which may be any text."""
    slug = reason if reason.replace("_", "").isalnum() and reason.isascii() else "forbidden"
    return problem(403, slug, "The socket was refused.", instance=path)


def problem(
    status: int, code: str, detail: str, *, instance: str = "/", headers: Iterable[tuple[str, str]] = ()
) -> bytes:
    """A whole HTTP/1.1 response that ends its connection: problem+json (RFC 9457) with our stable ``code``."""
    phrase = HTTPStatus(status).phrase
    members = {
        "type": f"/problems/{code}", "title": phrase, "status": status, "detail": detail,
        "instance": without_tokens(instance), "code": code,
    }  # fmt: skip
    body = json.dumps(members).encode()
    lines = [
        f"HTTP/1.1 {status} {phrase}",
        "content-type: application/problem+json",
        f"content-length: {len(body)}",
        "cache-control: no-store",
        *_HARDENING,
        "connection: close",
        *[f"{name}: {value}" for name, value in headers],
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def travels(code: int) -> bool:
    """Whether a close frame may carry this code (RFC 6455 section 7.4)."""
    return code in EXTERNAL_CLOSE_CODES or 3000 <= code < 5000


def close_frame(code: int, reason: str) -> bytes:
    """A server's close frame. The reason is cut to the 123 bytes that fit (RFC 6455 section 5.5)."""
    if code == NO_STATUS:
        return Frame(Opcode.CLOSE, b"").serialize(mask=False)
    text = reason.encode()[:123].decode(errors="ignore").encode()
    return Frame(Opcode.CLOSE, struct.pack("!H", code) + text).serialize(mask=False)


HEARTBEAT = events.heartbeat().sse("")
"""Of a stream of events. No comment (HTML, 9.2.5): a page would not see it, nor notice that no more of them come."""
AGAIN = range(events.SOONEST_RETRY, 3000)
"""Milliseconds after which an EventSource whose stream ended is to ask again: one of these, so that not all do at once.
The clients that can wait longer each time do so by themselves."""
_NOT_SOON = range(60_000, 120_000)


def close_event(why: Close) -> events.Frame:
    """The last event of a stream. An EventSource that nobody closes asks again by itself: later, if that is no use."""
    soon = why.retry in ("backoff", "after_ms")
    return events.close(why, retry=None if soon else random.choice(_NOT_SOON))  # noqa: S311 - jitter


def pong_frame(payload: bytes) -> bytes:
    return Frame(Opcode.PONG, payload).serialize(mask=False)


def queued_bytes(transport: asyncio.Transport) -> int:
    """Bytes written and not acknowledged by the peer's kernel: ours, and those the kernel still holds (SIOCOUTQ)."""
    count = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None:
        try:
            answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        except (OSError, ValueError):  # the descriptor went in the meantime: then nothing is held
            return count
        count += int.from_bytes(answer, "little")
    return count


def reset(transport: asyncio.Transport) -> None:
    """End it with an RST. Without SO_LINGER 0 the kernel goes on delivering the megabytes it holds after the abort."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError, ValueError):  # it is closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def half_close(transport: asyncio.Transport) -> None:
    """Send FIN behind what is written, and go on reading.

    A close with unread bytes makes the kernel send RST, which overtakes and destroys the answer just written
    (RFC 9112 section 9.6); whoever calls this throws the rest away and closes later.
    """
    if transport.can_write_eof():
        try:
            transport.write_eof()
        except (OSError, RuntimeError):
            transport.close()
    else:
        transport.close()
