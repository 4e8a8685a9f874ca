"""Token buckets. Pure arithmetic: the clock is the caller's, seconds on a monotonic clock."""

from __future__ import annotations

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


class Buckets:
    """A bucket a key, the least recently used forgotten first: a forgotten one had time to fill up again."""

    def __init__(self, *, rate: float, burst: float, most: int = 100_000) -> None:
        self.rate, self.burst, self._most = rate, burst, most
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, key: str, amount: float, *, at: float) -> float:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(burst=self.burst, at=at)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket.take(amount, rate=self.rate, burst=self.burst, at=at)
