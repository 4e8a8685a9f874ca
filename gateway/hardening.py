"""The header fields that tell a browser to trust no answer of ours further than it must. A list, and no rule of when.

Every answer has them, whoever writes it: the HTTP interface, the handshake of a socket, the HTTP parser.
"""

from __future__ import annotations

Fields = tuple[tuple[bytes, bytes], ...]
"""Header fields as ASGI has them; names in lower case."""

HARDENING: Fields = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    # Not asked about what a page fetches by CORS, so the pages of GATEWAY_ALLOWED_ORIGINS lose nothing: it keeps others
    # from loading an answer as a picture or a script, where CORS is not asked (Fetch, section 3.7).
    (b"cross-origin-resource-policy", b"same-origin"),
)
NO_PAGE: Fields = ((b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),)
"""For what is no page: if a browser shows it as one all the same, it loads, runs and frames nothing. A page brings its
own."""
TLS_ONLY: Fields = ((b"strict-transport-security", b"max-age=31536000"),)
"""Over TLS, where the operator has said that there is nothing else (RFC 6797 section 7.2). A year; subdomains are not
ours to speak for."""
