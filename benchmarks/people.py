"""Who signs in to what is measured, and what they ask for: rows, tokens, the bytes of requests. Measures nothing."""

from __future__ import annotations

import functools
import json
import secrets
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, insert

from benchmarks.servers import SIGNING_KEYS, Server, gateway
from gateway.auth.tokens import Keyring, parse_signing_keys
from gateway.model import CLIENT_SCOPES, GATEWAY_CLIENT, SCOPES_OF_ROLE
from gateway.store import tables

MARK = "@0000000000000000000@"
"""Where the load generator writes the time (``load.c``)."""
LIFE = 86_400
"""Seconds that a token is good for."""
SENDER, ADMIN = "c~bench", "bench-admin"


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
    return raw_post(target, json.dumps(body).encode(), token)


def raw_post(target: str, content: bytes, token: str) -> bytes:
    head = (
        f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def _notification(number: int) -> dict[str, Any]:
    """About 240 bytes as a frame."""
    return {"user_id": f"u{number}", "title": "Order shipped", "body": "Arrives Friday", "data": {"at": MARK}}


@functools.cache
def _ring() -> Keyring:
    return Keyring(
        parse_signing_keys(SIGNING_KEYS),
        issuer="notification-gateway",
        audience="notification-gateway",
        max_ttl=LIFE,
        leeway=5,
    )


def user_token(number: int, session: int = 0, *, ttl: int = LIFE) -> str:
    """Of user ``u<number>``, signed in for the ``session``-th time; good for ``ttl`` seconds."""
    return _token(f"u{number}", GATEWAY_CLIENT, SCOPES_OF_ROLE["user"], f"s{number}-{session}", ttl)


def admin_token() -> str:
    return _token(ADMIN, GATEWAY_CLIENT, SCOPES_OF_ROLE["admin"], "s-admin")


def gauges(server: Server) -> dict[str, float]:
    """What the gateway counts, but for what has labels."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/metrics", headers={"Authorization": f"Bearer {admin_token()}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#") and "{" not in line)
    return {name: float(value) for name, value in pairs}


@functools.cache
def sender_token() -> str:
    return _token(SENDER, SENDER, CLIENT_SCOPES, None)


def _token(subject: str, client: str, scopes: frozenset[str], session: str | None, ttl: int = LIFE) -> str:
    return _ring().sign(
        subject=subject,
        client_id=client,
        scopes=scopes,
        session=session,
        token_id=secrets.token_hex(13),
        now=time.time(),
        ttl=ttl,
    )
