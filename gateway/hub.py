"""Which connections each user has on this node. No I/O, no await, no lock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Protocol

from gateway.closing import CONNECTION_LIMIT, OVERLOADED, Close
from gateway.frames import Frame
from gateway.limits import holder
from gateway.model import Ban, Claims, ConnectionInfo, State


class Attached(Protocol):
    """A connection, as the hub sees it. No method waits or raises."""

    address: str | None

    @property
    def claims(self) -> Claims: ...

    def offer(self, seq: int, frame: Frame) -> None:
        """A notification of this user was committed."""

    def offer_passing(self, frame: Frame) -> bool:
        """A notification that is stored nowhere: written if the connection is caught up, else dropped. Whether it was
        written. Whoever offers it asks whether the node may write, and counts."""

    def offer_state(self, rev: int, unread: int, frame: Frame) -> None: ...

    def recheck(self, state: State | None) -> None:
        """Signals may have been missed; ``state`` is the inbox's if it is known."""

    def close(self, why: Close) -> None: ...

    def info(self, node: str) -> ConnectionInfo: ...


class Hub:
    """``per_user``, ``per_address`` and ``most`` bound how many connections there may be (0: no bound). The addresses
    of one IPv6 /64 count as one."""

    def __init__(self, *, node: str, per_user: int, per_address: int, most: int) -> None:
        self._node = node
        self._per_user, self._per_address, self._most = per_user, per_address, most
        # A tuple a user: two words for the usual one, and iterating it is safe from whatever a delivery sets off.
        self._users: dict[str, tuple[Attached, ...]] = {}
        self._addresses: Counter[str] = Counter()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Attached]:
        """Every connection as of now: whoever goes over them slowly meets some that have ended meanwhile."""
        return chain.from_iterable(list(self._users.values()))

    @property
    def users(self) -> Sequence[str]:
        return list(self._users)

    def refusal(self, user_id: str, *, address: str | None) -> Close | None:
        """Why one more connection cannot be had, or None."""
        if self._count >= self._most:
            return OVERLOADED
        if len(self._users.get(user_id, ())) >= self._per_user:
            return CONNECTION_LIMIT
        if self._per_address and address is not None and self._addresses[holder(address)] >= self._per_address:
            return CONNECTION_LIMIT
        return None

    def attach(self, connection: Attached) -> bool:
        """From now on it hears its user's signals. Whether it is the user's first here."""
        user_id = connection.claims.subject
        before = self._users.get(user_id, ())
        self._users[user_id] = (*before, connection)
        self._count += 1
        if self._per_address and connection.address is not None:
            self._addresses[holder(connection.address)] += 1
        return not before

    def detach(self, connection: Attached) -> bool:
        """It hears nothing more. Compared by identity; detaching twice is harmless. Whether it was the user's last."""
        user_id = connection.claims.subject
        before = self._users.get(user_id, ())
        left = tuple(one for one in before if one is not connection)
        if len(left) == len(before):
            return False
        self._count -= 1
        if self._per_address and connection.address is not None:
            who = holder(connection.address)
            self._addresses[who] -= 1
            if not self._addresses[who]:
                del self._addresses[who]
        if left:
            self._users[user_id] = left
            return False
        del self._users[user_id]
        return True

    def of(self, user_id: str) -> tuple[Attached, ...]:
        return self._users.get(user_id, ())

    def matching(self, ban: Ban) -> list[Attached]:
        """The connections that ``ban`` ends."""
        among: Iterable[Attached] = self.of(ban.user_id) if ban.user_id is not None else self
        if ban.kind == "session":
            return [one for one in among if one.claims.session == ban.subject]
        if ban.kind == "token":
            return [one for one in among if one.claims.token_id == ban.subject]
        if ban.kind == "all":
            return [one for one in among if one.claims.issued_at <= (ban.cut or 0)]
        return []  # clients have no connections

    def connections(self, user_id: str | None) -> list[ConnectionInfo]:
        among: Iterable[Attached] = self.of(user_id) if user_id is not None else self
        return [one.info(self._node) for one in among]
