"""The listening socket: options that what it accepts inherits, and what it says when the address cannot be had."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from typing import Any

import pytest

from gateway.sockets import server
from gateway.sockets.server import CannotListen, listening_socket, raise_file_limit
from gateway.sockets.wire import WireLimits


def test_an_accepted_socket_has_its_options() -> None:
    with listening_socket("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            expected = {
                socket.TCP_NODELAY: 1,
                socket.TCP_KEEPIDLE: 30,
                socket.TCP_KEEPINTVL: 10,
                socket.TCP_KEEPCNT: 3,
                socket.TCP_USER_TIMEOUT: 30_000,
                25: 16 * 1024,  # TCP_NOTSENT_LOWAT
            }
            assert {option: accepted.getsockopt(socket.IPPROTO_TCP, option) for option in expected} == expected
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_a_port_in_use_is_named_with_its_setting() -> None:
    with listening_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(CannotListen, match=f"GATEWAY_PORT: port {port} on 127.0.0.1 is in use"):
            listening_socket("127.0.0.1", port)
    listening_socket("127.0.0.1", port).close()  # and free again at once


@pytest.mark.parametrize("host", ["203.0.113.1", "no.such.host.invalid"])
def test_a_host_that_is_not_ours_is_named_with_its_setting(host: str) -> None:
    with pytest.raises(CannotListen, match="GATEWAY_HOST"):
        listening_socket(host, 0)


def test_localhost_is_ipv4_first() -> None:
    with listening_socket("localhost", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_every_address_means_ipv4_too() -> None:
    try:
        listener = listening_socket("::", 0)
    except CannotListen:
        pytest.skip("this machine has no IPv6")
    with listener:
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), timeout=5):
                pass


def test_as_many_files_may_be_open_as_the_system_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
        assert raise_file_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Nothing but a lifespan."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    EVENTS.append("lifespan ends")
    await send({"type": "lifespan.shutdown.complete"})


EVENTS: list[str] = []


async def stopped(drain: Any, *, twice: bool = False, drain_timeout: float = 60) -> list[str]:
    """What happens, in order, when a server with this drain is stopped."""
    EVENTS.clear()
    ready = asyncio.Event()
    one = server.server(
        application, limits=WireLimits(), drain=drain, forwarded_allow_ips="", on_ready=ready.set,
        drain_timeout=drain_timeout,
    )  # fmt: skip
    with listening_socket("127.0.0.1", 0) as sock:
        running = asyncio.create_task(one.serve(sockets=[sock]))
        await asyncio.wait_for(ready.wait(), 10)
        one.handle_exit(signal.SIGTERM, None)
        if twice:
            while "drain begins" not in EVENTS:
                await asyncio.wait_for(asyncio.shield(asyncio.create_task(_turn())), 5)
            one.handle_exit(signal.SIGTERM, None)
        await asyncio.wait_for(running, 20)
    return list(EVENTS)


async def _turn() -> None:
    passed = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, passed.set_result, None)
    await passed


async def _endless() -> None:
    EVENTS.append("drain begins")
    try:
        await asyncio.Event().wait()
    finally:
        EVENTS.append("drain cut short")


async def test_the_drain_comes_before_the_application_ends() -> None:
    async def drain() -> None:
        EVENTS.append("drained")

    assert await stopped(drain) == ["drained", "lifespan ends"]


async def test_a_drain_that_fails_does_not_keep_the_server_from_stopping() -> None:
    async def drain() -> None:
        raise RuntimeError("no")

    assert await stopped(drain) == ["lifespan ends"]


async def test_a_drain_is_bounded() -> None:
    assert await stopped(_endless, drain_timeout=0.1) == ["drain begins", "drain cut short", "lifespan ends"]


async def test_a_second_signal_cuts_the_drain_short_and_still_ends_in_order() -> None:
    assert await stopped(_endless, twice=True) == ["drain begins", "drain cut short", "lifespan ends"]
