"""``make mutants``: does the suite notice? Every mutant has to turn its rows red, and the unchanged build none of them.

Writes what it found into docs/reliability.md and docs/security.md. Changes nothing else: each build is a copy that is
thrown away.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants import tables
from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import Misfit, Mutant, Sight
from tests.mutants.trial import Verdict, copy, end, run

ROOT = Path(__file__).resolve().parents[2]
WITHIN = 300.0
"""Seconds a build may take for its rows."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of a mutant at one of its rows. ``seen``: the line that gave the reason; None: it was not caught."""

    mutant: Mutant
    sight: Sight
    seen: str | None
    otherwise: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make mutants ARGS=…", description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutants whose name has one of these words; the page stays")
    parser.add_argument("--jobs", type=int, default=2, help="builds on trial at the same time (default: 2)")
    parser.add_argument("--no-baseline", action="store_true", help="do not run the rows on the unchanged build")
    parser.add_argument("--keep", action="store_true", help="keep the copies, and say where")
    given = parser.parse_args(arguments)
    chosen = [one for one in MUTANTS if not given.words or any(word in one.name for word in given.words)]
    began, place = time.monotonic(), Path(tempfile.mkdtemp(prefix="gw-mutants-"))
    try:
        source = place / "source"
        copy(ROOT, source, {})  # whoever edits the checkout meanwhile changes nothing here
        changed = {one.name: one.changed(source) for one in chosen}
        with ThreadPoolExecutor(given.jobs) as pool, let_go(pool, place):
            baselines = [] if given.no_baseline else [
                pool.submit(unchanged, source, place / f"unchanged{number}", rows)
                for number, rows in enumerate(shares(chosen, given.jobs)) if rows
            ]  # fmt: skip
            trials = [pool.submit(trial, source, place / one.name, one, changed[one.name]) for one in chosen]
            strange = [line for baseline in baselines for line in baseline.result()]
            findings = [finding for one in trials for finding in one.result()]
    except KeyboardInterrupt:
        return 130
    except Misfit as misfit:
        say(f"a mutant does not fit the source any more: {misfit}")
        return 1
    finally:
        if given.keep:
            say(f"the copies are in {place}")
        else:
            shutil.rmtree(place, ignore_errors=True)
    for line in strange:
        say(f"NOT GREEN without any change: {line}")
    survived = [one for one in findings if one.seen is None]
    if not given.words and not strange and not given.no_baseline:
        for page, name, shown in tables.pages(findings):
            tables.put(ROOT / page, name, tables.of_mutants(shown))
    say(
        f"{len(chosen)} mutants at {len(findings)} rows in {time.monotonic() - began:.0f} s:"
        f" {len(findings) - len(survived)} caught, {len(survived)} not"
    )
    return 1 if strange or survived else 0


@contextlib.contextmanager
def let_go(pool: ThreadPoolExecutor, place: Path) -> Iterator[None]:
    """If the block fails or is interrupted, no trial begins any more, and those under way are ended."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        end(place)
        raise


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def shares(mutants: Sequence[Mutant], count: int) -> list[list[str]]:
    """Every row that any mutant names, once, dealt out by file."""
    rows = dict.fromkeys(sight.row for one in mutants for sight in one.seen_by)
    files = list(dict.fromkeys(row.partition("::")[0] for row in rows))
    return [[row for row in rows if files.index(row.partition("::")[0]) % count == number] for number in range(count)]


def unchanged(source: Path, place: Path, rows: Sequence[str]) -> list[str]:
    """What is not green in the build as it is."""
    copy(source, place, {})
    verdict = run(place, rows, within=3 * WITHIN)
    strange = [] if verdict.finished else [f"pytest did not come to its end: {verdict.output[-2000:]}"]
    for row in rows:
        outcomes = verdict.of(row)
        if not outcomes:
            strange.append(f"{row}: there is no such row")
        strange += [f"{row}: {one.result}: {one.said[:500]}" for one in outcomes if one.result != "green"]
    return strange


def trial(source: Path, place: Path, mutant: Mutant, changed: dict[str, str]) -> list[Finding]:
    copy(source, place, changed)
    began = time.monotonic()
    verdict = run(place, list(dict.fromkeys(sight.row for sight in mutant.seen_by)), within=WITHIN)
    findings = [judged(mutant, sight, verdict) for sight in mutant.seen_by]
    for one in findings:
        what = f"red: {one.seen}" if one.seen else f"NOT CAUGHT ({one.otherwise})"
        say(f"{mutant.name:<28} {time.monotonic() - began:4.0f} s  {one.sight.function[5:60]}: {what[:200]}")
    return findings


def judged(mutant: Mutant, sight: Sight, verdict: Verdict) -> Finding:
    """Caught, if a variant of the row failed (in the test, not on the way to it) and said the reason."""
    outcomes = verdict.of(sight.row)
    for outcome in outcomes:
        if outcome.result == "red" and (seen := sight.seen(outcome.said)):
            return Finding(mutant, sight, seen)
    if not outcomes:
        why = "it did not run" if verdict.finished else "it did not come to its end"
        return Finding(mutant, sight, None, f"{why}: {verdict.output[-1500:]}")
    said = " / ".join(f"{one.result} {one.said[:600]}".strip() for one in outcomes)
    return Finding(mutant, sight, None, said)


if __name__ == "__main__":
    sys.exit(main())
