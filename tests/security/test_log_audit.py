"""The audit trail: no change by an administrator or the command line without its row, and no row ever goes."""

from __future__ import annotations

import contextlib
import getpass
import json
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
import typer.main
from logged import logged
from wire import Node

from gateway.cli import app as command_line

OPERATOR = f"~cli:{getpass.getuser()}"
PERSON = ("https://issuer.example", "person-1")


class Change(NamedTuple):
    """What a route notes, and the body of a request for it. ``USER`` in it is the id of one."""

    action: str
    body: dict[str, Any] | None = None


ROUTES: dict[tuple[str, str], Change] = {
    ("POST", "/admin/users"): Change("user_created", {"username": "carol", "password": "a long enough one"}),
    ("PATCH", "/admin/users/{id}"): Change("user_updated", {"disabled": True}),
    ("PUT", "/admin/users/{id}/password"): Change("password_set", {"password": "another long one"}),
    ("POST", "/admin/revocations"): Change("revoked", {"user_id": "USER", "reason": "lost"}),
    ("DELETE", "/admin/users/{id}"): Change("user_deleted"),
    ("POST", "/admin/clients"): Change("client_created", {"name": "mail"}),
    ("POST", "/admin/clients/{client_id}/rotate"): Change("client_rotated"),
    ("DELETE", "/admin/clients/{client_id}"): Change("client_deleted"),
}
"""Every route of an administrator that changes something, in an order in which each can be asked for."""

COMMANDS: dict[str, tuple[str, str]] = {
    "keys rotate": ("key_added", ""),
    "keys retire": ("key_retired", "KID"),
    "user add": ("user_created", "dora --password-stdin"),
    "user disable": ("user_updated", "USER"),
    "user enable": ("user_updated", "USER"),
    "user passwd": ("password_set", "USER --password-stdin"),
    "user link": ("identity_linked", f"USER {' '.join(PERSON)}"),
    "user unlink": ("identity_unlinked", " ".join(PERSON)),
    "token issue": ("token_issued", "--user USER"),
    "revoke": ("revoked", "--user USER"),
    "user delete": ("user_deleted", "USER --yes"),
    "client add": ("client_created", "mail"),
    "client rotate": ("client_rotated", "CLIENT"),
    "client delete": ("client_deleted", "CLIENT --yes"),
    "new-epoch": ("new_epoch", "--yes"),
    "restore": ("restored", "BACKUP --yes"),
}
"""Every command that changes something, what it notes and its arguments, in an order in which each can be run."""
WHILE_NOBODY_SERVES = {"new-epoch", "restore"}
WITHOUT_A_ROW = {
    *("config", "version", "backup", "user list", "user identities", "client list", "token check", "keys list"),
    *("serve", "send", "listen"),  # what is asked of a node is noted by the node
    "migrate",  # as every start does it
}


def ask(node: Node, route: tuple[str, str], *, user: str, client: str, request_id: str) -> httpx2.Response:
    method, path = route
    body = ROUTES[route].body
    given = None if body is None else {name: user if value == "USER" else value for name, value in body.items()}
    place = path.format(id=user, client_id=client)
    return node.request(method, place, token=node.admin, json=given, headers={"X-Request-Id": request_id})


def store_of(node: Node) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(node.directory / "gateway.db", timeout=10))


def test_LOG_04_every_route_of_an_admin_that_changes_something_leaves_its_row(node: Node) -> None:
    document = node.request("GET", "/openapi.json", expect=200).json()
    found = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
        if path.startswith("/admin/") and method != "get"
    }
    assert found == ROUTES.keys(), "say in ROUTES what it notes"
    me = node.request("GET", "/auth/me", token=node.admin, expect=200).json()["id"]
    user, (client, _) = node.user(), node.client()
    for route, change in ROUTES.items():
        request_id = f"audited-{uuid.uuid4().hex}"
        answer = ask(node, route, user=user.id, client=client, request_id=request_id)
        assert answer.status_code < 300, f"{route}: {answer.text}"
        newest = node.request("GET", "/admin/audit?limit=1", token=node.admin, expect=200).json()["items"][0]
        noted = (newest["action"], newest["actor"], newest["address"], newest["request_id"])
        assert noted == (change.action, me, "127.0.0.1", request_id), route
        assert newest["target"], route
        event = logged(node, "audit", request_id=request_id)
        assert (event["action"], event["actor"], event["target"]) == (change.action, me, newest["target"])


def test_LOG_04_a_change_whose_row_cannot_be_written_is_not_made(start: Callable[..., Node]) -> None:
    node = start()
    user, (client, _) = node.user(), node.client()
    user.sign_in()

    def state(store: sqlite3.Connection) -> list[list[Any]]:
        tables = ("users", "clients", "sessions", "revocations", "audit")
        return [list(store.execute(f"SELECT * FROM {table}")) for table in tables]

    with store_of(node) as store:
        before = state(store)
        with store:
            store.execute("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END")
        for route in ROUTES:
            answer = ask(node, route, user=user.id, client=client, request_id="r-1")
            assert answer.status_code >= 500, route
            assert state(store) == before, route
        with store:
            store.execute("DROP TRIGGER full")
    assert ask(node, ("DELETE", "/admin/users/{id}"), user=user.id, client="", request_id="r-1").status_code == 204


def test_LOG_04_what_was_noted_of_a_user_survives_the_user(node: Node) -> None:
    user = node.user()
    node.request("POST", "/auth/login", json={"username": user.username, "password": "wrong"}, expect=401)
    user.sign_in()
    node.request("DELETE", f"/admin/users/{user.id}", token=node.admin, expect=204)
    rows = node.request("GET", "/admin/audit?limit=20", token=node.admin, expect=200).json()["items"]
    mine = [row["action"] for row in rows if user.id in (row["target"], row["actor"])]
    assert mine == ["user_deleted", "login", "login_failed", "user_created"]
    with store_of(node) as store:
        for statement in ("DELETE FROM audit", "UPDATE audit SET actor = 'x'"):
            with pytest.raises(sqlite3.IntegrityError, match="rows of the audit stay"), store:
                store.execute(statement)


def test_LOG_04_every_command_that_changes_something_leaves_its_row(start: Callable[..., Node], tmp_path: Path) -> None:
    assert commands() == COMMANDS.keys() | WITHOUT_A_ROW, "say in COMMANDS what it notes"
    node = start()
    words = {"USER": node.user().id, "CLIENT": node.client()[0], "BACKUP": str(tmp_path / "copy.db"), "KID": ""}

    def run(command: str, arguments: str) -> str:
        given = [words.get(word, word) for word in (*command.split(), *arguments.split())]
        status, said, complained = node.command(*given, input="a password of some length\n")
        assert status == 0, f"{command}: {complained}"
        return said

    run("backup", "BACKUP")
    for command, (action, arguments) in COMMANDS.items():
        if command in WHILE_NOBODY_SERVES and node.process is not None and node.process.poll() is None:
            assert node.stop() == 0
        said = run(command, f"{arguments} --json" if command == "keys rotate" else arguments)
        if command == "keys rotate":
            words["KID"] = json.loads(said)["kid"]
        with store_of(node) as store:
            newest = store.execute("SELECT action, actor FROM audit ORDER BY number DESC LIMIT 1").fetchone()
        assert newest == (action, OPERATOR), command


def commands() -> set[str]:
    found = set()

    def walk(command: Any, *words: str) -> None:
        if subcommands := getattr(command, "commands", None):
            for name, one in subcommands.items():
                walk(one, *words, name)
        else:
            found.add(" ".join(words))

    walk(typer.main.get_command(command_line))
    return found


def test_LOG_04_the_trail_is_read_by_administrators_and_written_by_nobody(node: Node) -> None:
    user, shop = node.user().token(), node.client_token()
    for token, status in ((user, 403), (shop, 403), (None, 401)):
        node.request("GET", "/admin/audit", token=token, expect=status)
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in ("/admin/audit", "/admin/audit/1"):
            assert node.request(method, path, token=node.admin).status_code in (404, 405)
