"""S12: from the spawn of ``gateway serve`` on a database that exists to the first 200 of ``/readyz``. Judges nothing.

The server has core 0, who asks core 1, every two milliseconds. The looping peer beside it has no database to look at:
it is what importing such an application costs. The first start of each warms up (compiled modules, file cache).
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bars import GATEWAY, LOOP
from benchmarks.filling import in_sqlite
from benchmarks.probing import on_load_core
from benchmarks.record import Record
from benchmarks.servers import SERVER_CORE, Command, command_of_node, command_of_peer, free_port, in_directory, pinned

EVERY = 0.002
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Scale:
    """``each``: rows of one user."""

    pairs: int
    rows: int
    each: int


FULL = Scale(pairs=5, rows=100_000, each=10)
QUICK = Scale(pairs=2, rows=10_000, each=10)


def run(record: Record, scale: Scale, directory: Path) -> None:
    home = directory / "starting"
    home.mkdir()
    print(f"  starting on {scale.rows:,} rows")
    in_sqlite(home, rows=scale.rows, each=scale.each)
    with on_load_core():
        for pair in range(scale.pairs + 1):
            port = free_port()
            ours = _ready_after(command_of_node(port, in_directory(home)), port)
            port = free_port()
            theirs = _ready_after(command_of_peer(port), port)
            if pair:
                record.note("ready", GATEWAY, ours)
                record.note("ready", LOOP, theirs)


def _ready_after(command: Command, port: int) -> float:
    """Seconds. The server is ended afterwards."""
    arguments, environment = command
    began = time.monotonic()
    process = subprocess.Popen(
        arguments, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=pinned(SERVER_CORE),
    )  # fmt: skip
    try:
        while not _is_ready(port):
            if process.poll() is not None or time.monotonic() > began + PATIENCE:
                raise SystemExit(f"{arguments[0]} does not come up")
            time.sleep(EVERY)
        return time.monotonic() - began
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _is_ready(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as asking:
            asking.sendall(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            return asking.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
