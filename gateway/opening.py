"""The wiring of everything that is not HTTP: settings in, open objects out. Imports no web framework.

``open_gateway`` is one AsyncExitStack, so whatever was opened is closed in the opposite order, however it ends.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Literal

from gateway.attempts import Attempts
from gateway.auth.passwords import Passwords, usual_hashers
from gateway.authn import Authn
from gateway.background import in_background
from gateway.bus.memory import MemoryBus
from gateway.drain import Drain
from gateway.errors import StoreUnavailable
from gateway.federation import open_exchange
from gateway.first_start import FirstAdmin, first_admin, keyring_of
from gateway.granting import Granting
from gateway.group import Group
from gateway.hub import Hub
from gateway.janitor import Janitor
from gateway.lag import Lag
from gateway.limiting.memory import MemoryLimiter
from gateway.login import Login
from gateway.metrics import Metrics
from gateway.model import Actor, Target
from gateway.origins import Origins
from gateway.ports import Bus, Clock, Limiter, Presence
from gateway.presence.memory import MemoryPresence
from gateway.presented import PresentedTokens
from gateway.publish import Publisher
from gateway.pulse import Pulse
from gateway.relay import Relay
from gateway.revocations import Revocations
from gateway.revoke import POLL_EVERY, Revoker
from gateway.rotation import Rotation
from gateway.services import Readiness, Services
from gateway.settings import LONGEST_ACCESS_TTL, Settings, SettingsError
from gateway.siblings import Crew
from gateway.store.engine import Store, open_store
from gateway.store.migrate import head
from gateway.tickets import Tickets
from gateway.ties import Ties
from gateway.trail import Trail


@asynccontextmanager
async def open_gateway(
    settings: Settings,
    *,
    role: Literal["serve", "tool"] = "serve",
    on_first_admin: FirstAdmin | None = None,
    crew: Crew | None = None,
) -> AsyncIterator[Services]:
    """Open everything, in order; migrations are applied and the first admin made on the way.

    ``tool`` is the command line beside a running node: no node lock, no loops, no presence. ``on_first_admin`` is told
    the name and password of the admin that an empty database gets. ``crew``: the place of this process among
    several that serve one port. Raises SettingsError for a key that cannot be used,
    ``store.engine.StoreInUse`` if another node has the database.
    """
    clock, monotonic = time.time, time.monotonic
    async with AsyncExitStack() as stack:
        node = node_name(settings)
        store = await stack.enter_async_context(
            open_store(
                settings.database_url.get_secret_value(), durability=settings.durability,
                inbox_max=settings.inbox_max, tool=role == "tool", connections=settings.database_connections,
                application=f"gateway {node}",
            )
        )  # fmt: skip
        metrics = Metrics()
        keyring = await keyring_of(settings, store, now=clock())
        denylist = Revocations()
        hub = Hub(
            node=node, per_user=settings.connections_per_user, per_address=settings.connections_per_address,
            most=settings.connections_max,
        )  # fmt: skip
        if settings.metrics_port is not None and role == "serve" and crew is None:
            stack.callback(_metrics_server(metrics, settings.metrics_port))
        metrics.watch(connections=hub.__len__, users=lambda: len(hub.users), bans=denylist.__len__)
        running = partial(asyncio.all_tasks, asyncio.get_running_loop())
        metrics.watch_tasks(lambda: len(running()))
        bus, presence = await _between_nodes(settings, store, node, role, clock, monotonic, metrics)
        limiter = await _limiter(settings, store, role, monotonic)
        session_idle = max(settings.refresh_token_idle, settings.access_token_ttl) * 1000
        passwords = Passwords(settings.password_hashers or usual_hashers(settings.workers))
        stack.callback(passwords.close)
        revoker = Revoker(
            store=store.revocations, memory=denylist, hub=hub, bus=bus, clock=clock, monotonic=monotonic,
            # A tool's shell may not know the node's setting: its bans outlast the longest that can be set.
            access_ttl=settings.access_token_ttl if role == "serve" else LONGEST_ACCESS_TTL,
        )  # fmt: skip
        janitor = Janitor(
            inbox=store.inbox, sessions=store.sessions, revocations=store.revocations, tickets=store.tickets,
            failures=store.failures, denylist=denylist, clock=clock, metrics=metrics, keep=settings.inbox_max,
            idle=session_idle,
        )  # fmt: skip
        publisher = Publisher(
            inbox=store.inbox, bus=bus, presence=presence, clock=clock, metrics=metrics, limiter=limiter,
            rate=settings.push_rate, overfull=janitor.overfull,
        )  # fmt: skip

        async def end_session(session: str, by: Actor, because: tuple[str, Mapping[str, object]]) -> None:
            await revoker.revoke(Target(session=session), reason=None, by=by, listed=False, because=because)

        granting = Granting(
            sessions=store.sessions, keyring=keyring, revocations=denylist, limiter=limiter,
            server_key=await store.keys.secret("refresh", generate=lambda: secrets.token_bytes(32)),
            access_ttl=settings.access_token_ttl, session_ttl=settings.session_ttl,
            refresh_idle=settings.refresh_token_idle,
        )  # fmt: skip
        attempts = Attempts(
            store.failures, secret=await store.keys.secret("failures", generate=lambda: secrets.token_bytes(32)),
            limit=settings.login_failures, window=settings.login_window, clock=clock,
        )  # fmt: skip
        trail = Trail(store.audit, clock)
        login = Login(
            users=store.users, sessions=store.sessions, clients=store.clients, passwords=passwords,
            attempts=attempts, trail=trail, granting=granting, clock=clock, apply_bans=revoker.apply,
            end_session=end_session, refresh_grace=settings.refresh_grace,
        )  # fmt: skip
        exchange = await stack.enter_async_context(
            open_exchange(
                settings,
                store=store,
                granting=granting,
                trail=trail,
                clock=clock,
                monotonic=monotonic,
            )
        )
        authn = Authn(keyring, denylist, clock, monotonic)
        tickets = Tickets(
            key=await store.keys.secret("ticket", generate=lambda: secrets.token_bytes(32)), authn=authn,
            used=store.tickets, clock=clock,
        )  # fmt: skip
        presented = PresentedTokens(
            keyring=keyring, authn=authn, tickets=tickets, refresh_tokens=granting.refresh_tokens,
            refresh_idle=settings.refresh_token_idle, sessions=store.sessions, denylist=denylist, revoker=revoker,
            limiter=limiter, clock=clock,
        )  # fmt: skip
        pulse = Pulse(heartbeat=settings.heartbeat, clock=clock)
        drain = Drain(hub=hub, grace=settings.drain_grace, monotonic=monotonic)

        # Other nodes may be there, and nothing tells of them: the slow re-check is all there is.
        alone = None if settings.on_sqlite or settings.redis_url is not None else "there is no Redis"

        async def told() -> bytes:
            return await crew.exposition() if crew is not None else metrics.exposition()

        async def readiness() -> Readiness:
            # Anybody may ask: where Redis is, and what exactly is wrong, is in the log.
            trouble = None if bus.trouble is None else "Redis cannot be used"
            if crew is not None and trouble is None:
                trouble = alone  # one node may be all there is, and needs none; workers are several
            return Readiness(tuple(await looks.submit(None)), () if trouble is None else (trouble,))

        async def unready() -> list[str]:
            reasons = [] if revoker.fresh else ["revocations are stale"]
            if drain.begun:
                reasons.append("shutting down")
            try:
                misfit = await store.meta.misfit(head())
            except StoreUnavailable:
                return [*reasons, "the database cannot be used"]
            if misfit is not None:
                return [*reasons, misfit]
            try:
                async with asyncio.timeout(1.0):
                    writable = await store.meta.writable()
            except TimeoutError:
                writable = False
            return reasons if writable else [*reasons, "the database cannot be written"]

        async def look(asked: Sequence[None]) -> list[list[str]]:
            return [await unready()] * len(asked)

        looks: Group[None, list[str]] = Group(look)  # a crowd that asks is answered by one look at the database

        ties = Ties(
            node=node, epoch=store.epoch, heartbeat=settings.heartbeat, frame_rate=settings.frame_rate,
            frame_burst=settings.frame_burst, hub=hub, pulse=pulse, inbox=store.inbox, publisher=publisher,
            authn=authn, tickets=tickets, revoker=revoker, presence=presence, bus=bus, metrics=metrics, clock=clock,
            monotonic=monotonic,
        )  # fmt: skip
        services = Services(
            node=node, epoch=store.epoch, clock=clock, users=store.users, sessions=store.sessions,
            session_idle=session_idle, clients=store.clients, inbox=store.inbox, audit=store.audit,
            revocation_log=store.revocations, keyring=keyring, login=login, exchange=exchange,
            identities=store.identities, authn=authn, tickets=tickets, presented=presented, publisher=publisher,
            origins=Origins(settings.allowed_origins), revoker=revoker, hub=hub, presence=presence, bus=bus,
            limiter=limiter, metrics=metrics, readiness=readiness, exposition=told, ties=ties, drain=drain,
        )  # fmt: skip
        await revoker.poll()
        if role == "serve":
            await first_admin(settings, services, on_first_admin)
            await passwords.warm()
            relay = Relay(
                hub=hub, states=store.inbox, fresh=lambda: revoker.fresh, revocations_rung=revoker.rung,
                metrics=metrics, trouble=lambda: bus.trouble or alone, clock=clock,
            )  # fmt: skip
            metrics.name(node)
            await stack.enter_async_context(bus.listen(relay))
            await stack.enter_async_context(presence.keep())
            await stack.enter_async_context(limiter.keep())
            store.epoch.on_change(revoker.begin_again)
            store.epoch.on_change(drain.send_away)
            loops: list[tuple[str, Callable[[], Awaitable[None]]]] = [
                ("revocations", revoker.keep_polling),
                ("pulse", pulse.run),
                ("lag", Lag(metrics=metrics, monotonic=monotonic).run),
                ("janitor", janitor.run),
                ("recheck", relay.keep_rechecking),
            ]
            if not settings.on_sqlite:
                loops.append(("epoch", partial(_keep_looking_at_epoch, store)))
            if settings.signing_keys is None:
                rotation = Rotation(store=store.keys, keyring=keyring, hub=hub)
                loops.append(("keys", rotation.keep_looking))
            for name, loop in loops:
                await stack.enter_async_context(in_background(name, loop))
        if crew is not None:
            await stack.enter_async_context(crew.answering(metrics.exposition))
        yield services


async def _between_nodes(
    settings: Settings,
    store: Store,
    node: str,
    role: str,
    clock: Clock,
    monotonic: Callable[[], float],
    metrics: Metrics,
) -> tuple[Bus, Presence]:
    """What carries hints and presence: Redis if the setting says so, else this process alone."""
    linger = settings.presence_linger
    if settings.redis_url is None or role == "tool":
        return MemoryBus(), MemoryPresence(node=node, clock=clock, monotonic=monotonic, linger=linger)
    # Its client takes a sixth of a second to import: only for those who use it.
    from gateway.bus.redis import RedisBus
    from gateway.presence.redis import RedisPresence

    url = settings.redis_url.get_secret_value()
    secret = await store.keys.secret("bus", generate=lambda: secrets.token_bytes(32))
    try:
        return (
            RedisBus(
                url, node=node, secret=secret, clock=clock, monotonic=monotonic, metrics=metrics, epoch=store.epoch
            ),
            RedisPresence(url, node=node, secret=secret, clock=clock, monotonic=monotonic, linger=linger),
        )
    except ValueError as error:
        raise SettingsError(f"GATEWAY_REDIS_URL: {error}") from None


async def _limiter(settings: Settings, store: Store, role: str, monotonic: Callable[[], float]) -> Limiter:
    """Who counts what is limited: Redis with this process, if there is one; else this alone."""
    if settings.redis_url is None or role == "tool":
        return MemoryLimiter(monotonic)
    from gateway.limiting.redis import RedisLimiter

    secret = await store.keys.secret("bus", generate=lambda: secrets.token_bytes(32))
    return RedisLimiter(settings.redis_url.get_secret_value(), secret=secret, monotonic=monotonic)


async def _keep_looking_at_epoch(store: Store) -> None:
    """Another node, or a tool, may give the log another name."""
    while True:
        await asyncio.sleep(POLL_EVERY)
        with suppress(StoreUnavailable):
            store.epoch.became(await store.meta.epoch())


def node_name(settings: Settings) -> str:
    """What this node is called: as the setting says, else by its machine and process."""
    return settings.node or f"{socket.gethostname()}-{os.getpid()}"


def _metrics_server(metrics: Metrics, port: int) -> Callable[[], None]:
    try:
        return metrics.serve(port)
    except OSError as error:
        raise SettingsError(f"GATEWAY_METRICS_PORT: port {port} cannot be had: {error.strerror}") from None
