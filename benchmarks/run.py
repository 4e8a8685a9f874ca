"""``make bench``: what is asked of speed and memory, measured. Asserts nothing.

Absolute figures drift with the machine and its neighbours; the ratio within one pair is what counts. The figures are
medians over the pairs, with the spread. What a bar measures, and how, stands where it is measured: ``beside_peers``
(S1, S2, S4 to S6), ``fanout`` (S3), ``storm`` (S7), ``revoking`` (S8), ``growth`` (S10, only if asked for: it needs
minutes and gigabytes), ``several`` (S11, not in a short look), ``starting`` (S12), ``stalled`` (S13), ``flood``
(AUTH-07), ``wide``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import beside_peers, fanout, flood, growth, revoking, several, stalled, starting, storm, wide
from benchmarks.backends import Backends, backends
from benchmarks.bars import NUMBERS, WIDE, processor, table, verdicts
from benchmarks.record import Record
from benchmarks.servers import HERE

PEERS = ("S1", "S2", "S4", "S5", "S6")
REVOCATIONS, REVOCATIONS_QUICK = 25, 5


def run(record: Record, asked: Sequence[str], given: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Measure what is ``asked``; the scales."""
    beside = beside_peers.QUICK if given.quick else beside_peers.FULL
    beside = replace(beside, pairs=given.pairs or beside.pairs, idle=given.sockets or beside.idle)
    grown = growth.QUICK if given.quick else growth.FULL
    grown = replace(grown, rows=given.rows or grown.rows)
    nodes = several.QUICK if given.quick else several.FULL
    nodes = replace(nodes, pairs=given.pairs or nodes.pairs)
    times = REVOCATIONS_QUICK if given.quick else REVOCATIONS
    if set(PEERS) & set(asked):
        beside_peers.BesidePeers(record, beside, directory).run()
    scales = _alone(record, asked, given, directory)
    if "S8" in asked:
        print("  revocations, one node")
        revoking.on_one_node(record, directory, times=times)
    small = growth.room(directory, rows=grown.rows) if "S10" in asked else None
    if small is not None:
        record.remark(f"S10 is left out: {small}")
    elif "S10" in asked:
        growth.on_sqlite(record, directory, grown)
    with ExitStack() as stack:
        shared = _backends(stack, record, directory) if {"S8", "S10", "S11"} & set(asked) else None
        if shared is not None:
            if "S8" in asked:
                print("  revocations, two nodes")
                revoking.on_two_nodes(record, shared, times=times)
            if "S11" in asked:
                several.Several(record, shared, nodes, directory).run()
            if "S10" in asked and small is None:
                growth.on_postgres(record, shared, grown)
    scales |= {"beside peers": asdict(beside), "revocations": times, "growth": asdict(grown)}
    return scales | {"several": asdict(nodes)}


def _alone(record: Record, asked: Sequence[str], given: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """What one node on SQLite is measured at, each with its own scale; the scales."""
    scales: dict[str, Any] = {}

    def scaled(name: str, module: Any) -> Any:
        scale = module.QUICK if given.quick else module.FULL
        scale = replace(scale, pairs=given.pairs or scale.pairs)
        scales[name] = asdict(scale)
        return scale

    if "S3" in asked:
        fanout.Fanout(record, scaled("fanout", fanout), directory).run()
    if "S7" in asked:
        storm.Storm(record, scaled("storm", storm), directory).run()
    if "S12" in asked:
        starting.run(record, scaled("starting", starting), directory)
    if "S13" in asked:
        stalled.Stalled(record, scaled("stalled", stalled), directory).run()
    if "AUTH-07" in asked:
        flood.Flood(record, scaled("flood", flood), directory).run()
    if WIDE in asked:
        wide.Wide(record, scaled("wide", wide), directory).run()
    return scales


def _backends(stack: ExitStack, record: Record, directory: Path) -> Backends | None:
    try:
        return stack.enter_context(backends(directory))
    except RuntimeError as error:
        record.remark(f"what needs PostgreSQL and Redis is left out: {error}")
        return None


def save(record: Record, asked: Sequence[str], scale: dict[str, Any]) -> Path:
    at = datetime.now(UTC)
    path = HERE / "results" / f"{at:%Y-%m-%dT%H%M%SZ}.json"
    path.parent.mkdir(exist_ok=True)
    document: dict[str, Any] = {
        "at": at.isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "kind": platform.machine(), "python": platform.python_version()},
        "scale": scale,
        "verdicts": verdicts(record.samples, asked),
        "samples": record.samples,
        "remarks": record.remarks,
        "disturbed": record.disturbed,
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one pair, few sockets, short: to see that it works")
    parser.add_argument("--growth", action="store_true", help="S10 too: 10 million rows, minutes and gigabytes")
    measures = [*NUMBERS, WIDE]
    parser.add_argument("--only", nargs="+", choices=measures, metavar="S", help="these (S1 to S6 but S3 go together)")
    parser.add_argument("--pairs", type=int, help="how many pairs (default 5)")
    parser.add_argument("--sockets", type=int, help="idle sockets of S1 and S2 (default 8000)")
    parser.add_argument("--rows", type=int, help="stored rows of S10 (default 10 million)")
    given = parser.parse_args()
    left_out = (set() if given.growth else {"S10"}) | ({"S11"} if given.quick else set())
    asked: Sequence[str] = given.only or [number for number in (*NUMBERS, WIDE) if number not in left_out]
    if set(PEERS) & set(asked):
        asked = [*asked, *PEERS]
    record = Record()
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", ignore_cleanup_errors=True) as directory:
        if len(os.sched_getaffinity(0)) < 2:
            record.remark("there is only one core: server and load share it, and no figure means much")
        scale = run(record, asked, given, Path(directory))
    console = Console(width=None if sys.stdout.isatty() else 190, highlight=False)
    console.print(table(record.samples, asked))
    if "S11" in asked:
        console.print(processor(record.samples))
    for remark in record.remarks:
        console.print(f"  ! {remark}")
    if record.disturbed:
        what, cores = max(record.disturbed.items(), key=lambda pair: pair[1])
        console.print(
            f"  ! other processes used the cores too, in {len(record.disturbed)} measurements, up to {cores:.1f}"
        )
        console.print(f"    cores ({what}): run it again on a quiet machine")
    console.print(f"  {save(record, asked, scale).relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
