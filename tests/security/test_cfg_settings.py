"""Settings: an unknown one stops the start, a secret is shown nowhere, files of secrets are for their owner."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forks import shared
from freeport import free_port
from logged import events
from wire import ADMIN_PASSWORD, Node

SECRET = "s3cret/w?th#al%40l+th@t"
"""A password with everything that ends one in somebody's parser."""
SIGNER = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a09"


def gateway(*words: str, directory: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    given = {f"GATEWAY_{name.upper()}": str(value) for name, value in settings.items()}
    ran = shared().run(*words, environment={**kept, **given}, cwd=directory, within=300)
    return subprocess.CompletedProcess(words, *ran)


@pytest.mark.parametrize(
    ("name", "hint"), [("prot", "did you mean GATEWAY_PORT?"), ("no_such_thing_at_all", "GATEWAY_NO_SUCH_THING_AT_ALL")]
)
def test_CFG_01_an_unknown_setting_stops_the_start_before_anything_is_made(
    tmp_path: Path, name: str, hint: str
) -> None:
    done = gateway("serve", directory=tmp_path, port=free_port(), **{name: SECRET})
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"GATEWAY_{name.upper()} is not a setting" in done.stderr
    assert hint in done.stderr
    assert SECRET not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_CFG_01_a_bad_value_stops_the_start_and_is_not_repeated(tmp_path: Path) -> None:
    bad = {"database_url": f"mysql://me:{SECRET}@db/x", "redis_url": f"http://:{SECRET}@r", "port": SECRET}
    done = gateway("serve", directory=tmp_path, **bad)
    assert done.returncode == 2
    for name in bad:
        assert f"GATEWAY_{name.upper()}" in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_CFG_02_files_with_secrets_are_for_their_owner_and_a_warning_says_so_otherwise(
    start: Callable[..., Node], tmp_path: Path
) -> None:
    place = tmp_path / "data"
    database = place / "gateway.db"
    node = start(database_url=f"sqlite+aiosqlite:///{database}")
    node.push(node.client_token(), user_id=node.user().id)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()}
    assert {"gateway.db", "gateway.db-wal"} <= modes.keys()
    assert set(modes.values()) == {0o600}, modes
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert not warnings(node)
    assert node.stop() == 0
    database.chmod(0o644)
    node.start()
    assert [one for one in warnings(node) if str(database) in one and "0600" in one]
    copy = tmp_path / "copy.db"
    assert node.command("backup", str(copy))[0] == 0
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def warnings(node: Node) -> list[str]:
    return [one["event"] for one in events(node, level="warning") if "can be read by others" in one["event"]]


def test_CFG_03_config_shows_no_secret_in_any_form(tmp_path: Path) -> None:
    given = {
        "database_url": f"postgresql+asyncpg://me:{SECRET}@db.example:5432/x?ssl=on&password={SIGNER}",
        "redis_url": f"rediss://:{SECRET}@redis.example:6380/0",
        "bootstrap_admin_password": SECRET,
        "signing_keys": f'[{{"kid": "1", "alg": "HS256", "key": "{SIGNER}"}}]',
    }
    for words in (("config",), ("config", "--json")):
        done = gateway(*words, directory=tmp_path, **given)
        assert done.returncode == 0, done.stderr
        shown = done.stdout + done.stderr
        for secret in (SECRET, SIGNER):
            assert not [piece for piece in pieces(secret) if piece in shown], words
        assert "db.example" in shown.replace("\n", "")
        assert "********" in shown


def test_CFG_03_no_password_is_told_when_what_it_is_for_cannot_be_reached(tmp_path: Path) -> None:
    password = "s3cret-passw0rd-of-a-server"
    nobody = f"127.0.0.1:{free_port()}"
    given = {
        "database_url": f"postgresql+asyncpg://me:{password}@{nobody}/x",
        "redis_url": f"redis://:{password}@{nobody}/0",
        "log_level": "debug",
        "port": free_port(),
    }
    for words in (("migrate",), ("user", "list"), ("serve",)):
        done = gateway(*words, directory=tmp_path, **given)
        assert done.returncode != 0
        assert not [piece for piece in pieces(password) if piece in done.stdout + done.stderr], words


def test_CFG_03_a_node_says_nowhere_what_it_was_given(start: Callable[..., Node]) -> None:
    password = "s3cret-passw0rd-of-redis"
    node = start(redis_url=f"redis://:{password}@127.0.0.1:{free_port()}/0", push_rate=1)
    answers = [node.request("GET", path, token=node.admin).text for path in ("/readyz", "/metrics", "/healthz")]
    told = node.log_text() + "".join(answers)
    for secret in (password, ADMIN_PASSWORD):
        assert not [piece for piece in pieces(secret) - pieces("correct horse 42") if piece in told], "but the example"


def pieces(secret: str) -> set[str]:
    return {secret[at : at + 8] for at in range(len(secret) - 7)}
