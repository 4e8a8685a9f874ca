"""What ``make soak`` looks at while it runs, and what it makes of it: flat or not. Starts nothing."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.error import HTTPError

from rich.table import Table

from benchmarks.load import cpu_seconds
from benchmarks.people import gauges
from benchmarks.servers import Server

GROWTH = 1.05
"""The last sixth through the second, at most."""
SLACK = {"gateway_tasks": 20}
"""More of it than so many is growth; one more, of anything else: a thread, and the tasks of what goes on just now."""
JUDGED = ("memory, MB", "descriptors", "threads", "gateway_connections", "gateway_users_online", "gateway_tasks")
"""Those that a gateway does not tell are left out by name."""
SHOWN = (
    "not of files, MB",
    "cores",
    "gateway_revocations_in_force",
    "gateway_event_loop_lag_max_seconds",
    "gateway_gc_pause_seconds_max",
)
Samples = Sequence[Mapping[str, float]]


def sample(server: Server, at: float) -> dict[str, float]:
    """``at``: seconds since the soak began."""
    process = Path(f"/proc/{server.pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    found = {
        "at": at,
        "cpu": cpu_seconds(server.pid),
        "memory, MB": server.resident() / 1e6,
        "descriptors": float(sum(1 for _ in (process / "fd").iterdir())),
        "threads": float(status["Threads"]),
        "not of files, MB": int(status["RssAnon"].split()[0]) * 1024 / 1e6,
    }
    try:
        told = gauges(server)
    except HTTPError:  # 503: the machine gave it no time for a second; the next sample will tell
        told = {}
    return found | {name: told[name] for name in (*JUDGED, *SHOWN) if name in told}


def with_cores(samples: Samples) -> list[dict[str, float]]:
    """Each with the processor it used since the one before."""
    pairs = itertools.pairwise(samples)
    return [{**now, "cores": (now["cpu"] - was["cpu"]) / (now["at"] - was["at"])} for was, now in pairs]


def sixths(samples: Samples, name: str, *, seconds: float) -> tuple[float, float] | None:
    """Medians of the second and of the last sixth of the time; the first is for warming up."""
    second = [one[name] for one in samples if name in one and seconds / 6 <= one["at"] < seconds / 3]
    last = [one[name] for one in samples if name in one and seconds * 5 / 6 <= one["at"] <= seconds]
    return (statistics.median(second), statistics.median(last)) if second and last else None


def is_flat(name: str, second: float, last: float) -> bool:
    return last <= second * GROWTH or last - second <= SLACK.get(name, 1)


def grown(samples: Samples, *, seconds: float) -> list[str]:
    """What did not stay flat. Without two medians nothing is known, and that is not flat either."""
    found = []
    for name in JUDGED:
        if any(name in one for one in samples):
            medians = sixths(samples, name, seconds=seconds)
            if medians is None or not is_flat(name, *medians):
                found.append(name)
    return found if samples else ["nothing was seen"]


def table(samples: Samples, *, seconds: float) -> Table:
    shown = Table(title=f"medians of the second and of the last sixth of {seconds / 60:g} minutes")
    for column in ("what", "second sixth", "last sixth", "growth", "asked", "verdict"):
        shown.add_column(column, justify="left" if column == "what" else "right")
    for name in (*JUDGED, *SHOWN):
        medians = sixths(samples, name, seconds=seconds)
        judged = name in JUDGED
        if medians is None:
            shown.add_row(name, "–", "–", "", "", "not told")
            continue
        second, last = medians
        ratio = f"{last / second:.3f}×" if second else ""
        verdict = ("flat" if is_flat(name, second, last) else "GROWN") if judged else ""
        shown.add_row(name, f"{second:,.2f}", f"{last:,.2f}", ratio, f"≤ {GROWTH:g}×" if judged else "", verdict)
    return shown
