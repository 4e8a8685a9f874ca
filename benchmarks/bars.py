"""What is asked, and the table that says what came of it. Measures nothing."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table

GATEWAY, LOOP, COMMIT, NODE = "gateway", "looping", "committing", "node ws"
EMPTY = "empty route"
Samples = Mapping[str, Mapping[str, list[float]]]
"""measure → server → one figure per pair."""
Verdict = Literal["missed", "kept", "stretch"]


@dataclass(frozen=True, slots=True)
class Asked:
    """``bound`` times what ``peer`` reaches in the same pair; without a peer, ``bound`` in the unit of the measure."""

    bound: float
    peer: str | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """``bar`` must be kept, ``stretch`` is the wish. ``peer`` is shown beside it, whether it is asked about or not."""

    number: str
    what: str
    measure: str
    unit: str
    peer: str
    bar: Asked
    stretch: Asked
    at_most: bool = False

    def verdict(self, samples: Samples) -> Verdict:
        """A bar without figures, ours or the peer's it needs, is missed."""
        if not self._keeps(self.bar, samples):
            return "missed"
        return "stretch" if self._keeps(self.stretch, samples) else "kept"

    def _keeps(self, asked: Asked, samples: Samples) -> bool:
        judged = figures(samples, self.measure, GATEWAY)
        if asked.peer is not None:
            judged = ratios(samples, self.measure, asked.peer)
        if not judged:
            return False
        middle = statistics.median(judged)
        return middle <= asked.bound if self.at_most else middle >= asked.bound

    def said(self, asked: Asked) -> str:
        return f"{'≤' if self.at_most else '≥'} " + (
            f"{asked.bound:g}× {asked.peer}" if asked.peer else f"{asked.bound:g} {self.unit}"
        )


BARS = (
    Bar("S1", "idle memory per socket", "idle", "KB", LOOP, Asked(8), Asked(5), at_most=True),
    Bar("S2", "upgrades", "upgrades", "/s", LOOP, Asked(2.5, LOOP), Asked(4, LOOP)),
    Bar("S4", "durable single pushes", "single", "/s", COMMIT, Asked(5, COMMIT), Asked(1, EMPTY)),
    Bar("S5", "durable, by batches of 1000", "batch", "/s", COMMIT, Asked(15_000), Asked(30_000)),
    Bar("S6", "push to frame, p99", "p99", "ms", COMMIT, Asked(15), Asked(5), at_most=True),
)
BESIDE = (
    ("idle", NODE, "KB", "S1: takes anybody, checks no token"),
    ("upgrades", NODE, "/s", "S2: takes anybody, checks no token"),
    ("single", LOOP, "/s", "S4: passes on, stores nothing"),
    ("single", EMPTY, "/s", "S4: does nothing at all"),
)


def figures(samples: Samples, measure: str, server: str) -> list[float]:
    return samples.get(measure, {}).get(server, [])


def ratios(samples: Samples, measure: str, peer: str) -> list[float]:
    """Ours through theirs, pair by pair."""
    pairs = zip(figures(samples, measure, GATEWAY), figures(samples, measure, peer), strict=False)
    return [ours / theirs for ours, theirs in pairs if theirs]


def table(samples: Samples) -> Table:
    shown = Table(title="medians (lowest – highest of the pairs)")
    for column in ("bar", "what", "gateway", "peer", "", "ratio", "asked", "stretch", "verdict"):
        shown.add_column(column, justify="right" if column in {"gateway", "", "ratio"} else "left")
    for row in _rows(samples):
        shown.add_row(*row)
    return shown


def _rows(samples: Samples) -> Iterator[Sequence[str]]:
    for bar in BARS:
        ours, theirs = figures(samples, bar.measure, GATEWAY), figures(samples, bar.measure, bar.peer)
        yield (
            *(bar.number, bar.what, _spread(ours, bar.unit), bar.peer, _spread(theirs, bar.unit)),
            *(_spread(ratios(samples, bar.measure, bar.peer), "×"), bar.said(bar.bar), bar.said(bar.stretch)),
            bar.verdict(samples),
        )
    for measure, server, unit, what in BESIDE:
        beside = _spread(figures(samples, measure, server), unit)
        yield ("", what, "", server, beside, _spread(ratios(samples, measure, server), "×"), "", "", "")


def _spread(values: list[float], unit: str) -> str:
    if not values:
        return "–"
    middle = _shown(statistics.median(values)) + (unit if unit in {"×", "/s"} else f" {unit}")
    return middle if len(values) == 1 else f"{middle} ({_shown(min(values))} – {_shown(max(values))})"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
