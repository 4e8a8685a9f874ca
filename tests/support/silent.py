"""A gateway that can be made to fall silent just before, or just after, what a push stores is committed.

Run as a program (``silent.py GATE serve``) it is that gateway: as long as the file GATE holds the word ``before`` or
``after``, whatever is to be written to the inbox waits at that side of its transaction. Killed there, it has answered
nothing. Everything else is the gateway as it is.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wire import ROOT, Node


class SilentNode(Node):
    """``silence`` tells it to stand still from the next write on; ``waiting`` is there as soon as it does."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        super().__init__(directory, **settings)
        self.gate = directory / "gate"
        self.waiting = self.gate.with_suffix(".waiting")

    def start(self, *, wait: bool = True) -> SilentNode:
        self.gate.unlink(missing_ok=True)
        self.waiting.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), str(self.gate), "serve"], cwd=ROOT,
                env={**self.environment, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        if wait:
            self.until_ready()
        return self

    def silence(self, moment: str) -> None:
        self.gate.write_text(moment)


class _Held:
    """A database whose transactions wait, before they begin or after they have committed."""

    def __init__(self, database: Any, gate: Path) -> None:
        self._database, self._gate = database, gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def write(self, work: Callable[[Any], Any], *, grouped: bool = False) -> Any:
        await self._stand_still("before")
        result = await self._database.write(work)
        await self._stand_still("after")
        return result

    async def _stand_still(self, moment: str) -> None:
        while self._gate.exists() and self._gate.read_text() == moment:
            self._gate.with_suffix(".waiting").touch()
            await asyncio.sleep(0.005)


def _hold(gate: Path) -> None:
    from gateway.store.inbox import SqlInbox

    begin = SqlInbox.__init__

    def held(self: SqlInbox, database: Any, **more: Any) -> None:
        begin(self, _Held(database, gate), **more)

    SqlInbox.__init__ = held  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).resolve().parent))  # the support of the tests is nothing the gateway imports
    _hold(Path(sys.argv.pop(1)))
    os.environ.pop("PYTHONPATH", None)
    from gateway.cli import main

    main()
