"""Which web pages may come here: the one rule for Origin that sockets, cookies and CORS share. It reads no request
beyond that header, and says nothing about who somebody is.
"""

from __future__ import annotations

from collections.abc import Iterable

_SCHEMES = {"ws": "http", "wss": "https"}
_PORTS = {"http": ":80", "https": ":443"}


class Origins:
    """The pages of this very host, and those of a list (GATEWAY_ALLOWED_ORIGINS, where ``*`` stands for all)."""

    def __init__(self, listed: Iterable[str] = ()) -> None:
        self._listed = frozenset(listed) - {"*"}
        self.any = "*" in listed
        """Whether the list says that all may come; never true for ``trusted``."""

    def allowed(self, origin: str | None, scheme: str, host: str | None) -> bool:
        """Whether a request that carries its own token may come from ``origin``: an exact match, or the same origin.

        No Origin: not a browser, which sends one with every upgrade (RFC 6454 section 7.3, RFC 6455 section 10.2).
        ``scheme`` is the request's (``ws`` and ``wss`` count as ``http`` and ``https``), ``host`` its Host header.
        """
        return origin is None or self.any or self.trusted(origin, scheme, host)

    def trusted(self, origin: str, scheme: str, host: str | None) -> bool:
        """The same, where a browser adds the credentials by itself (cookies): ``*`` does not count, ``null`` never."""
        return origin in self._listed or same_origin(origin, scheme, host)


def same_origin(origin: str, scheme: str, host: str | None) -> bool:
    """Whether ``origin`` is this host's own (RFC 6454 section 5); ``host`` may name the port that needs no saying."""
    if not host:
        return False
    own = _SCHEMES.get(scheme, scheme)
    return origin == f"{own}://{host.lower().removesuffix(_PORTS.get(own, ''))}"


def origin_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The Origin of a request with these (ASGI) headers. Two of them are joined, as lists are, and so match nothing."""
    found = [value.decode("latin-1") for name, value in headers if name.lower() == b"origin"]
    return ", ".join(found) if found else None
