"""Token buckets. Pure arithmetic: the clock is the caller's, seconds on a monotonic clock."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict


class Bucket:
    """``burst`` at once, refilled at ``rate`` per second."""

    __slots__ = ("_at", "_level")

    def __init__(self, *, burst: float, at: float) -> None:
        self._level, self._at = float(burst), at

    def take(self, amount: float, *, rate: float, burst: float, at: float) -> float:
        """0 if ``amount`` was there and is taken, else the seconds until it would be (nothing is taken).

        More than ``burst`` at once is given when the bucket is full; what is taken beyond it has to flow in first.
        """
        level = min(burst, self._level + max(0.0, at - self._at) * rate)
        self._at = max(self._at, at)
        needed = min(amount, burst)
        if level >= needed:
            self._level = level - amount
            return 0.0
        self._level = level
        return (needed - level) / rate

    def give_back(self, amount: float) -> None:
        """What was taken was not used after all."""
        self._level += amount

    def full(self, *, rate: float, burst: float, at: float) -> bool:
        """Whether it is as good as a new one."""
        return self._level + max(0.0, at - self._at) * rate >= burst


class Buckets:
    """A bucket a key. Full ones are forgotten as others come, and of more than ``most`` the least recently used, which
    had the longest time to fill up again."""

    def __init__(self, *, rate: float, burst: float, most: int = 100_000) -> None:
        self.rate, self.burst, self._most = rate, burst, most
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, key: str, amount: float, *, at: float) -> float:
        bucket = self._buckets.get(key)
        if bucket is None:
            self._make_room(at)
            bucket = self._buckets[key] = Bucket(burst=self.burst, at=at)
        else:
            self._buckets.move_to_end(key)
        return bucket.take(amount, rate=self.rate, burst=self.burst, at=at)

    def _make_room(self, at: float) -> None:
        """Two are forgotten at most for each that comes: so they get fewer, and nobody waits while many are."""
        for _ in range(min(2, len(self._buckets))):
            oldest = next(iter(self._buckets.values()))
            if len(self._buckets) >= self._most or oldest.full(rate=self.rate, burst=self.burst, at=at):
                self._buckets.popitem(last=False)

    def give_back(self, key: str, amount: float) -> None:
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.give_back(amount)


def holder(address: str | None) -> str:
    """Who counts as one behind ``address``: an IPv4 address, or the /64 of an IPv6 one, which is what one customer is
    given (RFC 6177); whoever has no address is one. An IPv4 address in IPv6 clothes is the IPv4 address."""
    if address is None or ":" not in address:
        return address or ""
    try:
        whole = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if whole.ipv4_mapped is not None:
        return str(whole.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(whole) >> 64 << 64, 64)))
