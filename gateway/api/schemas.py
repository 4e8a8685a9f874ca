"""What JSON bodies hold, in and out, as pydantic models; and the answers made of the model's nouns. No I/O.

Bodies that come in are strict (no ``"1"`` for 1, no ``false`` for 0) and know no field they do not name. A null member
is an absent one.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.frames import MAX_IDS, MAX_SEQ
from gateway.model import MAX_USER_ID, USER_ID, Role, Session, rfc3339

_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("has to be printable, without space around it")
    return text


def instant(text: str) -> int:
    """An RFC 3339 date-time as milliseconds since the epoch. Raises ValueError."""
    if _DATE_TIME.fullmatch(text) is None:
        raise ValueError("has to be an RFC 3339 date-time with its offset, like 2026-11-20T16:05:00Z")
    return int(datetime.fromisoformat(text.upper()).timestamp() * 1000)


def _date_time(text: str) -> str:
    instant(text)
    return text


UserId = Annotated[str, Field(pattern=USER_ID, max_length=MAX_USER_ID, examples=["42"])]
Username = Annotated[str, Field(min_length=1, max_length=64, examples=["ada"]), AfterValidator(_printable)]
Label = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
Password = Annotated[str, Field(json_schema_extra={"format": "password"})]
"""Its length is the business of ``login``: what is too long there has its own code."""
Reference = Annotated[str, Field(min_length=1, max_length=255)]
Seq = Annotated[int, Field(ge=0, le=MAX_SEQ)]
Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"}), AfterValidator(_date_time)]


class Body(BaseModel):
    """A body that comes in."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class Answer(BaseModel):
    """A body that goes out. ``*_at`` are RFC 3339 in UTC."""

    model_config = ConfigDict(frozen=True)


# -- signing in ---------------------------------------------------------------------------------------------------


class Credentials(Body):
    username: str
    password: Password
    device: Label | None = Field(None, description="A label of the device, for the list of sessions.")


class RefreshToken(Body):
    refresh_token: str


class NewPassword(Body):
    current_password: Password
    new_password: Password


class SignedInByCookie(Answer):
    """What a page is told that signs in by cookie: no token."""

    expires_in: int = Field(description="Seconds until the access cookie is to be refreshed.")
    refresh_expires_in: int | None = Field(None, description="Seconds.")
    scope: str


class Ticket(Answer):
    ticket: str
    expires_in: int = Field(description="Seconds.")


class Tokens(Answer):
    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  a type, not a token
    expires_in: int = Field(description="Seconds.")
    refresh_token: str | None = None
    refresh_expires_in: int | None = Field(None, description="Seconds.")
    scope: str
    issued_token_type: Annotated[str | None, Field(description="Of token exchange only (RFC 8693).")] = None


class Identity(Answer):
    """A user has ``id``, ``username``, ``role`` and ``session``; a client ``client_id`` and ``name``."""

    id: str | None = None
    username: str | None = None
    role: Role | None = None
    session: str | None = None
    client_id: str | None = None
    name: str | None = None
    scope: str
    token_expires_at: str


class SessionOut(Answer):
    id: str
    user_id: str
    device: str | None
    address: str | None
    created_at: str
    refreshed_at: str
    expires_at: str
    current: bool = Field(description="Whether it is the one that asks.")

    @classmethod
    def of(cls, session: Session, *, current: str | None) -> SessionOut:
        return cls(
            id=session.id,
            user_id=session.user_id,
            device=session.device,
            address=session.address,
            created_at=rfc3339(session.created_at),
            refreshed_at=rfc3339(session.refreshed_at),
            expires_at=rfc3339(session.expires_at),
            current=session.id == current,
        )


class SessionList(Answer):
    items: list[SessionOut]
    next: str | None


# -- the inbox ----------------------------------------------------------------------------------------------------


class MarkRead(Body):
    """Exactly one of the two."""

    ids: list[Reference] | None = Field(None, min_length=1, max_length=MAX_IDS)
    up_to: Seq | None = None


class Acknowledge(Body):
    seq: Seq
    epoch: Reference


class ReadState(Answer):
    unread: int
    rev: int
