"""RT-08, REV-03: what an administrator takes away counts from its commit on, also for who signs in meanwhile."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from wire import Node, claims_of, eventually

Start = Callable[..., Node]


@pytest.fixture
def node(start: Start, tmp_path: Path) -> Node:
    """On SQLite, whatever the others are on: whoever holds its one lock holds up every commit."""
    return start(database_url=f"sqlite+aiosqlite:///{tmp_path}/held.db")


@contextlib.contextmanager
def commits_held_up(directory: Path) -> Iterator[None]:
    connection = sqlite3.connect(directory / "held.db", isolation_level=None, timeout=5)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def under_way(node: Node, work: Callable[[], httpx2.Response], pool: ThreadPoolExecutor) -> Future[httpx2.Response]:
    """``work``, which has read the clock of ``node`` for certain when this returns."""
    asked = pool.submit(work)
    for _ in range(3):  # a round trip of another is over: it has been let in, and waits for the writer
        node.request("GET", "/healthz", expect=200)
        time.sleep(0.05)
    assert not asked.done()
    return asked


def test_RT_08_who_signs_in_while_their_role_is_taken_away_has_it_no_more(node: Node, tmp_path: Path) -> None:
    user = node.user(role="admin")
    admin = node.admin
    credentials = {"username": user.username, "password": user.password}
    with ThreadPoolExecutor(2) as pool:
        with commits_held_up(tmp_path):
            demoted = under_way(
                node, lambda: node.request("PATCH", f"/admin/users/{user.id}", token=admin, json={"role": "user"}), pool
            )
            signed_in = under_way(node, lambda: node.request("POST", "/auth/login", json=credentials), pool)
        assert demoted.result().status_code == 200
        answer = signed_in.result()
    if answer.status_code == 200:
        access = answer.json()["access_token"]
        assert answer.json()["scope"] == "inbox"
        node.request("GET", "/admin/users", token=access, expect=403)
        node.request("PATCH", f"/admin/users/{user.id}", token=access, json={"role": "admin"}, expect=403)
    else:
        assert answer.status_code == 401


def test_REV_03_what_a_client_is_issued_while_it_is_deleted_is_worth_nothing(node: Node, tmp_path: Path) -> None:
    reader, admin = node.user(), node.admin
    client_id, secret = node.client()
    with ThreadPoolExecutor(1) as pool:
        with commits_held_up(tmp_path):
            deleted = under_way(node, lambda: node.request("DELETE", f"/admin/clients/{client_id}", token=admin), pool)
            began = int(time.time())

            def issued_in_a_later_second() -> str | None:
                answer = node.request(
                    "POST", "/auth/token", auth=(client_id, secret), data={"grant_type": "client_credentials"}
                )
                access = str(answer.json()["access_token"])
                return access if claims_of(access)["iat"] > began else None

            access = eventually(issued_in_a_later_second, what="a token of the next second")
        assert deleted.result().status_code == 204
    node.request("POST", "/notifications", token=access, json={"user_id": reader.id, "title": "t"}, expect=401)
