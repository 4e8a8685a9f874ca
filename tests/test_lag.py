"""How late the loop comes: every stall is counted, and the worst of a minute is remembered for a minute."""

from __future__ import annotations

from gateway.lag import Lag
from gateway.metrics import Metrics


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def series(metrics: Metrics, name: str) -> float:
    found = [line for line in metrics.exposition().decode().splitlines() if line.startswith(f"{name} ")]
    return float(found[0].rpartition(" ")[2])


def test_the_worst_of_the_last_minute_is_told_to_everybody_who_asks_and_then_forgotten() -> None:
    clock, metrics = Clock(), Metrics()
    lag = Lag(metrics=metrics, monotonic=clock)
    assert series(metrics, "gateway_event_loop_lag_max_seconds") == 0
    for late in (0.002, 0.3, 0.001):
        lag.observe(late)
        clock.now += 0.02
    for _ in range(2):
        assert series(metrics, "gateway_event_loop_lag_max_seconds") == 0.3
    clock.now += 50
    lag.observe(0.01)
    assert lag.worst() == 0.3
    clock.now += 20
    lag.observe(0.002)
    assert lag.worst() == 0.01, "more than a minute ago"
    clock.now += 1000
    assert lag.worst() == 0, "a loop that has not turned for so long is asked from another thread"


def test_every_stall_is_counted_in_its_bucket() -> None:
    metrics = Metrics()
    lag = Lag(metrics=metrics, monotonic=Clock())
    for late in (0.0, 0.06, 0.06, 0.3):
        lag.observe(late)
    text = metrics.exposition().decode()
    for bound, count in (("0.005", 1), ("0.05", 1), ("0.1", 3), ("0.25", 3), ("0.5", 4)):
        assert f'gateway_event_loop_lag_seconds_bucket{{le="{bound}"}} {float(count)}' in text
