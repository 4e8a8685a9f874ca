"""``gateway user`` and ``gateway client``: who receives and who sends. Works on the database, beside a running node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, TypeVar, cast

import typer

from gateway.commands.output import (
    AsJson,
    PasswordStdin,
    ask_password,
    confirm,
    group,
    note,
    operator,
    refuse,
    run,
    show_record,
    show_rows,
    tool_settings,
)
from gateway.errors import NotFound
from gateway.login import new_client_secret
from gateway.model import CLIENT_SCOPES, Client, Role, User, is_user_id, millis, new_id, rfc3339
from gateway.services import Services

T = TypeVar("T")

user = group("Who receives: create, list, disable, delete.")
client = group("Who sends: backend services with an id and a secret.")

USER_COLUMNS = ("id", "username", "role", "disabled", "created_at")
CLIENT_COLUMNS = ("client_id", "name", "scopes", "created_at", "rotated_at")
WITHIN = "A running node takes note within half a second."
UserWord = Annotated[str, typer.Argument(metavar="USER", help="Id or username.")]
ClientId = Annotated[str, typer.Argument(metavar="CLIENT_ID")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def with_services(work: Callable[[Services], Awaitable[T]]) -> T:
    """Open the database as a tool, do ``work``, close it."""
    # Imported here: it loads every library of the server, and half of the commands need none of them.
    from gateway.opening import open_gateway

    settings = tool_settings()

    async def inside() -> T:
        async with open_gateway(settings, role="tool") as services:
            return await work(services)

    return run(inside())


async def find_user(services: Services, word: str) -> User:
    """The user with this id or this username. A word that is one user's id and another's name is refused."""
    by_name = await services.users.credentials(word)
    try:
        by_id = await services.users.get(word)
    except NotFound:
        if by_name is None:
            raise
        return by_name[0]
    if by_name is not None and by_name[0].id != by_id.id:
        refuse(f"USER: {word} is the id of one user and the username of another ({by_name[0].id})")
    return by_id


def user_row(one: User) -> dict[str, object]:
    return {
        "id": one.id,
        "username": one.username,
        "role": one.role,
        "disabled": one.disabled,
        "created_at": rfc3339(one.created_at),
    }


def client_row(one: Client) -> dict[str, object]:
    return {
        "client_id": one.client_id,
        "name": one.name,
        "scopes": sorted(one.scopes),
        "created_at": rfc3339(one.created_at),
        "rotated_at": None if one.rotated_at is None else rfc3339(one.rotated_at),
    }


async def every(page: Callable[[str | None], Awaitable[tuple[Sequence[T], str | None]]]) -> list[T]:
    """All pages of a listing."""
    items, cursor = await page(None)
    found = list(items)
    while cursor is not None:
        items, cursor = await page(cursor)
        found.extend(items)
    return found


def _name(text: str, what: str) -> str:
    if not 1 <= len(text) <= 64 or not text.isprintable() or text != text.strip():
        refuse(f"{what}: 1 to 64 printable characters, no space at either end", code=2)
    return text


# -- users -------------------------------------------------------------------------------------------------------


@user.command("add")
def user_add(
    username: Annotated[str, typer.Argument(help="What the user signs in with.")],
    id: Annotated[str | None, typer.Option("--id", help="Your id of the user; generated if left out.")] = None,
    role: Annotated[str, typer.Option("--role", help="user or admin.")] = "user",
    password_stdin: PasswordStdin = False,
    as_json: AsJson = False,
) -> None:
    """Create a user. The password is asked for, or read from stdin."""
    _name(username, "USERNAME")
    if id is not None and not is_user_id(id):
        refuse("--id: 1 to 64 of A-Z a-z 0-9 . _ -, not . or ..", code=2)
    if role not in ("user", "admin"):
        refuse("--role: user or admin", code=2)
    password = ask_password("password", from_stdin=password_stdin, twice=True)

    async def work(services: Services) -> User:
        hashed = await services.login.hash_new(password, username=username)
        now = services.clock()
        return await services.users.create(
            id=id or new_id(now),
            username=username,
            role=cast("Role", role),
            password_hash=hashed,
            by=operator(),
            now=millis(now),
        )

    show_record(user_row(with_services(work)), as_json=as_json)


@user.command("list")
def user_list(
    query: Annotated[str | None, typer.Option("--query", "-q", help="Part of an id or username.")] = None,
    as_json: AsJson = False,
) -> None:
    """List users, by id."""

    async def work(services: Services) -> list[User]:
        return await every(lambda cursor: services.users.list(query=query, limit=200, cursor=cursor))

    show_rows([user_row(one) for one in with_services(work)], USER_COLUMNS, as_json=as_json)


def _set_disabled(word: str, *, disabled: bool, as_json: bool) -> None:
    async def work(services: Services) -> User:
        found = await find_user(services, word)
        updated, _ = await services.users.update(
            found.id,
            role=None,
            disabled=disabled,
            by=operator(),
            now=millis(services.clock()),
            until=services.revoker.until(),
        )
        return updated

    show_record(user_row(with_services(work)), as_json=as_json)


@user.command("disable")
def user_disable(word: UserWord, as_json: AsJson = False) -> None:
    """Keep a user out: every session ends, pushes are still stored."""
    _set_disabled(word, disabled=True, as_json=as_json)
    note(f"Every session of the user has ended. {WITHIN}")


@user.command("enable")
def user_enable(word: UserWord, as_json: AsJson = False) -> None:
    """Let a disabled user sign in again."""
    _set_disabled(word, disabled=False, as_json=as_json)


@user.command("passwd")
def user_passwd(word: UserWord, password_stdin: PasswordStdin = False) -> None:
    """Set a user's password: every session ends."""
    password = ask_password("new password", from_stdin=password_stdin, twice=True)

    async def work(services: Services) -> None:
        found = await find_user(services, word)
        hashed = await services.login.hash_new(password, username=found.username)
        await services.users.set_password(
            found.id,
            password_hash=hashed,
            keep_session=None,
            by=operator(),
            now=millis(services.clock()),
            until=services.revoker.until(),
        )

    with_services(work)
    note(f"The password is set; every session of the user has ended. {WITHIN}")


@user.command("delete")
def user_delete(word: UserWord, yes: Yes = False) -> None:
    """Delete a user with inbox and sessions. The id is never given again."""
    confirm(f"Delete the user {word} and everything in the inbox?", yes=yes)

    async def work(services: Services) -> None:
        found = await find_user(services, word)
        await services.users.delete(
            found.id, by=operator(), now=millis(services.clock()), until=services.revoker.until()
        )

    with_services(work)
    note(f"The user is deleted. {WITHIN}")


# -- clients -----------------------------------------------------------------------------------------------------


def _show_secret(one: Client, secret: str, *, as_json: bool) -> None:
    show_record({**client_row(one), "client_secret": secret}, as_json=as_json)
    note("The secret is shown this once; the gateway keeps only its hash.")


@client.command("add")
def client_add(name: Annotated[str, typer.Argument(help="For people.")], as_json: AsJson = False) -> None:
    """Create a client that may push; its secret is printed once."""
    _name(name, "NAME")
    secret, hashed = new_client_secret()

    async def work(services: Services) -> Client:
        return await services.clients.create(
            client_id=f"c~{new_id()}",
            name=name,
            scopes=CLIENT_SCOPES,
            secret_hash=hashed,
            by=operator(),
            now=millis(services.clock()),
        )

    _show_secret(with_services(work), secret, as_json=as_json)


@client.command("list")
def client_list(as_json: AsJson = False) -> None:
    """List clients."""

    async def work(services: Services) -> list[Client]:
        return await every(lambda cursor: services.clients.list(limit=200, cursor=cursor))

    show_rows([client_row(one) for one in with_services(work)], CLIENT_COLUMNS, as_json=as_json)


@client.command("rotate")
def client_rotate(client_id: ClientId, as_json: AsJson = False) -> None:
    """Give a client a new secret; the old one is dead at once."""
    secret, hashed = new_client_secret()

    async def work(services: Services) -> Client:
        now = millis(services.clock())
        return await services.clients.rotate(client_id, secret_hash=hashed, by=operator(), now=now)

    _show_secret(with_services(work), secret, as_json=as_json)


@client.command("delete")
def client_delete(client_id: ClientId, yes: Yes = False) -> None:
    """Delete a client; its tokens die with it."""
    confirm(f"Delete the client {client_id}?", yes=yes)

    async def work(services: Services) -> None:
        await services.clients.delete(
            client_id, by=operator(), now=millis(services.clock()), until=services.revoker.until()
        )

    with_services(work)
    note(f"The client is deleted. {WITHIN}")
