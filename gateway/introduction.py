"""What a request says of itself before anything is judged, for a socket or not: its id, its Host, its Origin.

Under any ASGI server, which hands header fields over with their names in lower case.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.model import SANE_REQUEST_ID, new_id


def introduction(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, bytes | None, bytes | None]:
    """Request id, Host and Origin. The id is the caller's X-Request-Id if it is sane, so that a trace can go through,
    else a fresh one. Of two Hosts or Origins neither counts: empty, they match nothing."""
    request_id: str | None = None
    host: bytes | None = None
    origin: bytes | None = None
    for name, value in headers:
        if name == b"host":
            host = value if host is None else b""
        elif name == b"origin":
            origin = value if origin is None else b""
        elif name == b"x-request-id" and request_id is None and SANE_REQUEST_ID.fullmatch(value):
            request_id = str(value, "ascii")
    return request_id or new_id(), host, origin
