"""``gateway token`` and ``gateway revoke``: make a token, look into one, end one. Works on the database.

A token is read from stdin, the environment or the terminal, never from the arguments: those every process can read.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.commands.output import AsJson, first_line, group, note, operator, refuse, show_json, show_record
from gateway.commands.people import WITHIN, find_user, with_services
from gateway.errors import Invalid, TokenExpired, TokenInvalid
from gateway.granting import ban_until
from gateway.model import GATEWAY_CLIENT, SCOPES_OF_ROLE, Claims, Revocation, SignIn, Target, millis, new_id, rfc3339
from gateway.revocations import Revocations
from gateway.services import Services

token = group("Access tokens: issue one, check one.")


@token.command("issue")
def token_issue(
    user: Annotated[str | None, typer.Option("--user", help="Id or username: a token of a new session.")] = None,
    client: Annotated[str | None, typer.Option("--client", help="Client id.")] = None,
    ttl: Annotated[
        int | None, typer.Option("--ttl", min=1, help="Seconds; at most, and by default, the setting.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print an access token. A user's is that of a new session, which ends with it and can be revoked."""
    if (user is None) == (client is None):
        refuse("say --user or --client, one of them", code=2)
    from gateway.settings import LONGEST_ACCESS_TTL, read_settings

    most = read_settings().access_token_ttl
    if ttl is not None and ttl > most:
        refuse(f"--ttl: at most GATEWAY_ACCESS_TOKEN_TTL, {most} seconds", code=2)
    lifetime = ttl or most

    async def work(services: Services) -> tuple[str, str | None]:
        now, by, session = services.clock(), operator(), None
        id = new_id(now)
        detail: dict[str, object] = {"jti": id, "sid": None, "ttl": lifetime}
        memory = Revocations()
        memory.add(await services.revocation_log.since(0, now=millis(now)))
        if user is not None:
            found = await find_user(services, user)
            session = new_id(now)
            _, owner = await services.sessions.start(
                SignIn(
                    id=session,
                    user_id=found.id,
                    device="gateway token issue",
                    refresh_hash=hashlib.sha256(secrets.token_bytes(32)).digest(),  # nobody has what it is the hash of
                    now=millis(now),
                    expires_at=millis(now) + lifetime * 1000,
                    limit=10_000,
                    until=ban_until(millis(now), LONGEST_ACCESS_TTL),  # what the nodes are set to is not known here
                    action="token_issued",
                    target=found.id,
                    detail=detail | {"sid": session},
                    by=by,
                )
            )
            subject, client_id, scopes = owner.id, GATEWAY_CLIENT, SCOPES_OF_ROLE[owner.role]
        else:
            one = await services.clients.get(client or "")
            subject = client_id = one.client_id
            scopes = one.scopes
            await services.audit.record("token_issued", target=subject, detail=detail, by=by, now=millis(now))
        # As in login: a cut takes in its own second, so a token made within it is issued the next one.
        text = services.keyring.sign(
            subject=subject,
            client_id=client_id,
            scopes=scopes,
            session=session,
            token_id=id,
            now=now,
            ttl=lifetime,
            issued_at=max(int(now), memory.cut(client_id) + 1),
        )
        return text, session

    text, session = with_services(work)
    if as_json:
        show_json({"access_token": text, "token_type": "Bearer", "expires_in": lifetime, "session": session})
    else:
        typer.echo(text)


def read_token(*, from_stdin: bool) -> str:
    """From stdin, NOTIFY_TOKEN, or typed unseen."""
    given = os.environ.get("NOTIFY_TOKEN")
    if from_stdin or (given is None and not sys.stdin.isatty()):
        return first_line("token").strip()
    return given.strip() if given is not None else str(typer.prompt("Token", hide_input=True, err=True)).strip()


@token.command("check")
def token_check(
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Read it from stdin, whatever NOTIFY_TOKEN is.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a token claims and whether it counts. Exit code 1 if it does not."""
    raw = read_token(from_stdin=token_stdin)

    async def work(services: Services) -> tuple[Claims | None, str]:
        now = services.clock()
        try:
            claims = services.keyring.verify(raw, now=now)
        except TokenExpired:
            return None, "token_expired"
        except TokenInvalid as error:
            # The reason is for whoever holds the signing keys; over HTTP every bad token is the same.
            return None, f"token_invalid: {error.why}" if error.why else "token_invalid"
        memory = Revocations()
        memory.add(await services.revocation_log.since(0, now=millis(now)))
        ended = memory.verdict(claims)
        return claims, "valid" if ended is None else ended.reason

    claims, verdict = with_services(work)
    record: dict[str, object] = {"verdict": verdict}
    if claims is not None:
        record |= {
            "sub": claims.subject,
            "client_id": claims.client_id,
            "sid": claims.session,
            "jti": claims.token_id,
            "kid": claims.kid,
            "scope": " ".join(sorted(claims.scopes)),
            "issued_at": rfc3339(claims.issued_at * 1000),
            "expires_at": rfc3339(claims.expires_at * 1000),
        }
    show_record(record, as_json=as_json)
    if verdict != "valid":
        raise typer.Exit(1)


def revoke(
    session: Annotated[str | None, typer.Option("--session", help="A session: its tokens and sockets.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="Id or username: every session.")] = None,
    issued_before: Annotated[
        str | None, typer.Option("--issued-before", help="RFC 3339: with --user, only sessions signed in until then.")
    ] = None,
    jti: Annotated[str | None, typer.Option("--jti", help="One access token.")] = None,
    client: Annotated[str | None, typer.Option("--client", help="A client's tokens issued until now.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="For the audit trail.")] = None,
    as_json: AsJson = False,
) -> None:
    """Take tokens back. Their sockets are closed by every running node, within half a second."""
    if sum(given is not None for given in (session, user, jti, client)) != 1:
        refuse("say exactly one of --session, --user, --jti and --client", code=2)
    if issued_before is not None and user is None:
        refuse("--issued-before goes with --user", code=2)
    if jti is not None and not 0 < len(jti) <= 255:
        refuse("--jti: the jti of a token, as gateway token check says it", code=2)
    before = None if issued_before is None else _moment(issued_before)

    async def work(services: Services) -> Revocation:
        user_id = None if user is None else (await find_user(services, user)).id
        target = Target(session=session, user_id=user_id, token_id=jti, client_id=client, issued_before=before)
        done, _ = await services.revoker.revoke(target, reason=reason, by=operator())
        return done

    done = with_services(work)
    names = {"session": session, "user": done.target.user_id, "jti": jti, "client": client}
    show_record(
        {"id": done.id, **{name: value for name, value in names.items() if value is not None}, "reason": reason},
        as_json=as_json,
    )
    note(f"Revoked. {WITHIN}")


def _moment(text: str) -> int:
    """RFC 3339 → ms since the epoch. Raises Invalid for another form, no zone, or the future."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid("--issued-before is an RFC 3339 time, like 2026-11-20T16:05:00Z") from None
    if moment.tzinfo is None:
        raise Invalid("--issued-before needs its zone, like 2026-11-20T16:05:00Z")
    at = millis(moment.astimezone(UTC).timestamp())
    if at > millis(time.time()):
        raise Invalid("--issued-before lies in the future")
    return at
