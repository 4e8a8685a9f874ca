"""What ``gateway serve`` prints when it is ready: where it is, and on the first start how to begin. Starts nothing."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import typer
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from gateway.logs import escape

_STEPS = """\
Quick start: paste this into another terminal, block by block.

Sign in as the administrator:

    URL={url}
    {password}
    field() {{ python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }}
    ADMIN=$(curl -sS $URL/auth/login -H 'Content-Type: application/json' -d "{{\\"username\\": \\"{admin}\\", \\"password\\": \\"$PASSWORD\\"}}" | field access_token)

Create a user, who receives:

    curl -sS $URL/admin/users -H "Authorization: Bearer $ADMIN" -H 'Content-Type: application/json' -d '{{"id": "42", "username": "alice", "password": "correct horse 42"}}'; echo

Listen as that user, in a third terminal (the password is: correct horse 42):

    {gateway} listen --url {url} --username alice

Create a client, which sends, and push:

    CLIENT=$(curl -sS $URL/admin/clients -H "Authorization: Bearer $ADMIN" -H 'Content-Type: application/json' -d '{{"name": "shop", "scopes": ["notifications:write"]}}')
    PUSH=$(curl -sS $URL/auth/token -u "$(echo "$CLIENT" | field client_id):$(echo "$CLIENT" | field client_secret)" -d grant_type=client_credentials | field access_token)
    curl -sS $URL/notifications -H "Authorization: Bearer $PUSH" -H 'Content-Type: application/json' -H 'Idempotency-Key: order-1234' -d '{{"user_id": "42", "title": "Order shipped", "body": "Arrives Friday"}}'; echo

Take the user's access back; the listener is closed at once:

    curl -sS $URL/admin/revocations -H "Authorization: Bearer $ADMIN" -H 'Content-Type: application/json' -d '{{"user_id": "42", "reason": "lost phone"}}'; echo
"""  # noqa: E501 - these are lines to paste; a shell takes them as they stand


def command_name() -> str:
    """How this command was called, so that what is printed can be pasted."""
    called = sys.argv[0]
    if Path(called).name == "gateway":
        return shlex.quote(called)
    return f"{shlex.quote(sys.executable)} -m gateway"


def announce(*, url: str, data: str, node: str, workers: int, first: tuple[str, str] | None) -> None:
    """Say that the gateway is ready. ``first``: name and password of the new admin (``""``: chosen by setting)."""
    if first is None:
        several = f" · {workers} workers" if workers > 1 else ""
        typer.echo(escape(f"gateway ready at {url} · node {node}{several} · data in {data}"))
        sys.stdout.flush()
        return
    show_admin(url=url, data=data, first=first)
    typer.echo(steps(url=url, first=first))
    sys.stdout.flush()


def show_admin(*, url: str, data: str, first: tuple[str, str]) -> None:
    """The one time the generated password is shown. A frame on a terminal, plain lines elsewhere."""
    admin, password = first
    lines = {
        "URL": url,
        "data": data,
        "admin": admin,
        "password": f"{password}   (shown only now)" if password else "the one of GATEWAY_BOOTSTRAP_ADMIN_PASSWORD",
        "change it": f"{command_name()} user passwd {admin}",
    }
    text = "\n".join(f"{name:<9} {escape(value)}" for name, value in lines.items())
    if sys.stdout.isatty():
        # No wrapping inside a word: what is copied must be what was meant.
        Console().print(Panel(Text(text, overflow="fold"), title="The gateway is ready", expand=False))
    else:
        typer.echo(f"The gateway is ready.\n{text}")


def steps(*, url: str, first: tuple[str, str]) -> str:
    """Commands from nothing to a revoked listener."""
    admin, password = first
    given = f"PASSWORD={shlex.quote(password)}" if password else "read -rs PASSWORD   # type the admin's password"
    return "\n" + _STEPS.format(url=url, admin=admin, password=given, gateway=command_name())
