"""The mutants fit the source as it is now, and only the reason counts. The trials themselves are ``make mutants``."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.mutants import tables
from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import Edit, Misfit, Mutant, Sight
from tests.mutants.run import Finding, judged, shares
from tests.mutants.trial import Outcome, Verdict, read

ROOT = Path(__file__).resolve().parents[2]
SIGHT = Sight("tests/faults/test_x.py::test_P1_x", r"^(AssertionError: )?I8: ")
MUTANT = Mutant("m", "nothing", (), [SIGHT])


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_source_and_is_still_a_program(mutant: Mutant) -> None:
    """Who changes these lines brings the mutant up to date (or finds that what it tried has become impossible)."""
    changed = mutant.changed(ROOT)
    assert changed
    assert all(file.startswith("gateway/") for file in changed)
    for text in changed.values():
        ast.parse(text)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_rows_of_a_mutant_are_there(mutant: Mutant) -> None:
    assert mutant.seen_by
    for sight in mutant.seen_by:
        assert re.search(rf"^(async )?def {sight.function}\(", (ROOT / sight.file).read_text(), re.MULTILINE), sight.row
        re.compile(sight.reason)


def test_every_mutant_has_a_name_of_its_own() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("page", "name", "of_security"), [(*page[:2], at) for at, page in enumerate(tables.pages([]))])
def test_every_mutant_stands_in_the_paper_of_its_rows_as_caught(page: str, name: str, of_security: int) -> None:
    names = [mutant.name for mutant in MUTANTS if any(sight.secures == bool(of_security) for sight in mutant.seen_by)]
    paper = (ROOT / page).read_text(encoding="utf-8")
    table = paper.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE) == names, "run: make mutants"
    assert "**not caught**" not in table


# -- an edit ---------------------------------------------------------------------------------------------------------

SOURCE = "def f():\n    return 1\n\ndef g():\n    return 1\n"


def test_a_hunk_is_read_as_a_diff_is() -> None:
    edit = Edit("f.py", "\n def f():\n-    return 1\n+    return 2\n+    # so\n")
    assert edit.applied(SOURCE) == "def f():\n    return 2\n    # so\n\ndef g():\n    return 1\n"


@pytest.mark.parametrize(
    ("hunk", "why"),
    [
        ("-    return 3\n+    return 4", "0 times"),
        ("-    return 1\n+    return 2", "2 times"),
        ("-return 1\n+return 2", "0 times"),
        (" def f():\n     return 1", "changes nothing"),
        ("def f():\n-    return 1", "begins with nothing known"),
    ],
)
def test_an_edit_that_does_not_fit_is_an_error(hunk: str, why: str) -> None:
    with pytest.raises(Misfit, match=why):
        Edit("f.py", hunk).applied(SOURCE)


def test_a_mutant_of_a_file_that_has_moved_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Misfit, match="not there"):
        Mutant("m", "", [Edit("gone.py", "-x\n+y")], [SIGHT]).changed(tmp_path)


def test_edits_of_one_file_add_up(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text(SOURCE)
    edits = [
        Edit("f.py", " def f():\n-    return 1\n+    return 2"),
        Edit("f.py", " def g():\n-    return 1\n+    pass"),
    ]
    text = Mutant("m", "", edits, [SIGHT]).changed(tmp_path)["f.py"]
    assert text == "def f():\n    return 2\n\ndef g():\n    pass\n"


# -- the judgement ---------------------------------------------------------------------------------------------------


def verdict(*outcomes: Outcome) -> Verdict:
    rows = {(SIGHT.file, f"test_P1_x[{number}]"): outcome for number, outcome in enumerate(outcomes)}
    return Verdict(rows=rows, finished=True, output="the output")


def test_red_for_the_reason_is_caught_and_the_line_is_kept() -> None:
    said = "AssertionError: I3: 5 after 3\nI8: u1 was told 7\nI8: u2 was told 7\nassert not [Violation(…)]"
    assert judged(MUTANT, SIGHT, verdict(Outcome("green"), Outcome("red", said))).seen == "I8: u1 was told 7"
    assert judged(MUTANT, SIGHT, verdict(Outcome("red", "AssertionError: I8: u1"))).seen == "I8: u1"


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("green"),
        Outcome("skipped"),
        Outcome("red", "AssertionError: the gateway ended with 1: ImportError"),
        Outcome("red", "AssertionError: I3: 5 after 3, as in I8: "),
        Outcome("error", "AssertionError: I8: u1 was told 7"),
    ],
    ids=["green", "skipped", "does not start", "another reason", "on the way to it"],
)
def test_anything_else_is_not_caught(outcome: Outcome) -> None:
    finding = judged(MUTANT, SIGHT, verdict(outcome))
    assert finding.seen is None
    assert finding.otherwise


def test_a_row_that_did_not_run_is_not_caught() -> None:
    assert "the output" in judged(MUTANT, SIGHT, verdict()).otherwise


REPORT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="tests.faults.test_x" name="test_P1_x[a]"><failure message="AssertionError: I1">x.py:1: in f
E   AssertionError: I1: u0
E   I8: u1
x.py:2: AssertionError</failure></testcase>
<testcase classname="tests.faults.test_x" name="test_P1_x[a]"><error message="and the log">…</error></testcase>
<testcase classname="tests.faults.test_x" name="test_P1_x[b]"><error message="on setup">…</error></testcase>
<testcase classname="tests.faults.test_x" name="test_P1_x[c]"><skipped message="no strace"/></testcase>
<testcase classname="tests.faults.test_x" name="test_R1_y_z[seed0-a-b]"><properties>
  <property name="row" value="test_R1_y_z[seed0] seed=1 attempted=10 ok=9 indeterminate=1 received=30 dup=2 lost=0 faults=1 back_s=0.5"/>
</properties></testcase>
<testcase classname="tests.faults.test_x" name="test_R1_y_z[a-b-seed1]"><properties>
  <property name="row" value="test_R1_y_z[seed1] seed=2 attempted=5 ok=5 indeterminate=0 received=15 dup=0 lost=0 faults=1 back_s=1.26"/>
</properties><failure message="x"/></testcase>
</testsuite></testsuites>"""  # noqa: E501


def test_a_report_of_pytest_is_read(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    rows = read(tmp_path / "report.xml")
    found = Verdict(rows=rows)
    assert [one.result for one in found.of("tests/faults/test_x.py::test_P1_x")] == ["red", "error", "skipped"]
    assert [one.said for one in found.of("tests/faults/test_x.py::test_P1_x[a]")] == ["AssertionError: I1: u0\nI8: u1"]
    assert found.of("tests/faults/test_y.py::test_P1_x") == []
    assert found.of("tests/faults/test_x.py::test_P1_x[d]") == []


def test_each_row_runs_once_on_the_unchanged_build() -> None:
    dealt = shares(MUTANTS, 2)
    assert all(dealt)
    together = [row for rows in dealt for row in rows]
    assert sorted(together) == sorted({sight.row for mutant in MUTANTS for sight in mutant.seen_by})


# -- the page ----------------------------------------------------------------------------------------------------------


def test_a_table_is_put_between_its_marks_and_nowhere_else(tmp_path: Path) -> None:
    paper = tmp_path / "paper.md"
    paper.write_text("# One\n<!-- rows -->\nold\n<!-- /rows -->\nafter\n")
    for table in ("| new |", r"| \1 |"):
        tables.put(paper, "rows", table)
        assert paper.read_text() == f"# One\n<!-- rows -->\n{table}\n<!-- /rows -->\nafter\n"
    with pytest.raises(ValueError, match="mutants"):
        tables.put(paper, "mutants", "")


def test_a_finding_is_a_row_of_the_table() -> None:
    second = Finding(MUTANT, Sight("tests/store/test_y.py::test_it_is_so[full]", "x"), None)
    table = tables.of_mutants([Finding(MUTANT, SIGHT, "I8: a | b `c` 01a1fa9e3cc37182e23b5623a4e46da8"), second])
    assert table.splitlines()[2:] == [
        "| `m` | nothing | **P1**, `faults/test_x.py` | `I8: a ¦ b 'c' …` |",
        "|  |  | it is so (full), `store/test_y.py` | **not caught** |",
    ]


def test_counts_of_a_row_are_added_over_its_seeds(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    lines = tables.of_rows([tmp_path / "report.xml"]).splitlines()
    assert lines[2:] == ["| R1 y z [a-b] | 2 | 15 | 14 | 1 | 45 | 2 | 0 | 2 | 1.3 s | 1 |"]
