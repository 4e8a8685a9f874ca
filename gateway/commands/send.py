"""``gateway send``: push one notification over HTTP. Not through the database: only a running node can announce it."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Annotated, Any

import typer

from gateway.client.addresses import gateway_url, is_local
from gateway.client.errors import Unavailable
from gateway.client.sending import ATTEMPTS, DEADLINE, TIMEOUT, Gateway
from gateway.client.values import Pushed
from gateway.commands.output import AsJson, note, refuse, show_json
from gateway.model import rfc3339

DEFAULT_URL = "http://127.0.0.1:8000"
Url = Annotated[str, typer.Option("--url", envvar="NOTIFY_URL", help="The gateway.")]


def checked_url(text: str) -> str:
    try:
        url = gateway_url(text)
    except ValueError as error:
        refuse(f"--url: {error}", code=2)
    if url.startswith("http://") and not is_local(url):
        note(f"careful: {url} is not encrypted, what signs you in can be read on the way")
    return url


def send(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's id.")],
    title: Annotated[str, typer.Argument(metavar="TITLE")],
    body: Annotated[str | None, typer.Option("--body")] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="JSON", help="A JSON object for the app.")] = None,
    category: Annotated[str | None, typer.Option("--category")] = None,
    priority: Annotated[str | None, typer.Option("--priority", help="low, normal or high.")] = None,
    ttl: Annotated[int | None, typer.Option("--ttl", min=0, help="Seconds; 0 is stored nowhere.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Idempotency-Key: a repeat is not a second one.")] = None,
    wait: Annotated[int, typer.Option("--wait", min=0, help="Seconds to go on trying if there is no answer.")] = int(
        DEADLINE
    ),
    url: Url = DEFAULT_URL,
    client_id: Annotated[str | None, typer.Option("--client-id", envvar="NOTIFY_CLIENT_ID")] = None,
    as_json: AsJson = False,
) -> None:
    """Push one notification to a running gateway.

    The secret of the client is read from NOTIFY_CLIENT_SECRET or asked for; or give a ready token in NOTIFY_TOKEN.
    It is tried again while there is no answer, and is one notification all the same.
    """
    url = checked_url(url)
    message: dict[str, Any] = {
        "body": body,
        "category": category,
        "priority": priority,
        "ttl": ttl,
        "data": _object(data),
    }
    with Gateway(
        url, **_sender(client_id), sleep=_Trying(wait), attempts=ATTEMPTS if wait else 1, deadline=wait or TIMEOUT
    ) as gateway:
        try:
            pushed = gateway.push(user_id=user, title=title, idempotency_key=key, **message)
        except Unavailable as error:
            if error.unknown and error.idempotency_key is not None:
                note(f"it may be stored all the same; sent again with --key {error.idempotency_key} it is one")
            raise
    if as_json:
        show_json(_answer(pushed))
        return
    online = {True: "online", False: "offline", None: "unknown"}[pushed.online]
    kept = "passing, stored nowhere"
    if pushed.seq is not None:
        kept = f"seq {pushed.seq}, kept until {_answer(pushed)['expires_at']}"
    typer.echo(f"{pushed.id} ({kept}; {user} is {online})")


def _sender(client_id: str | None) -> dict[str, Any]:
    """Who sends, as arguments of ``Gateway``."""
    token, secret = os.environ.get("NOTIFY_TOKEN"), os.environ.get("NOTIFY_CLIENT_SECRET")
    if token:
        return {"token": token}
    if client_id is None:
        refuse("who sends? set NOTIFY_CLIENT_ID and NOTIFY_CLIENT_SECRET (see: gateway client add)", code=2)
    if not secret:
        if not sys.stdin.isatty():
            refuse("NOTIFY_CLIENT_SECRET is not set, and there is no terminal to ask on", code=2)
        secret = str(typer.prompt("Client secret", hide_input=True, err=True))
    return {"client_id": client_id, "client_secret": secret}


class _Trying:
    """Waits between two tries; says so once, for who sits before it."""

    def __init__(self, seconds: int) -> None:
        self._seconds, self._said = seconds, False

    def __call__(self, seconds: float) -> None:
        if not self._said:
            self._said = True
            note(f"not taken yet; trying again for up to {self._seconds} seconds")
        time.sleep(seconds)


def _answer(pushed: Pushed) -> dict[str, object]:
    """As the gateway's own answer."""
    if pushed.seq is None:
        return {"id": pushed.id, "online": pushed.online}
    times = {"created_at": pushed.created_at, "expires_at": pushed.expires_at}
    said = {name: None if time is None else rfc3339(round(time.timestamp() * 1000)) for name, time in times.items()}
    return {"id": pushed.id, "user_id": pushed.user_id, "seq": pushed.seq, **said, "online": pushed.online}


def _object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        refuse(f"--data: not JSON ({error})", code=2)
    if not isinstance(value, dict):
        refuse("--data: must be a JSON object", code=2)
    return value
