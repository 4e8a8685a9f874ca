"""The README as its reader has it: sections, fenced blocks, a shell in the checkout that runs what is pasted there.

Ports and places of the paper become free ones of the test; what is not replaced is run as it stands.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from wire import ROOT, eventually

README = ROOT / "README.md"
BLOCK = re.compile(r"^```(sh|html)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STARTING = 60.0
"""Seconds ``make serve`` may take until it serves: a loaded machine is slow, not broken."""


def section(title: str) -> str:
    """What stands under this heading of the README."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section {title}"
    return found[1]


def blocks(language: str, text: str) -> list[str]:
    return [code for name, code in BLOCK.findall(text) if name == language]


def replaced(text: str, changes: Mapping[str, str]) -> str:
    for old, new in changes.items():
        assert old in text, f"the paper does not say {old!r} any more"
        text = text.replace(old, new)
    return text


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """That of a terminal of one's own: without what the tests, or the outer make, have put there."""
    strange = ("GATEWAY_", "NOTIFY_", "MAKE", "MFLAGS", "ARGS")
    return {name: value for name, value in os.environ.items() if not name.startswith(strange)} | dict(settings)


def run(command: str, settings: Mapping[str, str] | None = None, *, directory: Path = ROOT) -> str:
    """Paste it, wait for its end; what it wrote to stdout."""
    done = subprocess.run(
        ["bash", "-ec", command], cwd=directory, env=environment(settings or {}),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def running(
    command: str, log: Path, settings: Mapping[str, str] | None = None, *, directory: Path = ROOT, ready: str
) -> Iterator[None]:
    """Paste what goes on until Ctrl-C, which it gets at the end. Waits until it has written ``ready``."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-ec", command], cwd=directory, env=environment({"PYTHONUNBUFFERED": "1", **(settings or {})}),
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            # A runner in the background ignores SIGINT, and every child would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def is_ready() -> bool:
        assert process.poll() is None, f"{command}\nended:\n{log.read_text()[-3000:]}"
        return ready in log.read_text()

    try:
        eventually(is_ready, within=STARTING, what=f"{ready!r} of {command}")
        yield
        os.killpg(process.pid, signal.SIGINT)
        process.wait(30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
