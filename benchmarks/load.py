"""The load generator's hand, and who used the processor meanwhile. Starts no server, judges nothing."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from benchmarks.servers import HERE, LOAD_CORE, Server, pinned

_TICK = 1 / os.sysconf("SC_CLK_TCK")


class Load:
    """``benchmarks/bin/load``: one command a line, one JSON object back (see ``load.c``). ``core`` None: any."""

    def __init__(self, *, core: int | None = LOAD_CORE, first: bool = False) -> None:
        """``first``: before everybody else on its core, if this user may ask for it: the server may use that one too,
        and what is measured is when the server was done, not when the clock was looked at."""
        self._process = subprocess.Popen(
            [HERE / "bin/load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=pinned(core)
        )
        if first:
            with contextlib.suppress(PermissionError):
                os.sched_setscheduler(self._process.pid, os.SCHED_FIFO, os.sched_param(1))
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in: IO[str] = self._process.stdin
        self._out: IO[str] = self._process.stdout

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *exc: object) -> None:
        self._in.close()
        self._process.wait(10)

    @property
    def pid(self) -> int:
        return self._process.pid

    def __call__(self, command: str) -> dict[str, Any]:
        return self.begin(command)()

    def begin(self, command: str) -> Callable[[], dict[str, Any]]:
        """Send a command, and wait for its answer later: several generators then work side by side."""
        self._in.write(command + "\n")
        self._in.flush()

        def answer() -> dict[str, Any]:
            line = self._out.readline()
            if not line:
                raise SystemExit(f"the load generator ended at: {command}")
            told: dict[str, Any] = json.loads(line)
            return told

        return answer


# -- who used the processor -------------------------------------------------------------------------------------------


def _stat(pid: int | str) -> list[str]:
    """What follows the name in ``/proc/PID/stat``: state, parent, …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pid: int) -> float:
    """Of one process, its threads included."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) * _TICK


def family_of(pid: int) -> list[int]:
    """A process and its children: a PostgreSQL server is many."""
    found = [pid]
    for other in Path("/proc").iterdir():
        if other.name.isdigit():
            try:
                if int(_stat(other.name)[1]) == pid:
                    found.append(int(other.name))
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
    return found


def cpu_of_family(pid: int) -> float:
    """Of a process, its children, and the children it has buried."""
    total = 0.0
    for one in family_of(pid):
        try:
            fields = _stat(one)
        except (FileNotFoundError, ProcessLookupError):  # it has just ended: its parent has the sum
            continue
        total += sum(map(int, fields[11:15] if one == pid else fields[11:13])) * _TICK
    return total


class Used:
    """Processor seconds that each of several names used in a ``with`` block: ``Used(node=[pid], …)["node"]``."""

    def __init__(self, **families: Iterable[int]) -> None:
        self._families: Mapping[str, Sequence[int]] = {name: list(pids) for name, pids in families.items()}
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> Used:
        self._from = self._now()
        return self

    def __exit__(self, *exc: object) -> None:
        self.seconds = {name: now - self._from[name] for name, now in self._now().items()}

    def __getitem__(self, name: str) -> float:
        return self.seconds[name]

    def _now(self) -> dict[str, float]:
        found = {name: sum(map(cpu_of_family, pids)) for name, pids in self._families.items()}
        return found | {"everything": _busy_seconds(), "time": time.monotonic()}


class Watch:
    """Who used the processor in a ``with`` block, in cores: the ``server``, the ``load`` and all ``others``."""

    server = load = others = 0.0

    def __init__(self, server: Server, load: Load) -> None:
        self._server, self._load = server.pid, load.pid

    def __enter__(self) -> Watch:
        self._from = self._now()
        return self

    def __exit__(self, *exc: object) -> None:
        at, server, load, all_of_us = (end - begin for end, begin in zip(self._now(), self._from, strict=True))
        self.server, self.load, self.others = server / at, load / at, max(0.0, all_of_us - server - load) / at

    def _now(self) -> tuple[float, float, float, float]:
        return time.monotonic(), cpu_seconds(self._server), cpu_seconds(self._load), _busy_seconds()


def _busy_seconds() -> float:
    """Seconds of work of all cores since the machine started, neither idle nor waiting for a disk."""
    user, nice, system, _idle, _wait, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) * _TICK
