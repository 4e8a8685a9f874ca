"""One build on trial: a copy of the gateway and its tests, rows run in it, what became of each. Judges nothing.

Everything a trial starts lies in its own directory or carries its name in TMPDIR, so it can be found and ended.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

COPIED = ("gateway", "clients", "tests", "migrations", "pyproject.toml", "alembic.ini")
GRACE = 20.0
"""Seconds in which a trial that took too long may take down what it has started."""

Result = Literal["green", "red", "error", "skipped"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one row did. ``said``: the text of the failed assertion."""

    result: Result
    said: str = ""


@dataclass(slots=True)
class Verdict:
    """``rows``: by file and test name, parameters included. ``finished``: pytest came to its end by itself."""

    rows: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    finished: bool = False
    output: str = ""

    def of(self, row: str) -> list[Outcome]:
        """The outcomes of a row: of all its variants, if no parameters are named."""
        file, _, name = row.partition("::")
        return [
            outcome for (where, test), outcome in self.rows.items()
            if where == file and (test == name or test.partition("[")[0] == name)
        ]  # fmt: skip


def copy(root: Path, place: Path, changed: Mapping[str, str]) -> None:
    """Make ``place`` a copy of the repository at ``root`` with these files changed."""
    place.mkdir(parents=True)
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy(source, place / name)
    for file, text in changed.items():
        (place / file).write_text(text, encoding="utf-8")


def run(place: Path, rows: Sequence[str], *, within: float) -> Verdict:
    """Run ``rows`` of the copy in ``place`` for at most ``within`` seconds. Nothing it started is left afterwards."""
    temporary, report = place / "tmp", place / "report.xml"
    temporary.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "COV_", "PYTEST_"))},
        "PYTHONPATH": str(place),  # before the line in .venv that puts the checkout on the path
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(temporary),
    }
    with contextlib.ExitStack() as stack:
        stack.callback(end, temporary)
        where = subprocess.run(
            [sys.executable, "-c", "import gateway; print(gateway.__file__)"], cwd=place, env=environment, text=True,
            capture_output=True, check=False,
        ).stdout.strip()  # fmt: skip
        if where and not Path(where).is_relative_to(place):
            raise RuntimeError(f"the copy in {place} is not what is imported, but {where}")
        command = [
            sys.executable, "-m", "pytest", "-vv", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=short",
            f"--basetemp={temporary / 'pytest'}", f"--junitxml={report}", *rows,
        ]  # fmt: skip
        output = place / "output"
        with output.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
            finished = _waited(process, within)
    verdict = Verdict(finished=finished, output=output.read_text(errors="replace"))
    if report.exists():
        verdict.rows = read(report)
    return verdict


def _waited(process: subprocess.Popen[bytes], within: float) -> bool:
    """Whether it came to its end. Else it is interrupted, so that its fixtures still run, and then killed."""
    for seconds, number in ((within, signal.SIGINT), (GRACE, signal.SIGKILL), (GRACE, signal.SIGKILL)):
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        else:
            return process.returncode in (0, 1)
    return False


def end(place: Path) -> None:
    """Kill whatever was started from under ``place``, also what has gone into a session of its own."""
    for _ in range(50):
        left = list(_belonging(place))
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _belonging(place: Path) -> Iterator[int]:
    """Processes that have the directory in their environment, or stand in it."""
    mark = os.fsencode(place)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                stands = os.fsencode(os.readlink(entry / "cwd"))
                if stands.startswith(mark) or mark in (entry / "environ").read_bytes():
                    yield int(entry.name)


def read(report: Path) -> dict[tuple[str, str], Outcome]:
    """What a JUnit report of pytest says of each test."""
    rows: dict[tuple[str, str], Outcome] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        file = (case.get("classname") or "").replace(".", "/") + ".py"
        outcome = Outcome("green")
        for child in case:
            if child.tag == "failure":
                outcome = Outcome("red", _said(child))
            elif child.tag == "error" and outcome.result == "green":
                outcome = Outcome("error", child.get("message") or "")
            elif child.tag == "skipped":
                outcome = Outcome("skipped", child.get("message") or "")
        key = (file, case.get("name") or "")
        if key not in rows or rows[key].result != "red":  # an error on the way out comes as a second case
            rows[key] = outcome
    return rows


def _said(failure: ElementTree.Element) -> str:
    """What was raised, whole: the attribute holds the beginning only, the text marks it with an E."""
    lines = [line[4:] for line in (failure.text or "").splitlines() if line.startswith("E   ")]
    return "\n".join(lines) or failure.get("message") or ""
