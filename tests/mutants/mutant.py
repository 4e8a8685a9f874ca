"""What a mutant is: a named, exact edit of the gateway, and the rows that have to see it. Runs nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class Misfit(Exception):
    """An edit that does not fit the source as it is now. A mutant that changes nothing would survive unnoticed."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of ``file``, written as a diff is: lines that begin with ``-`` go, with ``+`` come, with a space stay;
    an empty one is an empty line. What goes and stays must stand in the file exactly once."""

    file: str
    hunk: str

    @property
    def old(self) -> str:
        return self._without("+")

    @property
    def new(self) -> str:
        return self._without("-")

    def _without(self, mark: str) -> str:
        lines = self.hunk.strip("\n").split("\n")
        strange = [line for line in lines if line and line[0] not in " +-"]
        if strange:
            raise Misfit(f"{self.file}: a line of a hunk begins with nothing known: {strange[0]!r}")
        return "".join(f"{line[1:]}\n" for line in lines if not line.startswith(mark))

    def applied(self, source: str) -> str:
        """Raises Misfit."""
        old, new = self.old, self.new
        found = f"\n{source}".count(f"\n{old}")
        if found != 1:
            raise Misfit(f"{self.file}: what is to be changed is there {found} times:\n{old}")
        if old == new:
            raise Misfit(f"{self.file}: a hunk that changes nothing:\n{old}")
        return f"\n{source}".replace(f"\n{old}", f"\n{new}")[1:]


@dataclass(frozen=True, slots=True)
class Sight:
    """A row that has to go red, and the reason (a regular expression, found in what the assertion says). Another
    reason does not count: a build that does not even start makes every row red."""

    row: str
    reason: str

    @property
    def file(self) -> str:
        return self.row.partition("::")[0]

    @property
    def function(self) -> str:
        """The name of the test, without its parameters."""
        return self.row.partition("::")[2].partition("[")[0]

    @property
    def secures(self) -> bool:
        """Whether it is a row of the security requirements."""
        return self.row.startswith("tests/security/")

    def seen(self, said: str) -> str | None:
        """The line of the failure that gives the reason, if it is the one."""
        found = re.search(self.reason, said, re.MULTILINE)
        if found is None:
            return None
        start = said.rfind("\n", 0, found.start()) + 1
        return said[start:].partition("\n")[0].removeprefix("AssertionError: ").strip()


@dataclass(frozen=True, slots=True)
class Mutant:
    """``breaks``: what a user would lose, in a few words. Every one of ``seen_by`` has to go red."""

    name: str
    breaks: str
    edits: Sequence[Edit]
    seen_by: Sequence[Sight]

    def changed(self, root: Path) -> dict[str, str]:
        """file → its text under ``root`` with all edits made. Raises Misfit."""
        texts: dict[str, str] = {}
        for edit in self.edits:
            path = root / edit.file
            if not path.is_file():
                raise Misfit(f"{edit.file} is not there")
            texts[edit.file] = edit.applied(texts.get(edit.file) or path.read_text(encoding="utf-8"))
        return texts
