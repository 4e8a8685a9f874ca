"""One instance of ours as it stands in Redis: its record, and the writing under it. Decides neither when nor what.

Each writing checks that the record is as we left it. If it is not, Redis has lost something (a restart, FLUSHALL, a
failover), or we were silent for too long; and if no answer came, what was sent may take effect at any later time. Then
the instance is ``Lost`` and another takes its place, for which everything is written again. What the old one wrote, or
has yet to write, counts no more: nothing has to be undone.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from gateway.presence.here import Here
from gateway.presence.roll import Written
from gateway.presence.written import Keys, Part, Record
from gateway.redis_link import Command, Link, Unreached

WITHIN = 2.0
"""Seconds until what was sent counts as unanswered."""
KEPT = 1800
"""Seconds after which a user's key ends by itself: nothing stays for ever if all nodes die."""
KEPT_NODES = 86_400
AT_ONCE = 500
"""Users written in one round trip."""


class Lost(Exception):
    """This instance is to be trusted no more."""


class Standing:
    """``ttl``: seconds after which the record ends by itself. ``since``: when the node began, ms since the epoch."""

    def __init__(
        self,
        link: Link,
        keys: Keys,
        here: Here,
        *,
        node: str,
        since: int,
        ttl: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._link, self._keys, self._here = link, keys, here
        self._node, self._since, self._ttl, self._monotonic = node, since, ttl, monotonic
        self.instance = secrets.token_hex(6)
        self.whole = False
        self._turn = 0
        self._records: tuple[bytes, ...] = ()
        """What the record may be: the last that was confirmed, and those sent since."""
        self._confirmed = 0.0

    @property
    def _key(self) -> str:
        return self._keys.record(self.instance)

    def _record(self, *, gone: bool = False) -> bytes:
        self._turn += 1
        here = self._here
        return Record(self._node, self._since, here.users, here.connections, self._turn, self.whole, gone).dump()

    async def begin(self, *, former: Sequence[str], others: set[str], settling: float) -> bool:
        """Take the place of ``former``, beside ``others``. Whether Redis is settling for it: if there is nobody else,
        or what was there is lost since it was read, others may have to begin anew for ``settling`` seconds.

        Not whole yet, so nobody who begins in between takes for offline whom they do not find. Raises Unreached, Lost;
        then this one counts as former too.
        """
        nodes, record = self._keys.nodes, self._record()
        commands: list[Command] = [("DEL", self._keys.record(old)) for old in former]
        commands += [
            ("SET", self._key, record, "PX", _ms(self._ttl)), ("SADD", nodes, self.instance),
            ("EXPIRE", nodes, KEPT_NODES), ("SMEMBERS", nodes),
        ]  # fmt: skip
        answers = await self._link.send(commands, within=WITHIN)
        for answer in answers:
            _refuse(answer)
        self._records, self._confirmed = (record,), self._monotonic()
        settles = not others or not others <= names(answers[-1])
        if settles:
            await self.send([("SET", self._keys.settling, 1, "PX", _ms(settling))])
        return settles

    async def beat(self) -> tuple[set[str], bool]:
        """A sign of life. The other instances, dead ones among them, and whether Redis is settling. As ``send``."""
        nodes = self._keys.nodes
        _, members, settling = await self.send(
            [("EXPIRE", nodes, KEPT_NODES), ("SMEMBERS", nodes), ("GET", self._keys.settling)], harmless=True
        )
        others = names(members)
        if self.instance not in others:  # not put back here: an empty set is how a loss is known to the first to begin
            raise Lost("what was written is lost")
        return others - {self.instance}, settling is not None

    async def send(self, commands: Sequence[Command], *, harmless: bool = False) -> list[object]:
        """Write ``commands``, then the record. ``harmless``: it does not matter if they take effect later than this.

        Raises Unreached, and Lost.
        """
        record = self._record()
        expected, self._records = self._records, (*self._records, record)
        try:
            stood, *answers, kept = await self._link.send(
                [("GET", self._key), *commands, ("SET", self._key, record, "PX", _ms(self._ttl), "XX")], within=WITHIN
            )
        except Unreached as error:
            if (error.late and not harmless) or self._monotonic() - self._confirmed > self._ttl:
                raise Lost(str(error)) from None
            raise
        _refuse(kept)
        if kept is None or stood not in expected:
            raise Lost("what was written is lost")
        self._records, self._confirmed = (record,), self._monotonic()
        return answers

    def commands(self, user_id: str, written: Written | None) -> list[Command]:
        """How ``written`` becomes what is so of the user now. ``since`` is taken over from where the user was."""
        written, key = written or Written(), self._keys.user(user_id)
        one = self._here.present.get(user_id)
        superfluous = written.dead if one is not None else (*written.dead, self.instance)
        commands: list[Command] = [("HDEL", key, *superfluous)] if superfluous else []
        if one is not None:
            one.since = min(one.since, written.since or one.since)
            commands.append(("HSET", key, self.instance, Part(one.since, one.sessions).dump()))
            commands.append(("EXPIRE", key, KEPT))
        return commands

    async def goodbye(self) -> None:
        """Each user's part says that it was; our record lives on for a moment, for those who turn up elsewhere."""
        record = self._record(gone=True)
        lasts = max(1, _ms(self._here.linger))
        await self._link.send([("SET", self._key, record, "PX", lasts, "XX")], within=WITHIN)
        present = list(self._here.present.items())
        for first in range(0, len(present), AT_ONCE):
            commands: list[Command] = []
            for user_id, one in present[first : first + AT_ONCE]:
                key = self._keys.user(user_id)
                commands += [("HSET", key, self.instance, Part(one.since, ()).dump()), ("EXPIRE", key, KEPT)]
            await self._link.send(commands, within=WITHIN)


def names(members: object) -> set[str]:
    """A set as Redis answers it."""
    return {raw.decode(errors="replace") for raw in members} if isinstance(members, set) else set()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _refuse(answer: object) -> None:
    if isinstance(answer, Exception):  # out of memory, a replica, not allowed
        raise Unreached(str(answer), late=False)
