"""How often somebody may fail to sign in: what is counted, and when it is enough. Verifies nothing, stores nothing.

Failures are counted by account, by address and by network, each count running empty evenly (the generic cell rate
algorithm): ``limit`` of them are forgiven, then one more every ``window / limit`` seconds. A full address or network is
refused. At a full account only those networks are refused that have failed there lately: who knows the password and
comes from elsewhere is let in, whoever else is guessing. A name that nobody has counts like any other.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import chain

from gateway.errors import StoreUnavailable, TooManyAttempts, TooManySignIns
from gateway.model import millis
from gateway.ports import Clock, Failures

WIDER = 5
"""So many times as often as an address may a network fail; and an address with the secrets of all clients together."""
WAITING = 64
"""How many may wait to hear how others fared; who comes on top is told to come back."""
UNWRITTEN = 10_000
"""Counts remembered here while the database takes none."""


@dataclass(frozen=True, slots=True)
class Count:
    """``quota`` failures fit, each of ``step`` milliseconds. ``policy``: what the limit is called to the outside."""

    key: bytes
    policy: str
    quota: int
    step: int

    @property
    def full(self) -> int:
        return self.quota * self.step

    def wait(self, until: int, *, ahead: int, now: int) -> int:
        """Milliseconds until one more failure fits, should the ``ahead`` that are under way all fail; 0: it does."""
        level = until - now
        if not 0 < level <= 2 * self.full:  # empty; or a clock was set back, which must not keep anybody out for hours
            level = 0
        return max(0, level + (ahead + 1) * self.step - self.full)


Barrier = tuple[Count, ...]
"""Stands in the way as long as each of its counts does."""


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
        self._under_way: Counter[bytes] = Counter()
        self._looks: list[Counter[bytes]] = []
        self._unwritten: dict[bytes, int] = {}
        self._waiting, self._ended = 0, asyncio.Event()

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
        barriers: list[Barrier] = [(account, pair)]
        if host:
            barriers = [
                (self._count("address", self._limit, host),),
                (self._count("network", self._limit * WIDER, network),),
                *barriers,
            ]
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
        self._refuse(barriers, await self._kept([count.key for count in counts]))
        yield _Counted(self, counts, [])

    def _count(self, policy: str, quota: int, *of: str) -> Count:
        hashed = hashlib.blake2b(key=self._secret, digest_size=16)
        for part in (policy, *of):
            raw = part.encode("utf-8", "surrogatepass")
            hashed.update(len(raw).to_bytes(8) + raw)
        return Count(hashed.digest(), policy, quota, max(1, self._window * 1000 // quota))

    @asynccontextmanager
    async def _admitted(self, barriers: Sequence[Barrier], *, forgiving: Barrier) -> AsyncIterator[Attempt]:
        counts = list(chain.from_iterable(barriers))
        keys = [count.key for count in counts]
        until = await self._admit(barriers, keys)
        self._under_way.update(keys)  # in the same turn as the decision
        try:
            now = millis(self._clock())
            yield _Counted(self, counts, [count.key for count in forgiving if until.get(count.key, 0) > now])
        finally:
            for key in keys:
                self._under_way[key] -= 1
                if not self._under_way[key]:
                    del self._under_way[key]
            self._ended.set()
            self._ended = asyncio.Event()

    async def _admit(self, barriers: Sequence[Barrier], keys: Sequence[bytes]) -> Mapping[bytes, int]:
        """Return when there is room for one more failure, even if all that are under way fail: what is kept."""
        while True:
            if self._wait(barriers, {}, self._under_way):
                await self._next_end()
                continue
            # Whoever fails while the database is asked may be in its answer or not: counted as if not.
            failed: Counter[bytes] = Counter()
            self._looks.append(failed)
            try:
                until = await self._kept(keys)
            finally:
                self._looks = [look for look in self._looks if look is not failed]
            self._refuse(barriers, until)
            if not self._wait(barriers, until, self._under_way + failed):
                return until
            if not failed:  # else the next answer has them
                await self._next_end()

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
        """The longest wait any barrier asks for (ms), and the count to name; None if none is in the way."""
        now = millis(self._clock())
        longest: tuple[int, Count] | None = None
        for barrier in barriers:
            waits = [one.wait(until.get(one.key, 0), ahead=ahead.get(one.key, 0), now=now) for one in barrier]
            if min(waits) > (longest[0] if longest else 0):
                longest = min(waits), barrier[0]
        return longest

    async def _next_end(self) -> None:
        if self._waiting >= WAITING:
            raise TooManySignIns
        self._waiting += 1
        try:
            await self._ended.wait()
        finally:
            self._waiting -= 1

    async def _failed(self, counts: Sequence[Count]) -> None:
        now = millis(self._clock())
        try:
            await self._failures.add([(count.key, count.step, count.full) for count in counts], now=now)
        except StoreUnavailable:
            for count in counts:
                since = max(now, self._unwritten.pop(count.key, 0))
                self._unwritten[count.key] = min(since + count.step, now + count.full)
            while len(self._unwritten) > UNWRITTEN:
                del self._unwritten[next(iter(self._unwritten))]
        for look in self._looks:
            look.update(count.key for count in counts)

    async def _succeeded(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self._unwritten.pop(key, None)
        if keys:
            with suppress(StoreUnavailable):  # then they run out by themselves
                await self._failures.clear(keys)


class _Counted(Attempt):
    """``forgiven``: the keys whose counts a success takes back."""

    def __init__(self, attempts: Attempts, counts: Sequence[Count], forgiven: Sequence[bytes]) -> None:
        self._attempts, self._counts, self._forgiven = attempts, counts, forgiven

    async def failed(self) -> None:
        await self._attempts._failed(self._counts)

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
