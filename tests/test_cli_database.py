"""The commands that work on the database: users, clients, tokens, revocations, backup. No node runs here."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.settings import LONGEST_ACCESS_TTL


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("GATEWAY_", "NOTIFY_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path}/gateway.db")
    for module in ("gateway.cli", "gateway.commands.output"):  # logging belongs to the process, which is pytest here
        monkeypatch.setattr(f"{module}.configure", lambda **given: None)
    gateway("migrate")


def gateway(*args: str, input: str | None = None, exit_code: int = 0, **env: str) -> Result:
    result = CliRunner().invoke(app, list(args), input=input, env=env, prog_name="gateway")
    assert result.exit_code == exit_code, result.output
    return result


def said(*args: str, input: str | None = None, exit_code: int = 0, **env: str) -> Any:
    return json.loads(gateway(*args, "--json", input=input, exit_code=exit_code, **env).stdout)


def add_user(name: str, *more: str) -> Any:
    return said("user", "add", name, "--password-stdin", *more, input="correct horse\n")


def verdict(token: str) -> str:
    result = CliRunner().invoke(app, ["token", "check", "--json"], input=token + "\n", prog_name="gateway")
    answer: dict[str, str] = json.loads(result.stdout)
    assert result.exit_code == (0 if answer["verdict"] == "valid" else 1)
    return answer["verdict"]


def test_a_tool_in_the_wrong_directory_says_so_and_makes_no_database(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "gateway.db"
    result = gateway("user", "list", exit_code=1, GATEWAY_DATABASE_URL=f"sqlite+aiosqlite:///{elsewhere}")
    assert f"there is no database at {elsewhere}" in result.stderr
    assert not elsewhere.parent.exists()


def test_a_user_is_created_listed_disabled_enabled_and_deleted() -> None:
    alice = add_user("alice", "--id", "42")
    assert (alice["id"], alice["username"], alice["role"], alice["disabled"]) == ("42", "alice", "user", False)
    bob = add_user("bob", "--role", "admin")
    assert len(bob["id"]) == 32
    assert [one["username"] for one in said("user", "list")] == ["alice", "bob"] or bob["id"] < "42"
    assert [one["id"] for one in said("user", "list", "--query", "ALI")] == ["42"]
    assert said("user", "disable", "alice")["disabled"] is True
    assert said("user", "enable", "42")["disabled"] is False
    gateway("user", "delete", "alice", "--yes")
    assert [one["username"] for one in said("user", "list")] == ["bob"]
    again = gateway("user", "add", "carol", "--id", "42", "--password-stdin", input="correct horse\n", exit_code=1)
    assert "id_taken" in again.stderr


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["user", "disable", "nobody"], "unknown_user"),
        (["user", "add", "alice", "--password-stdin"], "username_taken"),
        (["user", "passwd", "nobody", "--password-stdin"], "unknown_user"),
        (["client", "rotate", "c~none"], "unknown_client"),
        (["client", "delete", "c~none", "--yes"], "unknown_client"),
        (["token", "issue", "--user", "nobody"], "unknown_user"),
        (["token", "issue", "--client", "c~none"], "unknown_client"),
        (["revoke", "--session", "none"], "unknown_session"),
        (["revoke", "--user", "nobody"], "unknown_user"),
    ],
)
def test_what_is_refused_is_one_line_with_its_code_and_exits_1(args: list[str], code: str) -> None:
    add_user("alice")
    result = gateway(*args, input="correct horse\n", exit_code=1)
    assert f"({code})" in result.stderr
    assert result.stderr.startswith("gateway: ")
    assert result.stderr.count("\n") == 1


def test_a_short_password_is_refused_and_not_repeated() -> None:
    result = gateway("user", "add", "alice", "--password-stdin", input="horse\n", exit_code=1)
    assert "password_too_short" in result.stderr
    assert "horse" not in result.output


def test_a_word_that_is_one_users_id_and_anothers_name_is_refused() -> None:
    add_user("alice", "--id", "bob")
    add_user("bob")
    assert "id of one user" in gateway("user", "disable", "bob", exit_code=1).stderr
    assert said("user", "disable", "alice")["id"] == "bob"


def test_a_clients_secret_is_shown_once_and_rotated() -> None:
    made = said("client", "add", "shop")
    assert made["client_id"].startswith("c~")
    assert made["scopes"] == ["notifications:write"]
    assert "client_secret" not in said("client", "list")[0]
    turned = said("client", "rotate", made["client_id"])
    assert turned["client_secret"] != made["client_secret"]
    assert turned["rotated_at"] is not None
    gateway("client", "delete", made["client_id"], "--yes")
    assert said("client", "list") == []


def test_lists_are_tab_separated_in_a_pipe() -> None:
    add_user("alice", "--id", "42")
    header, row = gateway("user", "list").stdout.splitlines()
    assert header.split("\t") == ["id", "username", "role", "disabled", "created_at"]
    assert row.split("\t")[:4] == ["42", "alice", "user", "no"]


def test_an_issued_token_counts_until_its_session_is_revoked() -> None:
    add_user("alice", "--id", "42")
    issued = said("token", "issue", "--user", "alice", "--ttl", "60")
    assert verdict(issued["access_token"]) == "valid"
    checked = said("token", "check", input=issued["access_token"])
    assert (checked["sub"], checked["sid"], checked["scope"]) == ("42", issued["session"], "inbox")
    gateway("revoke", "--session", issued["session"], "--reason", "lost phone")
    assert verdict(issued["access_token"]) == "token_revoked"


@pytest.mark.parametrize("by", ["user", "jti", "disable", "passwd", "delete"])
def test_every_way_to_end_a_users_token_ends_it(by: str) -> None:
    add_user("alice")
    token = said("token", "issue", "--user", "alice")["access_token"]
    jti = said("token", "check", input=token)["jti"]
    ways = {
        "user": ["revoke", "--user", "alice"],
        "jti": ["revoke", "--jti", jti],
        "disable": ["user", "disable", "alice"],
        "passwd": ["user", "passwd", "alice", "--password-stdin"],
        "delete": ["user", "delete", "alice", "--yes"],
    }
    gateway(*ways[by], input="correct horses\n")
    assert verdict(token) == ("user_disabled" if by == "disable" else "token_revoked")


def test_issued_before_spares_who_signed_in_later() -> None:
    add_user("alice")
    token = said("token", "issue", "--user", "alice")["access_token"]
    gateway("revoke", "--user", "alice", "--issued-before", "2026-01-01T00:00:00+01:00")
    assert verdict(token) == "valid"
    for wrong in ("tomorrow", "2026-01-01T00:00:00", "2999-01-01T00:00:00Z"):
        assert "--issued-before" in gateway("revoke", "--user", "alice", "--issued-before", wrong, exit_code=1).stderr


def test_a_revoked_client_may_come_back_at_once() -> None:
    client_id = said("client", "add", "shop")["client_id"]
    old = said("token", "issue", "--client", client_id)["access_token"]
    gateway("revoke", "--client", client_id)
    fresh = said("token", "issue", "--client", client_id)["access_token"]
    assert verdict(old) == "token_revoked"
    assert verdict(fresh) == "valid"


def test_a_disabled_user_is_given_no_token() -> None:
    add_user("alice")
    gateway("user", "disable", "alice")
    assert "user_disabled" in gateway("token", "issue", "--user", "alice", exit_code=1).stderr


def test_a_token_is_taken_from_the_environment_too_and_never_repeated() -> None:
    add_user("alice")
    token = gateway("token", "issue", "--user", "alice").stdout.strip()
    result = gateway("token", "check", NOTIFY_TOKEN=token)
    assert "valid" in result.stdout
    assert token not in result.output
    assert verdict("no token at all").startswith("token_invalid")
    assert "stdin holds no token" in gateway("token", "check", input="", exit_code=2).stderr


def test_a_backup_is_private_and_restoring_it_ends_every_token(tmp_path: Path) -> None:
    add_user("alice")
    copy = tmp_path / "copy.db"
    gateway("backup", str(copy))
    assert copy.stat().st_mode & 0o777 == 0o600
    assert "exists already" in gateway("backup", str(copy), exit_code=1).stderr
    add_user("bob")
    token = said("token", "issue", "--user", "alice")["access_token"]
    gateway("restore", str(copy), "--yes")
    assert [one["username"] for one in said("user", "list")] == ["alice"]
    assert verdict(token) == "token_revoked"
    assert "no backup at" in gateway("restore", str(tmp_path / "none"), "--yes", exit_code=1).stderr


def test_a_new_epoch_ends_every_token() -> None:
    add_user("alice")
    token = said("token", "issue", "--user", "alice")["access_token"]
    gateway("new-epoch", "--yes")
    assert verdict(token) == "token_revoked"


def test_migrate_says_where_the_database_is_and_that_once_is_enough(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").unlink()
    first = gateway("migrate").stdout
    assert first.startswith(f"{tmp_path}/gateway.db is now at revision")
    assert " already at revision" in gateway("migrate").stdout


def test_what_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").write_bytes(b"not a database, not at all, by no means" * 100)
    result = gateway("user", "list", exit_code=1)
    assert result.stderr.startswith("gateway: ")
    assert "Traceback" not in result.output


def test_what_a_tool_revokes_stays_revoked_however_long_the_tokens_of_the_node_live(tmp_path: Path) -> None:
    alice = add_user("alice")
    gateway("revoke", "--user", alice["id"])
    with sqlite3.connect(tmp_path / "gateway.db") as database:
        rows = database.execute("SELECT until - created_at FROM revocations").fetchall()
    database.close()
    assert rows
    assert min(life for (life,) in rows) > LONGEST_ACCESS_TTL * 1000
