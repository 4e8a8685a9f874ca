"""The two cookies of a page that signed in with ``cookie=true``: their text, and when one counts. Verifies no token.

A browser adds a cookie whoever made it ask, so one only counts for a request that a page of ours, or of an allowed
origin, has made (contract section 9; RFC 6265bis section 8.8 on why SameSite alone is not relied on).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.errors import CredentialsConflict, OriginRefused
from gateway.origins import Origins, origin_of

ACCESS, REFRESH = "__Host-gateway-access", "__Host-gateway-refresh"
"""A browser takes a name that begins so only over TLS (or from loopback), for this host alone and for all of it."""
_ATTRIBUTES = "Path=/; Secure; HttpOnly; SameSite=Strict"

Headers = Iterable[tuple[bytes, bytes]]


def setting(name: str, value: str, *, max_age: int) -> str:
    """A Set-Cookie field. ``value``: a token, which needs no quoting; ``max_age``: seconds, 0 takes the cookie away."""
    return f"{name}={value}; Max-Age={max_age}; {_ATTRIBUTES}"


def from_own_page(headers: Headers, scheme: str, origins: Origins) -> bool:
    """Whether a page that may use cookies made this request: its Origin is trusted, or it has none (a GET) and the
    browser says ``Sec-Fetch-Site: same-origin``. Raises OriginRefused for the page of another origin.
    """
    fields = list(headers)
    origin = origin_of(fields)
    if origin is not None:
        if not origins.trusted(origin, scheme, _only(fields, b"host")):
            raise OriginRefused
        return True
    return _only(fields, b"sec-fetch-site") == "same-origin"


def presented(name: str, headers: Headers, scheme: str, origins: Origins, *, alone: bool = True) -> str | None:
    """The value of the cookie if there is one that counts here. ``alone``: nothing else says who it is.

    Raises CredentialsConflict if there are two, OriginRefused if one is all there is and a foreign page sent it.
    """
    fields = list(headers)
    found = _values(name, fields)
    if not found:
        return None
    try:
        counts = from_own_page(fields, scheme, origins)
    except OriginRefused:
        if alone:
            raise
        counts = False
    if not counts:
        return None
    if len(found) > 1:
        raise CredentialsConflict
    return found[0] or None


def _values(name: str, headers: Headers) -> Sequence[str]:
    found = []
    for field, value in headers:
        if field.lower() == b"cookie":
            for pair in value.decode("latin-1").split(";"):
                key, _, content = pair.strip(" \t").partition("=")  # no more: whatever else stands there is of the name
                if key == name:
                    found.append(content)
    return found


def _only(headers: Headers, name: bytes) -> str | None:
    """The value of a field that stands there once."""
    found = [value.decode("latin-1") for field, value in headers if field.lower() == name]
    return found[0] if len(found) == 1 else None
