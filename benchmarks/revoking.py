"""S8: a user with a hundred devices is revoked; until the last socket is closed. On one node, and over two.

The clock runs from the first byte of ``POST /admin/revocations`` to the last close frame at the client, so it holds the
request, its commit, and on the other node the bell over Redis and the read that it causes. Every device is a session.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks.backends import Backends
from benchmarks.bars import ALONE, ANSWER, HERE, THERE
from benchmarks.people import admin_token, enlist, post, prepare, user_token
from benchmarks.record import Record
from benchmarks.servers import Server, in_directory, node
from benchmarks.talking import Wire, until_closed

SOCKETS = 100
"""On each node."""
SETTLE = 0.3
"""Seconds between the last hello and the revocation: subscriptions and presence have gone out."""


def on_one_node(record: Record, directory: Path, *, times: int) -> None:
    """SQLite."""
    home = Path(tempfile.mkdtemp(dir=directory))
    prepare(home, users=times, sessions=SOCKETS)
    with node("gateway", in_directory(home), connections_per_user=str(SOCKETS)) as server:
        for user in range(times):
            record.note("revoked", ALONE, _revoke(user, server, {ALONE: server})[ALONE] * 1000)
    shutil.rmtree(home)


def on_two_nodes(record: Record, backends: Backends, *, times: int) -> None:
    backends.prepare("revoking", lambda connection: enlist(connection, users=times, sessions=SOCKETS))
    with backends.nodes(2, "revoking", connections_per_user=str(SOCKETS)) as (one, other):
        for user in range(times):
            took = _revoke(user, one, {HERE: one, THERE: other})
            for name in (HERE, THERE, ANSWER):
                record.note("revoked", name, took[name] * 1000)


def _revoke(user: int, asked: Server, nodes: Mapping[str, Server]) -> dict[str, float]:
    """Open SOCKETS at each of ``nodes``, revoke the user at ``asked``: seconds, as ``until_closed``."""
    with ExitStack() as stack:
        groups: dict[str, list[Wire]] = {}
        for name, server in nodes.items():
            groups[name] = [stack.enter_context(Wire(server.port)) for _ in range(SOCKETS)]
            for session, wire in enumerate(groups[name]):
                wire.upgrade(f"/ws?token={user_token(user, session)}")
                wire.texts(1)
        asking = stack.enter_context(Wire(asked.port))
        time.sleep(SETTLE)
        request = post("/admin/revocations", {"user_id": f"u{user}", "reason": "lost"}, admin_token())
        return until_closed((ANSWER, asking), request, groups, expect=201, reason=b"token_revoked")
