"""What the head of a request has to be, as rules over its parts: one host, one framing, one target. Reads no bytes."""

from __future__ import annotations

import re

Refusal = tuple[int, str, str]
"""Status, code, detail."""
TOO_LONG: Refusal = (414, "uri_too_long", "The request target is too long.")
TOO_LARGE: Refusal = (431, "headers_too_large", "The request head is too large.")
NO_HOST: Refusal = (400, "bad_request", "Exactly one Host field is required.")
TOO_OLD: Refusal = (400, "bad_handshake", "A WebSocket handshake needs HTTP/1.1.")
TOO_EARLY: Refusal = (400, "bad_handshake", "A request before this handshake has not been answered yet.")
MALFORMED: Refusal = (400, "bad_request", "This is not a valid HTTP request.")
TOO_SLOW: Refusal = (408, "request_timeout", "The request took too long to arrive.")

Headers = list[tuple[bytes, bytes]]

_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#@]+)([/?][^#]*)?")
"""A target in absolute form: authority, and the rest. Without a user: who put one there wants it taken for a host
(RFC 9110 section 4.2.4)."""


def fault(headers: Headers, *, old: bool) -> Refusal | None:
    """Why a request with these fields is refused. ``old``: it is HTTP/1.0."""
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding" and (old or value.lower() != b"chunked"):
            # Where such a body ends two readers would not agree on (RFC 9112 sections 6.1 and 6.3).
            return MALFORMED
    if hosts > 1 or (hosts == 0 and not old):
        return NO_HOST  # RFC 9112 section 3.2
    return None


def origin_form(target: bytes, headers: Headers) -> bytes | None:
    """The path and query of ``target``; None for what is no target.

    One in absolute form names the host itself, and what the Host field says is ignored (RFC 9112 section 3.2.2):
    everything behind this sees the host that counts.
    """
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        return None
    host, rest = absolute.groups(b"/")
    headers[:] = [(name, value) for name, value in headers if name != b"host"] + [(b"host", host)]
    return rest if rest.startswith(b"/") else b"/" + rest
