"""What every command says and how it ends: tables, JSON, one line of error, an exit code. Knows no command.

0: done. 1: refused. 2: the command line or a setting is wrong. 130: interrupted. Results go to stdout, words
about them to stderr, so that what a script reads is only what it asked for.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import os
import sys
from collections.abc import Coroutine, Mapping, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup
from typer.exceptions import TyperException

from gateway.client.errors import Refused, Unavailable
from gateway.errors import GatewayError, Invalid
from gateway.logs import configure, escape, redact
from gateway.model import Actor
from gateway.settings import Settings, SettingsError, read_settings
from gateway.store.errors import StoreError

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the first line of stdin.")
]


def refuse(words: str, *, code: int = 1) -> NoReturn:
    """One line on stderr, and out. No credential and no control character gets through."""
    for line in words.splitlines() or [""]:
        typer.echo(f"gateway: {escape(redact(line))}", err=True)
    raise typer.Exit(code)


def note(words: str) -> None:
    """A line for people that is not the result."""
    typer.echo(escape(redact(words)), err=True)


class Commands(TyperGroup):
    """The edge of the command line: every way a command can fail becomes one line and an exit code, no traceback."""

    def main(self, args: Sequence[str] | None = None, *_: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        try:
            code = self._guarded(args, extra)
        except typer.Exit as exit:
            code = exit.exit_code
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else 0)

    def _guarded(self, args: Sequence[str] | None, extra: Mapping[str, Any]) -> Any:
        try:
            return super().main(args, standalone_mode=False, **extra)
        except typer.Abort:
            refuse("interrupted", code=130)
        except TyperException as error:
            words = error.format_message()
            if words.startswith("Usage:"):  # no arguments at all: the help is the answer
                typer.echo(words, err=True)
                return error.exit_code
            refuse(" ".join(words.split()), code=error.exit_code)
        except SettingsError as error:
            refuse(str(error), code=2)
        except GatewayError as error:
            where = "".join(f" [{pointer.lstrip('/')}: {detail}]" for pointer, detail in _errors(error))
            refuse(f"{error.detail} ({error.code}){where}")
        except (Refused, Unavailable, StoreError) as error:
            refuse(str(error))
        except BrokenPipeError:
            # Whoever read our output has gone. Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:  # the edge: whatever is left becomes a line, and a traceback only for who asks
            logging.getLogger("gateway.cli").debug("the command failed", exc_info=True)
            first = str(error).partition("\n")[0]  # what follows in those of a database is the statement
            refuse(f"{type(error).__name__}: {first}" if first else type(error).__name__)


def _errors(error: GatewayError) -> Sequence[tuple[str, str]]:
    return [pair for pair in error.errors if pair[1] != error.detail] if isinstance(error, Invalid) else ()


def group(help: str) -> typer.Typer:
    return typer.Typer(help=help, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def tool_settings(database_url: str | None = None, **given: object) -> Settings:
    """The settings of a command that works on the database; logging is set up, quiet unless something is wrong."""
    environment = dict(os.environ)
    named = {"database_url": database_url, **given}
    environment |= {f"GATEWAY_{name.upper()}": str(value) for name, value in named.items() if value is not None}
    settings = read_settings(environment)
    quiet = "debug" if settings.log_level == "debug" else "warning"
    configure(level=quiet, format=settings.log_format)
    return settings


def operator() -> Actor:
    """Whoever types: the audit trail names the account of the operating system. ``~`` stands in no id of ours."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return Actor(f"~cli:{name}"[:64])


# -- what goes in ------------------------------------------------------------------------------------------------


def ask_password(what: str, *, from_stdin: bool, twice: bool = False) -> str:
    """Typed unseen, or from stdin; never an argument, which every process on the machine can read."""
    if from_stdin:
        return first_line(what)
    if not sys.stdin.isatty():
        refuse(f"no terminal to ask for the {what}: use --password-stdin", code=2)
    return str(typer.prompt(what.capitalize(), hide_input=True, confirmation_prompt=twice, err=True))


def first_line(what: str) -> str:
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        refuse(f"stdin holds no {what} on its first line", code=2)
    return line


def confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        refuse("no terminal to confirm on: say --yes", code=2)
    if not typer.confirm(question, err=True):
        refuse("nothing was done")


# -- what comes out ----------------------------------------------------------------------------------------------


def show_json(value: object) -> None:
    """ASCII JSON: no text a sender wrote can steer the terminal it is shown on."""
    typer.echo(json.dumps(value, indent=2 if sys.stdout.isatty() else None))


def show_rows(rows: Sequence[Mapping[str, object]], columns: Sequence[str], *, as_json: bool) -> None:
    """A table on a terminal, tab separated lines under a header elsewhere, or a JSON array of whole rows."""
    if as_json:
        show_json(list(rows))
        return
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    if not sys.stdout.isatty():
        for line in (list(columns), *cells):
            typer.echo("\t".join(line))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in cells:
        table.add_row(*[Text(cell) for cell in line])
    Console().print(table)


def show_record(record: Mapping[str, object], *, as_json: bool) -> None:
    """One thing: ``name: value`` lines, or a JSON object."""
    if as_json:
        show_json(dict(record))
        return
    width = max(map(len, record), default=0)
    for name, value in record.items():
        typer.echo(f"{name + ':':<{width + 1}} {_cell(value)}")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple | set | frozenset):
        return " ".join(sorted(map(str, value)))
    return escape(str(value))
