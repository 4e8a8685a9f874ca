"""The only wiring: settings in, open objects out. ``open_gateway`` knows no FastAPI; ``create_app`` adds HTTP.

``open_gateway`` is one AsyncExitStack, so whatever was opened is closed in the opposite order, however it ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from gateway import __version__
from gateway.api.openapi import install
from gateway.auth.passwords import Passwords
from gateway.auth.tokens import Keyring
from gateway.authn import Authn
from gateway.bus.memory import MemoryBus
from gateway.drain import Drain
from gateway.errors import StoreUnavailable
from gateway.first_start import FirstAdmin, first_admin, signing_keys
from gateway.garbage import settle_garbage
from gateway.hub import Hub
from gateway.janitor import Janitor
from gateway.login import Login
from gateway.logs import bind_request
from gateway.metrics import Metrics
from gateway.model import Actor, Target
from gateway.ports import Bus, Clock, Presence
from gateway.presence.memory import MemoryPresence
from gateway.publish import Publisher
from gateway.pulse import Pulse
from gateway.relay import Relay
from gateway.revocations import Revocations
from gateway.revoke import Revoker
from gateway.services import Services
from gateway.settings import Settings, SettingsError
from gateway.sockets.endpoint import SocketEndpoint
from gateway.sockets.server import listening_socket, serve
from gateway.sockets.wire import WireLimits
from gateway.store.engine import open_store
from gateway.store.errors import StoreError
from gateway.telling import Ties

log = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True)
class Overrides:
    """What tests put in place of the real thing; None keeps the real one."""

    clock: Clock | None = None
    monotonic: Callable[[], float] | None = None
    bus: Bus | None = None
    presence: Presence | None = None


@asynccontextmanager
async def open_gateway(
    settings: Settings,
    *,
    role: Literal["serve", "tool"] = "serve",
    on_first_admin: FirstAdmin | None = None,
    overrides: Overrides | None = None,
) -> AsyncIterator[Services]:
    """Open everything, in order; migrations are applied and the first admin made on the way.

    ``tool`` is the command line beside a running node: no node lock, no loops, no presence. ``on_first_admin`` is told
    the name and password of the admin that an empty database gets. Raises SettingsError for a key that cannot be used,
    ``store.engine.StoreInUse`` if another node has the database.
    """
    given = overrides or Overrides()
    clock: Clock = given.clock or time.time
    monotonic = given.monotonic or time.monotonic
    async with AsyncExitStack() as stack:
        url = settings.database_url.get_secret_value()
        store = await stack.enter_async_context(
            open_store(url, durability=settings.durability, inbox_max=settings.inbox_max, tool=role == "tool")
        )
        metrics = Metrics()
        keyring = Keyring(
            await signing_keys(settings, store, clock()), issuer=settings.issuer, audience=settings.audience,
            max_ttl=settings.access_token_ttl, leeway=settings.token_leeway,
        )  # fmt: skip
        node = settings.node or f"{socket.gethostname()}-{os.getpid()}"
        denylist = Revocations()
        hub = Hub(
            node=node, per_user=settings.connections_per_user, per_address=settings.connections_per_address,
            most=settings.connections_max,
        )  # fmt: skip
        metrics.watch(connections=hub.__len__, users=lambda: len(hub.users), bans=denylist.__len__)
        bus = given.bus or MemoryBus()
        presence = given.presence or MemoryPresence()
        passwords = Passwords(settings.password_hashers)
        stack.callback(passwords.close)
        revoker = Revoker(
            store=store.revocations, memory=denylist, hub=hub, bus=bus, clock=clock, monotonic=monotonic,
            access_ttl=settings.access_token_ttl,
        )  # fmt: skip
        janitor = Janitor(
            inbox=store.inbox, sessions=store.sessions, revocations=store.revocations, denylist=denylist, clock=clock,
            metrics=metrics, keep=settings.inbox_max,
        )  # fmt: skip
        publisher = Publisher(
            inbox=store.inbox, bus=bus, presence=presence, clock=clock, monotonic=monotonic, metrics=metrics,
            rate=settings.push_rate, overfull=janitor.overfull,
        )  # fmt: skip

        async def revoke_session(session: str, by: Actor, why: str) -> None:
            await revoker.revoke(Target(session=session), reason=None, by=by, why=why)

        login = Login(
            users=store.users, sessions=store.sessions, clients=store.clients, audit=store.audit, passwords=passwords,
            keyring=keyring, revocations=denylist, clock=clock, apply_bans=revoker.apply,
            server_key=await store.keys.secret("refresh", generate=lambda: secrets.token_bytes(32)),
            revoke_session=revoke_session, access_ttl=settings.access_token_ttl, session_ttl=settings.session_ttl,
            refresh_idle=settings.refresh_token_idle, refresh_grace=settings.refresh_grace,
        )  # fmt: skip
        authn = Authn(keyring, denylist, clock, monotonic)
        pulse = Pulse(heartbeat=settings.heartbeat, clock=clock, metrics=metrics)
        drain = Drain(hub=hub, grace=settings.drain_grace, monotonic=monotonic)
        epoch = await store.meta.epoch()

        async def readiness() -> list[str]:
            reasons = [] if revoker.fresh else ["revocations are stale"]
            if drain.begun:
                reasons.append("shutting down")
            try:
                await store.meta.epoch()
            except StoreUnavailable:
                reasons.append("the database cannot be used")
            return reasons

        ties = Ties(
            node=node, epoch=epoch, heartbeat=settings.heartbeat, frame_rate=settings.frame_rate,
            frame_burst=settings.frame_burst, hub=hub, pulse=pulse, inbox=store.inbox, publisher=publisher,
            authn=authn, revoker=revoker, presence=presence, bus=bus, metrics=metrics, clock=clock,
            monotonic=monotonic,
        )  # fmt: skip
        services = Services(
            node=node, epoch=epoch, clock=clock, users=store.users, sessions=store.sessions, clients=store.clients,
            inbox=store.inbox, audit=store.audit, revocation_log=store.revocations, keyring=keyring, login=login,
            authn=authn, publisher=publisher, revoker=revoker, hub=hub, presence=presence, metrics=metrics,
            readiness=readiness, ties=ties, drain=drain,
        )  # fmt: skip
        await revoker.poll()
        if role == "serve":
            await first_admin(settings, services, on_first_admin)
            await passwords.warm()
            relay = Relay(
                hub=hub, states=store.inbox, fresh=lambda: revoker.fresh, revocations_rung=revoker.rung,
                metrics=metrics,
            )  # fmt: skip
            await stack.enter_async_context(bus.listen(relay))
            for name, loop in (
                ("revocations", revoker.keep_polling),
                ("pulse", lambda: pulse.run(monotonic)),
                ("janitor", janitor.run),
                ("recheck", relay.keep_rechecking),
            ):
                await stack.enter_async_context(_background(name, loop))
        yield services


@asynccontextmanager
async def _background(name: str, loop: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """A loop that runs while the block does, and starts again a second after a bug has ended it."""

    async def keep() -> None:
        while True:
            try:
                await loop()
            except Exception:  # a bug in one loop must not silence it for the life of the process
                log.exception("the %s loop failed and is started again", name)
            await asyncio.sleep(1.0)

    task = asyncio.create_task(keep(), name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class GatewayApp(FastAPI):
    """FastAPI for everything over HTTP; ``/ws`` is met before it, for an upgrade needs nothing of what HTTP needs."""

    refusal: SettingsError | StoreError | None = None
    """Why it would not start, if that is the operator's to mend: then a line says it, and not a traceback."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def said(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and self.refusal is not None:
                message = {**message, "message": str(self.refusal)}
            await send(message)

        if scope["type"] == "websocket" and scope["path"] == "/ws":
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
    install(app, bind=bind_request)
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
