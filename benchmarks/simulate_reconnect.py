"""What happens when a node dies and its clients come back: a simulation, standard library only. Measures nothing.

    python -m benchmarks.simulate_reconnect            the table for 1 million clients on 20 nodes
    python -m benchmarks.simulate_reconnect --clients 50000 --nodes 19 --rate 4000
    python -m benchmarks.simulate_reconnect --check    beside a real gateway that is killed and started again

The model. A client learns that its socket is gone, waits as its *way* says, and tries. An attempt passes the front
(what ends TLS, if it is given a rate), then one node, chosen in turn as a balancer does. Both serve one after the
other, first come first served, each attempt in the same time. Who comes while too many wait is refused at once; who
is not served within its patience gives up, and the work is done all the same: a node cannot know. Either way the
client waits again. The front works for those too whom no node takes. What is left out: what a refusal costs the
kernel, loss on the way, clients that sleep, and everything else the node has to do.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

Way = Callable[[int, Callable[[], float]], float]
"""(failures so far, chance) → seconds to wait before the next attempt."""
MOST = 60.0
PLENTY = 100_000
"""Above this the table is worked out for one of equal parts: of 20 nodes that are all cut off, for one."""
DRAIN_SPREAD = 20.0
"""Seconds over which a node that is drained spreads its clients: twice the default GATEWAY_DRAIN_GRACE."""


def full_jitter(failures: int, chance: Callable[[], float]) -> float:
    """What the protocol asks of a client: anywhere up to a ceiling that doubles from 1 to 60 s."""
    return chance() * min(MOST, 2.0 ** min(failures, 16))


def doubling(failures: int, chance: Callable[[], float]) -> float:
    """The same ceiling, and everybody waits for all of it."""
    return min(MOST, 2.0 ** min(failures, 16))


def every_second(failures: int, chance: Callable[[], float]) -> float:
    return 1.0


def told_when(failures: int, chance: Callable[[], float]) -> float:
    """A node that drains says when: ``reconnect`` with an ``after_ms`` of each client's own."""
    return 0.1 + chance() * DRAIN_SPREAD if failures == 0 else full_jitter(failures, chance)


WAYS: Mapping[str, Way] = {
    "full jitter": full_jitter,
    "doubling, no jitter": doubling,
    "every second": every_second,
}


@dataclass(frozen=True, slots=True)
class Scene:
    """Who comes back, and to what. Times in seconds from the moment the sockets are gone, rates per second."""

    clients: int
    nodes: int
    rate: float
    """Upgrades one node serves, ``hello`` and what was missed included."""
    opens: float = 0.0
    """Until then every attempt is refused at once: nobody listens, or the balancer has no node."""
    ready: float = 0.0
    """Until then attempts wait: the node listens and does not serve yet."""
    notice: float = 0.0
    """Clients learn of it at any time within this: a killed process tells at once, a dead machine tells nobody."""
    queue: int = 50_000
    """Attempts that may wait at one node. It takes in whoever comes, up to its open files: what bounds this stands in
    front of it."""
    front: float = 0.0
    """TLS handshakes that all that stands in front can do; 0: no limit."""
    front_queue: int = 65_536
    patience: float = 10.0
    horizon: float = 600.0
    """Then it is given up: some ways never end."""

    def __post_init__(self) -> None:
        if min(self.clients, self.nodes) < 1 or self.rate <= 0 or self.patience <= 0:
            raise ValueError("clients, nodes, rate and patience must be above 0")

    def part(self, parts: int) -> Scene:
        """One of so many equal parts: nodes are alike, and each meets its share of everything."""
        if self.clients % parts or self.nodes % parts:
            raise ValueError(f"{self.clients} clients and {self.nodes} nodes are not {parts} equal parts")
        return replace(
            self, clients=self.clients // parts, nodes=self.nodes // parts, front=self.front / parts,
            front_queue=self.front_queue // parts,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """``back``: when each client was served, ascending. ``peak``: the most attempts within one whole second.

    ``clients``: how many there were; fewer in ``back`` are those that made it before the horizon.
    """

    clients: int
    back: Sequence[float]
    attempts: int
    peak: int
    refused: int
    given_up: int

    def after(self, percent: float) -> float:
        """When so many percent of the clients were back; infinity if they were not."""
        needed = max(1, math.ceil(self.clients * percent / 100))
        return self.back[needed - 1] if needed <= len(self.back) else math.inf


class _Line:
    """Whoever serves one after the other. Knows when it will be free, so no end of a service is an event."""

    __slots__ = ("_each", "_free", "_queue")

    def __init__(self, rate: float, queue: int, ready: float) -> None:
        self._each, self._queue, self._free = 1.0 / rate, queue, ready

    def serve(self, now: float) -> float | None:
        """When an attempt of ``now`` will have been served; None: too many wait before it."""
        if self._free - now >= self._queue * self._each:
            return None
        self._free = max(now, self._free) + self._each
        return self._free


def simulate(scene: Scene, way: Way, *, seed: int = 1) -> Outcome:
    """Run it until everybody is back, or to the horizon. The same seed, the same outcome."""
    chance = random.Random(seed).random
    nodes = [_Line(scene.rate, scene.queue, max(scene.opens, scene.ready)) for _ in range(scene.nodes)]
    front = _Line(scene.front, scene.front_queue, 0.0) if scene.front else None
    waiting = [(chance() * scene.notice + way(0, chance), client, 0) for client in range(scene.clients)]
    heapq.heapify(waiting)
    back: list[float] = []
    seconds: Counter[int] = Counter()
    attempts = refused = given_up = 0
    while waiting:
        now, client, failures = heapq.heappop(waiting)
        if now > scene.horizon:
            break
        seconds[int(now)] += 1
        served: float | None = None
        passed = now if front is None else front.serve(now)
        if passed is not None and passed - now > scene.patience:
            served = passed
        elif passed is not None and passed >= scene.opens:
            served = nodes[attempts % scene.nodes].serve(passed)
        attempts += 1
        if served is None:
            refused += 1
            failed = now if passed is None else passed
        elif served - now > scene.patience:
            given_up += 1
            failed = now + scene.patience
        else:
            back.append(served)
            continue
        heapq.heappush(waiting, (failed + way(failures + 1, chance), client, failures + 1))
    back.sort()
    return Outcome(scene.clients, back, attempts, max(seconds.values()), refused, given_up)


# -- what is printed -------------------------------------------------------------------------------------------------

HEAD = (
    "| what, and how clients wait | 50 % back | 99 % | all | peak attempts/s | refused | gave up |\n" + "|---" * 7 + "|"
)


def row(what: str, outcome: Outcome, *, parts: int = 1) -> str:
    """A line of the table. ``outcome`` is that of one of so many equal parts."""
    back = (f"{at:.1f} s" if at < math.inf else "never" for at in map(outcome.after, (50, 99, 100)))
    counts = (f"{count * parts:,}" for count in (outcome.peak, outcome.refused, outcome.given_up))
    return " | ".join(("| " + what, *back, *counts)) + " |"


def million(rate: float) -> Sequence[tuple[str, Scene, Mapping[str, Way]]]:
    """1 million clients on 20 nodes, and what may happen to them."""
    one = Scene(clients=50_000, nodes=19, rate=rate)
    everybody = Scene(clients=1_000_000, nodes=20, rate=rate, opens=5.0)
    return (
        ("one node is killed", one, WAYS),
        ("one machine loses power", replace(one, notice=35.0), {"full jitter": full_jitter}),
        ("one node is drained", one, {"told when": told_when}),
        ("5 nodes are killed at once", Scene(clients=250_000, nodes=15, rate=rate), WAYS),
        ("all are cut for 5 s", everybody, WAYS),
        ("all are cut for 60 s", replace(everybody, opens=60.0), WAYS),
        ("all for 5 s, 10 000 may wait at a node", replace(everybody, queue=10_000), WAYS),
        ("all for 5 s, TLS 20 000/s in front", replace(everybody, front=20_000.0), WAYS),
    )


def _arguments() -> argparse.ArgumentParser:
    # Kept short: what a figure means stands at the field of Scene.
    said = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate_reconnect", description=said)
    parser.add_argument("--rate", type=float, default=2000.0, help="upgrades/s of one node (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    own = parser.add_argument_group("a scene of your own, instead of the table")
    own.add_argument("--clients", type=int, help="who come back")
    own.add_argument("--nodes", type=int, default=1, help="that take them")
    own.add_argument("--opens", type=float, default=0.0, help="seconds in which every attempt is refused")
    own.add_argument("--ready", type=float, default=0.0, help="seconds in which attempts wait")
    own.add_argument("--notice", type=float, default=0.0, help="seconds within which clients learn of it")
    own.add_argument(
        "--queue", type=int, default=50_000, help="attempts that may wait at a node (default: %(default)s)"
    )
    own.add_argument("--front", type=float, default=0.0, help="TLS handshakes/s in front of all nodes; 0: no limit")
    own.add_argument("--patience", type=float, default=10.0, help="seconds a client waits for its hello")
    check = parser.add_argument_group("beside a real gateway on this machine")
    check.add_argument("--check", type=int, nargs="?", const=2000, metavar="CLIENTS", help="how many (2000)")
    check.add_argument("--down", type=float, default=0.5, help="seconds from kill -9 to start (default: %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _arguments()
    given = parser.parse_args(arguments)
    if given.check is not None:
        from benchmarks.reconnect_check import check  # needs the gateway; the simulation does not

        check(clients=given.check, down=given.down, seed=given.seed)
        return
    scenes = million(given.rate)
    if given.clients is not None:
        own = ("clients", "nodes", "rate", "opens", "ready", "notice", "queue", "front", "patience")
        try:
            scene = Scene(**{name: getattr(given, name) for name in own})
        except ValueError as error:
            parser.error(str(error))
        scenes = ((f"{scene.clients:,} to {scene.nodes}", scene, WAYS),)
    print(HEAD)
    for what, scene, ways in scenes:
        parts = math.gcd(scene.clients, scene.nodes) if scene.clients > PLENTY else 1
        for name, way in ways.items():
            outcome = simulate(scene.part(parts), way, seed=given.seed)
            print(row(f"{what}: {name}", outcome, parts=parts), flush=True)


if __name__ == "__main__":
    main()
