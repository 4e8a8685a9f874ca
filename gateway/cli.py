"""The command line: ``gateway serve`` and what surrounds it. The other commands stand in ``gateway/commands``.

Heavy imports stay inside the commands that need them: ``gateway version`` loads no server.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import typer
from pydantic import SecretStr

from gateway import __version__
from gateway.commands import identities
from gateway.commands.keys import keys
from gateway.commands.listening import listen
from gateway.commands.output import (
    AsJson,
    Commands,
    confirm,
    note,
    operator,
    refuse,
    run,
    show_record,
    show_rows,
    tool_settings,
)
from gateway.commands.people import Yes, client, user
from gateway.commands.quickstart import announce, show_admin
from gateway.commands.send import send
from gateway.commands.tokens import revoke, token
from gateway.logs import configure
from gateway.model import millis
from gateway.settings import PREFIX, Settings, read_settings

MASK = "********"

app = typer.Typer(
    cls=Commands,
    help="A notification push gateway. Settings are environment variables GATEWAY_…: see gateway config.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", help="GATEWAY_DATABASE_URL. With a password in it, use the environment instead."),
]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option("--host", help="GATEWAY_HOST")] = None,
    port: Annotated[int | None, typer.Option("--port", help="GATEWAY_PORT; 0 takes a free one.")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="GATEWAY_WORKERS: processes behind the port; they need PostgreSQL.")
    ] = None,
    database_url: DatabaseUrl = None,
    log_level: Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error")] = None,
    log_format: Annotated[str | None, typer.Option("--log-format", help="auto, text or json")] = None,
) -> None:
    """Serve until SIGTERM. The first start on an empty database makes an admin and says how to begin."""
    given = {
        "HOST": host, "PORT": port, "WORKERS": workers, "DATABASE_URL": database_url, "LOG_LEVEL": log_level,
        "LOG_FORMAT": log_format,
    }  # fmt: skip
    overrides = {PREFIX + name: str(value) for name, value in given.items() if value is not None}
    settings = read_settings({**os.environ, **overrides})
    configure(level=settings.log_level, format=settings.log_format)

    from gateway.app import run as serve_until_told
    from gateway.opening import node_name
    from gateway.sockets.forking import NotStarted
    from gateway.sockets.server import CannotListen

    data = where(settings)
    node = node_name(settings)
    made: list[tuple[str, str]] = []

    def ready(url: str) -> None:
        first = made.pop() if made else None
        announce(url=url, data=data, node=node, workers=settings.workers, first=first)

    try:
        serve_until_told(
            settings,
            on_first_admin=lambda username, password: made.append((username, password)),
            on_ready=ready,
        )
    except CannotListen as error:
        refuse(str(error), code=2)
    except NotStarted as error:
        refuse(str(error), code=error.code)
    except SystemExit:
        # The server's own way to say that the application did not start; the reason is in the log.
        refuse("the gateway did not start")
    finally:
        if made:  # made, and then the start failed: the password would never be seen again
            show_admin(url="(not up)", data=data, first=made.pop())


@app.command()
def migrate(database_url: DatabaseUrl = None) -> None:
    """Bring the database to the newest schema. serve does it too."""
    settings = tool_settings(database_url)
    from gateway.store.engine import upgrade
    from gateway.store.migrate import head

    changed = run(upgrade(settings.database_url.get_secret_value()))
    typer.echo(f"{where(settings)} is {'now' if changed else 'already'} at revision {head()}")


@app.command()
def config(as_json: AsJson = False) -> None:
    """Show every setting, its value and where it comes from. Secrets are masked."""
    settings = read_settings()
    show_rows(
        [
            {
                "setting": PREFIX + name.upper(),
                "value": shown(name, getattr(settings, name)),
                "source": "environment" if os.environ.get(PREFIX + name.upper()) else "default",
            }
            for name in Settings.model_fields
        ],
        ("setting", "value", "source"),
        as_json=as_json,
    )


@app.command()
def backup(target: Annotated[Path, typer.Argument(metavar="FILE")]) -> None:
    """Copy the database to FILE while the gateway runs. FILE holds keys and hashes: it gets mode 0600."""
    settings = tool_settings()
    from gateway.store.maintenance import backup as copy_to

    written = run(copy_to(settings.database_url.get_secret_value(), target))
    typer.echo(f"backed up to {written} ({written.stat().st_size} bytes)")


@app.command()
def restore(source: Annotated[Path, typer.Argument(metavar="FILE")], yes: Yes = False) -> None:
    """Put a backup in the place of the database. Refused while a gateway runs; every session ends."""
    settings = tool_settings()
    confirm(f"Replace {where(settings)} by {source}? Everything since that backup is lost.", yes=yes)
    from gateway.store.maintenance import restore as replace_by

    run(replace_by(settings.database_url.get_secret_value(), source, by=operator(), now=millis(time.time())))
    note(f"Restored from {source}: a new epoch, every session has ended, every earlier token is dead.")


@app.command("new-epoch")
def new_epoch(yes: Yes = False) -> None:
    """Say that the database was restored by other means: a new epoch, and every session ends."""
    settings = tool_settings()
    confirm("Begin a new epoch and end every session?", yes=yes)
    from gateway.store.maintenance import new_epoch as begin

    run(begin(settings.database_url.get_secret_value(), by=operator(), now=millis(time.time())))
    note("A new epoch has begun: every session has ended, every earlier token is dead.")


@app.command()
def version(as_json: AsJson = False) -> None:
    """Print the version."""
    if as_json:
        show_record({"version": __version__}, as_json=True)
    else:
        typer.echo(__version__)


identities.register(user)
app.add_typer(user, name="user")
app.add_typer(client, name="client")
app.add_typer(token, name="token")
app.add_typer(keys, name="keys")
app.command()(revoke)
app.command()(send)
app.command()(listen)


def where(settings: Settings) -> str:
    """Where the data lives, for people: a path, or a URL without its password."""
    url = settings.database_url.get_secret_value()
    path = url.removeprefix("sqlite+aiosqlite:///")
    return str(Path(path).absolute()) if path != url else without_password(url)


def shown(name: str, value: object) -> object:
    """A value as ``gateway config`` may show it: of a URL only what is secret is masked, other secrets whole."""
    if isinstance(value, SecretStr):
        return without_password(value.get_secret_value()) if name.endswith("_url") else MASK
    return list(value) if isinstance(value, tuple) else value


def without_password(url: str) -> str:
    """``url`` with the password and every query value that sounds like one masked."""
    # By hand too: a database URL is read up to the @, so a password may hold what ends a host elsewhere (/ ? #).
    scheme, slashes, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    name, colon, _ = credentials.partition(":")
    try:
        parts = urlsplit(f"{scheme}{slashes}{place}")
        query = [
            (key, MASK if any(word in key.lower() for word in ("pass", "secret", "token", "key")) else value)
            for key, value in parse_qsl(parts.query, keep_blank_values=True)
        ]
    except ValueError:
        return MASK
    netloc = f"{name}{colon}{MASK if colon else ''}{at}{parts.netloc}"
    # By hand: urlunsplit drops the empty host of sqlite:///, and with it a slash.
    query_text = f"?{urlencode(query, safe='*/:')}" if query else ""
    return f"{parts.scheme}://{netloc}{parts.path}{query_text}" if parts.scheme else urlunsplit(parts)


def main() -> None:
    app(prog_name="gateway")
