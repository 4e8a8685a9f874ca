"""REV-08: a hundred thousand revocations: each counts, none slows a request down, none is kept longer than needed."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from clocks import Clock
from wire import HS256_KEYS, Node, claims_of, eventually, forged, running

MANY, AT_ONCE = 100_000, 10_000
REQUESTS = 300
HOUR = 3600


@pytest.fixture
def aging(tmp_path: Path) -> Iterator[tuple[Node, Clock]]:
    clock = Clock(tmp_path)
    prefix = ("env", *(f"{name}={value}" for name, value in clock.environment.items()))
    with running(tmp_path, prefix=prefix, signing_keys=HS256_KEYS, log_level="info") as node:
        yield node, clock


def revoke_many(node: Node, count: int) -> None:
    """As so many administrators would: rows as the gateway writes them, in one transaction, beside the process."""
    until = int((time.time() + 990) * 1000)
    with contextlib.closing(sqlite3.connect(node.directory / "gateway.db", timeout=30)) as connection, connection:
        (last,) = connection.execute("SELECT coalesce(max(number), 0) FROM revocations").fetchone()
        connection.executemany(
            "INSERT INTO revocations (number, id, kind, subject, until, why, actor, created_at)"
            " VALUES (?, ?, 'token', ?, ?, 'token_revoked', 'test', 0)",
            ((number, f"many-{number}", f"jti-{number}", until) for number in range(last + 1, last + count + 1)),
        )


def stored(node: Node) -> int:
    with contextlib.closing(sqlite3.connect(node.directory / "gateway.db", timeout=30)) as connection:
        return int(connection.execute("SELECT count(*) FROM revocations").fetchone()[0])


def in_force(node: Node) -> int:
    """What the process keeps in memory, as its metrics say."""
    text = node.request("GET", "/metrics", token=node.admin, expect=200).text
    (line,) = [line for line in text.splitlines() if line.startswith("gateway_revocations_in_force ")]
    return int(float(line.split()[1]))


def knows(node: Node, count: int) -> bool:
    return in_force(node) == count


def work(node: Node, token: str) -> float:
    """Seconds of processor time that some requests with this token cost the process."""

    def spent() -> int:
        fields = Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = spent()
    for _ in range(REQUESTS):
        node.request("GET", "/auth/me", token=token, expect=200)
    return (spent() - before) / os.sysconf("SC_CLK_TCK")


def test_REV_08_a_hundred_thousand_revocations_slow_nothing_down_and_are_purged_when_over(
    aging: tuple[Node, Clock],
) -> None:
    node, clock = aging
    token = node.user().token()
    work(node, token)
    before = work(node, token)
    empty = in_force(node)
    for known in range(AT_ONCE, MANY + 1, AT_ONCE):
        revoke_many(node, AT_ONCE)
        eventually(partial(knows, node, empty + known), what="all are known")
    for number in (1, 4711, MANY):
        answer = node.request("GET", "/auth/me", token=forged(token, jti=f"jti-{number}"), expect=401)
        assert answer.json()["code"] == "token_revoked"
    after = work(node, token)
    assert after < 2 * before + 0.1, "a look through all of them costs a hundred times a request"
    clock.set(4 * HOUR)  # a ban is kept for two hours after its tokens, lest a clock that was set wrong frees them
    node.forget_admin()
    eventually(lambda: stored(node) <= empty, within=60, what="the rows are purged")
    eventually(lambda: in_force(node) <= empty, what="and forgotten")
    late = forged(token, jti="jti-1")
    assert claims_of(late)["exp"] < time.time() + 4 * HOUR
    assert node.request("GET", "/auth/me", token=late, expect=401).json()["code"] == "token_expired"
