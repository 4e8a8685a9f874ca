"""Whose word about the client counts: of trusted proxies, as uvicorn reads it; of nobody else. Refuses nothing.

The address is the right-most in ``X-Forwarded-For`` that is no trusted proxy: what stands left of it, anybody may have
written. With ``*`` it is the left-most: then everybody is believed. What is no address is nobody's.
"""

from __future__ import annotations

import ipaddress
import logging

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

_PEER = "gateway.peer"
"""Where a scope keeps who is at the other end of the connection, while a proxy's word is read."""

log = logging.getLogger("gateway.sockets")


class Forwarded:
    """``trusted``: addresses and networks, comma separated; empty for nobody, ``*`` for all."""

    def __init__(self, app: ASGIApp, trusted: str) -> None:
        self._app = app
        self._believing = ProxyHeadersMiddleware(self._told, trusted or [])  # type: ignore[arg-type]
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        self._plain(scope)
        client = scope.get("client")
        if client is not None and client[0] not in self._believing.trusted_hosts:
            if not self._warned:
                self._look(scope)
            await self._app(scope, receive, send)
            return
        scope[_PEER] = scope.get("client")
        await self._believing(scope, receive, send)  # type: ignore[arg-type]

    async def _told(self, scope: Scope, receive: Receive, send: Send) -> None:
        """After the proxy's word: ``unknown`` or 8 KB of anything would stand as the address in log and audit."""
        peer = scope.pop(_PEER)
        if scope.get("client") is not peer:
            if _is_address(scope["client"][0]):
                self._plain(scope)
            else:
                scope["client"] = peer
        await self._app(scope, receive, send)

    def _plain(self, scope: Scope) -> None:
        """A socket that takes IPv6 and IPv4 says ``::ffff:192.0.2.1`` where everybody else says ``192.0.2.1``."""
        client = scope.get("client")
        if client and client[0].startswith("::ffff:"):
            mapped = ipaddress.IPv6Address(client[0]).ipv4_mapped
            if mapped is not None:
                scope["client"] = (str(mapped), client[1])

    def _look(self, scope: Scope) -> None:
        """Told once: all who come through a proxy that is not trusted share its address, and its limits."""
        if any(name == b"x-forwarded-for" for name, _ in scope["headers"]):
            self._warned = True
            log.warning(
                "a request brought X-Forwarded-For from an address that is not in GATEWAY_FORWARDED_ALLOW_IPS, and was "
                "not believed: if that is your proxy, all its clients count as one address, and their limits as one",
                extra={"address": scope["client"][0]},
            )


def _is_address(text: str) -> bool:
    """IPv4 or IPv6; without a zone, which is any text and names an interface of whoever said so."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text
