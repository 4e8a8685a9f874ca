"""Client bytes to whole messages, by the rules of RFC 6455. Pure: sends nothing, knows no socket and no connection.

The rules are those of ``websockets``; added is what it leaves open: how many fragments and pings a peer may send, and
that one parser *between* frames is like any other, so that an idle connection keeps none (``Parsers``).
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Close as CloseData
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.streams import StreamReader

from gateway.closing import (
    BINARY_FRAME,
    INTERNAL_ERROR,
    INVALID_TEXT,
    MESSAGE_TOO_BIG,
    PROTOCOL_ERROR,
    RATE_LIMITED,
    Close,
)
from gateway.sockets.wire import WireLimits

SLICE = 4096
"""Bytes parsed at a time: a 256 KiB read of empty frames would otherwise become 43 000 objects at once."""
ANSWERED = 16
"""Pings of one slice that are answered one by one; of more, the latest (RFC 6455 section 5.5.3)."""

QUIET = logging.Logger("gateway.sockets.quiet", level=logging.CRITICAL + 1)
"""For ``websockets``, which at DEBUG prints request lines and frames, and in both there are tokens. In no hierarchy."""

log = logging.getLogger("gateway.sockets")


@dataclass(frozen=True, slots=True)
class Ping:
    payload: bytes


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The peer's close frame; ``code`` is 1005 if it carried none."""

    code: int
    reason: str


Incoming = str | Ping | Goodbye | Close
"""A whole text message, a ping to answer, the peer's goodbye, or the rule it broke; nothing follows the last two."""


class _Reader(StreamReader):
    """Notes when the parser waits between two frames: an empty buffer alone may be the middle of one."""

    between = False

    def at_eof(self) -> Generator[None, None, bool]:
        self.between = True
        ended = yield from super().at_eof()
        self.between = False
        return ended


class _Core(Protocol):
    reader: _Reader

    def parse(self) -> Generator[None]:
        self.reader = _Reader()
        yield from super().parse()


class Parser:
    """Reads what one client sends after the handshake."""

    __slots__ = ("_core", "_limits", "_parts")

    def __init__(self, limits: WireLimits) -> None:
        self._limits = limits
        self._core = _Core(Side.SERVER, state=State.OPEN, max_size=limits.max_size, logger=QUIET)
        self._parts: list[bytes] | None = None

    @property
    def resting(self) -> bool:
        """Whether it holds nothing of anybody: between two frames, between two messages, nothing said goodbye."""
        core = self._core
        return (
            core.reader.between
            and not core.reader.buffer
            and self._parts is None
            and core.state is State.OPEN
            and core.current_size is None
            and core.parser_exc is None
        )

    def read(self, data: bytes) -> Iterator[Incoming]:
        """Everything that ``data`` completes, in order. To be exhausted, unless the connection is over."""
        core, control = self._core, 0
        for start in range(0, len(data), SLICE):
            core.receive_data(data[start : start + SLICE] if len(data) > SLICE else data)
            core.data_to_send()  # the library's own answers: ours are slugs of the close table, and fewer pongs
            pings: list[bytes] = []
            for frame in core.events_received():
                assert isinstance(frame, Frame)  # noqa: S101 - requests are another parser's
                match frame.opcode:
                    case Opcode.TEXT | Opcode.CONT:
                        whole = self._gather(frame)
                        if whole is not None:
                            yield from map(Ping, pings)  # they came before its end: so do their pongs
                            pings.clear()
                            yield whole
                        if isinstance(whole, Close):
                            return
                    case Opcode.BINARY:
                        yield BINARY_FRAME
                        return
                    case Opcode.CLOSE:
                        yield from map(Ping, pings)
                        said = CloseData.parse(bytes(frame.data))
                        yield Goodbye(int(said.code), said.reason)
                        return
                    case _:
                        control += 1
                        if frame.opcode is Opcode.PING:
                            del pings[ANSWERED - 1 :]
                            pings.append(bytes(frame.data))
                if control > self._limits.max_control:
                    yield RATE_LIMITED
                    return
            yield from map(Ping, pings)
            if core.parser_exc is not None:
                yield _rule_of(core.parser_exc)
                return

    def close(self) -> None:
        """It is read no more. Generator, error and library form a cycle: only the garbage collector would find them."""
        self._core.parser.close()
        self._core.parser_exc = None

    def _gather(self, frame: Frame) -> str | Close | None:
        parts = self._parts
        if frame.opcode is Opcode.TEXT:
            if frame.fin:
                return _text(bytes(frame.data))
            self._parts = [bytes(frame.data)]
            return None
        assert parts is not None  # noqa: S101 - the library refuses a continuation of nothing
        if len(parts) >= self._limits.max_fragments:
            return MESSAGE_TOO_BIG
        parts.append(bytes(frame.data))
        if not frame.fin:
            return None
        self._parts = None
        return _text(b"".join(parts))


class Parsers:
    """Lends a parser to whoever has bytes to read. One at rest knows nothing of its last user."""

    __slots__ = ("_resting", "limits")

    def __init__(self, limits: WireLimits) -> None:
        self.limits = limits
        self._resting: list[Parser] = []

    def take(self) -> Parser:
        return self._resting.pop() if self._resting else Parser(self.limits)

    def give_back(self, parser: Parser) -> Parser | None:
        """None if it was taken back, else the parser: it is in the middle of something and stays with its user."""
        if not parser.resting:
            return parser
        if len(self._resting) < 8:
            self._resting.append(parser)
        return None


def _text(data: bytes) -> str | Close:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return INVALID_TEXT


def _rule_of(error: Exception) -> Close:
    """The close table's word for what the library found wrong."""
    if isinstance(error, PayloadTooBig):
        return MESSAGE_TOO_BIG
    if isinstance(error, UnicodeDecodeError):
        return INVALID_TEXT
    if isinstance(error, ProtocolError):
        return PROTOCOL_ERROR
    log.error("the frame parser failed", exc_info=error)
    return INTERNAL_ERROR
