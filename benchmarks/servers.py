"""Starting what is measured: servers, on core 0 unless told otherwise. Measures nothing. ``people``: who signs in."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
VENV = Path(sys.prefix)
CORES = sorted(os.sched_getaffinity(0))
"""As this process found them when it began."""
SERVER_CORE, LOAD_CORE = 0, 1
SIGNING_KEYS = json.dumps([{"kid": "bench", "alg": "HS256", "key": secrets.token_hex(32)}])


def pinned(core: int | None) -> Callable[[], None]:
    """For ``preexec_fn``: run on this core only (None: on any), with as many file descriptors as allowed."""

    def pin() -> None:
        import resource

        os.sched_setaffinity(0, CORES if core is None else {CORES[core % len(CORES)]})
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    return pin


def clean_environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "PEER_"))} | more


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Server:
    name: str
    pid: int
    port: int

    def resident(self) -> int:
        """Resident memory in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running(
    name: str, command: Sequence[str], environment: Mapping[str, str], *, port: int, core: int | None = SERVER_CORE
) -> Iterator[Server]:
    """A server process that answers; ended afterwards. What it prints is shown only if it does not come up."""
    log = HERE / "bin" / f"{name.replace(' ', '-')}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL, preexec_fn=pinned(core)
        )
    try:
        deadline = time.monotonic() + 30
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name} does not come up:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)
        yield Server(name, process.pid, port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def gateway(directory: Path, *, core: int | None = SERVER_CORE) -> AbstractContextManager[Server]:
    """As its users start it, on the SQLite database in ``directory``."""
    return node("gateway", in_directory(directory), core=core)


def copied(prepared: Path) -> Path:
    """A fresh copy of a prepared database, in a directory beside it: each run begins with the same one."""
    home = Path(tempfile.mkdtemp(dir=prepared.parent))
    for file in prepared.iterdir():
        shutil.copy(file, home)
    return home


def in_directory(directory: Path) -> str:
    return f"sqlite+aiosqlite:///{directory}/gateway.db"


def node(
    name: str, database_url: str, *, core: int | None = SERVER_CORE, **settings: str
) -> AbstractContextManager[Server]:
    """One node, by its settings."""
    port = free_port()
    command, environment = command_of_node(port, database_url, **settings)
    return running(name, command, environment, port=port, core=core)


Command = tuple[Sequence[str], Mapping[str, str]]
"""Arguments and environment."""


def command_of_node(port: int, database_url: str, **settings: str) -> Command:
    environment = clean_environment(
        GATEWAY_PORT=str(port),
        GATEWAY_DATABASE_URL=database_url,
        GATEWAY_SIGNING_KEYS=SIGNING_KEYS,
        GATEWAY_ACCESS_TOKEN_TTL="86400",
        GATEWAY_BOOTSTRAP_ADMIN_PASSWORD=secrets.token_urlsafe(16),
        GATEWAY_LOG_LEVEL="warning",
        GATEWAY_DRAIN_GRACE="0",
        **{f"GATEWAY_{name.upper()}": value for name, value in settings.items()},
    )
    return [str(VENV / "bin/gateway"), "serve"], environment


def python_peer(name: str, database: Path | None) -> AbstractContextManager[Server]:
    port = free_port()
    command, environment = command_of_peer(port, database)
    return running(name, command, environment, port=port)


def command_of_peer(port: int, database: Path | None = None) -> Command:
    environment = clean_environment(PEER_SIGNING_KEYS=SIGNING_KEYS, PYTHONPATH=str(HERE.parent))
    if database is not None:
        environment["PEER_DATABASE"] = str(database)
    options = ["--ws", "websockets-sansio", "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    options += ["--log-level", "warning", "--port", str(port)]
    return [str(VENV / "bin/uvicorn"), *options, "benchmarks.peers:app"], environment


NODE_MISSING = "node ws is left out: there is no node, or npm could not install ws into benchmarks/"


def node_is_missing() -> bool:
    return not (HERE / "node_modules/ws").is_dir() or shutil.which("node") is None


def node_peer() -> AbstractContextManager[Server]:
    port = free_port()
    return running("node ws", ["node", str(HERE / "peer_ws.js"), str(port)], clean_environment(), port=port)
