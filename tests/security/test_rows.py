"""Every security requirement has a test here that is named by it, and docs/security.md names exactly those tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.security import table
from tests.security.rows import GROUPS, ROWS
from tests.security.table import Witness

FOUND = list(table.witnesses(table.TESTS))
AGAIN = "run: python -m tests.security.table"


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_a_test_of_its_own_here(row: str) -> None:
    assert [test for test in FOUND if row in test.rows and test.file.startswith("security/")], ROWS[row]


def test_no_test_is_named_by_a_row_that_does_not_exist() -> None:
    assert [test for test in FOUND if not set(test.rows) <= ROWS.keys()] == []


def test_the_rows_are_numbered_without_a_hole() -> None:
    for group in GROUPS:
        numbers = [int(row.partition("-")[2]) for row in ROWS if row.partition("-")[0] == group]
        assert numbers == list(range(1, len(numbers) + 1))
    assert {row.partition("-")[0] for row in ROWS} == set(GROUPS)


def test_a_test_of_a_row_is_named_in_capitals_like_its_row() -> None:
    small = re.compile(rf"def (test_(?:{'|'.join(GROUPS).lower()})_\d\d_\w+)")
    paths = [path for path in table.HOME.glob("test_*.py") if path.name != "test_rows.py"]
    assert [name for path in paths for name in small.findall(path.read_text())] == []


def test_the_paper_names_exactly_the_tests_that_are_there_and_none_of_them_is_red() -> None:
    shown = table.shown()
    assert shown == table.of_rows(FOUND, table.shown_states(shown)), AGAIN
    states = table.shown_states(shown)
    assert states.keys() == ROWS.keys(), AGAIN
    assert set(states.values()) == {"green"}, {row: state for row, state in states.items() if state != "green"}


# -- the table itself --------------------------------------------------------------------------------------------------

SOURCE = """
async def test_TOK_01_a_token_without_a_signature(x): ...
def test_TOK_02_TOK_03_two_at_once(): ...
def test_tok_04_is_no_row(): ...
class X:
    def test_REV_99_of_a_row_that_is_none(self): ...
"""


def test_tests_are_found_by_reading(tmp_path: Path) -> None:
    (tmp_path / "auth").mkdir()
    (tmp_path / "auth/test_x.py").write_text(SOURCE)
    found = list(table.witnesses(tmp_path))
    assert [(test.file, test.rows, test.sentence) for test in found] == [
        ("auth/test_x.py", ["TOK-01"], "a token without a signature"),
        ("auth/test_x.py", ["TOK-02", "TOK-03"], "two at once"),
        ("auth/test_x.py", ["REV-99"], "of a row that is none"),
    ]


REPORT = """<testsuites><testsuite>
<testcase classname="tests.security.test_x" name="test_TOK_01_x[a]"/>
<testcase classname="tests.security.test_x" name="test_TOK_01_x[b]"><failure message="no"/></testcase>
<testcase classname="tests.security.test_x" name="test_TOK_02_x[a-b]"/>
<testcase classname="tests.security.test_x" name="test_TOK_03_x"><skipped message="no strace"/></testcase>
</testsuite></testsuites>"""


def test_of_the_variants_of_a_test_the_worst_counts(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    states = {test.name: state for test, state in table.states(tmp_path / "report.xml").items()}
    assert states == {"test_TOK_01_x": "**red**", "test_TOK_02_x": "green", "test_TOK_03_x": "**skipped**"}


def test_a_row_of_the_table_says_who_sees_it() -> None:
    found = [
        Witness("auth/test_y.py", "test_TOK_01_unit"), Witness("security/test_x.py", "test_TOK_01_one_thing"),
        Witness("security/test_x.py", "test_TOK_01_another"),
    ]  # fmt: skip
    lines = table.of_rows(found, {"TOK-01": "green"}).splitlines()
    defended = ROWS["TOK-01"]
    assert (
        f"| TOK-01 | {defended} | `security/test_x.py`: one thing; another<br>also `auth/test_y.py` | green |" in lines
    )
    assert table.shown_states("\n".join(lines))["TOK-01"] == "green"
    assert table.shown_states("\n".join(lines))["TOK-02"] == "**not run**"
