"""What travels between nodes, as bytes: authenticated, dated and numbered. No I/O; what it means is not here.

A message is a head (version, sender, stream, number, wall time), a MAC over channel, head and body, and a body: a JSON
list whose first member is the kind. A newer version may add members at the end of a body, and kinds: both are passed
over here, so that versions can run beside each other. Changing what stands there needs a new ``VERSION``.

What tells of numbers in a log ends with the epoch of that log: in a failover, one node learns of the new history before
another, and a number that both know is of two notifications.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from hashlib import blake2b
from typing import Any, Final

import orjson

from gateway.bus.replays import Replays
from gateway.epoch import Epoch
from gateway.model import (
    Again,
    Arrived,
    ConnectionInfo,
    Entry,
    MarkedRead,
    Passing,
    RevocationsChanged,
    Signal,
    Withdrawn,
)
from gateway.ports import Clock

VERSION: Final = 1
_HEAD = struct.Struct(">B8sHQQ")
_MAC = 16
_BODY = _HEAD.size + _MAC
FRESH_MS = 60_000
"""A message further than this from the clock of whoever reads it is not taken at its word: it may be an old one played
again, or be read by a process that was stopped, or come from a clock that is wrong. What it is about is looked up."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A node lives, and the way there and back does."""

    node: str


@dataclass(frozen=True, slots=True)
class Bye:
    """The sender goes: nobody need wait for its answers any more."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Which connections do you have? ``number`` comes back in the answer."""

    number: int
    user_id: str | None
    after: str | None
    limit: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One part of the answer to ``Ask``: part ``part`` of ``parts``, from 0."""

    number: int
    part: int
    parts: int
    connections: tuple[ConnectionInfo, ...]


What = Signal | Beat | Bye | Ask | Answer


@dataclass(frozen=True, slots=True)
class Message:
    sender: bytes
    what: What


class Refused(Exception):
    """A message that is not taken. ``reason``: garbage, forged, stale, epoch (of another log), replayed, malformed or
    unknown.

    ``late``: what one says that is stale or of another epoch. Some node of ours did say it, once.
    """

    def __init__(self, reason: str, late: What | None = None) -> None:
        super().__init__(reason)
        self.reason, self.late = reason, late


class Malformed(Exception):
    """A body that is not what its kind says."""


class Codec:
    """Messages of the gateways that share ``secret``, as ``sender`` (8 bytes, one process) writes and reads them.

    The names of the channels come from the secret too: two gateways on one Redis do not meet. ``epoch``: the log as
    this process knows it.
    """

    def __init__(
        self, secret: bytes, *, sender: bytes, clock: Clock, monotonic: Callable[[], float], epoch: Epoch | None = None
    ) -> None:
        self.sender, self._epoch = sender, epoch or Epoch()
        self._clock, self._monotonic = clock, monotonic
        prefix = b"gw:" + blake2b(secret, digest_size=6, person=b"gateway channel").hexdigest().encode()
        self.everybody = prefix + b":all"
        self._users = prefix + b":u:"
        self._nodes = prefix + b":n:"
        self._links = prefix + b":l:"
        key = blake2b(secret, digest_size=32, person=b"gateway bus mac").digest()
        self._keyed = blake2b(key=key, digest_size=_MAC)
        self._replays = Replays()

    def user(self, user_id: str) -> bytes:
        """The channel of a user."""
        return self._users + user_id.encode()

    def node(self, sender: bytes) -> bytes:
        """The channel only this process listens to."""
        return self._nodes + sender.hex().encode()

    def link(self, tag: int) -> bytes:
        """A channel on which only this process hears itself; ``tag`` moves it to another slot of a cluster."""
        return b"%s%s:%d" % (self._links, self.sender.hex().encode(), tag)

    def user_of(self, channel: bytes) -> str | None:
        """Whose channel it is, if it is a user's."""
        return channel[len(self._users) :].decode() if channel.startswith(self._users) else None

    def own(self, data: bytes) -> bool:
        """Whether it says that this process sent it. Not verified: good for passing it over, and nothing else."""
        return data[1:9] == self.sender

    def encode(self, channel: bytes, what: What, *, stream: int, number: int) -> bytes:
        """``what`` for ``channel``; a number is given once a stream, and grows."""
        body = orjson.dumps(_body(what, self._epoch.current))
        head = _HEAD.pack(VERSION, self.sender, stream, number, int(self._clock() * 1000))
        return head + self._mac(channel, head, body) + body

    def decode(self, channel: bytes, data: bytes) -> Message:
        """Raises Refused, and nothing else, whatever the bytes. What was decoded once is ``replayed`` from then on."""
        if len(data) < _BODY:
            raise Refused("garbage")
        version, sender, _, number, at = _HEAD.unpack_from(data)
        if version != VERSION:
            raise Refused("unknown")  # of a newer gateway, perhaps: its MAC may be another too
        head, mac, body = data[: _HEAD.size], data[_HEAD.size : _BODY], data[_BODY:]
        if not hmac.compare_digest(mac, self._mac(channel, head, body)):
            raise Refused("forged")
        stale = abs(at - self._clock() * 1000) > FRESH_MS
        if not stale and not self._replays.new(head[1:11], number, at=self._monotonic()):
            raise Refused("replayed")
        try:
            kind, *fields = orjson.loads(body)
            read = _READERS.get(kind)
            if read is None:
                raise Refused("unknown")
            what = read(self.user_of(channel), fields)
            epoch_at = _EPOCH_AT.get(kind)
            elsewhen = epoch_at is not None and len(fields) > epoch_at and fields[epoch_at] != self._epoch.current
        except (Malformed, ValueError, TypeError, IndexError):
            raise Refused("malformed") from None
        if stale:
            raise Refused("stale", what)
        if elsewhen:
            raise Refused("epoch", what)
        return Message(sender, what)

    def _mac(self, channel: bytes, head: bytes, body: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(b"%d:%b" % (len(channel), channel))
        keyed.update(head)
        keyed.update(body)
        return keyed.digest()


# -- bodies --------------------------------------------------------------------------------------------------------


def _body(what: What, epoch: str) -> list[Any]:
    """A user's signals go on the user's channel, which the MAC covers: whose they are need not be said again."""
    match what:
        case Arrived(_, e):
            return ["a", e.seq, e.id, e.content, e.created_at, e.expires_at, e.read_at, epoch]
        case Passing(_, id, content, created_at):
            return ["p", id, content, created_at]
        case MarkedRead(_, rev, unread, ids, up_to, changed):
            return ["r", rev, unread, ids, up_to, changed, epoch]
        case Withdrawn(_, rev, unread, id, seq):
            return ["w", rev, unread, id, seq, epoch]
        case RevocationsChanged():
            return ["v"]
        case Beat(node):
            return ["b", node]
        case Bye():
            return ["x"]
        case Again(user_ids):
            return ["g", user_ids]
        case Ask(number, user_id, after, limit):
            return ["q", number, user_id, after, limit]
        case Answer(number, part, parts, connections):
            return ["s", number, part, parts, [astuple(one) for one in connections]]


_EPOCH_AT: Final = {"a": 6, "r": 5, "w": 4}
"""Where the epoch stands among the fields. A gateway that is one version behind sends none."""


def _int(value: Any) -> int:
    if type(value) is not int:
        raise Malformed
    return value


def _str(value: Any) -> str:
    if type(value) is not str:
        raise Malformed
    return value


def _optional_int(value: Any) -> int | None:
    return None if value is None else _int(value)


def _optional_str(value: Any) -> str | None:
    return None if value is None else _str(value)


def _strings(value: Any) -> tuple[str, ...]:
    if type(value) is not list:
        raise Malformed
    return tuple(map(_str, value))


def _of(user_id: str | None) -> str:
    """Signals of one user travel on a user's channel only."""
    if user_id is None:
        raise Malformed
    return user_id


def _arrived(user_id: str | None, fields: Sequence[Any]) -> Arrived:
    seq, id, content, created_at, expires_at, read_at = fields[:6]
    entry = Entry(_int(seq), _str(id), _str(content), _int(created_at), _int(expires_at), _optional_int(read_at))
    return Arrived(_of(user_id), entry)


def _passing(user_id: str | None, fields: Sequence[Any]) -> Passing:
    id, content, created_at = fields[:3]
    return Passing(None if user_id is None else (user_id,), _str(id), _str(content), _int(created_at))


def _marked(user_id: str | None, fields: Sequence[Any]) -> MarkedRead:
    rev, unread, ids, up_to, changed = fields[:5]
    return MarkedRead(_of(user_id), _int(rev), _int(unread), _strings(ids), _optional_int(up_to), changed is True)


def _withdrawn(user_id: str | None, fields: Sequence[Any]) -> Withdrawn:
    rev, unread, id, seq = fields[:4]
    return Withdrawn(_of(user_id), _int(rev), _int(unread), _str(id), _int(seq))


def _answer(_: str | None, fields: Sequence[Any]) -> Answer:
    number, part, parts, connections = fields[:4]
    return Answer(_int(number), _int(part), _int(parts), tuple(_connections(connections)))


def _connections(rows: Iterable[Sequence[Any]]) -> Iterable[ConnectionInfo]:
    for id, user_id, session, node, transport, address, opened_at, expires_at, behind, *_ in rows:
        yield ConnectionInfo(
            _str(id), _str(user_id), _optional_str(session), _str(node), _str(transport), _optional_str(address),
            _int(opened_at), _int(expires_at), behind is True,
        )  # fmt: skip


_READERS: Final[dict[str, Callable[[str | None, Sequence[Any]], What]]] = {
    "a": _arrived,
    "p": _passing,
    "r": _marked,
    "w": _withdrawn,
    "v": lambda _, fields: RevocationsChanged(),
    "b": lambda _, fields: Beat(_str(fields[0])),
    "x": lambda _, fields: Bye(),
    "g": lambda _, fields: Again(None if fields[0] is None else _strings(fields[0])),
    "q": lambda _, f: Ask(_int(f[0]), _optional_str(f[1]), _optional_str(f[2]), _int(f[3])),
    "s": _answer,
}
