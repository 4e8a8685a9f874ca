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
    """Replace ``old``, which must stand in ``file`` exactly once, by ``new``."""

    file: str
    old: str
    new: str

    def applied(self, source: str) -> str:
        """Raises Misfit."""
        found = source.count(self.old)
        if found != 1:
            raise Misfit(f"{self.file}: what is to be replaced is there {found} times: {self.old.strip()[:80]!r}")
        return source.replace(self.old, self.new)


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
