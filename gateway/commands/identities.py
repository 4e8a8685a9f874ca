"""``gateway user link``: which persons of trusted issuers a user is. Works on the database, beside a running node."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.commands.output import AsJson, note, operator, show_rows
from gateway.commands.people import UserWord, find_user, with_services
from gateway.errors import NotFound
from gateway.model import millis
from gateway.services import Services

COLUMNS = ("issuer", "subject")
Issuer = Annotated[str, typer.Argument(metavar="ISSUER", help="As in GATEWAY_TRUSTED_ISSUERS.")]
Subject = Annotated[str, typer.Argument(metavar="SUBJECT", help="What the issuer calls them: sub, or its claim.")]


def user_link(word: UserWord, issuer: Issuer, subject: Subject) -> None:
    """Let somebody of a trusted issuer sign in as this user. The only way for an admin."""

    async def work(services: Services) -> None:
        found = await find_user(services, word)
        await services.identities.link(found.id, issuer, subject, by=operator(), now=millis(services.clock()))

    with_services(work)
    note("Linked.")


def user_unlink(issuer: Issuer, subject: Subject) -> None:
    """Take that back; of a deleted user, so that they may come in as a new one. Sessions stay: gateway revoke ends
    those."""

    async def work(services: Services) -> str:
        return await services.identities.unlink(issuer, subject, by=operator(), now=millis(services.clock()))

    note(f"They are no longer the user {with_services(work)}.")


def user_identities(word: UserWord, as_json: AsJson = False) -> None:
    """List the persons of issuers that are this user, or were before it was deleted (then it is named by its id)."""

    async def work(services: Services) -> list[dict[str, object]]:
        try:
            id = (await find_user(services, word)).id
        except NotFound:
            id = word
        linked = await services.identities.list(id)
        return [{"issuer": issuer, "subject": subject} for issuer, subject in linked]

    show_rows(with_services(work), COLUMNS, as_json=as_json)


def register(user: typer.Typer) -> None:
    """Among the commands of ``gateway user``."""
    user.command("link")(user_link)
    user.command("unlink")(user_unlink)
    user.command("identities")(user_identities)
