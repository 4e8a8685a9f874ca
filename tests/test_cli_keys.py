"""``gateway keys`` on a database of its own: what is listed, made, refused, and never shown. No node runs here."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result
from wire import HS256_KEYS, SECRET

from gateway.auth.lifecycle import CLOCKS_DIFFER
from gateway.cli import app


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
    assert "PRIVATE" not in result.output
    return result


def said(*args: str, **more: Any) -> Any:
    return json.loads(gateway("keys", *args, "--json", **more).stdout)


def states() -> dict[str, str]:
    return {row["kid"]: row["state"] for row in said("list")}


def move_back(path: Path, seconds: int) -> None:
    """All keys begin so much earlier."""
    with sqlite3.connect(path / "gateway.db") as database:
        database.execute("UPDATE signing_keys SET signs_from = signs_from - ?", (seconds * 1000,))
    database.close()


def test_TOK_17_a_key_is_announced_signs_after_the_overlap_and_the_old_one_goes_later(tmp_path: Path) -> None:
    first = said("rotate", "--in", "0")["kid"]
    assert states() == {first: "signs"}
    second = said("rotate")
    assert states() == {first: "signs", second["kid"]: "will sign"}
    gateway("keys", "retire", first, "--force", exit_code=1)
    move_back(tmp_path, 601)
    assert states() == {first: "verifies", second["kid"]: "signs"}
    refused = gateway("keys", "retire", first, exit_code=1)
    assert "may be valid for" in refused.stderr
    assert "--force" in refused.stderr
    move_back(tmp_path, 900 + CLOCKS_DIFFER)
    assert said("retire", first) == {"kid": first, "retired": True}
    assert states() == {second["kid"]: "signs"}
    gateway("keys", "retire", second["kid"], "--force", exit_code=1)


def test_TOK_17_how_long_tokens_may_live_is_what_the_setting_says(tmp_path: Path) -> None:
    first = said("rotate", "--in", "0")["kid"]
    said("rotate", "--in", "0")
    move_back(tmp_path, 900 + CLOCKS_DIFFER)
    gateway("keys", "retire", first, exit_code=1, GATEWAY_ACCESS_TOKEN_TTL="3600")
    gateway("keys", "retire", first, GATEWAY_ACCESS_TOKEN_TTL="900")


def test_TOK_17_in_an_emergency_the_new_key_signs_at_once_and_the_old_one_goes_by_force() -> None:
    first = said("rotate", "--in", "0")["kid"]
    second = said("rotate", "--in", "0", "--alg", "RS256")["kid"]
    assert [(row["kid"], row["alg"]) for row in said("list")] == [(first, "ES256"), (second, "RS256")]
    gateway("keys", "retire", first, "--force")
    assert states() == {second: "signs"}
    assert "There is no signing key" in gateway("keys", "retire", first, exit_code=1).stderr


def test_every_change_of_the_keys_is_audited_by_who_made_it(tmp_path: Path) -> None:
    first, second = (said("rotate", "--in", "0")["kid"] for _ in range(2))
    gateway("keys", "retire", first, "--force")
    with sqlite3.connect(tmp_path / "gateway.db") as database:
        rows = database.execute("SELECT action, target, actor, detail FROM audit ORDER BY number").fetchall()
    database.close()
    assert [row[:2] for row in rows] == [("key_added", first), ("key_added", second), ("key_retired", first)]
    assert all(row[2].startswith("~cli:") for row in rows)
    assert "PRIVATE" not in str(rows)


def test_what_a_key_is_made_of_is_in_no_output(tmp_path: Path) -> None:
    gateway("keys", "rotate", "--in", "0")
    with sqlite3.connect(tmp_path / "gateway.db") as database:
        (material,) = database.execute("SELECT material FROM signing_keys").fetchone()
    database.close()
    shown = gateway("keys", "list").output + gateway("keys", "list", "--json").output
    assert not [line for line in material.splitlines() if line in shown]
    assert set(said("list")[0]) == {"kid", "alg", "state", "signs_from", "source"}
    assert said("list")[0]["source"] == "database"


def test_keys_by_setting_are_shown_and_not_rotated_here() -> None:
    env: dict[str, Any] = {"GATEWAY_SIGNING_KEYS": HS256_KEYS}
    result = gateway("keys", "list", "--json", **env)
    assert json.loads(result.stdout) == [
        {"kid": "test", "alg": "HS256", "state": "signs", "signs_from": None, "source": "setting"}
    ]
    assert SECRET not in result.output
    for command in (["rotate"], ["retire", "test"]):
        assert "GATEWAY_SIGNING_KEYS" in gateway("keys", *command, exit_code=1, **env).stderr
    gateway("keys", "list", exit_code=2, GATEWAY_SIGNING_KEYS="[]")
    assert said("list") == []


@pytest.mark.parametrize("wrong", [["--alg", "HS256"], ["--alg", "none"], ["--in", "-1"], ["--in", "soon"]])
def test_a_key_that_cannot_be_made_is_refused(wrong: list[str]) -> None:
    gateway("keys", "rotate", *wrong, exit_code=2)
    assert said("list") == []


def test_a_key_whose_tokens_nobody_would_read_is_not_made() -> None:
    env: dict[str, Any] = {"GATEWAY_ISSUER": "ü" * 255, "GATEWAY_AUDIENCE": "ü" * 255}
    assert "would be longer than" in gateway("keys", "rotate", "--alg", "RS256", exit_code=1, **env).stderr
    assert said("list") == []
