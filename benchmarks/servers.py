"""Starting what is measured, and who signs in there: servers on core 0 unless told otherwise. Measures nothing."""

from __future__ import annotations

import functools
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
from typing import Any

from sqlalchemy import Connection, create_engine, insert

from gateway.auth.tokens import Keyring, parse_signing_keys
from gateway.model import CLIENT_SCOPES, GATEWAY_CLIENT, SCOPES_OF_ROLE
from gateway.store import tables

HERE = Path(__file__).parent
VENV = Path(sys.prefix)
SERVER_CORE, LOAD_CORE = 0, 1
SIGNING_KEYS = json.dumps([{"kid": "bench", "alg": "HS256", "key": secrets.token_hex(32)}])
SENDER, ADMIN = "c~bench", "bench-admin"


def pinned(core: int | None) -> Callable[[], None]:
    """For ``preexec_fn``: run on this core only (None: on any), with as many file descriptors as allowed."""

    def pin() -> None:
        import resource

        cores = sorted(os.sched_getaffinity(0))
        if core is not None:
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


def gateway(directory: Path) -> AbstractContextManager[Server]:
    """As its users start it, on the SQLite database in ``directory``."""
    return node("gateway", in_directory(directory))


def in_directory(directory: Path) -> str:
    return f"sqlite+aiosqlite:///{directory}/gateway.db"


def node(
    name: str, database_url: str, *, core: int | None = SERVER_CORE, **settings: str
) -> AbstractContextManager[Server]:
    """One node, by its settings."""
    port = free_port()
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
    return running(name, [str(VENV / "bin/gateway"), "serve"], environment, port=port, core=core)


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


def prepare(directory: Path, *, users: int, sessions: int = 1, head: int = 0) -> None:
    """A SQLite database as after ``users`` sign-ins, and a client: the schema by the gateway, the rows by hand."""
    with gateway(directory):
        pass
    engine = create_engine(f"sqlite:///{directory}/gateway.db")
    with engine.begin() as connection:
        enlist(connection, users=users, sessions=sessions, head=head)
    engine.dispose()


def enlist(connection: Connection, *, users: int, sessions: int = 1, head: int = 0) -> None:
    """Users ``u0``, ``u1``, … with so many sessions each (``s0-0``, ``s0-1``, …) and so much in the inbox; SENDER, who
    sends; ADMIN, who revokes."""
    now = int(time.time() * 1000)
    named = [(f"u{n}", "user") for n in range(users)] + [(ADMIN, "admin")]
    connection.execute(
        insert(tables.users),
        [
            {"id": id, "username": f"name of {id}", "password_hash": "!", "role": role}
            | {"disabled": False, "created_at": now}
            for id, role in named
        ],
    )
    connection.execute(
        insert(tables.inboxes),
        [{"user_id": id, "head": head, "rev": 0, "unread": head, "stored": head, "acked": 0} for id, _ in named],
    )
    connection.execute(
        insert(tables.sessions),
        [
            {"id": f"s{n}-{k}", "user_id": f"u{n}", "device": None, "address": None, "created_at": now}
            | {"refreshed_at": now, "expires_at": now + 86_400_000, "refresh_hash": b"", "generation": 0}
            | {"rotated_at": now, "cursor": 0}
            for n in range(users)
            for k in range(sessions)
        ],
    )
    connection.execute(
        insert(tables.clients),
        [
            {"client_id": SENDER, "name": "bench", "secret_hash": b"", "scopes": " ".join(CLIENT_SCOPES)}
            | {"created_at": now}
        ],
    )


def write_paths(path: Path, *, users: int | Sequence[int]) -> None:
    """One ``/ws?token=…`` a line, one user each: the first ``users``, or these."""
    path.write_text("".join(f"/ws?token={user_token(n)}\n" for n in _numbers(users)))


def write_requests(path: Path, *, target: str, users: int | Sequence[int], each: int) -> None:
    """Requests to ``target`` that go round the users; batches of ``each`` notifications, or single ones (0)."""
    meant = _numbers(users)
    with path.open("wb") as out:
        for first in range(0, max(len(meant), each), each or 1):
            items = [_notification(meant[number % len(meant)]) for number in range(first, first + (each or 1))]
            request = post(target, {"notifications": items} if each else items[0], sender_token())
            out.write(b"%d\n" % len(request) + request)


def _numbers(users: int | Sequence[int]) -> Sequence[int]:
    return range(users) if isinstance(users, int) else users


def post(target: str, body: dict[str, Any], token: str) -> bytes:
    """The bytes of one request."""
    content = json.dumps(body).encode()
    head = (
        f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def _notification(number: int) -> dict[str, Any]:
    """About 240 bytes as a frame."""
    at = "@0000000000000000000@"
    return {"user_id": f"u{number}", "title": "Order shipped", "body": "Arrives Friday", "data": {"at": at}}


@functools.cache
def _ring() -> Keyring:
    return Keyring(
        parse_signing_keys(SIGNING_KEYS),
        issuer="notification-gateway",
        audience="notification-gateway",
        max_ttl=86_400,
        leeway=5,
    )


def user_token(number: int, session: int = 0) -> str:
    """Of user ``u<number>``, signed in for the ``session``-th time."""
    return _token(f"u{number}", GATEWAY_CLIENT, SCOPES_OF_ROLE["user"], f"s{number}-{session}")


def admin_token() -> str:
    return _token(ADMIN, GATEWAY_CLIENT, SCOPES_OF_ROLE["admin"], "s-admin")


@functools.cache
def sender_token() -> str:
    return _token(SENDER, SENDER, CLIENT_SCOPES, None)


def _token(subject: str, client: str, scopes: frozenset[str], session: str | None) -> str:
    return _ring().sign(
        subject=subject,
        client_id=client,
        scopes=scopes,
        session=session,
        token_id=secrets.token_hex(13),
        now=time.time(),
        ttl=86_400,
    )
