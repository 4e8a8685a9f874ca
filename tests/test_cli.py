"""The command line without a database: settings, words, exit codes, and that no secret is ever asked for in argv."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner, Result

from gateway import __version__
from gateway.cli import app, shown, without_password
from gateway.client import Gateway
from gateway.commands import send as sending
from gateway.commands.listening import Kept, describe
from gateway.commands.quickstart import steps
from gateway.settings import setting_names


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("GATEWAY_", "NOTIFY_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    for module in ("gateway.cli", "gateway.commands.output"):  # logging belongs to the process, which is pytest here
        monkeypatch.setattr(f"{module}.configure", lambda **given: None)


def gateway(*args: str, input: str | None = None, **env: str) -> Result:
    return CliRunner().invoke(app, list(args), input=input, env=env, prog_name="gateway")


def test_version_is_that_of_the_package() -> None:
    assert gateway("version").stdout == f"{__version__}\n"
    assert json.loads(gateway("version", "--json").stdout) == {"version": __version__}


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run([sys.executable, "-m", "gateway", "version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")


def test_config_names_every_setting_with_its_source() -> None:
    rows = json.loads(gateway("config", "--json", GATEWAY_PORT="9000").stdout)
    assert [row["setting"] for row in rows] == setting_names()
    sources = {row["setting"]: (row["value"], row["source"]) for row in rows}
    assert sources["GATEWAY_PORT"] == (9000, "environment")
    assert sources["GATEWAY_HOST"] == ("127.0.0.1", "default")


def test_CFG_03_config_masks_every_secret() -> None:
    result = gateway(
        "config",
        GATEWAY_BOOTSTRAP_ADMIN_PASSWORD="opaque-7",
        GATEWAY_SIGNING_KEYS='[{"kid":"1","alg":"HS256","key":"opaque-7"}]',
    )
    assert result.exit_code == 0
    assert "opaque-7" not in result.output
    assert result.output.count("********") == 2


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("sqlite+aiosqlite:///./var/gateway.db", "sqlite+aiosqlite:///./var/gateway.db"),
        ("sqlite+aiosqlite:////var/lib/x.db", "sqlite+aiosqlite:////var/lib/x.db"),
        ("postgresql+asyncpg://me:s3c@ret@db:5432/x?ssl=on", "postgresql+asyncpg://me:********@db:5432/x?ssl=on"),
        ("postgresql+asyncpg://me:s3/c?r#et@db/x", "postgresql+asyncpg://me:********@db/x"),
        ("postgresql+asyncpg://me:s3cret@[::1]:5432/x", "postgresql+asyncpg://me:********@[::1]:5432/x"),
        ("postgresql://db/x?user=me&password=s3cret", "postgresql://db/x?user=me&password=********"),
        ("redis://:s3cret@r/0", "redis://:********@r/0"),
        ("redis://[s3cret", "********"),
    ],
)
def test_of_a_url_only_the_password_is_masked(url: str, safe: str) -> None:
    assert without_password(url) == safe


def test_a_tuple_is_shown_as_a_list() -> None:
    assert shown("allowed_origins", ("https://a",)) == ["https://a"]


@pytest.mark.parametrize("command", [["config"], ["serve"], ["user", "list"], ["migrate"], ["backup", "x"]])
def test_CFG_01_an_unknown_setting_stops_everything_with_one_line_that_names_it(command: list[str]) -> None:
    result = gateway(*command, GATEWAY_PORTS="1")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == "gateway: GATEWAY_PORTS is not a setting; did you mean GATEWAY_PORT?\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_ALLOWED_ORIGINS", "app.example"),
        ("GATEWAY_ALLOWED_ORIGINS", "https://app.example/"),
        ("GATEWAY_ALLOWED_ORIGINS", "https://app.example:443"),
        ("GATEWAY_ALLOWED_ORIGINS", "https://App.example"),
        ("GATEWAY_ALLOWED_ORIGINS", "https://app.example, null"),
        ("GATEWAY_FORWARDED_ALLOW_IPS", "proxy.example"),
        ("GATEWAY_FORWARDED_ALLOW_IPS", "10.0.0.1/8"),
        ("GATEWAY_SESSION_TTL", "9" * 20),
        ("GATEWAY_REFRESH_TOKEN_IDLE", "9" * 20),
        ("GATEWAY_FRAME_RATE", "inf"),
        ("GATEWAY_DATABASE_URL", "sqlite+aiosqlite:///./a.db?mode=ro"),
    ],
)
def test_a_value_that_could_never_work_is_refused_and_names_its_setting(name: str, value: str) -> None:
    result = gateway("config", **{name: value})
    assert result.exit_code == 2
    assert result.stderr.startswith(f"gateway: {name}: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_ALLOWED_ORIGINS", "*"),
        (
            "GATEWAY_ALLOWED_ORIGINS",
            "https://app.example, http://localhost:3000, http://[::1]:8080, capacitor://localhost",
        ),
        ("GATEWAY_FORWARDED_ALLOW_IPS", "*"),
        ("GATEWAY_FORWARDED_ALLOW_IPS", "127.0.0.1, ::1,10.0.0.0/8"),
    ],
)
def test_values_of_lists_that_work_are_taken(name: str, value: str) -> None:
    assert gateway("config", **{name: value}).exit_code == 0


def test_a_bad_option_of_serve_names_its_setting() -> None:
    result = gateway("serve", "--port", "99999")
    assert result.exit_code == 2
    assert result.stderr.startswith("gateway: GATEWAY_PORT:")


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (["nope"], "nope"),
        (["serve", "--port", "http"], "--port"),
        (["user", "add"], "username"),
        (["user", "add", "bob", "--role", "root", "--password-stdin"], "--role"),
        (["user", "add", "bob", "--id", "c~1", "--password-stdin"], "--id"),
        (["user", "add", " bob", "--password-stdin"], "USERNAME"),
        (["revoke", "--jti", ""], "--jti"),
        (["user", "add", "b\x1bob", "--password-stdin"], "USERNAME"),
        (["client", "add", ""], "NAME"),
        (["token", "issue"], "--user"),
        (["token", "issue", "--user", "a", "--client", "b"], "--user"),
        (["token", "issue", "--user", "a", "--ttl", "100000"], "--ttl"),
        (["revoke"], "--session"),
        (["revoke", "--session", "a", "--jti", "b"], "exactly one"),
        (["revoke", "--session", "a", "--issued-before", "2026-01-01T00:00:00Z"], "--issued-before"),
        (["send", "42", "hi"], "NOTIFY_CLIENT_ID"),
        (["send", "42", "hi", "--client-id", "c~1"], "NOTIFY_CLIENT_SECRET"),
        (["send", "42", "hi", "--data", "[1]"], "--data"),
        (["send", "42", "hi", "--data", "{"], "--data"),
        (["send", "42", "hi", "--url", "localhost:8000"], "--url"),
        (["listen"], "--username"),
        (["listen", "-u", "bob", "--url", "http://u:p@h"], "--url"),
        (["restore", "x"], "--yes"),
        (["new-epoch"], "--yes"),
        (["user", "delete", "bob"], "--yes"),
    ],
)
def test_a_wrong_command_line_is_one_line_that_names_what_is_wrong_and_exits_2(command: list[str], names: str) -> None:
    result = gateway(*command, input="")
    assert result.exit_code == 2
    assert names.lower() in result.stderr.lower()
    assert result.stderr.startswith("gateway: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_without_arguments_it_helps_and_exits_2() -> None:
    for command in ([], ["user"], ["token"]):
        result = gateway(*command)
        assert result.exit_code == 2
        assert result.stderr.startswith("Usage: gateway")


def test_without_a_terminal_a_password_is_asked_from_stdin_only_when_told_to() -> None:
    result = gateway("user", "add", "bob", input="correct horse\n")
    assert result.exit_code == 2
    assert "--password-stdin" in result.stderr


def all_options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from parameter.opts
    for below in getattr(command, "commands", {}).values():
        yield from all_options(below)


def test_no_option_takes_a_password_a_secret_or_a_token() -> None:
    import typer.main

    options = set(all_options(typer.main.get_command(app)))
    assert {"--password-stdin", "--token-stdin"} <= options
    assert not [
        option
        for option in options - {"--password-stdin", "--token-stdin"}
        if any(word in option for word in ("password", "secret", "token"))
    ]


def test_a_bug_is_one_line_too_and_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(settings: object) -> str:
        raise RuntimeError("token=opaque-7\n[parameters: opaque-7]")

    monkeypatch.setattr("gateway.cli.where", broken)
    result = gateway("restore", "x", "--yes")
    assert result.exit_code == 1
    assert result.stderr == "gateway: RuntimeError: token=[redacted]\n"


# -- send --------------------------------------------------------------------------------------------------------


class Wire:
    """A gateway that says nothing to its first ``silent`` requests."""

    def __init__(self, status: int, answer: dict[str, Any]) -> None:
        self.status, self.answer, self.requests = status, answer, list[httpx2.Request]()
        self.silent = 0

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if request.url.path == "/auth/token":
            return httpx2.Response(200, json={"access_token": "t0ken", "expires_in": 900})
        if len(self.requests) <= self.silent:
            raise httpx2.ReadTimeout("nothing")
        return httpx2.Response(self.status, json=self.answer)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, dict[str, Any]], Wire]:
    def make(status: int, answer: dict[str, Any]) -> Wire:
        one = Wire(status, answer)

        monkeypatch.setattr(
            sending, "Gateway", partial(Gateway, transport=httpx2.MockTransport(one), random=lambda: 0.0)
        )
        return one

    return make


STORED = {"id": "n1", "user_id": "42", "seq": 7, "online": False}
STORED |= {"created_at": "2026-11-20T16:05:00.123Z", "expires_at": "2026-12-20T16:05:00.123Z"}


def test_send_pushes_over_http_as_the_client(wire: Callable[[int, dict[str, Any]], Wire]) -> None:
    one = wire(201, STORED)
    options = [
        "--body",
        "b",
        "--data",
        '{"a": 1}',
        "--category",
        "c",
        "--priority",
        "high",
        "--ttl",
        "60",
        "--key",
        "k",
    ]
    result = gateway("send", "42", "hi", *options, NOTIFY_CLIENT_ID="c~1", NOTIFY_CLIENT_SECRET="s")
    assert result.exit_code == 0
    assert result.stdout == "n1 (seq 7, kept until 2026-12-20T16:05:00.123Z; 42 is offline)\n"
    signin, push = one.requests
    assert signin.headers["authorization"].startswith("Basic ")
    assert push.headers["authorization"] == "Bearer t0ken"
    assert push.headers["idempotency-key"] == "k"
    message = {"user_id": "42", "title": "hi", "body": "b", "data": {"a": 1}, "category": "c", "priority": "high"}
    assert json.loads(push.content) == {**message, "ttl": 60}


def test_send_with_a_ready_token_needs_no_client_and_prints_json(wire: Callable[[int, dict[str, Any]], Wire]) -> None:
    one = wire(202, {"id": "n1", "online": None})
    result = gateway("send", "42", "hi", "--ttl", "0", "--json", NOTIFY_TOKEN="mine")
    assert json.loads(result.stdout) == {"id": "n1", "online": None}
    assert [request.headers["authorization"] for request in one.requests] == ["Bearer mine"]


def test_a_refused_push_is_one_line_and_exits_1(wire: Callable[[int, dict[str, Any]], Wire]) -> None:
    wire(404, {"code": "unknown_user", "detail": "There is no such user."})
    result = gateway("send", "43", "hi", NOTIFY_TOKEN="mine")
    assert (result.exit_code, result.stderr) == (1, "gateway: There is no such user. (unknown_user)\n")


def test_send_goes_on_until_there_is_an_answer_and_it_is_one_notification(
    wire: Callable[[int, dict[str, Any]], Wire],
) -> None:
    one = wire(201, STORED)
    one.silent = 3
    result = gateway("send", "42", "hi", "--json", NOTIFY_TOKEN="mine")
    assert (result.exit_code, json.loads(result.stdout)) == (0, STORED)
    assert result.stderr == "not taken yet; trying again for up to 30 seconds\n"
    assert len(one.requests) == 4
    (key,) = {request.headers["idempotency-key"] for request in one.requests}
    assert len({request.content for request in one.requests}) == 1
    assert len(key) >= 32


def test_send_that_gives_up_says_how_to_go_on(wire: Callable[[int, dict[str, Any]], Wire]) -> None:
    one = wire(201, STORED)
    one.silent = 1
    result = gateway("send", "42", "hi", "--wait", "0", NOTIFY_TOKEN="mine")
    (request,) = one.requests
    again, why = result.stderr.splitlines()
    assert again.endswith(f"sent again with --key {request.headers['idempotency-key']} it is one")
    assert (result.exit_code, why) == (1, "gateway: no answer from http://127.0.0.1:8000 (ReadTimeout)")


def test_a_ready_token_that_is_refused_is_not_renewed(wire: Callable[[int, dict[str, Any]], Wire]) -> None:
    one = wire(401, {"code": "token_expired", "detail": "The token has expired."})
    result = gateway("send", "42", "hi", NOTIFY_TOKEN="mine")
    assert (result.exit_code, result.stderr) == (1, "gateway: The token has expired. (token_expired)\n")
    assert len(one.requests) == 1


def test_nobody_there_is_one_line_and_exits_1() -> None:
    result = gateway("send", "42", "hi", "--wait", "0", "--url", "http://127.0.0.1:1", NOTIFY_TOKEN="mine")
    assert result.exit_code == 1
    assert result.stderr == "gateway: no answer from http://127.0.0.1:1 (ConnectError)\n"


def test_credentials_over_plain_http_to_elsewhere_are_warned_of(wire: Callable[[int, dict[str, Any]], Wire]) -> None:
    wire(201, STORED)
    assert "not encrypted" in gateway("send", "42", "x", "--url", "http://push.example", NOTIFY_TOKEN="m").stderr
    assert gateway("send", "42", "x", "--url", "https://push.example", NOTIFY_TOKEN="m").stderr == ""


# -- listen ------------------------------------------------------------------------------------------------------


def test_no_sender_reaches_the_controls_of_the_terminal() -> None:
    frame = {
        "type": "notification", "seq": 1, "created_at": "now", "title": "a\x1b[2Jb\nc", "body": "\x9b31m",
        "data": {"\u202e": 1}, "category": "[bold]",
    }  # fmt: skip
    line = describe(frame)
    assert line is not None
    assert line.isprintable()
    assert "[bold]" in line


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "hello", "user": "42", "unread": 1, "after": 0, "head": 2, "reset": True},
        {"type": "gap", "from": 1, "to": 2},
        {"type": "read", "up_to": 3, "unread": 0},
        {"type": "read", "ids": ["a"], "unread": 0},
        {"type": "withdrawn", "id": "a", "unread": 0},
        {"type": "changed", "unread": 0},
        {"type": "reconnect", "after_ms": 100, "reason": "draining"},
        {"type": "notification", "seq": None, "created_at": "now", "title": "t"},
    ],
)
def test_every_frame_has_a_line_for_people(frame: dict[str, Any]) -> None:
    assert describe(frame)


def test_a_frame_nobody_knows_yet_is_passed_over() -> None:
    assert describe({"type": "novelty"}) is None


def test_what_is_kept_between_runs_only_its_owner_can_read(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with Kept.open(path, url="u", username="bob") as kept:
        assert (kept.after, kept.epoch, kept.refresh_token) == (None, None, None)
        kept.write(refresh_token="r1")
        kept.write(after=3, epoch="e")
    assert path.stat().st_mode & 0o777 == 0o600
    with Kept.open(path, url="u", username="bob") as kept:
        assert (kept.after, kept.epoch, kept.refresh_token) == (3, "e", "r1")


def test_what_is_kept_belongs_to_one_user_and_one_process(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with Kept.open(path, url="http://127.0.0.1:1", username="bob") as kept:
        kept.write(after=3)
        taken = gateway("listen", "-u", "bob", "--url", "http://127.0.0.1:1", "--state", str(path))
        assert (taken.exit_code, "used by another" in taken.stderr) == (1, True)
    other = gateway("listen", "-u", "eve", "--url", "http://127.0.0.1:1", "--state", str(path))
    assert (other.exit_code, "belongs to bob" in other.stderr) == (2, True)
    path.write_text("{")
    broken = gateway("listen", "-u", "bob", "--url", "http://127.0.0.1:1", "--state", str(path))
    assert (broken.exit_code, "not a file of gateway listen" in broken.stderr) == (2, True)


# -- the first start ---------------------------------------------------------------------------------------------


def test_the_quick_start_is_a_script_a_shell_accepts() -> None:
    for password in ("it's-odd", ""):
        text = steps(url="http://127.0.0.1:8000", first=("admin", password))
        script = "".join(line + "\n" for line in text.splitlines() if line.startswith("    "))
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        for step in ("/admin/users", "/admin/clients", "listen", "/notifications", "/admin/revocations"):
            assert step in script
