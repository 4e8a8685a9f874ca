"""The table id → tests → state in docs/security.md. Runs nothing: the state is that of a JUnit report.

``pytest tests/security --junitxml=security.xml``, then ``python -m tests.security.table security.xml``. Without a
report the tests are listed anew and every row keeps the state it has.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.mutants.tables import put
from tests.security.rows import GROUPS, ROWS

TESTS = Path(__file__).resolve().parents[1]
HOME = TESTS / "security"
PAPER = TESTS.parent / "docs/security.md"
NAME = "rows"

_IDS = re.compile(rf"test_((?:(?:{'|'.join(GROUPS)})_\d+_)+)")
_ROW = re.compile(r"^\| ([A-Z]+-\d+) \|.*\| ([^|]+) \|$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Witness:
    """A test that is named by rows. ``file``: relative to ``tests/``."""

    file: str
    name: str

    @property
    def rows(self) -> list[str]:
        """Its ids, whether they exist or not."""
        named = _IDS.match(self.name)
        return [] if named is None else [f"{one}-{number}" for one, number in re.findall(r"([A-Z]+)_(\d+)_", named[1])]

    @property
    def sentence(self) -> str:
        return _IDS.sub("", self.name).replace("_", " ")


def witnesses(root: Path) -> Iterator[Witness]:
    """Every test below ``root`` that is named by an id, by reading the files."""
    for path in sorted(root.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _IDS.match(node.name):
                yield Witness(path.relative_to(root).as_posix(), node.name)


def states(report: Path) -> dict[Witness, str]:
    """What became of each test, its variants taken together: the worst of them counts."""
    found: dict[Witness, set[str]] = defaultdict(set)
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        file = (case.get("classname") or "").removeprefix("tests.").replace(".", "/") + ".py"
        test = Witness(file, (case.get("name") or "").partition("[")[0])
        red = case.find("failure") is not None or case.find("error") is not None
        found[test].add("red" if red else "skipped" if case.find("skipped") is not None else "green")
    return {test: worst(results) for test, results in found.items()}


def worst(results: set[str]) -> str:
    for one in ("red", "not run", "skipped"):
        if one in results:
            return f"**{one}**"
    return "green"


def of_rows(found: Sequence[Witness], states: Mapping[str, str]) -> str:
    """A table per group. ``states``: by row; a row that is not in it has not been run."""
    lines: list[str] = []
    for group, title in GROUPS.items():
        lines += ["", f"### {group}: {title}", "", "| id | what is defended | seen by | state |", "|---|---|---|---|"]
        for row, defended in ROWS.items():
            if row.partition("-")[0] == group:
                lines.append(f"| {row} | {defended} | {seen_by(row, found)} | {states.get(row, worst({'not run'}))} |")
    return "\n".join(lines[1:])


def seen_by(row: str, found: Sequence[Witness]) -> str:
    """The tests of a row by file, what stands in this directory as sentences; then the files of others."""
    sentences: dict[str, list[str]] = defaultdict(list)
    others: dict[str, None] = {}
    for test in found:
        if row in test.rows:
            if test.file.startswith("security/"):
                sentences[test.file].append(test.sentence)
            else:
                others[f"`{test.file}`"] = None
    cells = [f"`{file}`: {'; '.join(names)}" for file, names in sentences.items()]
    return "<br>".join([*cells, *([f"also {', '.join(others)}"] if others else [])])


def shown(paper: Path = PAPER) -> str:
    """The table as it stands in the paper."""
    return paper.read_text(encoding="utf-8").partition(f"<!-- {NAME} -->\n")[2].partition(f"\n<!-- /{NAME} -->")[0]


def shown_states(table: str) -> dict[str, str]:
    return {row: state for row, state in _ROW.findall(table) if row in ROWS}


def main(arguments: Sequence[str]) -> None:
    found = list(witnesses(TESTS))
    if not arguments:
        by_row = shown_states(shown())
    else:
        by_test = {test: state for report in arguments for test, state in states(Path(report)).items()}
        by_row = {}
        for row in ROWS:
            results = [
                by_test.get(test, "not run").strip("*")
                for test in found if row in test.rows and test.file.startswith("security/")
            ]  # fmt: skip
            by_row[row] = worst(set(results) or {"not run"})
    put(PAPER, NAME, of_rows(found, by_row))


if __name__ == "__main__":
    main(sys.argv[1:])
