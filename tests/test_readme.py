"""The papers can be pasted: every ``console`` block of README and docs/api.md, run as printed. Asserts no wording else.

A block is what one would see: a prompt, a command, its output. Ids, times and secrets differ from run to run; where one
of the paper is met in an output, the one of this run takes its place in every later command.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from wire import Node, eventually

from gateway.settings import read_settings, setting_names

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT = re.compile(r"^([a-z]*\$) (.*)$")
VOLATILE = re.compile(
    r"(?P<client>c~[0-9a-f]{32})|(?P<secret>\b[A-Za-z0-9_-]{43}\b)|(?P<id>\b[0-9a-f]{32}\b)"
    r"|(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)"
)
URL = "http://127.0.0.1:8000"
DONE = "-- done"
CONFIGURATION = ROOT / "docs" / "configuration.md"


class Terminal:
    """A shell that is typed into; what it shows is kept in a file."""

    def __init__(self, directory: Path, name: str, environment: dict[str, str]) -> None:
        self._shown = directory / f"terminal-{name}"
        with self._shown.open("wb") as shown:
            self._shell = subprocess.Popen(
                ["bash", "--norc"],
                stdin=subprocess.PIPE,
                stdout=shown,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=environment,
                text=True,
                # A runner in the background ignores SIGINT, and every child would inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self._read = 0

    def type(self, line: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{line}\necho; echo {shlex.quote(DONE)}\n")
        self._shell.stdin.flush()

    def interrupt(self) -> None:
        """Ctrl-C: to the command in the foreground, not to the shell."""
        children = Path(f"/proc/{self._shell.pid}/task/{self._shell.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGINT)

    def lines(self, amount: int) -> list[str]:
        """The next ``amount`` lines of output; fewer if the command ends before."""

        def enough() -> list[str] | None:
            new = self._shown.read_text()[self._read :]
            complete = new[: new.rfind("\n") + 1].splitlines()
            return complete if len(complete) >= amount or DONE in complete else None

        found: list[str] = eventually(enough, within=30, what=f"{amount} more lines of {self._shown.name}")
        taken = found[:amount]
        self._read += sum(len(line) + 1 for line in taken)
        return taken

    def rest(self) -> list[str]:
        """All that is still to come of the command, until it has ended."""
        new: str = eventually(
            lambda: text if f"\n{DONE}\n" in (text := "\n" + self._shown.read_text()[self._read :]) else "",
            within=30,
            what=f"the end of a command in {self._shown.name}",
        )
        text, end, _ = new.partition(f"\n{DONE}\n")
        self._read += len(text) - 1 + len(end)
        return [line for line in text.splitlines() if line]

    def close(self) -> None:
        self.interrupt()
        self._shell.communicate(timeout=20)


class Paper:
    """Runs the blocks of one paper in the order they stand."""

    def __init__(self, node: Node, directory: Path) -> None:
        self._node, self._directory = node, directory
        self._here: dict[str, str] = {URL: node.url}
        self._terminals: dict[str, Terminal] = {}
        self._listening: Terminal | None = None
        """In this one a command goes on after what its block shows of it."""
        (directory / "var").mkdir()
        script = directory / "bin" / "gateway"
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m gateway "$@"\n')
        script.chmod(0o755)
        kept = {name: value for name, value in node.environment.items() if not name.startswith("NOTIFY_")}
        path = f"{script.parent}:{kept['PATH']}"
        self._environment = {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "NOTIFY_URL": node.url, "TERM": "dumb"}

    def run(self, block: str) -> None:
        lines = block.replace("\\\n", "").splitlines()
        if not PROMPT.match(lines[0]):
            assert self._listening is not None, f"whose output is this?\n{block}"
            self._expect(self._listening, lines)
            return
        while lines:
            prompt = PROMPT.match(lines.pop(0))
            assert prompt is not None
            terminal = self._terminal(prompt[1])
            output = []
            while lines and not PROMPT.match(lines[0]):
                output.append(lines.pop(0))
            if prompt[2] == "^C":
                terminal.interrupt()
                assert terminal.rest() == [], "Ctrl-C ends it quietly"
                self._listening = None
                continue
            terminal.type(self._replaced(prompt[2]))
            self._expect(terminal, output)
            if prompt[2].startswith("gateway listen"):
                self._listening = terminal
            else:
                left = terminal.rest()
                assert left == [], f"{prompt[2]}\nalso said:\n" + "\n".join(left)

    def _terminal(self, name: str) -> Terminal:
        if name not in self._terminals:
            self._terminals[name] = Terminal(self._directory, name.rstrip("$"), self._environment)
        return self._terminals[name]

    def _expect(self, terminal: Terminal, written: list[str]) -> None:
        shown = terminal.lines(len(written))
        assert list(map(self._shape, shown)) == list(map(self._shape, written)), "\n".join(shown)
        for old, new in zip(VOLATILE.finditer("\n".join(written)), VOLATILE.finditer("\n".join(shown)), strict=True):
            assert self._here.setdefault(old[0], new[0]) == new[0] or old.lastgroup == "time", f"{old[0]} is two things"

    def _replaced(self, command: str) -> str:
        for old, new in self._here.items():
            command = command.replace(old, new)
        return command

    @staticmethod
    def _shape(line: str) -> str:
        return VOLATILE.sub(lambda found: f"<{found.lastgroup}>", line)

    def close(self) -> None:
        for terminal in self._terminals.values():
            terminal.close()


@pytest.fixture
def paper(tmp_path: Path) -> Iterator[Paper]:
    node = Node(tmp_path, log_level="info").start()
    paper = Paper(node, tmp_path)
    yield paper
    paper.close()
    assert node.stop() == 0
    assert "Traceback" not in node.log_text(), node.log_text()[-5000:]


@pytest.mark.parametrize(("name", "least"), [("README.md", 8), ("docs/api.md", 5)])
def test_what_the_paper_shows_is_what_happens(paper: Paper, name: str, least: int) -> None:
    blocks = BLOCK.findall((ROOT / name).read_text(encoding="utf-8"))
    assert len(blocks) >= least
    for block in blocks:
        paper.run(block)


def test_every_setting_stands_in_its_paper_with_its_default() -> None:
    rows = re.findall(
        r"^\| `(GATEWAY_[A-Z_]+)` \| (?:`(.*?)`|unset) \|", CONFIGURATION.read_text("utf-8"), re.MULTILINE
    )
    assert [name for name, _ in rows] == setting_names()
    assert read_settings(dict(rows)) == read_settings({})
    example = re.findall(r"^#(GATEWAY_[A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE)
    assert rows == example


def test_every_link_between_the_papers_leads_somewhere() -> None:
    papers = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    links = [
        (paper.parent / target).resolve()
        for paper in papers
        for target in re.findall(r"\]\((?!\w+://)([^)#]+)", paper.read_text(encoding="utf-8"))
    ]
    assert len(links) >= 8
    assert [str(link.relative_to(ROOT)) for link in links if not link.exists()] == []
