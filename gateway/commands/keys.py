"""``gateway keys``: the signing keys in the database, listed, rotated, retired. Never shows what a key is made of.

The store and what makes keys are imported where they are needed: the other commands load this module too.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gateway.auth.lifecycle import OVERLAP, check_retirable, states
from gateway.commands.output import AsJson, group, note, operator, refuse, run, show_record, show_rows, tool_settings
from gateway.model import SigningKey, millis, rfc3339
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.store.engine import Store

T = TypeVar("T")

keys = group("The keys that sign access tokens: list, rotate, retire.")

COLUMNS = ("kid", "alg", "state", "signs_from", "source")
LONGEST_OVERLAP = 30 * 86_400
BY_SETTING = (
    "the keys are given by GATEWAY_SIGNING_KEYS: rotate them there, as docs/configuration.md says; those in the "
    "database are not used"
)
WITHIN = "Running nodes take note within a second."


def with_store(settings: Settings, work: Callable[[Store], Awaitable[T]]) -> T:
    from gateway.store.engine import open_store

    async def inside() -> T:
        async with open_store(settings.database_url.get_secret_value(), tool=True) as store:
            return await work(store)

    return run(inside())


def rows(found: Sequence[SigningKey], *, source: str, now: int) -> list[dict[str, object]]:
    return [
        {
            "kid": key.kid,
            "alg": key.algorithm,
            "state": state,
            "signs_from": rfc3339(key.signs_from) if source == "database" else None,
            "source": source,
        }
        for key, state in states(found, now=now)
    ]


@keys.command("list")
def keys_list(as_json: AsJson = False) -> None:
    """Show every key and what it does: it will sign, it signs, it only verifies."""
    settings = tool_settings()
    now = millis(time.time())
    if settings.signing_keys is not None:
        from gateway.auth.keys import parse_signing_keys

        try:
            given = parse_signing_keys(settings.signing_keys.get_secret_value())
        except ValueError as error:
            refuse(f"GATEWAY_SIGNING_KEYS: {error}", code=2)
        show_rows(rows(given, source="setting", now=now), COLUMNS, as_json=as_json)
        return
    found = with_store(settings, lambda store: store.keys.signing())
    show_rows(rows(found, source="database", now=now), COLUMNS, as_json=as_json)


@keys.command("rotate")
def keys_rotate(
    alg: Annotated[str, typer.Option("--alg", help="ES256 or RS256.")] = "ES256",
    after: Annotated[
        int,
        typer.Option(
            "--in",
            min=0,
            max=LONGEST_OVERLAP,
            metavar="SECONDS",
            help="When it begins to sign. 0, for an emergency: at once, unknown to who keeps the published keys.",
        ),
    ] = OVERLAP,
    as_json: AsJson = False,
) -> None:
    """Make a new key. It is published at once and signs after the overlap; the old one goes on verifying."""
    from gateway.auth.keys import GENERATED, generate_signing_key
    from gateway.auth.tokens import Keyring

    if alg not in GENERATED:
        refuse(f"--alg: {' or '.join(GENERATED)}", code=2)
    settings = tool_settings()
    if settings.signing_keys is not None:
        refuse(BY_SETTING)
    now = time.time()
    key = generate_signing_key(now + after, alg)
    try:  # no node could use a key whose tokens are too long
        Keyring([key], issuer=settings.issuer, audience=settings.audience, max_ttl=settings.access_token_ttl, leeway=0)
    except ValueError as error:
        refuse(str(error))
    with_store(settings, lambda store: store.keys.rotate(key, by=operator(), now=millis(now)))
    show_record({"kid": key.kid, "alg": alg, "signs_from": rfc3339(key.signs_from)}, as_json=as_json)
    note(f"{WITHIN} When tokens of the key before have run out, retire it: gateway keys list shows it.")


@keys.command("retire")
def keys_retire(
    kid: Annotated[str, typer.Argument(metavar="KID")],
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Although tokens it signed may be valid: they are refused at once, their sockets are closed, and "
            "their clients refresh.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a key that no longer signs. Refused while tokens it signed may be valid, by the GATEWAY_ACCESS_TOKEN_TTL
    of this shell."""
    settings = tool_settings()
    if settings.signing_keys is not None:
        refuse(BY_SETTING)
    now = millis(time.time())

    def check(found: Sequence[SigningKey]) -> None:
        check_retirable(found, kid, now=now, access_ttl=settings.access_token_ttl, force=force)

    with_store(settings, lambda store: store.keys.retire(kid, check=check, by=operator(), now=now))
    show_record({"kid": kid, "retired": True}, as_json=as_json)
    note(WITHIN)
