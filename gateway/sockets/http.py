"""uvicorn's HTTP protocol with every request bounded in time, its head in bytes too. Serves and routes nothing itself.

httptools has no limits of its own: stock uvicorn read 20 MB of header fields, and waits for ever for the next byte.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, NoReturn, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.sockets import heads
from gateway.sockets.accepting import Address
from gateway.sockets.answer import Answering
from gateway.sockets.heads import Refusal
from gateway.sockets.upgrade import Asked
from gateway.sockets.wire import WireLimits, half_close, problem

_PIECE = 64 * 1024
_PIPELINED = 2048
"""Bytes parsed at a time while a request waits for its answer."""
_LINGER = 2.0
"""Seconds in which a refused peer can read the answer; meanwhile what it sends is thrown away."""


class _Refused(Exception):
    """Raised in a callback to stop the parser; what is answered stands in ``_refusal``."""


class BoundedHttp(HttpToolsProtocol):
    """One HTTP connection. Its deadline is for whatever is awaited now: a head, or the next piece of a body, which in
    all takes ``body_timeout`` and a second for each ``body_rate`` bytes of it."""

    def __init__(
        self,
        limits: WireLimits,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        addresses: tuple[Address, Address] | None = None,
    ) -> None:
        super().__init__(config=config, server_state=server_state, app_state=app_state, _loop=_loop)
        self.limits, self._addresses = limits, addresses
        self._refusal: Refusal | None = None
        self._discarding = False
        self._answered: RequestResponseCycle | None = None
        self._kept = b""  # came while a request waits for the answer to another: parsed when that is given
        self._head = 0  # bytes of the current head, as parsed
        # Bytes fed since the current head or trailer began: a field is only parsed once it has ended.
        self._fed = 0
        self._awaiting: str | None = "head"  # "head", "body" or None (between requests, or upgraded)
        self._deadline: asyncio.TimerHandle | None = None
        self._body_began: float | None = None  # by the loop's clock: since when the rest of the body is awaited
        self._body_bytes = 0

    # -- asyncio.Protocol --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._addresses is None:
            super().connection_made(cast("asyncio.Transport", transport))
        else:  # who accepted it was told: uvicorn would make a socket object of it and ask the kernel twice
            self.connections.add(self)
            self.transport = cast("asyncio.Transport", transport)
            self.flow = FlowControl(self.transport)
            self.server, self.client = self._addresses
            self.scheme = "http"
        self._await(self.limits.head_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self._await(None)
        super().connection_lost(exc)
        self.pipeline.clear()
        if self._answered is not None and not self._answered.response_complete:
            # uvicorn tells the last request that was read; this is the first that waits.
            self._answered.disconnected = True
            self._answered.message_event.set()

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        self._unset_keepalive_if_required()
        before = self._awaiting
        data, self._kept = self._kept + data, b""
        while data and not self._discarding and self.parser is not None:
            if self.pipeline:
                # 256 KB can hold ten thousand requests, and each costs 5 KB from when its head is read.
                self._kept = data
                self._await(None)
                self.flow.pause_reading()
                return
            if self._awaiting is None:
                self._awaiting = "head"
            room = self.limits.max_head - self._fed if self._awaiting == "head" else _PIECE
            if self._busy:
                room = min(room, _PIPELINED)
            piece, data = data[:room], data[room:]
            self._fed += len(piece)
            data = self._feed(piece, data)
            if self._awaiting is not None and self._fed >= self.limits.max_head and not self._discarding:
                self._refuse(heads.TOO_LARGE)
        if self._discarding or self.parser is None:
            return
        if self._awaiting is None or self.pipeline:
            self._await(None)
        elif self._awaiting == "body":
            self._await(self._body_left())
        elif before != "head" or self._deadline is None:
            self._await(self.limits.head_timeout)

    def eof_received(self) -> None:
        if self._discarding:
            self.transport.close()

    # -- parsing -----------------------------------------------------------------------------------------------

    def _feed(self, piece: bytes, rest: bytes) -> bytes:
        """Parse ``piece``; what is left to parse of it and ``rest``."""
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            after = piece[upgrade.args[0] :] + rest
            if self._should_upgrade():
                self._upgrade(after)
                return b""
            if self._plain():
                return self._without_upgrade() + after
        except httptools.HttpParserError:
            self._refuse(self._refusal or heads.MALFORMED)
        return rest

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._awaiting, self._head = "head", 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.limits.max_target:
            self._stop(heads.TOO_LONG)
        self._head += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head += len(name) + len(value) + 4
        if self._head > self.limits.max_head or len(self.headers) >= self.limits.max_headers:
            self._stop(heads.TOO_LARGE)
        if self._awaiting == "body":
            return  # a trailer: who merged it would take fields that nobody in front has seen (RFC 9110 section 6.5.1)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        old = self.parser.get_http_version() == "1.0"
        wrong = heads.fault(self.headers, old=old)
        if wrong is not None:
            self._stop(wrong)
        if old and self.parser.should_upgrade() and self._should_upgrade():
            self._stop(heads.TOO_OLD)  # RFC 6455 section 4.1
        if self._busy and self.parser.should_upgrade() and self._should_upgrade():
            self._stop(heads.TOO_EARLY)  # the answer that is owed would be written among the frames
        if not self.url.startswith(b"/") or b"#" in self.url:
            self._rewrite()
        if self._plain():
            return  # it is read a second time: see _without_upgrade
        self._awaiting, self._fed = "body", 0
        self._body_began, self._body_bytes = None, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._fed = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._plain():
            return  # only its first reading
        self._awaiting, self._fed = None, 0
        super().on_message_complete()

    @property
    def _busy(self) -> bool:
        """Whether a request before the one that is read is not answered yet."""
        return self._awaiting != "body" and self.cycle is not None and not self.cycle.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, cast("Any", Answering(app, cycle, self)))

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.pipeline:
            self.flow.pause_reading()  # uvicorn has just resumed it
        elif (self._kept or self._awaiting == "body") and not self.transport.is_closing():
            self.data_received(b"")  # also for a body whose time begins now

    def _stop(self, refusal: Refusal) -> NoReturn:
        self._refusal = refusal
        raise _Refused

    def _rewrite(self) -> None:
        if self.url == b"*" or self.parser.get_method() == b"CONNECT":
            return  # answered with 404, and 400
        self.url = heads.origin_form(self.url, self.headers) or self._stop(heads.MALFORMED)

    def _plain(self) -> bool:
        """Whether it asks for another protocol than ours: answered as the plain request it also is (RFC 9110 section
        7.8). Java's HttpClient asks for h2c with every first request to an http: address, bodies included."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT" and not self._should_upgrade()

    def _without_upgrade(self) -> bytes:
        """The head again, for a parser of its own: after an Upgrade, httptools takes no body and no next request."""
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as the one it replaces
        self._fed = 0
        return b"\r\n".join(lines) + b"\r\n\r\n"

    # -- leaving HTTP ------------------------------------------------------------------------------------------

    def leave(self) -> asyncio.Transport:
        """Nothing more is read or written here. What was read already and not answered is thrown away."""
        self._await(None)
        self._awaiting = None
        self.flow.resume_reading()
        self.pipeline.clear()
        self.connections.discard(self)
        # It refers to this object and back: 4.7 KB that only the garbage collector would find, for every socket.
        self.parser = None  # type: ignore[assignment]
        return self.transport

    def _upgrade(self, early: bytes) -> None:
        method, secure = self.parser.get_method().decode("ascii"), self.scheme == "https"
        asked = Asked(method, self.url, self.headers, secure, self.server, self.client)
        # Ours, whatever uvicorn's types say: it takes the request as it was read, and reads no head a second time.
        protocol = cast("Any", self.ws_protocol_class)(
            config=self.config, server_state=self.server_state, app_state=self.app_state
        )
        protocol.connection_made(self.leave())
        self.transport.set_protocol(protocol)
        protocol.requested(asked)
        if early:
            protocol.data_received(early)

    # -- refusing ----------------------------------------------------------------------------------------------

    def _refuse(self, refusal: Refusal) -> None:
        """Answer and hang up, so that the answer arrives even while the peer is still sending."""
        self._discarding = True
        self._await(None)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or self.pipeline:
                self.transport.abort()  # in the middle of another answer nothing can be said any more
                return
            cycle.disconnected = True  # the application is told that the client left, and what it says is not sent
            cycle.message_event.set()
        status, code, detail = refusal
        path = self.url.partition(b"?")[0] if getattr(self, "url", b"") else b"/"
        instance = path[:256].decode("ascii", errors="replace")
        self.transport.write(problem(status, code, detail, instance=instance))
        half_close(self.transport)
        self._deadline = self.loop.call_later(_LINGER, self.transport.abort)

    def _await(self, seconds: float | None) -> None:
        """Within ``seconds`` something has to come; None: nothing is awaited."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self._late)

    def _body_left(self) -> float:
        """Seconds until more of the body has to have come. Who sends a byte now and then does not hold on to a
        connection for long; a large body may take its time on a slow line."""
        now, gap = self.loop.time(), self.limits.body_timeout
        if self._body_began is None:  # not with its head: who waits for the answer to another request is not late
            self._body_began = now
        return min(gap, self._body_began + gap + self._body_bytes / self.limits.body_rate - now)

    def _late(self) -> None:
        self._deadline = None
        if self._awaiting == "body" and self.flow.read_paused:
            self._body_began = None  # it is the application that does not read
            self._await(self._body_left())
        elif self._awaiting == "body" or self._fed:
            self._refuse(heads.TOO_SLOW)
        else:
            self._discarding = True
            self.transport.close()  # it never said a word


def http_protocol(limits: WireLimits) -> type[asyncio.Protocol]:
    """What uvicorn's ``Config(http=…)`` takes: it only ever calls it, with keywords, so a partial will do."""
    return cast("type[asyncio.Protocol]", partial(BoundedHttp, limits))
