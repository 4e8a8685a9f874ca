"""``gateway send``: push one notification over HTTP. Not through the database: only a running node can announce it."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer

from gateway.client.addresses import gateway_url, is_local
from gateway.client.signin import client_token, open_http, post
from gateway.commands.output import AsJson, note, refuse, run, show_json

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
    url: Url = DEFAULT_URL,
    client_id: Annotated[str | None, typer.Option("--client-id", envvar="NOTIFY_CLIENT_ID")] = None,
    as_json: AsJson = False,
) -> None:
    """Push one notification to a running gateway.

    The secret of the client is read from NOTIFY_CLIENT_SECRET or asked for; or give a ready token in NOTIFY_TOKEN.
    """
    url = checked_url(url)
    message: dict[str, Any] = {"user_id": user, "title": title}
    options = {"body": body, "category": category, "priority": priority, "ttl": ttl, "data": _object(data)}
    message |= {name: value for name, value in options.items() if value is not None}
    ready = os.environ.get("NOTIFY_TOKEN")
    secret = os.environ.get("NOTIFY_CLIENT_SECRET")
    if not ready:
        if client_id is None:
            refuse("who sends? set NOTIFY_CLIENT_ID and NOTIFY_CLIENT_SECRET (see: gateway client add)", code=2)
        if not secret:
            if not sys.stdin.isatty():
                refuse("NOTIFY_CLIENT_SECRET is not set, and there is no terminal to ask on", code=2)
            secret = str(typer.prompt("Client secret", hide_input=True, err=True))

    async def work() -> tuple[int, dict[str, Any]]:
        async with open_http(url) as http:
            bearer = ready or await client_token(http, client_id=client_id or "", secret=secret or "")
            headers = {"Authorization": f"Bearer {bearer}"} | ({} if key is None else {"Idempotency-Key": key})
            response, answer = await post(http, "/notifications", headers=headers, json=message)
            return response.status_code, answer

    status, answer = run(work())
    if as_json:
        show_json(answer)
        return
    online = {True: "online", False: "offline", None: "unknown"}[answer.get("online")]
    kept = f"seq {answer['seq']}, kept until {answer['expires_at']}" if status == 201 else "passing, stored nowhere"
    typer.echo(f"{answer['id']} ({kept}; {user} is {online})")


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
