"""Whose word about the client counts: of trusted proxies, as uvicorn reads it; of nobody else. Refuses nothing.

The address is the right-most in ``X-Forwarded-For`` that is no trusted proxy: what stands left of it, anybody may have
written. With ``*`` it is the left-most: then everybody is believed.
"""

from __future__ import annotations

import ipaddress
import logging

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

log = logging.getLogger("gateway.sockets")


class Forwarded:
    """``trusted``: addresses and networks, comma separated; empty for nobody, ``*`` for all."""

    def __init__(self, app: ASGIApp, trusted: str) -> None:
        self._believing = ProxyHeadersMiddleware(app, trusted or [])  # type: ignore[arg-type]
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            self._plain(scope)
            if not self._warned:
                self._look(scope)
        await self._believing(scope, receive, send)  # type: ignore[arg-type]

    def _plain(self, scope: Scope) -> None:
        """A socket that takes IPv6 and IPv4 says ``::ffff:192.0.2.1`` where everybody else says ``192.0.2.1``."""
        client = scope.get("client")
        if client and client[0].startswith("::ffff:"):
            mapped = ipaddress.IPv6Address(client[0]).ipv4_mapped
            if mapped is not None:
                scope["client"] = (str(mapped), client[1])

    def _look(self, scope: Scope) -> None:
        """Told once: all who come through a proxy that is not trusted share its address, and its limits."""
        client = scope.get("client")
        if client is None or client[0] in self._believing.trusted_hosts:
            return
        if any(name == b"x-forwarded-for" for name, _ in scope["headers"]):
            self._warned = True
            log.warning(
                "a request brought X-Forwarded-For from an address that is not in GATEWAY_FORWARDED_ALLOW_IPS, and was "
                "not believed: if that is your proxy, all its clients count as one address, and their limits as one",
                extra={"address": client[0]},
            )
