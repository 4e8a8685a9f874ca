"""How often somebody may fail to sign in: what is counted, and when it is enough. Verifies nothing, stores nothing.

Failures are counted by account, by address and by network, each count running empty evenly (the generic cell rate
algorithm): ``limit`` of them are forgiven, then one more every ``window / limit`` seconds. A full address or network is
refused. At a full account only those networks are refused that have failed there lately: who knows the password and
comes from elsewhere is let in, whoever else is guessing. A name that nobody has counts like any other.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import chain

from gateway.errors import StoreUnavailable, TooManyAttempts
from gateway.model import millis
from gateway.ports import Clock, Failures
from gateway.underway import Barrier, Count, UnderWay, Visit, longest_wait

WIDER = 5
"""So many times as often as an address may a network fail; and an address with the secrets of all clients together."""
UNWRITTEN = 10_000
"""Counts remembered here while the database takes none."""


class Attempt:
    """One that was let through. Says how it went, if that is ever known: else nothing is counted."""

    async def failed(self) -> None:
        """Counted when this returns, even if the database cannot be written."""

    async def succeeded(self) -> None:
        """The account's failures, and those of this network there, are forgotten. Those of the address are not: or
        whoever has an account could go on guessing at others."""


class Attempts:
    """``secret``: keys the hashes that stand for names and addresses. ``limit``: failures forgiven in ``window`` (s); 0
    for no limit at all."""

    def __init__(self, failures: Failures, *, secret: bytes, limit: int, window: int, clock: Clock) -> None:
        self._failures, self._secret, self._clock = failures, secret, clock
        self._limit, self._window = limit, window
        self._under_way = UnderWay(clock)
        self._looks: list[Counter[bytes]] = []
        self._unwritten: dict[bytes, int] = {}

    def crowded(self, address: str | None) -> bool:
        """Whether whoever comes from there now would be told to come back (TooManySignIns), whatever their name."""
        return bool(self._limit) and self._under_way.crowded(self._of_address(*places(address)))

    @asynccontextmanager
    async def of_account(self, username: str, address: str | None) -> AsyncIterator[Attempt]:
        """An attempt at the password of ``username``, whether there is such a user or not.

        Waits while the outcome of others decides. Raises TooManyAttempts, Unavailable (too many wait, or the database
        cannot be read); then nothing may be verified.
        """
        if not self._limit:
            yield Attempt()
            return
        host, network = places(address)
        account = self._count("account", self._limit, username)
        pair = self._count("account", 1, username, network)
        barriers = [*self._of_address(host, network), (account, pair)]
        async with self._admitted(barriers, forgiving=(account, pair)) as attempt:
            yield attempt

    @asynccontextmanager
    async def of_client(self, client_id: str, address: str | None) -> AsyncIterator[Attempt]:
        """An attempt at the secret of a client. Nobody guesses 256 bits: what is limited is a deployment that goes on
        with an old secret, and that one only. Raises as ``of_account``."""
        if not self._limit:
            yield Attempt()
            return
        host, _ = places(address)
        barriers: list[Barrier] = [
            (self._count("client", self._limit, client_id, host),),
            (self._count("clients", self._limit * WIDER, host),),
        ]
        # Whoever is under way is not waited for: hundreds may ask at once with a secret that is right.
        counts = list(chain.from_iterable(barriers))
        until = await self._kept([count.key for count in counts])
        self._refuse(barriers, until)
        yield _Counted(self, counts, until, [])

    def _of_address(self, host: str, network: str) -> list[Barrier]:
        if not host:
            return []
        return [
            (self._count("address", self._limit, host),),
            (self._count("network", self._limit * WIDER, network),),
        ]

    def _count(self, policy: str, quota: int, *of: str) -> Count:
        hashed = hashlib.blake2b(key=self._secret, digest_size=16)
        for part in (policy, *of):
            raw = part.encode("utf-8", "surrogatepass")
            hashed.update(len(raw).to_bytes(8) + raw)
        return Count(hashed.digest(), policy, quota, max(1, self._window * 1000 // quota))

    @asynccontextmanager
    async def _admitted(self, barriers: Sequence[Barrier], *, forgiving: Barrier) -> AsyncIterator[Attempt]:
        visit = self._under_way.newcomer(barriers)
        try:
            await self._admit(visit)
            now = millis(self._clock())
            forgiven = [count.key for count in forgiving if visit.until.get(count.key, 0) > now]
            yield _Counted(self, list(chain.from_iterable(barriers)), visit.until, forgiven)
        finally:
            self._under_way.leave(visit)

    async def _admit(self, visit: Visit) -> None:
        """Be admitted when there is room for one more failure even if all that are under way fail."""
        while True:
            await self._under_way.room(visit)
            # Whoever fails while the database is asked may be in its answer or not: counted as if not.
            failed: Counter[bytes] = Counter()
            self._looks.append(failed)
            try:
                visit.until = await self._kept(visit.keys)
            finally:
                self._looks = [look for look in self._looks if look is not failed]
            self._refuse(visit.barriers, visit.until)
            ahead = {key: self._under_way.at(key) - visit.placed + failed[key] for key in visit.keys}
            if not self._wait(visit.barriers, visit.until, ahead):
                self._under_way.enter(visit)  # in the same turn as the decision
                return

    async def _kept(self, keys: Sequence[bytes]) -> Mapping[bytes, int]:
        until = {**await self._failures.until(keys)}
        for key in keys:
            if key in self._unwritten:
                until[key] = max(until.get(key, 0), self._unwritten[key])
        return until

    def _refuse(self, barriers: Sequence[Barrier], until: Mapping[bytes, int]) -> None:
        """Raises TooManyAttempts if what has failed so far stands in the way."""
        if (found := self._wait(barriers, until, {})) is None:
            return
        milliseconds, count = found
        policy = f"sign-in-{count.policy}"
        raise TooManyAttempts(policy, retry_after=milliseconds / 1000, quota=count.quota, window=count.full // 1000)

    def _wait(
        self, barriers: Sequence[Barrier], until: Mapping[bytes, int], ahead: Mapping[bytes, int]
    ) -> tuple[int, Count] | None:
        return longest_wait(barriers, until, ahead, now=millis(self._clock()))

    async def _failed(self, counts: Sequence[Count], until: Mapping[bytes, int]) -> None:
        now, written = millis(self._clock()), False
        try:
            await self._failures.add([(count.key, count.step, count.full) for count in counts], now=now)
            written = True
        except StoreUnavailable:
            pass
        finally:  # whoever went away meanwhile has failed too
            for count in counts:
                if not written or self._unwritten.get(count.key, 0) > now:  # the database knows of these alone
                    self._remember(count, until.get(count.key, 0), now)
            for look in self._looks:
                look.update(count.key for count in counts)

    def _remember(self, count: Count, until: int, now: int) -> None:
        """Count one more failure beside the database, upon what that was known to keep."""
        if until > now + 2 * count.full:  # a clock was set back
            until = 0
        since = max(now, until, self._unwritten.pop(count.key, 0))
        self._unwritten[count.key] = min(since + count.step, now + count.full)
        while len(self._unwritten) > UNWRITTEN:
            del self._unwritten[next(iter(self._unwritten))]

    async def _succeeded(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self._unwritten.pop(key, None)
        if keys:
            with suppress(StoreUnavailable):  # then they run out by themselves
                await self._failures.clear(keys)


class _Counted(Attempt):
    """``until``: what was kept when it was admitted. ``forgiven``: the keys whose counts a success takes back."""

    def __init__(
        self, attempts: Attempts, counts: Sequence[Count], until: Mapping[bytes, int], forgiven: Sequence[bytes]
    ) -> None:
        self._attempts, self._counts, self._until, self._forgiven = attempts, counts, until, forgiven

    async def failed(self) -> None:
        await self._attempts._failed(self._counts, self._until)

    async def succeeded(self) -> None:
        await self._attempts._succeeded(self._forgiven)


def places(address: str | None) -> tuple[str, str]:
    """The two places an address counts for: itself (of IPv6 its /64, which is one customer's), and its network (IPv4
    /24, IPv6 /48). Empty if there is none; whatever is no IP address is one place."""
    if not address:
        return "", ""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return "?", "?"
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    plain = str(ip).partition("%")[0]  # without the name of the interface
    narrow, wide = (
        str(ipaddress.ip_network(f"{plain}/{bits}", strict=False))
        for bits in ((32, 24) if ip.version == 4 else (64, 48))
    )
    return narrow, wide
