"""What a request for a socket asks for, and from where: its query, its address. Judges no credential."""

from __future__ import annotations

import re
import sys
from urllib.parse import parse_qsl

from starlette.types import Scope

from gateway.closing import INVALID_REQUEST, Close
from gateway.frames import MAX_SEQ

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


def query_of(scope: Scope) -> dict[str, list[str]]:
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


def position(query: dict[str, list[str]]) -> tuple[int, str] | None:
    """The one the client kept: a number without the epoch it belongs to says nothing. Raises Refused."""
    after, epoch = query.get("after", []), query.get("epoch", [])
    if not after and not epoch:
        return None
    if len(after) != 1 or len(epoch) != 1 or not after[0].isascii() or not after[0].isdigit() or len(after[0]) > 16:
        raise Refused(INVALID_REQUEST)
    seq = int(after[0])
    if seq > MAX_SEQ:
        raise Refused(INVALID_REQUEST)
    return seq, epoch[0]
