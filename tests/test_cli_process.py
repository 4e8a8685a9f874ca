"""The commands as people run them: real processes, from the first start through the printed quick start to a backup."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forks import shared

COMMAND = [sys.executable, "-m", "gateway"]
DEADLINE = 30.0
Started = Callable[..., "Process"]


class Process:
    """A running command whose output is read as it comes."""

    def __init__(self, *args: str, directory: Path, **env: str) -> None:
        self.said = ""
        bare = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "NOTIFY_"))}
        self.errors = directory / f"stderr-{time.monotonic_ns()}"
        with self.errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [*COMMAND, *args],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=directory,
                env=bare | env,
                # A shell's background job ignores Ctrl-C, and so would all that it starts.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self.pid = self._process.pid

    def until(self, pattern: str) -> re.Match[str]:
        """Read until the output holds ``pattern``."""
        end = time.monotonic() + DEADLINE
        assert self._process.stdout is not None
        while (found := re.search(pattern, self.said)) is None:
            left = end - time.monotonic()
            assert left > 0, f"no {pattern} in:\n{self.said}\n{self.complaints()}"
            if select.select([self._process.stdout], [], [], left)[0]:
                read = os.read(self._process.stdout.fileno(), 65536)
                assert read, f"ended without {pattern}:\n{self.said}\n{self.complaints()}"
                self.said += read.decode()
        return found

    def complaints(self) -> str:
        return self.errors.read_text()

    def end(self, *, by: signal.Signals | None = signal.SIGTERM) -> int:
        """The exit status, after everything said has been read."""
        if by is not None:
            self._process.send_signal(by)
        rest, _ = self._process.communicate(timeout=DEADLINE)
        self.said += rest.decode()
        return self._process.returncode

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Started]:
    running: list[Process] = []

    def begin(*args: str, **env: str) -> Process:
        running.append(Process(*args, directory=tmp_path, **env))
        return running[-1]

    yield begin
    for process in running:
        process.kill()


def serving(start: Started) -> tuple[Process, str]:
    node = start("serve", "--port", "0")
    return node, node.until(r"http://127\.0\.0\.1:\d+")[0]


def done(directory: Path, *args: str, input: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end: a process that was forked, to spare the second its imports take."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "NOTIFY_"))}
    ran = shared().run(*args, environment=bare | env, cwd=directory, input=input, within=DEADLINE)
    return subprocess.CompletedProcess(args, *ran)


def blocks(text: str) -> list[str]:
    """The indented blocks of the quick start, in order."""
    found = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in found]


def test_the_quick_start_works_as_printed_and_a_revocation_ends_the_listener(start: Started, tmp_path: Path) -> None:
    node, url = serving(start)
    node.until(r"lost phone")
    assert re.search(rf"^data +{re.escape(str(tmp_path))}/var/gateway.db$", node.said, re.MULTILINE)
    password = node.until(r"password +(\S+)")[1]
    sign_in, create, listen, push, revoke = blocks(node.said)

    def shell(*parts: str) -> str:
        script = "set -e\n" + "".join(parts)
        ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    assert json.loads(shell(sign_in, create))["username"] == "alice"
    assert f"listen --url {url} --username alice" in listen
    listener = start("listen", "--url", url, "--username", "alice", NOTIFY_PASSWORD="correct horse 42")
    listener.until(r"listening as 42")
    assert json.loads(shell(sign_in, push))["online"] is True
    listener.until(r"1  \S+Z  Order shipped — Arrives Friday")
    assert json.loads(shell(sign_in, revoke))["connections_closed"] == 1
    assert listener.end(by=None) == 1
    assert listener.complaints() == "gateway: the gateway closed: 1008 token_revoked; sign in again\n"
    assert node.end() == 0
    assert password not in node.complaints()
    assert not re.search(r"eyJ|Traceback", node.complaints())


def test_a_later_start_says_one_line_and_no_password(start: Started, tmp_path: Path) -> None:
    first, _ = serving(start)
    first.until(r"lost phone")
    assert first.end() == 0
    second, url = serving(start)
    assert second.end() == 0
    assert second.said.count("\n") == 1
    assert second.said.startswith(f"gateway ready at {url} ")
    assert str(tmp_path) in second.said


def test_a_password_given_by_setting_is_not_printed(start: Started) -> None:
    node = start("serve", "--port", "0", GATEWAY_BOOTSTRAP_ADMIN_PASSWORD="opaque-7-opaque")
    node.until("lost phone")
    assert node.end() == 0
    assert "opaque-7" not in node.said + node.complaints()


def test_what_keeps_it_from_starting_is_said_in_one_line(start: Started, tmp_path: Path) -> None:
    node, url = serving(start)
    port = url.rpartition(":")[2]
    taken = done(tmp_path, "serve", "--port", port)
    assert taken.returncode == 2
    assert taken.stderr.startswith(f"gateway: GATEWAY_PORT: port {port} on 127.0.0.1 is in use already")
    second = done(tmp_path, "serve", "--port", "0")
    assert second.returncode == 1
    assert f"another gateway is using {tmp_path}/var/gateway.db" in second.stderr.splitlines()[-1]
    keys = done(
        tmp_path, "serve", "--port", "0", GATEWAY_SIGNING_KEYS="[]", GATEWAY_DATABASE_URL="sqlite+aiosqlite:///./x.db"
    )
    assert keys.returncode == 2
    assert keys.stderr.splitlines()[-1].startswith("gateway: GATEWAY_SIGNING_KEYS:")
    short = done(
        tmp_path, "serve", "--port", "0", GATEWAY_BOOTSTRAP_ADMIN_PASSWORD="short",
        GATEWAY_DATABASE_URL="sqlite+aiosqlite:///./x.db",
    )  # fmt: skip
    assert short.returncode == 2
    assert short.stderr.splitlines()[-1].startswith("gateway: GATEWAY_BOOTSTRAP_ADMIN_PASSWORD:")
    assert "Traceback" not in taken.stderr + second.stderr + keys.stderr + short.stderr
    assert node.end() == 0


def test_the_commands_work_beside_a_running_node_which_takes_note_within_a_second(
    start: Started, tmp_path: Path
) -> None:
    node, url = serving(start)
    node.until("lost phone")
    added = done(tmp_path, "user", "add", "bob", "--id", "7", "--password-stdin", "--json", input="correct horse\n")
    assert added.returncode == 0, added.stderr
    made = json.loads(done(tmp_path, "client", "add", "shop", "--json").stdout)
    sender = {"NOTIFY_CLIENT_ID": made["client_id"], "NOTIFY_CLIENT_SECRET": made["client_secret"], "NOTIFY_URL": url}
    sent = json.loads(done(tmp_path, "send", "7", "hello", "--key", "k", "--json", **sender).stdout)
    assert (sent["seq"], sent["online"]) == (1, False)
    assert json.loads(done(tmp_path, "send", "7", "hello", "--key", "k", "--json", **sender).stdout) == sent

    once = ["listen", "--url", url, "-u", "bob", "--json", "--once", "1", "--password-stdin"]
    heard = done(tmp_path, *once, input="correct horse\n")
    assert heard.returncode == 0, heard.stderr
    frames = [json.loads(line) for line in heard.stdout.splitlines()]
    assert [frame["type"] for frame in frames] == ["hello", "notification"]
    assert frames[1]["id"] == sent["id"]

    listener = start("listen", "--url", url, "-u", "bob", "--json", NOTIFY_PASSWORD="correct horse")
    listener.until('"hello"')
    assert json.loads(listener.said)["after"] == 1, "what was printed before has been acknowledged"
    assert b"eyJ" not in Path(f"/proc/{listener.pid}/cmdline").read_bytes()
    disabled = done(tmp_path, "user", "disable", "bob")
    began = time.monotonic()
    assert disabled.returncode == 0, disabled.stderr
    assert listener.end(by=None) == 1
    assert time.monotonic() - began < 1
    assert "user_disabled" in listener.complaints()

    copy = done(tmp_path, "backup", "copy.db")
    assert copy.returncode == 0, copy.stderr
    refused = done(tmp_path, "restore", "copy.db", "--yes")
    assert (refused.returncode, "another gateway is using" in refused.stderr) == (1, True)
    assert node.end() == 0
    assert done(tmp_path, "restore", "copy.db", "--yes").returncode == 0


def test_a_listener_with_a_state_file_goes_on_where_it_was(start: Started, tmp_path: Path) -> None:
    node, url = serving(start)
    node.until("lost phone")
    done(tmp_path, "user", "add", "bob", "--id", "7", "--password-stdin", input="correct horse\n")
    token = done(
        tmp_path,
        "token",
        "issue",
        "--client",
        json.loads(done(tmp_path, "client", "add", "x", "--json").stdout)["client_id"],
    )
    sender = {"NOTIFY_TOKEN": token.stdout.strip(), "NOTIFY_URL": url}
    kept = ["listen", "--url", url, "-u", "bob", "--state", "kept", "--once", "1"]
    assert done(tmp_path, "send", "7", "one", **sender).returncode == 0
    first = done(tmp_path, *kept, NOTIFY_PASSWORD="correct horse")
    assert "1  " in first.stdout
    assert "one" in first.stdout
    assert done(tmp_path, "send", "7", "two", **sender).returncode == 0
    second = done(tmp_path, *kept)
    assert second.returncode == 0, second.stderr
    assert "two" in second.stdout
    assert "one" not in second.stdout
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o600
    assert node.end() == 0


def test_ctrl_c_ends_a_listener_quietly_and_signs_it_out(start: Started, tmp_path: Path) -> None:
    node, url = serving(start)
    node.until("lost phone")
    done(tmp_path, "user", "add", "bob", "--id", "7", "--password-stdin", input="correct horse\n")
    listener = start("listen", "--url", url, "-u", "bob", NOTIFY_PASSWORD="correct horse")
    listener.until("listening as")
    assert listener.end(by=signal.SIGINT) == 130
    assert "Traceback" not in listener.complaints()
    assert "/auth/logout" in node.complaints()
    assert node.end() == 0


def typed(directory: Path, *args: str, answers: dict[str, str]) -> tuple[int, str]:
    """Run a command on a terminal, answering each prompt once it waits; the exit status and all the terminal showed."""
    ours, theirs = pty.openpty()
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "NOTIFY_"))}
    process = subprocess.Popen(
        [*COMMAND, *args],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=directory,
        env=bare | {"TERM": "xterm", "COLUMNS": "200"},
        start_new_session=True,
    )
    os.close(theirs)
    shown, left, end = "", dict(answers), time.monotonic() + DEADLINE
    with contextlib.suppress(OSError):  # EIO: the other side has closed
        while time.monotonic() < end and (read := os.read(ours, 65536)):
            shown += read.decode()
            for prompt in [prompt for prompt in left if shown.endswith(prompt)]:
                os.write(ours, f"{left.pop(prompt)}\n".encode())
    os.close(ours)
    return process.wait(timeout=DEADLINE), shown


def test_on_a_terminal_a_password_is_typed_unseen_and_lists_are_tables(tmp_path: Path) -> None:
    answers = {"Password: ": "correct horse", "Repeat for confirmation: ": "correct horse"}
    assert done(tmp_path, "migrate").returncode == 0
    status, shown = typed(tmp_path, "user", "add", "bob", answers=answers)
    assert status == 0, shown
    assert "correct horse" not in shown
    status, shown = typed(tmp_path, "user", "list", answers={})
    assert status == 0
    assert re.search(r"bob +user +no ", shown)


def test_a_question_answered_with_no_does_nothing(tmp_path: Path) -> None:
    assert done(tmp_path, "migrate").returncode == 0
    assert done(tmp_path, "user", "add", "bob", "--password-stdin", input="correct horse\n").returncode == 0
    status, shown = typed(tmp_path, "user", "delete", "bob", answers={"[y/N]: ": "n"})
    assert (status, "nothing was done" in shown) == (1, True)
    assert "bob" in done(tmp_path, "user", "list").stdout


def test_a_reader_that_goes_away_is_no_error_of_ours(tmp_path: Path) -> None:
    ran = subprocess.run(
        ["bash", "-c", f"{' '.join(COMMAND)} config --json | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=DEADLINE,
        check=False,
    )
    assert ran.stderr == ""
