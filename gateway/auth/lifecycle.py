"""The life of a signing key: announced, signing, only verifying, gone. Rules about keys; no key material, no store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar

from gateway.errors import Conflict

State = Literal["will sign", "signs", "verifies"]

OVERLAP = 600
"""Seconds between the announcement of a key and its first signature: whoever keeps the published keys for the 300 they
may be kept has read it by then."""
CLOCKS_DIFFER = 90
"""Seconds after which no node signs with a key any more though its clock is late, leeway included."""


class Dated(Protocol):
    @property
    def kid(self) -> str: ...
    @property
    def signs_from(self) -> int: ...


Key = TypeVar("Key", bound=Dated)


def signing_one(oldest_first: Sequence[Key], *, now: int) -> Key:
    """The key that signs at ``now`` (ms): the last one that has begun. While none has (the clock was set back), it is
    the first that will."""
    begun = [key for key in oldest_first if key.signs_from <= now]
    return begun[-1] if begun else oldest_first[0]


def states(oldest_first: Sequence[Key], *, now: int) -> list[tuple[Key, State]]:
    """What each key does at ``now`` (ms)."""
    if not oldest_first:
        return []
    signs = signing_one(oldest_first, now=now)
    return [
        (key, "signs" if key is signs else "will sign" if key.signs_from > now else "verifies") for key in oldest_first
    ]


def check_retirable(oldest_first: Sequence[Dated], kid: str, *, now: int, access_ttl: int, force: bool) -> None:
    """Whether ``kid`` may go at ``now`` (ms). ``access_ttl``: seconds a token lives. ``force``: though tokens live.

    Raises Conflict that says why not: there is no such key, it is the one that signs (the only one does), or tokens
    that it signed can still be valid.
    """
    found = {key.kid: (at, state) for at, (key, state) in enumerate(states(oldest_first, now=now))}
    if kid not in found:
        raise Conflict("unknown_key", f"There is no signing key {kid}.")
    at, state = found[kid]
    if state == "signs":
        raise Conflict("key_in_use", f"{kid} is the key that signs. Rotate first; when the new key signs, retire it.")
    if state == "will sign" or force:
        return
    # It stopped when the next one began.
    left = oldest_first[at + 1].signs_from + (access_ttl + CLOCKS_DIFFER) * 1000 - now
    if left > 0:
        raise Conflict(
            "key_in_use",
            f"Tokens that {kid} signed may be valid for {-(-left // 1000)} more seconds. With --force they are "
            "refused at once, and the sockets that came in with them are closed.",
        )
