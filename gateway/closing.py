"""The close table: every way a socket ends, as a value. Words only, no I/O.

One table feeds the wire (close code and reason), the logs, the metric labels and ``docs/protocol.md``.
Codes are those of RFC 6455 section 7.4.1 and the IANA registry; nothing private is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Retry = Literal["stop", "refresh", "backoff", "long_backoff", "after_ms", "bug"]


@dataclass(frozen=True, slots=True)
class Close:
    """Why a socket ended. ``reason`` travels in the close frame; ``retry`` says what a client does next."""

    code: int
    reason: str
    retry: Retry


TOKEN_MISSING = Close(1008, "token_missing", "stop")
TOKEN_INVALID = Close(1008, "token_invalid", "stop")
TOKEN_REVOKED = Close(1008, "token_revoked", "stop")
USER_DISABLED = Close(1008, "user_disabled", "stop")
INSUFFICIENT_SCOPE = Close(1008, "insufficient_scope", "stop")
TOKEN_EXPIRED = Close(1008, "token_expired", "refresh")
CONNECTION_LIMIT = Close(1008, "connection_limit", "long_backoff")
RATE_LIMITED = Close(1008, "rate_limited", "long_backoff")
CREDENTIALS_CONFLICT = Close(1008, "credentials_conflict", "bug")
INVALID_REQUEST = Close(1008, "invalid_request", "bug")
PROTOCOL_ERROR = Close(1002, "protocol_error", "bug")
BINARY_FRAME = Close(1003, "binary_frame", "bug")
INVALID_TEXT = Close(1007, "invalid_text", "bug")
MESSAGE_TOO_BIG = Close(1009, "message_too_big", "bug")
INTERNAL_ERROR = Close(1011, "internal_error", "backoff")
DRAINING = Close(1012, "draining", "after_ms")
OVERLOADED = Close(1013, "overloaded", "long_backoff")
# The two that never travel: what the gateway notes of a peer that just went, or took nothing and was reset.
PEER_GONE = Close(1006, "peer_gone", "backoff")
UNRESPONSIVE = Close(1006, "unresponsive", "backoff")

ALL: tuple[Close, ...] = (
    TOKEN_MISSING, TOKEN_INVALID, TOKEN_REVOKED, USER_DISABLED, INSUFFICIENT_SCOPE, TOKEN_EXPIRED, CONNECTION_LIMIT,
    RATE_LIMITED, CREDENTIALS_CONFLICT, INVALID_REQUEST, PROTOCOL_ERROR, BINARY_FRAME, INVALID_TEXT, MESSAGE_TOO_BIG,
    INTERNAL_ERROR, DRAINING, OVERLOADED, PEER_GONE, UNRESPONSIVE,
)  # fmt: skip
BY_REASON: dict[str, Close] = {close.reason: close for close in ALL}
