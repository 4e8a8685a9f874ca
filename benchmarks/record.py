"""What a run has found: figures, and what makes them doubtful. Measures nothing, knows no bar."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.load import Watch

BY_THE_CLOCK = " by the clock"
"""Sending at a rate, the load generator watches the clock without a pause: its core is always busy then."""


@dataclass
class Record:
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Measure → server → one figure per pair."""
    remarks: list[str] = field(default_factory=list)
    disturbed: dict[str, float] = field(default_factory=dict)
    """What was measured → cores that other processes used meanwhile, the most of all pairs."""

    def note(self, measure: str, server: str, figure: float) -> None:
        self.samples.setdefault(measure, {}).setdefault(server, []).append(figure)
        print(f"    {server:<14} {measure:<24} {figure:12,.2f}", flush=True)

    def remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)

    def judge(self, what: str, watch: Watch) -> None:
        """A figure is worth little if the load generator was the bottleneck, or somebody else used the cores."""
        if watch.load > 0.9 and not what.endswith(BY_THE_CLOCK):
            self.remark(f"{what}: the load generator used {watch.load:.0%} of its core, so it may be what was measured")
        self.shared(what, watch.others)

    def shared(self, what: str, others: float) -> None:
        """``others``: cores that processes which are no part of this used."""
        if others > 0.15:
            self.disturbed[what] = max(self.disturbed.get(what, 0), others)
