"""What may be the address of a gateway, and which are this machine's own. Asks no name server."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def gateway_url(text: str) -> str:
    """``text`` as a base URL without its last slash. Raises ValueError in words for people."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must begin with http:// or https:// and name a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must hold no password, query or fragment")
    return text.rstrip("/")


def is_local(url: str) -> bool:
    """Whether the address is this machine's own: then no proxy is asked, and plain http tells nobody anything."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
