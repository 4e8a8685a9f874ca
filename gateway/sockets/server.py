"""The listening socket and the server on it: options, limits of the process, an orderly end. Knows no application.

uvicorn closes every socket at once when it stops; here the drain comes first, while the node still answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn

from gateway.sockets.accepting import Accepting, Address, Share
from gateway.sockets.forwarded import Forwarded
from gateway.sockets.http import http_protocol
from gateway.sockets.protocol import SocketProtocol, socket_protocol
from gateway.sockets.stream import StreamProtocol
from gateway.sockets.wire import WireLimits
from gateway.sockets.workers import HURRY, LEAVE

BACKLOG = 4096
GRACE = 5
"""Seconds uvicorn waits for requests under way once the drain is over."""
_NOTSENT = 16 * 1024
_USER_TIMEOUT_MS = 30_000
_LASTING = (SocketProtocol, StreamProtocol)
"""Connections that the drain ends."""

log = logging.getLogger("gateway.sockets")


class CannotListen(Exception):
    """The address cannot be had; the text names the setting."""


def listening_socket(host: str, port: int, *, backlog: int = BACKLOG) -> socket.socket:
    """A socket that listens; what it accepts inherits its options (tcp(7), Linux). Raises CannotListen.

    It listens at once, so that a second gateway on the same port fails here and not half started.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise CannotListen(f"GATEWAY_HOST: {host!r} is no address of this machine ({error.strerror})") from None
    # For a name with both, as localhost, what most clients try works: IPv4.
    family, kind, proto, _, address = min(found, key=lambda entry: entry[0] is not socket.AF_INET)
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        for level, option, value in _options():
            sock.setsockopt(level, option, value)
        sock.bind(address)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise CannotListen(_complaint(error, host, port)) from None
    sock.setblocking(False)
    return sock


def _options() -> Iterator[tuple[int, int, int]]:
    tcp = socket.IPPROTO_TCP
    yield tcp, socket.TCP_NODELAY, 1
    # Without it the kernel takes 3.9 MB for a reader that has stopped, and 731 s of data go ahead of a slow one's ping.
    yield tcp, getattr(socket, "TCP_NOTSENT_LOWAT", 25), _NOTSENT
    yield socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            yield tcp, getattr(socket, name), value
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # It also ends a connection whose window stays shut. Not less than the 30 s the contract gives a client that
        # takes nothing: the kernel must not be stricter than what is promised.
        yield tcp, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS


def _complaint(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"GATEWAY_PORT: port {port} on {host} is in use already; stop what uses it or choose another"
    if error.errno == errno.EACCES:
        return f"GATEWAY_PORT: this user may not listen on port {port}; choose one above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"GATEWAY_HOST: {host} is no address of this machine"
    return f"GATEWAY_HOST, GATEWAY_PORT: cannot listen on {host}:{port} ({error.strerror})"


def raise_file_limit() -> int:
    """Let this process open as many files as it may, one per connection. How many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # some systems do not allow what they say they allow: then it stays as it was
            return soft
    return hard


class DrainingServer(uvicorn.Server):
    """Ready is told, the end is drained, and a stop that was asked for is a success.

    ``share``: of a worker, one of several behind the listening socket. It is the parent that is told twice to stop; a
    SIGTERM that comes twice (from the parent, and from what ends whole groups of processes) means no more than one.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain: Callable[[], Awaitable[None]],
        drain_timeout: float,
        on_ready: Callable[[], None],
        share: Share | None = None,
    ) -> None:
        super().__init__(config)
        self._drain, self._drain_timeout, self._on_ready = drain, drain_timeout, on_ready
        self._share, self._leaving = share, False
        self._accepting: list[Accepting] = []
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=[])  # it would accept all that wait in one go
        if self.started and not self.should_exit:
            self._accepting = [
                Accepting(
                    sock, share=self._share, held=lambda: len(self.server_state.connections), protocol=self._protocol,
                    loop=self._loop,
                )
                for sock in sockets or ()
            ]  # fmt: skip
            self._on_ready()

    def _protocol(self, here: Address, peer: Address) -> asyncio.Protocol:
        """As uvicorn makes them for sockets that it accepts itself, but for the addresses, which are known."""
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=self._loop,
            addresses=(here, peer),
        )  # fmt: skip

    async def on_tick(self, counter: int) -> bool:
        for accepting in self._accepting:
            accepting.say()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # While the drain runs the node still listens: who asks for readiness or a socket is told to go elsewhere.
        # Unless elsewhere is behind the same listening socket.
        if self._leaving:
            self._let_others(sockets or [])
        self._draining = asyncio.create_task(self._drained(), name="drain")
        await asyncio.wait([self._draining], timeout=self._drain_timeout)
        if not self._draining.done():
            log.warning("the drain took more than %s s and was cut short", self._drain_timeout)
            self._draining.cancel()
        for accepting in self._accepting:
            accepting.close()
        await super().shutdown(sockets=sockets)
        for connection in list(self.server_state.connections):
            if isinstance(connection, _LASTING):
                connection.abort()

    def _let_others(self, sockets: list[socket.socket]) -> None:
        """Accept nothing more, and have requests come over new connections."""
        for accepting in self._accepting:
            accepting.close()
        for sock in sockets:
            sock.close()
        for connection in list(self.server_state.connections):
            if not isinstance(connection, _LASTING):
                connection.shutdown()

    async def _drained(self) -> None:
        try:
            await self._drain()
        except Exception:  # stopping goes on, whatever the drain met
            log.exception("the drain failed")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        again = self.should_exit
        super().handle_exit(sig, frame)
        if again and self._loop is not None:
            self._loop.call_soon_threadsafe(self._hurry)

    def _hurry(self) -> None:
        """Asked a second time: no more waiting for clients. The application is still closed in order."""
        if self._draining is not None:
            self._draining.cancel()

    def _heed(self, sig: int, _: FrameType | None) -> None:
        """In a worker."""
        if sig == HURRY and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hurry)
        self._leaving = self._leaving or (sig == LEAVE and not self.should_exit)
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if self._share is not None:
            for sig in (signal.SIGTERM, LEAVE, HURRY):
                signal.signal(sig, self._heed)  # and for good: one more of them must not kill what is nearly done
            yield
            return
        with super().capture_signals():
            try:
                yield
            finally:
                # uvicorn raises them again once it has stopped, so that the process dies of them. It stopped as it was
                # asked to: exit code 0.
                self._captured_signals.clear()


def server(
    app: Any,
    *,
    limits: WireLimits,
    drain: Callable[[], Awaitable[None]],
    forwarded_allow_ips: str,
    log_config: dict[str, Any] | None = None,
    on_ready: Callable[[], None] = lambda: None,
    drain_timeout: float = 60.0,
    share: Share | None = None,
) -> DrainingServer:
    """The server for ``app``, not started. ``forwarded_allow_ips``: empty means that no proxy is believed."""
    config = uvicorn.Config(
        Forwarded(app, forwarded_allow_ips),
        interface="asgi3",
        loop="uvloop" if _has_uvloop() else "asyncio",
        http=http_protocol(limits),
        ws=socket_protocol(limits),
        lifespan="on",
        log_config=log_config,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=limits.keep_alive,
        timeout_graceful_shutdown=GRACE,
    )
    return DrainingServer(config, drain=drain, drain_timeout=drain_timeout, on_ready=on_ready, share=share)


def serve(
    app: Any,
    *,
    sock: socket.socket,
    limits: WireLimits,
    drain: Callable[[], Awaitable[None]],
    forwarded_allow_ips: str,
    log_config: dict[str, Any] | None = None,
    on_ready: Callable[[], None] = lambda: None,
    drain_timeout: float = 60.0,
    share: Share | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain (within ``drain_timeout`` seconds) and stop. Returns when stopped well.

    ``on_ready`` is called once connections are accepted. ``share``: this is one of ``sockets.workers``, which tells it
    to end; the others accept from ``sock`` too. Raises SystemExit(3) if the application does not start.
    """
    files = raise_file_limit()
    log.debug("up to %d files may be open", files)
    # A peer that resets while we write must be an error of that write, not the end of the process.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    server(
        app,
        limits=limits,
        drain=drain,
        forwarded_allow_ips=forwarded_allow_ips,
        log_config=log_config,
        on_ready=on_ready,
        drain_timeout=drain_timeout,
        share=share,
    ).run(sockets=[sock])


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401 - only to see whether it is there
    except ImportError:
        return False
    return True
