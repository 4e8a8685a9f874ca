"""Starting what is measured and what measures: servers on core 0, the load on core 1. Measures nothing itself."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sqlalchemy import create_engine, insert

from gateway.auth.tokens import Keyring, parse_signing_keys
from gateway.model import CLIENT_SCOPES, GATEWAY_CLIENT, SCOPES_OF_ROLE
from gateway.store import tables

HERE = Path(__file__).parent
VENV = Path(sys.prefix)
SERVER_CORE, LOAD_CORE = 0, 1
SIGNING_KEYS = json.dumps([{"kid": "bench", "alg": "HS256", "key": secrets.token_hex(32)}])
SENDER = "c~bench"


def pinned(core: int) -> Callable[[], None]:
    """For ``preexec_fn``: run on this core only, with as many file descriptors as allowed."""

    def pin() -> None:
        import resource

        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[core % len(cores)]})
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


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    name: str
    pid: int
    port: int

    def resident(self) -> int:
        """Resident memory in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running(name: str, command: Sequence[str], environment: Mapping[str, str], *, port: int) -> Iterator[Server]:
    """A server process that answers; ended afterwards. What it prints is shown only if it does not come up."""
    log = HERE / "bin" / f"{name.replace(' ', '-')}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL, preexec_fn=pinned(SERVER_CORE)
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


def gateway(directory: Path) -> AbstractContextManager[Server]:
    """As its users start it, on the database in ``directory``."""
    port = free_port()
    environment = clean_environment(
        GATEWAY_PORT=str(port),
        GATEWAY_DATABASE_URL=f"sqlite+aiosqlite:///{directory}/gateway.db",
        GATEWAY_SIGNING_KEYS=SIGNING_KEYS,
        GATEWAY_ACCESS_TOKEN_TTL="86400",
        GATEWAY_BOOTSTRAP_ADMIN_PASSWORD=secrets.token_urlsafe(16),
        GATEWAY_LOG_LEVEL="warning",
        GATEWAY_DRAIN_GRACE="0",
    )
    return running("gateway", [str(VENV / "bin/gateway"), "serve"], environment, port=port)


def python_peer(name: str, database: Path | None) -> AbstractContextManager[Server]:
    port = free_port()
    environment = clean_environment(PEER_SIGNING_KEYS=SIGNING_KEYS, PYTHONPATH=str(HERE.parent))
    if database is not None:
        environment["PEER_DATABASE"] = str(database)
    options = ["--ws", "websockets-sansio", "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    options += ["--log-level", "warning", "--port", str(port)]
    return running(name, [str(VENV / "bin/uvicorn"), *options, "benchmarks.peers:app"], environment, port=port)


def node_peer() -> AbstractContextManager[Server]:
    port = free_port()
    return running("node ws", ["node", str(HERE / "peer_ws.js"), str(port)], clean_environment(), port=port)


# -- who signs in ----------------------------------------------------------------------------------------------------


def prepare(directory: Path, *, users: int) -> None:
    """A database as after ``users`` sign-ins, and a client: the schema by the gateway, the rows by hand."""
    with gateway(directory):
        pass
    now = int(time.time() * 1000)
    numbers = range(users)
    engine = create_engine(f"sqlite:///{directory}/gateway.db")
    with engine.begin() as connection:
        connection.execute(
            insert(tables.users),
            [
                {"id": f"u{n}", "username": f"user {n}", "password_hash": "!", "role": "user"}
                | {"disabled": False, "created_at": now}
                for n in numbers
            ],
        )
        connection.execute(
            insert(tables.inboxes),
            [{"user_id": f"u{n}", "head": 0, "rev": 0, "unread": 0, "stored": 0, "acked": 0} for n in numbers],
        )
        connection.execute(
            insert(tables.sessions),
            [
                {"id": f"s{n}", "user_id": f"u{n}", "device": None, "address": None, "created_at": now}
                | {"refreshed_at": now, "expires_at": now + 86_400_000, "refresh_hash": b"", "generation": 0}
                | {"rotated_at": now, "cursor": 0}
                for n in numbers
            ],
        )
        connection.execute(
            insert(tables.clients),
            [
                {"client_id": SENDER, "name": "bench", "secret_hash": b"", "scopes": " ".join(CLIENT_SCOPES)}
                | {"created_at": now}
            ],
        )
    engine.dispose()


def write_paths(path: Path, *, users: int) -> None:
    """One ``/ws?token=…`` a line, one user each."""
    ring = _ring()
    path.write_text("".join(f"/ws?token={_token(ring, f'u{n}', f's{n}')}\n" for n in range(users)))


def write_requests(path: Path, *, target: str, users: int, each: int) -> None:
    """Requests to ``target`` that go round all users; batches of ``each`` notifications, or single ones (0)."""
    token = _token(_ring(), SENDER, None)
    with path.open("wb") as out:
        for first in range(0, max(users, each), each or 1):
            items = [_notification(number % users) for number in range(first, first + (each or 1))]
            body = json.dumps({"notifications": items} if each else items[0]).encode()
            head = (
                f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            ).encode()
            out.write(b"%d\n" % (len(head) + len(body)) + head + body)


def _notification(number: int) -> dict[str, Any]:
    """About 240 bytes as a frame."""
    at = "@0000000000000000000@"
    return {"user_id": f"u{number}", "title": "Order shipped", "body": "Arrives Friday", "data": {"at": at}}


def _ring() -> Keyring:
    return Keyring(
        parse_signing_keys(SIGNING_KEYS),
        issuer="notification-gateway",
        audience="notification-gateway",
        max_ttl=86_400,
        leeway=5,
    )


def _token(ring: Keyring, subject: str, session: str | None) -> str:
    return ring.sign(
        subject=subject,
        client_id=SENDER if session is None else GATEWAY_CLIENT,
        scopes=CLIENT_SCOPES if session is None else SCOPES_OF_ROLE["user"],
        session=session,
        token_id=secrets.token_hex(13),
        now=time.time(),
        ttl=86_400,
    )


# -- the load --------------------------------------------------------------------------------------------------------


class Load:
    """``benchmarks/bin/load``: one command a line, one JSON object back (see ``load.c``)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [HERE / "bin/load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=pinned(LOAD_CORE)
        )
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
        self._in.write(command + "\n")
        self._in.flush()
        line = self._out.readline()
        if not line:
            raise SystemExit(f"the load generator ended at: {command}")
        answer: dict[str, Any] = json.loads(line)
        return answer


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
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
