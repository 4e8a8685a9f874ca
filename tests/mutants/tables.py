"""The generated tables of mutants, and of what the fault rows counted (docs/reliability.md). Runs nothing.

As a program it takes JUnit reports: ``make faults ARGS=--junitxml=faults.xml``, then
``python -m tests.mutants.tables faults.xml``.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from tests.mutants.run import Finding

PAPER = Path(__file__).resolve().parents[2] / "docs/reliability.md"
LONGEST = 110
COUNTED = ("attempted", "ok", "indeterminate", "received", "dup", "lost", "faults")


def put(paper: Path, name: str, table: str) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->``. Raises ValueError if that is not there."""
    text = paper.read_text(encoding="utf-8")
    between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if len(between.findall(text)) != 1:
        raise ValueError(f"{paper.name} has not one place for {name}")
    paper.write_text(between.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text), encoding="utf-8")


def pages(findings: Sequence[Finding]) -> list[tuple[str, str, list[Finding]]]:
    """(page, name of the table, what stands in it): what a row of the security requirements has seen stands there."""
    secured = [one for one in findings if one.sight.secures]
    others = [one for one in findings if not one.sight.secures]
    return [("docs/reliability.md", "mutants", others), ("docs/security.md", "security-mutants", secured)]


def of_mutants(findings: Sequence[Finding]) -> str:
    lines = ["| mutant | what it breaks | row | went red by |", "|---|---|---|---|"]
    last = None
    for one in findings:
        mutant = one.mutant
        first = ("", "") if mutant is last else (f"`{mutant.name}`", mutant.breaks)
        last = mutant
        seen = "**not caught**" if one.seen is None else told(one.seen)
        lines.append(f"| {first[0]} | {first[1]} | {row_name(one.sight.row)} | {seen} |")
    return "\n".join(lines)


def told(line: str) -> str:
    """An assertion as a cell: short, without what is another each time, and without markup of its own."""
    line = re.sub(r"\b[0-9a-f]{32}\b|\beyJ[\w.-]+", "…", line)
    line = line if len(line) <= LONGEST else line[: LONGEST - 1].rstrip() + "…"
    return "`" + line.replace("`", "'").replace("|", "¦") + "`"


def row_name(row: str) -> str:
    """Where the row stands, and what it is about: its id of the fault matrix if it has one, else its sentence."""
    file, _, name = row.partition("::")
    name, _, variant = name.partition("[")
    sentence = name.removeprefix("test_")
    found = re.match(r"((?:[A-Z]{1,4}_?\d+_)+)", sentence)
    what = f"**{found[1].rstrip('_').replace('_', '-')}**" if found else sentence.replace("_", " ")
    return f"{what}{f' ({variant[:-1]})' if variant else ''}, `{file.removeprefix('tests/')}`"


def of_rows(reports: Iterable[Path]) -> str:
    """What every row of the fault matrix counted: the sum over its seeds, and the slowest recovery."""
    runs: dict[str, list[dict[str, str]]] = defaultdict(list)
    red: dict[str, int] = defaultdict(int)
    for report in reports:
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            name = re.sub(r"seed\d+-?", "", case.get("name") or "").replace("-]", "]").removesuffix("[]")
            name = name.removeprefix("test_")
            red[name] += case.find("failure") is not None or case.find("error") is not None
            for given in case.iter("property"):
                if given.get("name") == "row":
                    runs[name].append(dict(re.findall(r"(\w+)=(\S+)", given.get("value") or "")))
    shown = ("attempted", "2xx", "unknown", "received", "again", "lost", "faults")
    lines = [f"| row | seeds | {' | '.join(shown)} | back after | red |", "|---" * (len(shown) + 4) + "|"]
    for name, counts in sorted(runs.items(), key=lambda run: _order(run[0])):
        sums = [sum(int(one.get(count, 0)) for one in counts) for count in COUNTED]
        back = [float(one["back_s"]) for one in counts if "back_s" in one]
        cells = [str(number) for number in sums]
        slowest = f"{max(back):.1f} s" if back else ""
        sentence = name.replace("_", " ").replace("[", " [")
        lines.append(f"| {sentence} | {len(counts)} | {' | '.join(cells)} | {slowest} | {red[name]} |")
    return "\n".join(lines)


def _order(name: str) -> tuple[str, int, str]:
    found = re.match(r"([A-Z]+)_?(\d+)", name)
    return (found[1], int(found[2]), name) if found else ("~", 0, name)


if __name__ == "__main__":
    put(PAPER, "rows", of_rows(Path(argument) for argument in sys.argv[1:]))
