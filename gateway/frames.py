"""The wire grammar: what a client may say, parsed; what the gateway says, rendered once per form. No I/O, no state.

Imports words only, so a client can use it too. Frames are JSON texts of one object (``docs/protocol.md``); unknown
fields are ignored, an unknown ``type`` is a FrameError that becomes an ``error`` frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.closing import Close
from gateway.model import Entry, MarkedRead, Passing, Withdrawn, rfc3339

MAX_SEQ = 2**53 - 1
"""The largest integer every JSON implementation keeps exact (RFC 8259 section 6)."""
MAX_IDS = 100
MAX_REF = 128
SOONEST_RETRY = 1000
"""Milliseconds."""

Ref = str | int | None


class Frame:
    """One frame, rendered lazily and once for each wire form, for any number of sockets and streams.

    ``event``: its type. ``position``: the ``seq`` where whoever has heard it stands, if it moves anybody. ``retry``:
    milliseconds after which a stream that then ends is asked for again. ``ws``: as one unmasked, unfragmented text
    frame (RFC 6455 section 5.2).
    """

    __slots__ = ("_sse", "event", "json", "position", "retry", "ws")

    ws: bytes

    @property
    def parts(self) -> Sequence[Frame]:
        return (self,)

    def __init__(
        self, json: bytes, event: str = "message", position: int | None = None, *, retry: int | None = None
    ) -> None:
        self.json, self.event, self.position, self.retry = json, event, position, retry
        self._sse: tuple[str, bytes] | None = None

    def __getattr__(self, name: str) -> bytes:
        """``ws``, when it is asked for first; every other of thousands of sockets finds it without a call."""
        if name != "ws":
            raise AttributeError(name)
        size = len(self.json)
        if size < 126:
            header = bytes((0x81, size))
        elif size < 65536:
            header = b"\x81\x7e" + size.to_bytes(2, "big")
        else:
            header = b"\x81\x7f" + size.to_bytes(8, "big")
        self.ws = header + self.json
        return self.ws

    def sse(self, epoch: str) -> bytes:
        """As a server-sent event (HTML, section 9.2) of the log ``epoch``. JSON has no raw line end: one line of data.

        An event without an ``id`` leaves the position where it is, which is what ``Last-Event-ID`` says.
        """
        if self._sse is None or self._sse[0] != epoch:
            id = "" if self.position is None else f"id: {epoch}:{self.position}\n"
            retry = "" if self.retry is None else f"retry: {self.retry}\n"
            self._sse = epoch, b"%sdata: %s\n\n" % (f"event: {self.event}\n{id}{retry}".encode(), self.json)
        return self._sse[1]


class Frames(Frame):
    """Several frames that travel together: one write, where each by itself would be a system call. ``parts``: each, for
    a transport whose messages are frames."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[Frame]) -> None:
        super().__init__(b"")
        self._parts = parts
        self.ws = b"".join(frame.ws for frame in parts)

    def sse(self, epoch: str) -> bytes:
        if self._sse is None or self._sse[0] != epoch:
            self._sse = epoch, b"".join(frame.sse(epoch) for frame in self._parts)
        return self._sse[1]

    @property
    def parts(self) -> Sequence[Frame]:
        return self._parts


def together(parts: Sequence[Frame]) -> Frame:
    """One frame as it is, several as one."""
    return parts[0] if len(parts) == 1 else Frames(parts)


# -- what the gateway says ----------------------------------------------------------------------------------------


def content(*, title: str, body: str, data: bytes, category: str | None, priority: str) -> str:
    """The sender's part of a notification as the members of a JSON object without its braces.

    ``data`` is a rendered JSON object. This is what the inbox stores: it is rendered when it is pushed and never again.
    """
    head = orjson.dumps({"title": title, "body": body})
    tail = orjson.dumps({"category": category, "priority": priority})
    return (head[1:-1] + b',"data":' + data + b"," + tail[1:-1]).decode()


def _fields(entry: Entry) -> str:
    read = f',"read_at":"{rfc3339(entry.read_at)}"' if entry.read_at is not None else ""
    return (
        f'"seq":{entry.seq},"id":"{entry.id}",{entry.content},'
        f'"created_at":"{rfc3339(entry.created_at)}","expires_at":"{rfc3339(entry.expires_at)}"{read}}}'
    )


def entry_json(entry: Entry) -> bytes:
    """An item of ``GET /inbox``: the fields of a ``notification`` frame without its type."""
    return ("{" + _fields(entry)).encode()


def notification(entry: Entry) -> Frame:
    return Frame(('{"type":"notification",' + _fields(entry)).encode(), "notification", entry.seq)


def passing(signal: Passing) -> Frame:
    """A ``ttl: 0`` notification: ``seq`` is null, and it expires as it is created."""
    at = rfc3339(signal.created_at)
    return Frame(
        f'{{"type":"notification","seq":null,"id":"{signal.id}",{signal.content},'
        f'"created_at":"{at}","expires_at":"{at}"}}'.encode(),
        "notification",
    )


def gap(first: int, last: int) -> Frame:
    return Frame(b'{"type":"gap","from":%d,"to":%d}' % (first, last), "gap", last)


def read(signal: MarkedRead) -> Frame:
    what = {"up_to": signal.up_to} if signal.up_to is not None else {"ids": signal.ids}
    return _frame("read", **what, unread=signal.unread, rev=signal.rev)


def withdrawn(signal: Withdrawn) -> Frame:
    return _frame("withdrawn", id=signal.id, seq=signal.seq, unread=signal.unread, rev=signal.rev)


def changed(*, rev: int, unread: int) -> Frame:
    return Frame(b'{"type":"changed","rev":%d,"unread":%d}' % (rev, unread), "changed")


def hello(fields: Mapping[str, Any]) -> Frame:
    return _frame("hello", **fields)


def reconnect(*, after_ms: int, reason: str) -> Frame:
    """An EventSource comes back by itself when ``retry`` says, and again as long as nobody is there: not too often."""
    return _frame("reconnect", max(after_ms, SOONEST_RETRY), after_ms=after_ms, reason=reason)


def pong(ref: Ref) -> Frame:
    return _frame("pong") if ref is None else _frame("pong", ref=ref)


def ok(ref: Ref, **fields: Any) -> Frame:
    return _frame("ok", ref=ref, **fields)


def error(code: str, detail: str, ref: Ref) -> Frame:
    fields = {"code": code, "detail": detail}
    return _frame("error", **fields if ref is None else {**fields, "ref": ref})


def heartbeat() -> Frame:
    """Of a stream of events only: a sign of life that a page can see, as it sees no ping of a socket."""
    return _frame("heartbeat")


def close(why: Close, *, retry: int | None = None) -> Frame:
    """How a stream of events ends, where a socket has its close frame."""
    return _frame("close", retry, code=why.code, reason=why.reason)


def _frame(event: str, /, retry: int | None = None, **fields: Any) -> Frame:
    return Frame(orjson.dumps({"type": event, **fields}), event, retry=retry)


# -- what a client says -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ack:
    seq: int
    ref: Ref


@dataclass(frozen=True, slots=True)
class Read:
    ids: tuple[str, ...]
    up_to: int | None
    ref: Ref


@dataclass(frozen=True, slots=True)
class Renew:
    token: str
    ref: Ref


@dataclass(frozen=True, slots=True)
class Ping:
    ref: Ref


class FrameError(Exception):
    """A frame that cannot be taken. ``code``: invalid_json, invalid_frame or unknown_type; the connection stays."""

    def __init__(self, code: str, detail: str, ref: Ref = None) -> None:
        super().__init__(detail)
        self.code, self.detail, self.ref = code, detail, ref


def parse(text: str | bytes) -> Ack | Read | Renew | Ping:
    """One client frame. Raises FrameError, and nothing else, whatever the text."""
    try:
        frame = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise FrameError("invalid_json", "A frame is a JSON text of one object.") from None
    if not isinstance(frame, dict):
        raise FrameError("invalid_frame", "A frame is a JSON object.")
    ref = frame.get("ref")
    if not (ref is None or _is_seq(ref) or (isinstance(ref, str) and len(ref) <= MAX_REF)):
        raise FrameError("invalid_frame", f"ref is a string of up to {MAX_REF} characters or an integer.")
    match frame.get("type"):
        case "ack":
            return Ack(_seq(frame, "seq", ref), ref)
        case "read":
            return _read(frame, ref)
        case "token":
            token = frame.get("token")
            if not isinstance(token, str) or not token:
                raise FrameError("invalid_frame", "token is a non-empty string.", ref)
            return Renew(token, ref)
        case "ping":
            return Ping(ref)
        case str():
            raise FrameError("unknown_type", "The type is one of ack, read, token, ping.", ref)
        case _:
            raise FrameError("invalid_frame", "type is a string.", ref)


def _read(frame: dict[str, Any], ref: Ref) -> Read:
    ids, up_to = frame.get("ids"), frame.get("up_to")
    if (ids is None) == (up_to is None):
        raise FrameError("invalid_frame", "read has either ids or up_to.", ref)
    if up_to is not None:
        return Read((), _seq(frame, "up_to", ref), ref)
    if not isinstance(ids, list) or not 1 <= len(ids) <= MAX_IDS or not all(isinstance(id, str) for id in ids):
        raise FrameError("invalid_frame", f"ids is a list of 1 to {MAX_IDS} strings.", ref)
    return Read(tuple(ids), None, ref)


def _is_seq(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_SEQ


def _seq(frame: dict[str, Any], name: str, ref: Ref) -> int:
    value = frame.get(name)
    if type(value) is not int or not 0 <= value <= MAX_SEQ:
        raise FrameError("invalid_frame", f"{name} is an integer from 0 to 2^53-1.", ref)
    return value
