"""What a request for a socket asks for, and from where: its query, its address. Judges no credential."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import parse_qsl

from starlette.types import Scope

from gateway.closing import INVALID_REQUEST, Close
from gateway.frames import MAX_SEQ

Query = Mapping[str, Sequence[str]]
Position = tuple[int, str] | None
"""A ``seq`` that a client kept, and the epoch it belongs to."""

_ONLY_A_TOKEN = re.compile(rb"token=[A-Za-z0-9._~-]+")


class Refused(Exception):
    """The request is not one this endpoint can take; ``why`` goes into the close frame."""

    def __init__(self, why: Close) -> None:
        super().__init__(why.reason)
        self.why = why


def address_of(scope: Scope) -> str | None:
    """Of the client, as far as it is known."""
    return scope["client"][0] if scope.get("client") else None


def kept(origin: str | None) -> str | None:
    """For the log: one string for all sockets of a page, and no long one kept."""
    return None if origin is None else sys.intern(origin[:200])


def query_of(scope: Scope) -> Query:
    """All values by their names. Raises Refused."""
    raw: bytes = scope.get("query_string", b"")
    if _ONLY_A_TOKEN.fullmatch(raw):  # as nearly always, and there is nothing to decode
        return {"token": [raw[6:].decode("ascii")]}
    query: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError:
        raise Refused(INVALID_REQUEST) from None
    for name, value in pairs:
        query.setdefault(name, []).append(value)
    return query


def position(query: Query) -> Position:
    """The one the client kept: a number without the epoch it belongs to says nothing. Raises Refused."""
    after, epoch = query.get("after", []), query.get("epoch", [])
    if not after and not epoch:
        return None
    if len(after) != 1 or len(epoch) != 1:
        raise Refused(INVALID_REQUEST)
    return _seq(after[0]), epoch[0]


def last_event(headers: Iterable[tuple[bytes, bytes]]) -> Position:
    """What ``Last-Event-ID`` says, ``<epoch>:<seq>`` as a stream gave it; an empty one is none (HTML, section 9.2.4).
    Raises Refused."""
    said = [value for name, value in headers if name == b"last-event-id"]
    if not any(said):
        return None
    epoch, colon, seq = said[0].decode("latin-1").rpartition(":")
    if len(said) > 1 or not colon or not epoch:
        raise Refused(INVALID_REQUEST)
    return _seq(seq), epoch


def _seq(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 16 or int(text) > MAX_SEQ:
        raise Refused(INVALID_REQUEST)
    return int(text)
