"""The gateway behind HTTP: the ASGI application, and the process that serves it. What is served is opened elsewhere."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from gateway import __version__
from gateway.api import console, demo, pages
from gateway.api.cors import Cors
from gateway.api.openapi import FastLane, install
from gateway.first_start import FirstAdmin
from gateway.garbage import settle_garbage
from gateway.hosts import Hosts
from gateway.logs import bind_request, bind_worker
from gateway.opening import node_name, open_gateway
from gateway.settings import Settings, SettingsError
from gateway.siblings import Crew
from gateway.sockets.accepting import Share, Shares
from gateway.sockets.endpoint import SocketEndpoint
from gateway.sockets.entrance import Entrance
from gateway.sockets.events import EventsEndpoint
from gateway.sockets.forking import NotStarted, Post
from gateway.sockets.server import GRACE, listening_socket, serve
from gateway.sockets.wire import WireLimits
from gateway.sockets.workers import Workers
from gateway.store.errors import StoreError

_DRAIN_SLACK = 5.0
"""Seconds beyond the grace until a drain is cut short."""


class GatewayApp(FastAPI):
    """FastAPI for everything over HTTP but pushes, which are met before its layers, as ``/ws`` is."""

    fast: FastLane = MappingProxyType({})

    refusal: SettingsError | StoreError | None = None
    """Why it would not start, if that is the operator's to mend: then a line says it, and not a traceback."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def said(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and self.refusal is not None:
                message = {**message, "message": str(self.refusal)}
            await send(message)

        if scope["type"] == "http" and (fast := self.fast.get((scope["method"], scope["path"]))) is not None:
            await fast(scope, receive, send)
        elif scope["type"] == "websocket":
            await scope["state"]["sockets"](scope, receive, send)
        else:
            await super().__call__(scope, receive, said if scope["type"] == "lifespan" else send)


def create_app(
    settings: Settings,
    *,
    on_first_admin: FirstAdmin | None = None,
    crew: Crew | None = None,
) -> GatewayApp:
    """The ASGI application. It works under any ASGI server; its own (``run``) also hands sockets over and drains."""
    limits, hosts = _limits(settings), Hosts(settings.allowed_hosts)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            opening = open_gateway(settings, on_first_admin=on_first_admin, crew=crew)
            try:
                services = await stack.enter_async_context(opening)
            except (SettingsError, StoreError) as error:
                app.refusal = error
                raise
            entrance = Entrance(
                ties=services.ties, origins=services.origins, draining=services.drain.is_begun,
                limiter=services.limiter, upgrade_rate=settings.upgrade_rate,
            )  # fmt: skip
            sockets = SocketEndpoint(
                entrance, max_message=limits.max_size, hosts=hosts, require_tls=settings.require_tls, bind=bind_request
            )
            app.state.drain = services.drain
            settle_garbage(services.metrics)
            yield {"services": services, "sockets": sockets, "events": EventsEndpoint(entrance, limits)}

    loopback = settings.host in ("127.0.0.1", "::1", "localhost")
    documented = settings.docs == "on" or (settings.docs == "auto" and loopback)
    app = GatewayApp(
        title="Notification gateway",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if documented else None,
    )
    app.fast = install(
        app, bind=bind_request, hosts=hosts, cors=Cors(settings.allowed_origins), tls_only=settings.require_tls
    )
    if documented:
        app.router.routes.extend([*pages.routes(), *demo.routes()])
    if settings.console == "on" or (settings.console == "auto" and loopback):
        app.router.routes.extend(console.routes())
    return app


def _limits(settings: Settings) -> WireLimits:
    return WireLimits(
        reject=settings.ws_reject,
        upgrades_at_once=settings.upgrades_at_once,
        upgrades_waiting=settings.upgrades_waiting,
    )


def run(
    settings: Settings, *, on_first_admin: FirstAdmin | None = None, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT. ``on_ready`` is told the URL once requests are answered.

    Raises ``sockets.server.CannotListen`` if the address cannot be had, and what ``open_gateway`` raises; if there are
    several workers ``sockets.forking.NotStarted`` in the place of that.
    """
    with listening_socket(settings.host, settings.port) as sock:
        host, port = sock.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

        def ready() -> None:
            if on_ready is not None:
                on_ready(url)

        if settings.workers == 1:
            _serve(settings, sock, on_first_admin=on_first_admin, on_ready=ready)
        else:
            _serve_by_workers(settings, sock, on_first_admin=on_first_admin, on_ready=ready)


def _serve(
    settings: Settings,
    sock: socket.socket,
    *,
    on_first_admin: FirstAdmin | None,
    on_ready: Callable[[], None],
    crew: Crew | None = None,
    share: Share | None = None,
) -> None:
    app = create_app(settings, on_first_admin=on_first_admin, crew=crew)

    async def drain() -> None:
        await app.state.drain()

    try:
        serve(
            app,
            sock=sock,
            limits=_limits(settings),
            drain=drain,
            drain_timeout=settings.drain_grace + _DRAIN_SLACK,
            forwarded_allow_ips=settings.forwarded_allow_ips,
            on_ready=on_ready,
            share=share,
        )
    except SystemExit:
        if app.refusal is not None:
            raise app.refusal from None
        raise


def _serve_by_workers(
    settings: Settings, sock: socket.socket, *, on_first_admin: FirstAdmin | None, on_ready: Callable[[], None]
) -> None:
    """The same by ``settings.workers`` processes, behind one listening socket. Each has a name, limits and connections
    to the database of its own."""
    name, shares = node_name(settings), Shares(settings.workers)
    scraped = _metrics_socket(settings.metrics_port) if settings.metrics_port is not None else None
    with tempfile.TemporaryDirectory(prefix="gateway-") as directory:

        def work(post: Post) -> None:
            bind_worker(post.number)
            try:
                _serve(
                    settings.model_copy(update={"node": f"{name}-{post.number}"}),
                    sock,
                    on_first_admin=post.tell,
                    on_ready=post.ready,
                    crew=Crew(post.number, settings.workers, Path(directory), scraped),
                    share=shares.of(post.number),
                )
            except SettingsError as error:
                raise NotStarted(str(error), code=2) from None
            except StoreError as error:
                raise NotStarted(str(error), code=1) from None

        def close() -> None:
            """When the workers no longer listen nobody does."""
            for listening in (sock, scraped):
                if listening is not None:
                    listening.close()

        try:
            Workers(
                work,
                count=settings.workers,
                # What ``serve`` takes at most, and some for the database.
                stop_within=settings.drain_grace + _DRAIN_SLACK + GRACE + 5.0,
                on_ready=on_ready,
                on_stop=close,
                told=on_first_admin or (lambda *_: None),
            ).run()
        finally:
            close()


def _metrics_socket(port: int) -> socket.socket:
    try:
        sock = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise SettingsError(f"GATEWAY_METRICS_PORT: port {port} cannot be had: {error.strerror}") from None
    sock.setblocking(False)
    return sock
