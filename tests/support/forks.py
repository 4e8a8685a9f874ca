"""Gateways that start in a fraction of a second: forked from a process that has imported everything. Shares no memory.

An import costs a second of processor, and the suite starts hundreds of processes. What runs is ``gateway.cli.main``
with the arguments, environment and files of its own, in a real process: it is killed, stopped and waited for like any
other. Only /proc shows the command line and the environment of the process it was forked from.

Run as a program it is the process that forks; it answers lines of JSON and ends when its stdin does.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

_PR_SET_PDEATHSIG = 1
ROOT = Path(__file__).resolve().parents[2]


class Forked:
    """One process: the part of ``subprocess.Popen`` that a Node uses."""

    def __init__(self, forks: Forks, pid: int) -> None:
        self._forks, self.pid, self.returncode = forks, pid, cast("int | None", None)
        self._turn = threading.Lock()

    def poll(self) -> int | None:
        with self._turn:  # how it ended is told once
            if self.returncode is None:
                self.returncode = self._forks.ask(do="poll", pid=self.pid)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # another thread has just been told of its end
                descriptor = os.pidfd_open(self.pid)
                try:
                    waiting = select.poll()
                    waiting.register(descriptor, select.POLLIN)
                    waiting.poll(None if timeout is None else timeout * 1000)
                finally:
                    os.close(descriptor)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("gateway", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """The process that forks, and what is asked of it. Threads may ask at the same time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._turn = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip

    def ask(self, **what: Any) -> Any:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with self._turn:
            process.stdin.write(json.dumps(what).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        assert line, "the process that forks is gone"
        return json.loads(line)

    def start(
        self,
        *arguments: str,
        environment: Mapping[str, str],
        out: Path,
        err: Path | None = None,
        cwd: Path | None = None,
        given: Path | None = None,
    ) -> Forked:
        """``gateway <arguments>``, its output appended to files; ``given`` is its stdin."""
        pid = self.ask(
            do="start", arguments=arguments, environment=dict(environment), out=str(out), err=str(err or out),
            cwd=str(cwd or self._root), given=str(given or os.devnull),
        )  # fmt: skip
        return Forked(self, int(pid))

    def run(
        self,
        *arguments: str,
        environment: Mapping[str, str],
        cwd: Path | None = None,
        input: str = "",
        within: float = 30,
    ) -> tuple[int, str, str]:
        """Run one command to its end: exit status, stdout, stderr. ``input``: what it can read from its stdin."""
        with tempfile.TemporaryDirectory() as directory:
            out, err, given = Path(directory, "out"), Path(directory, "err"), Path(directory, "given")
            given.write_text(input)
            process = self.start(*arguments, environment=environment, out=out, err=err, cwd=cwd, given=given)
            try:
                code = process.wait(within)
            finally:
                process.kill()
            return code, out.read_text(), err.read_text()

    def end(self) -> None:
        """What was forked and still runs dies with it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


_shared: list[Forks] = []


def shared() -> Forks:
    """The one of this run, started when it is first wanted."""
    if not _shared:
        _shared.append(Forks(ROOT))
    return _shared[0]


def end_shared() -> None:
    while _shared:
        _shared.pop().end()


def _become(arguments: Sequence[str], environment: Mapping[str, str], out: str, err: str, cwd: str, given: str) -> None:
    """In the child: put on the environment of a process of its own, and run the command."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for path, number, flags in (
        (given, 0, os.O_RDONLY),
        (out, 1, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        (err, 2, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ):
        descriptor = os.open(path, flags, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = os.fdopen(0)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["gateway", *arguments]
    cast("Any", sys.stdout).reconfigure(write_through=True)
    from gateway.cli import main

    main()


def _serve() -> None:
    import uvloop  # noqa: F401 - whatever a command would import later, it finds here

    import gateway.app
    import gateway.cli
    import gateway.store.maintenance  # noqa: F401

    gc.collect()
    gc.freeze()  # a collection in a child, above all the one at its end, would copy every page it shares
    for line in sys.stdin:
        asked = json.loads(line)
        answer: int | None
        if asked.pop("do") == "poll":
            pid, status = os.waitpid(asked["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                _become(**asked)
                return
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
