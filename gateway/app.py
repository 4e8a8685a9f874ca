"""The gateway behind HTTP: the ASGI application, and the process that serves it. What is served is opened elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from gateway import __version__
from gateway.api.openapi import FastLane, install
from gateway.first_start import FirstAdmin
from gateway.garbage import settle_garbage
from gateway.logs import bind_request
from gateway.opening import Overrides, open_gateway
from gateway.settings import Settings, SettingsError
from gateway.sockets.endpoint import SocketEndpoint
from gateway.sockets.server import listening_socket, serve
from gateway.sockets.wire import WireLimits
from gateway.store.errors import StoreError


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
    settings: Settings, *, on_first_admin: FirstAdmin | None = None, overrides: Overrides | None = None
) -> GatewayApp:
    """The ASGI application. It works under any ASGI server; its own (``run``) also hands sockets over and drains."""
    limits = WireLimits(reject=settings.ws_reject)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            opening = open_gateway(settings, on_first_admin=on_first_admin, overrides=overrides)
            try:
                services = await stack.enter_async_context(opening)
            except (SettingsError, StoreError) as error:
                app.refusal = error
                raise
            endpoint = SocketEndpoint(
                ties=services.ties, allowed_origins=settings.allowed_origins, draining=services.drain.is_begun,
                max_message=limits.max_size,
            )  # fmt: skip
            app.state.drain = services.drain
            settle_garbage(services.metrics)
            yield {"services": services, "sockets": endpoint}

    loopback = settings.host in ("127.0.0.1", "::1", "localhost")
    documented = settings.docs == "on" or (settings.docs == "auto" and loopback)
    app = GatewayApp(
        title="Notification gateway",
        version=__version__,
        lifespan=lifespan,
        docs_url="/docs" if documented else None,
        redoc_url=None,
        openapi_url="/openapi.json" if documented else None,
    )
    app.fast = install(app, bind=bind_request)
    return app


def run(
    settings: Settings, *, on_first_admin: FirstAdmin | None = None, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT. ``on_ready`` is told the URL once requests are answered.

    Raises ``sockets.server.CannotListen`` if the address cannot be had, and what ``open_gateway`` raises.
    """
    app = create_app(settings, on_first_admin=on_first_admin)
    with listening_socket(settings.host, settings.port) as sock:
        host, port = sock.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

        async def drain() -> None:
            await app.state.drain()

        try:
            serve(
                app,
                sock=sock,
                limits=WireLimits(reject=settings.ws_reject),
                drain=drain,
                drain_timeout=settings.drain_grace + 5,
                forwarded_allow_ips=settings.forwarded_allow_ips,
                on_ready=(lambda: on_ready(url)) if on_ready is not None else lambda: None,
            )
        except SystemExit:
            if app.refusal is not None:
                raise app.refusal from None
            raise
