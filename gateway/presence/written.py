"""How presence stands in Redis: the keys, a node's record, a user's part of a node. No I/O.

- ``gw:<8 hex>:nodes``      set of instances. An instance is one stretch of one process, under an id never used again
- ``gw:<8 hex>:n:<instance>``   its record. It lives while this key does, which ends by itself if nobody renews it
- ``gw:<8 hex>:p:<user>``   hash, instance → part. A part counts while its instance lives; the key ends by itself too
- ``gw:<8 hex>:settling``   stands for a moment after Redis has lost everything: not all have written themselves again

What is read may be anybody's: a value that is not understood counts as not there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import orjson


@dataclass(frozen=True, slots=True)
class Keys:
    """``prefix`` comes from a secret of the database: two gateways that share a Redis never meet."""

    prefix: str
    nodes: str = field(init=False)
    settling: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", f"{self.prefix}nodes")
        object.__setattr__(self, "settling", f"{self.prefix}settling")

    @classmethod
    def of(cls, secret: bytes) -> Keys:
        return cls(f"gw:{hashlib.blake2b(secret, digest_size=4, person=b'presence').hexdigest()}:")

    def record(self, instance: str) -> str:
        return f"{self.prefix}n:{instance}"

    def user(self, user_id: str) -> str:
        return f"{self.prefix}p:{user_id}"


@dataclass(frozen=True, slots=True)
class Record:
    """An instance. ``turn`` makes each writing of it different from the last, so that a lost one is noticed.

    ``whole``: all its users are written. ``gone``: it ended in order, and none of its users is online there; what they
    were counts for those who turn up elsewhere. ``since``: ms since the epoch.
    """

    node: str
    since: int
    users: int
    connections: int
    turn: int
    whole: bool
    gone: bool = False

    def dump(self) -> bytes:
        return orjson.dumps(
            [self.node, self.since, self.users, self.connections, self.turn, int(self.whole), int(self.gone)]
        )

    @classmethod
    def load(cls, raw: bytes | None) -> Record | None:
        match _json(raw):
            case [str(node), int(since), int(users), int(connections), int(turn), int(whole), int(gone), *_]:
                return cls(node, since, users, connections, turn, bool(whole), bool(gone))
        return None


@dataclass(frozen=True, slots=True)
class Part:
    """What one instance says of one user. No ``sessions``: it is not there any more, and was ``since``."""

    since: int
    sessions: tuple[str | None, ...]

    def dump(self) -> bytes:
        return orjson.dumps([self.since, *self.sessions])

    @classmethod
    def load(cls, raw: bytes | None) -> Part | None:
        match _json(raw):
            case [int(since), *rest]:
                sessions = tuple(one for one in rest if one is None or isinstance(one, str))
                return cls(since, sessions) if len(sessions) == len(rest) else None
        return None


def _json(raw: bytes | None) -> object:
    try:
        return orjson.loads(raw) if raw is not None else None
    except orjson.JSONDecodeError:
        return None
