"""Which Host a request may name: its grammar, and the list of GATEWAY_ALLOWED_HOSTS. Reads no request, answers none.

The same-origin rule compares Origin with Host, so what may stand there matters even where nothing is routed by it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

PROBES = frozenset({"/healthz", "/readyz"})
"""Asked by machines that know an address and no name: the list does not count for them."""

_HOST = re.compile(rb"([A-Za-z0-9_-][A-Za-z0-9._-]{0,254}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{0,5}))?")
"""RFC 3986 section 3.2.2, less what no host on the Internet is called: no percent-encoding, no sub-delims, no user."""
_HTTPS = frozenset({"https", "wss"})


class HostRefusal(NamedTuple):
    """What a request is answered whose Host does not count."""

    status: int
    code: str
    detail: str


MALFORMED = HostRefusal(400, "bad_request", "The Host field names no host.")
MISDIRECTED = HostRefusal(421, "misdirected_request", "Requests for this host are not answered here.")


class Hosts:
    """``listed``: ``name``, ``name:port``, ``*.name`` for all below a name, an address (IPv6 in brackets); none: any.

    Without a port an entry takes every port. Raises ValueError for an entry that is none of these.
    """

    def __init__(self, listed: Iterable[str] = ()) -> None:
        self._exact: set[tuple[str, int | None]] = set()
        self._below: list[tuple[str, int | None]] = []
        for entry in listed:
            below = entry.startswith("*.")
            found = read_host(entry.removeprefix("*.").encode("ascii", "replace"))
            if found is None or entry.endswith(":"):
                raise ValueError(f"{entry!r} is no host name, host:port, [IPv6 address] or *.name")
            if below:
                self._below.append((f".{found[0]}", found[1]))
            else:
                self._exact.add(found)

    def refusal(self, host: bytes | None, *, scheme: str, path: str) -> HostRefusal | None:
        """What the request is refused with, if it is: 400 for what is no host (RFC 9112 section 3.2), 421 for another
        one (RFC 9110 section 15.5.20). ``host``: of the only Host field; None if there is none (HTTP/1.0)."""
        found = None
        if host is not None:
            found = read_host(host)
            if found is None:
                return MALFORMED
        if path in PROBES or not (self._exact or self._below):
            return None
        return None if found is not None and self._lists(*found, scheme) else MISDIRECTED

    def _lists(self, name: str, port: int | None, scheme: str) -> bool:
        if port is None:
            port = 443 if scheme in _HTTPS else 80
        if (name, None) in self._exact or (name, port) in self._exact:
            return True
        return any(name.endswith(suffix) and wanted in (None, port) for suffix, wanted in self._below)


def read_host(value: bytes) -> tuple[str, int | None] | None:
    """Name or address, in one spelling, and port of a Host field; None if it is not one."""
    match = _HOST.fullmatch(value)
    if match is None:
        return None
    name, port = match[1].decode("ascii").lower(), int(match[2]) if match[2] else None
    if port is not None and port > 65535:
        return None
    if name.startswith("["):
        try:
            name = f"[{ipaddress.IPv6Address(name[1:-1])}]"
        except ValueError:
            return None
    else:
        name = name.removesuffix(".")  # the root, which browsers leave where the user wrote it
    return name, port
