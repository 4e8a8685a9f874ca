"""``gateway listen``: hear a user's notifications in a terminal or a pipe. The client itself is ``gateway/client``."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.client.addresses import is_local
from gateway.client.errors import Refused, Stopped, Unavailable
from gateway.client.listener import Listener
from gateway.client.rules import Frame, Position
from gateway.client.signin import Account, open_http
from gateway.commands.output import AsJson, PasswordStdin, ask_password, note, refuse, run
from gateway.commands.send import DEFAULT_URL, Url, checked_url
from gateway.logs import escape


def listen(
    url: Url = DEFAULT_URL,
    username: Annotated[str | None, typer.Option("--username", "-u", envvar="NOTIFY_USERNAME")] = None,
    after: Annotated[int | None, typer.Option("--after", min=0, help="Begin after this seq.")] = None,
    ack: Annotated[bool, typer.Option("--ack/--no-ack", help="Acknowledge what was printed.")] = True,
    once: Annotated[int | None, typer.Option("--once", min=1, metavar="N", help="Stop after N notifications.")] = None,
    state: Annotated[
        Path | None,
        typer.Option("--state", help="Keep session and position in this file (mode 0600) for the next run."),
    ] = None,
    password_stdin: PasswordStdin = False,
    as_json: AsJson = False,
) -> None:
    """Print notifications as they come, first what is waiting. With --json one frame a line.

    The password is read from NOTIFY_PASSWORD or stdin, or asked for. Without --state the session ends with the command.
    """
    url = checked_url(url)
    if username is None:
        refuse("--username: who listens? (or set NOTIFY_USERNAME)", code=2)
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(Kept.open(state, url=url, username=username)) if state is not None else Kept(None)
        position = Position(after=kept.after, epoch=kept.epoch) if after is None else Position(after=after)

        def moved() -> None:
            kept.write(after=position.after, epoch=position.epoch)

        async def work() -> None:
            async with open_http(url) as http:
                account = Account(
                    http,
                    username=username,
                    password=lambda: (
                        os.environ.get("NOTIFY_PASSWORD") or ask_password("password", from_stdin=password_stdin)
                    ),
                    device=f"gateway listen on {socket.gethostname()}"[:64],
                    kept=kept.refresh_token,
                    changed=lambda token: kept.write(refresh_token=token),
                )
                listener = Listener(
                    url=url,
                    tokens=account,
                    show=show_json_line if as_json else show_text,
                    note=note,
                    moved=moved,
                    position=position,
                    floor=after or 0,
                    acking=ack,
                    wanted=once,
                    direct=is_local(url),
                )
                try:
                    await listener.run()
                finally:
                    if state is None:
                        with contextlib.suppress(Refused, Unavailable):  # it ends by itself when it idles
                            await account.leave()
                    elif ack:
                        moved()

        try:
            run(work())
        except Stopped as error:
            refuse(f"{error}; this is a bug of the client" if error.bug else f"{error}; sign in again")


def show_json_line(frame: Frame) -> None:
    # Flushed: what is acknowledged has left this process.
    typer.echo(json.dumps(frame))
    sys.stdout.flush()


def show_text(frame: Frame) -> None:
    line = describe(frame)
    if line is not None:
        typer.echo(line)
        sys.stdout.flush()


def describe(frame: Frame) -> str | None:
    """One line for people, or None for what they need not see. No sender can reach the terminal's controls."""
    match frame["type"]:
        case "hello":
            text = (
                f"listening as {frame['user']}: {frame['unread']} unread, from seq {frame['after']} of {frame['head']}"
            )
            if frame.get("reset"):
                text += " (the log has changed: numbers begin anew)"
            return escape(text)
        case "notification":
            number = "·" if frame["seq"] is None else frame["seq"]
            marks = [str(frame[name]) for name in ("category", "topic") if frame.get(name)]
            if frame.get("priority") not in (None, "normal"):
                marks.append(str(frame["priority"]))
            text = f"{number}  {frame['created_at']}  " + "".join(f"[{mark}] " for mark in marks) + str(frame["title"])
            if frame.get("body"):
                text += f" — {frame['body']}"
            if frame.get("data"):
                text += f" {json.dumps(frame['data'], ensure_ascii=False)}"
            return escape(text + (" (read)" if frame.get("read_at") else ""))
        case "gap":
            return f"·  {frame['from']}–{frame['to']} will not come: expired, withdrawn or over the inbox limit"
        case "read":
            what = f"up to {frame['up_to']}" if frame.get("up_to") is not None else ", ".join(frame.get("ids", ()))
            return escape(f"·  read: {what}; {frame['unread']} unread")
        case "withdrawn":
            return escape(f"·  withdrawn: {frame['id']}; {frame['unread']} unread")
        case "changed":
            return f"·  something changed meanwhile; {frame['unread']} unread"
        case "reconnect":
            return escape(
                f"·  the gateway asks for a new connection in {frame['after_ms'] / 1000:.1f} s: {frame['reason']}"
            )
    return None


class Kept:
    """What one device keeps between runs: its session and how far it is. Without a path it keeps nothing."""

    def __init__(self, path: Path | None, stored: Mapping[str, Any] | None = None) -> None:
        self._path, self._stored = path, dict(stored or {})
        self.refresh_token: str | None = self._stored.get("refresh_token")
        self.after: int | None = self._stored.get("after")
        self.epoch: str | None = self._stored.get("epoch")

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, *, url: str, username: str) -> Iterator[Kept]:
        """Held by one process at a time: two that renew one session would look like a thief to the gateway."""
        try:
            lock = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            refuse(f"--state: {path}: {error.strerror}", code=2)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                refuse(f"--state: {path} is used by another gateway listen")
            stored = _read_state(path)
            whose = {"url": url, "username": username}
            if stored and {name: stored.get(name) for name in whose} != whose:
                refuse(f"--state: {path} belongs to {stored.get('username')} at {stored.get('url')}", code=2)
            yield cls(path, {**stored, **whose})
        finally:
            os.close(lock)

    def write(self, **changed: str | int | None) -> None:
        """Replace the file in one step; only its owner may read it."""
        self._stored |= changed
        if self._path is None:
            return
        fresh = self._path.with_name(self._path.name + ".new")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()  # left by a crash; never written through, it might be somebody's link
        with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            json.dump(self._stored, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)


def _read_state(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        refuse(f"--state: {path}: {error.strerror}", code=2)
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        refuse(f"--state: {path} is not a file of gateway listen", code=2)
    return stored
