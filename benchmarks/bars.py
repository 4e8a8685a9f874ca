"""What is asked, and the table that says what came of it. Measures nothing."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table

GATEWAY, LOOP, COMMIT, NODE = "gateway", "looping", "committing", "node ws"
EMPTY = "empty route"
NCHAN, BARE = "nchan", "bare loop"
READING, STALLED = "all reading", "some stalled"
CALM, FLOODED = "nobody at the door", "200 sign in"
DURABLE, EVERYONE, QUIET = "1000 users", "everyone", "no push"
ALONE, HERE, THERE, ANSWER = "one node", "answering node", "other node", "its answer"
SMALL, LARGE = "few rows", "many rows"
ONE, TWO = "one node", "two nodes"
LOCAL, REMOTE = "same node", "other node"
SHARERS = ("gateway", "postgres", "redis", "load")
"""Who shares the cores when two nodes are compared with one."""
Samples = Mapping[str, Mapping[str, list[float]]]
"""measure → server → one figure per pair."""
Verdict = Literal["missed", "kept", "stretch", "not asked"]


@dataclass(frozen=True, slots=True)
class Asked:
    """``bound`` times what ``peer`` reaches in the same pair; without a peer, ``bound`` in the unit of the measure."""

    bound: float
    peer: str | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """``bar`` must be kept, ``stretch`` is the wish. ``peer`` is shown beside it, whether it is asked about or not.

    ``ours``: whose figures are judged.
    """

    number: str
    what: str
    measure: str
    unit: str
    peer: str | None
    bar: Asked
    stretch: Asked | None
    at_most: bool = False
    ours: str = GATEWAY

    def verdict(self, samples: Samples) -> Verdict:
        """A bar without figures, ours or the peer's it needs, is missed."""
        if not self._keeps(self.bar, samples):
            return "missed"
        return "stretch" if self.stretch is not None and self._keeps(self.stretch, samples) else "kept"

    def _keeps(self, asked: Asked, samples: Samples) -> bool:
        judged = figures(samples, self.measure, self.ours)
        if asked.peer is not None:
            judged = ratios(samples, self.measure, asked.peer, self.ours)
        if not judged:
            return False
        middle = statistics.median(judged)
        return middle <= asked.bound if self.at_most else middle >= asked.bound

    def said(self, asked: Asked | None) -> str:
        if asked is None:
            return ""
        return f"{'≤' if self.at_most else '≥'} " + (
            f"{asked.bound:g}× {asked.peer}" if asked.peer else f"{asked.bound:g} {self.unit}"
        )


def _growth(what: str, measure: str) -> Bar:
    stretch = Asked(1.1, SMALL)  # flat, and what one cannot tell from it
    return Bar("S10", what, measure, "ms", SMALL, Asked(1.3, SMALL), stretch, at_most=True, ours=LARGE)


def _revoked(what: str, server: str, bar: float, stretch: float) -> Bar:
    return Bar("S8", what, "revoked", "ms", None, Asked(bar), Asked(stretch), at_most=True, ours=server)


def _flooded(what: str, measure: str) -> Bar:
    return Bar("AUTH-07", what, measure, "ms", CALM, Asked(2, CALM), None, at_most=True, ours=FLOODED)


BARS = (
    Bar("S1", "idle memory per socket", "idle", "KB", LOOP, Asked(8), Asked(5), at_most=True),
    Bar("S2", "upgrades", "upgrades", "/s", LOOP, Asked(2.5, LOOP), Asked(4, LOOP)),
    Bar("S3", "ttl 0 to everyone", "fanout", "/s", NCHAN, Asked(1, NCHAN), Asked(0.9, BARE)),
    Bar("S3", "the same", "fanout", "/s", NODE, Asked(1, NODE), Asked(0.9, BARE)),
    Bar("S4", "durable single pushes", "single", "/s", COMMIT, Asked(5, COMMIT), Asked(1, EMPTY)),
    Bar("S5", "durable, by batches of 1000", "batch", "/s", COMMIT, Asked(15_000), Asked(30_000)),
    Bar("S6", "push to frame, p99", "p99", "ms", COMMIT, Asked(15), Asked(5), at_most=True),
    Bar("S7", "all cut, all back, 20 replayed", "storm", "s", LOOP, Asked(10), Asked(4), at_most=True),
    Bar("S7", "REST meanwhile, p99", "storm rest", "ms", LOOP, Asked(250), None, at_most=True),
    _revoked("100 sockets revoked, one node", ALONE, 100, 30),
    _revoked("100 + 100 on two nodes: here", HERE, 100, 30),
    _revoked("… on the other node", THERE, 300, 100),
    _growth("connect + replay 100, SQLite", "sqlite replay"),
    _growth("list 50, SQLite", "sqlite list"),
    _growth("push, SQLite", "sqlite push"),
    _growth("connect + replay 100, PostgreSQL", "postgres replay"),
    _growth("list 50, PostgreSQL", "postgres list"),
    _growth("push, PostgreSQL", "postgres push"),
    Bar("S11", "durable single pushes, two nodes", "nodes single", "/s", ONE, Asked(1.5, ONE), None, ours=TWO),
    Bar("S11", "the same by batches of 1000", "nodes batch", "/s", ONE, Asked(1.5, ONE), None, ours=TWO),
    Bar("S11", "a push to the other node, cpu", "cpu", "µs", LOCAL, Asked(2, LOCAL), None, at_most=True, ours=REMOTE),
    Bar("S11", "the same, to the frame, p50", "p50", "ms", LOCAL, Asked(2, LOCAL), None, at_most=True, ours=REMOTE),
    Bar("S12", "spawn to ready", "ready", "s", LOOP, Asked(2), Asked(1), at_most=True),
    Bar(
        "S13", "p99 of the others", "stalled p99", "ms", READING, Asked(1.2, READING), None, at_most=True, ours=STALLED
    ),
    Bar("S13", "memory of a stalled one", "stalled memory", "KB", None, Asked(128), None, at_most=True),
    _flooded("p99 while 200 sign in: to all", "flood p99, all"),
    _flooded("the same, durable to one", "flood p99"),
)
BESIDE = (
    ("idle", NODE, "KB", "S1: takes anybody, checks no token"),
    ("upgrades", NODE, "/s", "S2: takes anybody, checks no token"),
    ("fanout", BARE, "/s", "S3: only writes to transports"),
    ("fanout", LOOP, "/s", "S3: one send after the other"),
    *(("fanout alone", whose, "/s", "S3: one push at a time") for whose in (NCHAN, NODE, BARE)),
    ("single", LOOP, "/s", "S4: passes on, stores nothing"),
    ("single", EMPTY, "/s", "S4: does nothing at all"),
)
SEEN = (
    ("fanout alone", GATEWAY, "/s", "S3, one push at a time"),
    ("sign-ins", GATEWAY, "/s", "AUTH-07, sign-ins let in"),
    ("flood p99, one core", FLOODED, "ms", "AUTH-07, one core, nobody waits as told"),
    ("flood p99, one core", CALM, "ms", "AUTH-07, one core"),
    ("sign-ins, one core", GATEWAY, "/s", "AUTH-07, one core, let in"),
    ("wide stall", DURABLE, "ms", "wide, longest wait"),
    ("wide stall", EVERYONE, "ms", "wide, longest wait"),
    ("wide stall", QUIET, "ms", "wide, longest wait"),
    ("wide last frame", DURABLE, "ms", "wide, last frame"),
    ("wide last frame", EVERYONE, "ms", "wide, last frame"),
)
"""Measured and shown; nothing is asked of it."""
WIDE = "wide"
NUMBERS = tuple(dict.fromkeys(bar.number for bar in BARS))
_WORST_FIRST: tuple[Verdict, ...] = ("missed", "kept", "stretch")


def verdicts(samples: Samples, asked: Collection[str]) -> dict[str, Verdict]:
    """For each number the worst of its bars; one that was not asked for is named as that."""
    found: dict[str, Verdict] = {}
    for number in NUMBERS:
        of_it = {bar.verdict(samples) for bar in BARS if bar.number == number}
        found[number] = next(word for word in _WORST_FIRST if word in of_it) if number in asked else "not asked"
    return found


def figures(samples: Samples, measure: str, server: str) -> list[float]:
    return samples.get(measure, {}).get(server, [])


def ratios(samples: Samples, measure: str, peer: str, ours: str = GATEWAY) -> list[float]:
    """Ours through theirs, pair by pair."""
    pairs = zip(figures(samples, measure, ours), figures(samples, measure, peer), strict=False)
    return [our / their for our, their in pairs if their]


def table(samples: Samples, asked: Collection[str]) -> Table:
    shown = Table(title="medians (lowest – highest of the pairs)")
    for column in ("bar", "what", "gateway", "peer", "", "ratio", "asked", "stretch", "verdict"):
        shown.add_column(column, justify="right" if column in {"gateway", "", "ratio"} else "left")
    for row in _rows(samples, asked):
        shown.add_row(*row)
    return shown


def _rows(samples: Samples, asked: Collection[str]) -> Iterator[Sequence[str]]:
    for bar in BARS:
        ours = figures(samples, bar.measure, bar.ours)
        theirs = figures(samples, bar.measure, bar.peer) if bar.peer else []
        ratio = ratios(samples, bar.measure, bar.peer, bar.ours) if bar.peer else []
        yield (
            *(bar.number, bar.what, _spread(ours, bar.unit), bar.peer or "", _spread(theirs, bar.unit)),
            *(_spread(ratio, "×"), bar.said(bar.bar), bar.said(bar.stretch)),
            bar.verdict(samples) if bar.number in asked else "not asked",
        )
    for measure, server, unit, what in BESIDE:
        if beside := figures(samples, measure, server):
            ratio = ratios(samples, measure, server)
            yield ("", what, "", server, _spread(beside, unit), _spread(ratio, "×"), "", "", "")
    for measure, server, unit, what in SEEN:
        if seen := figures(samples, measure, server):
            yield ("", f"{what}, {server}", _spread(seen, unit), "", "", "", "", "", "")


def _spread(values: list[float], unit: str) -> str:
    if not values:
        return "–"
    middle = _shown(statistics.median(values)) + (unit if unit in {"×", "/s"} else f" {unit}")
    return middle if len(values) == 1 else f"{middle} ({_shown(min(values))} – {_shown(max(values))})"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def processor(samples: Samples) -> Table:
    """Who worked how long for a push at full load (S11): what does not fall with a second node bounds the gain.

    ``had they cores``: what two nodes could do against one, did nobody else need the cores that they run on.
    """
    shown = Table(title="S11: microseconds of processor a push, all cores together")
    for column in ("pushes", "nodes", *SHARERS, "together", "had they cores"):
        shown.add_column(column, justify="left" if column in {"pushes", "nodes"} else "right")
    for kind in ("single", "batch"):
        alone = figures(samples, f"{kind} gateway", ONE)
        for count in (ONE, TWO):
            found = [figures(samples, f"{kind} {who}", count) for who in SHARERS]
            if all(found):
                middles = [statistics.median(one) for one in found]
                room = f"{2 * statistics.median(alone) / middles[0]:.2f}×" if count == TWO and alone else ""
                shown.add_row(kind, count, *map(_shown, middles), _shown(sum(middles)), room)
    return shown
