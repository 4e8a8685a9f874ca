"""Whatever a stranger writes, a parser answers with a value or with the one error it declares; and what is written
reads back as it was. ``strict_json``, access tokens and the frame parser have such properties in their own suites too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import string
from typing import Any, cast
from urllib.parse import urlencode

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutating import Mutator
from rawpeer import TEXT, frame
from starlette.requests import Request

from gateway import frames
from gateway.api.oauth import TokenError, read_form
from gateway.api.pushes import read_push
from gateway.api.strict import strict_json
from gateway.auth.jwks import parse_jwks
from gateway.auth.refresh import RefreshTokens, sha256
from gateway.closing import INTERNAL_ERROR
from gateway.errors import Invalid, TokenExpired, TokenInvalid, without_tokens
from gateway.hosts import read_host
from gateway.model import INBOX, Claims, Principal
from gateway.sockets.framing import Parser, Ping
from gateway.sockets.wire import WireLimits
from gateway.tickets import Tickets

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES") or 100)
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])

texts = st.text(max_size=300)  # surrogates included: what came over HTTP may hold them
mutators = st.randoms(use_true_random=False).map(lambda rng: Mutator(rng, ["eyJ.eyJ.x", "t~x.y", ""]))
FORM = b"application/x-www-form-urlencoded"


# -- frames ----------------------------------------------------------------------------------------------------------


KINDS: dict[str, type] = {"ack": frames.Ack, "read": frames.Read, "token": frames.Renew, "ping": frames.Ping}


def parsed(text: str | bytes) -> object:
    """A frame, or the error that its sender is told."""
    try:
        return frames.parse(text)
    except frames.FrameError as error:
        assert error.code in ("invalid_json", "invalid_frame", "unknown_type")
        told = json.loads(frames.error(error.code, error.detail, error.ref).json)
        assert (told["type"], told["code"], told.get("ref")) == ("error", error.code, error.ref)
        return None


@many
@given(st.binary(max_size=300) | texts)
def test_whatever_the_text_a_frame_is_a_value_or_a_frame_error(text: str | bytes) -> None:
    parsed(text)


@many
@given(mutators)
def test_a_mutated_frame_is_a_value_or_a_frame_error(mutator: Mutator) -> None:
    text = mutator.text()
    found = parsed(text)
    if found is not None:  # what is taken is what any other reader would take it for
        said = json.loads(text, strict=False)
        assert (
            type(found)
            is {"ack": frames.Ack, "read": frames.Read, "token": frames.Renew, "ping": frames.Ping}[said["type"]]
        )


characters = st.characters(exclude_categories=["Cs"])
refs = st.none() | st.integers(0, frames.MAX_SEQ) | st.text(characters, max_size=frames.MAX_REF)
seqs = st.integers(0, frames.MAX_SEQ)
names = st.text(characters, min_size=1, max_size=40)
saids = st.one_of(
    st.builds(frames.Ack, seqs, refs),
    st.builds(lambda up_to, ref: frames.Read((), up_to, ref), seqs, refs),
    st.builds(lambda ids, ref: frames.Read(tuple(ids), None, ref), st.lists(names, min_size=1, max_size=100), refs),
    st.builds(frames.Renew, names, refs),
    st.builds(frames.Ping, refs),
)


@many
@given(saids, st.dictionaries(names.map("x-{}".format), st.integers() | st.text(string.printable)))
def test_a_frame_reads_back_as_it_was_said_whatever_else_stands_in_it(
    said: frames.Ack | frames.Read | frames.Renew | frames.Ping, surplus: dict[str, Any]
) -> None:
    match said:
        case frames.Ack():
            members: dict[str, Any] = {"type": "ack", "seq": said.seq}
        case frames.Read():
            members = {"type": "read", **({"up_to": said.up_to} if said.up_to is not None else {"ids": list(said.ids)})}
        case frames.Renew():
            members = {"type": "token", "token": said.token}
        case frames.Ping():
            members = {"type": "ping"}
    assert frames.parse(json.dumps({**surplus, **members, "ref": said.ref})) == said


@many
@given(mutators, st.integers(1, 5))
def test_mutated_bytes_are_heard_as_messages_and_at_most_one_end(mutator: Mutator, count: int) -> None:
    parser = Parser(WireLimits())
    heard: list[object] = []
    for piece in [piece for _ in range(count) for piece in mutator.pieces(mutator.broken())]:
        heard += parser.read(piece)
        if heard and not isinstance(heard[-1], str | Ping):
            break
    assert all(isinstance(one, str | Ping) for one in heard[:-1])
    assert INTERNAL_ERROR not in heard
    parser.close()


@many
@given(st.lists(st.text(characters, max_size=2000), max_size=10), mutators)
def test_however_messages_are_cut_into_reads_the_same_is_heard(texts: list[str], mutator: Mutator) -> None:
    parser = Parser(WireLimits())
    data = b"".join(frame(TEXT, text.encode()) for text in texts)
    assert [one for piece in mutator.pieces(data) for one in parser.read(piece)] == texts


# -- bodies ----------------------------------------------------------------------------------------------------------


def form(body: bytes, content_type: bytes = FORM) -> dict[str, str]:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", content_type)]}
    return dict(asyncio.run(read_form(Request(scope, receive))))


@many
@given(st.binary(max_size=200) | st.text("%=&+;0123456789abcdefABCDEF\x00ü", max_size=200).map(str.encode))
def test_whatever_the_form_it_is_read_or_a_token_error(body: bytes) -> None:
    try:
        read = form(body)
    except TokenError as error:
        assert error.code == "invalid_request"
        return
    for value in read.values():
        assert value
        assert "\0" not in value
        value.encode()  # no lone surrogate has come in


@many
@given(st.dictionaries(names, names.filter(lambda value: "\0" not in value), max_size=20))
def test_a_form_reads_back_as_it_was_written(fields: dict[str, str]) -> None:
    assert form(urlencode(fields).encode()) == fields


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
MEMBERS = (
    "user_id", "user_ids", "topic", "everyone", "title", "body", "data", "category", "priority", "ttl", "collapse_key",
    "deliver_at", "x",
)  # fmt: skip


@many
@given(st.dictionaries(st.sampled_from(MEMBERS), values, max_size=8))
def test_whatever_a_push_says_it_is_taken_or_invalid(body: dict[str, Any]) -> None:
    try:
        read_push(strict_json(json.dumps(body).encode()), key=None)
    except Invalid as error:
        assert all(detail for _, detail in error.errors or [("", error.detail)])


# -- credentials and headers -----------------------------------------------------------------------------------------

TOKENS = RefreshTokens(b"k" * 32)


@many
@given(texts | st.from_regex(r"[\w-]{0,70}\.[0-9]{0,12}\.[\w-]{40,46}"))
def test_whatever_poses_as_a_refresh_token_is_read_or_is_none(text: str) -> None:
    found = TOKENS.read(text)
    sha256(text)
    if found is not None:
        session, generation = found
        assert text.startswith(f"{session}.{generation}.")
        assert TOKENS.read(TOKENS.successor(text)) == (session, generation + 1)


@many
@given(st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=64), st.integers(0, 20))
def test_a_chain_of_refresh_tokens_leads_where_it_leads_and_nowhere_else(session: str, steps: int) -> None:
    first = last = TOKENS.first(session)
    for _ in range(steps):
        last = TOKENS.successor(last)
    assert TOKENS.read(last) == (session, steps)
    assert asyncio.run(TOKENS.leads_to(first, sha256(last), steps=steps))
    assert not asyncio.run(RefreshTokens(b"z" * 32).leads_to(first, sha256(last), steps=steps)) or steps == 0
    assert not asyncio.run(TOKENS.leads_to(TOKENS.first(session), sha256(last), steps=steps))


JWT = r"eyJ[A-Za-z0-9_-]{12,40}\.eyJ[A-Za-z0-9_-]{12,40}\.[A-Za-z0-9_-]{43}"
CLAIMS = Claims(
    token_id="j", subject="u", client_id="c~gateway", session="s", scopes=frozenset({INBOX}), issued_at=1000,
    expires_at=2000,
)  # fmt: skip


class Standing:
    """An Authn for whom everybody stands as well as ever."""

    def standing(self, claims: Claims) -> Principal:
        return Principal(claims)


TICKETS = Tickets(key=b"k" * 32, authn=cast("Any", Standing()), used=cast("Any", None), clock=lambda: 1500.0)


def shown(raw: str, origin: str | None = None) -> Principal | None:
    try:
        return TICKETS.read(raw, origin=origin).principal
    except (TokenInvalid, TokenExpired):
        return None


@many
@given(texts | st.from_regex(r"t~[\w-]{1,80}\.[\w-]{43}", fullmatch=True))
def test_whatever_poses_as_a_ticket_is_none(text: str) -> None:
    assert shown(text) is None


@many
@given(texts.filter(bool), st.integers(0, 10_000), st.characters())
def test_a_ticket_reads_back_for_its_own_page_and_none_with_another_character_does(
    origin: str, at: int, other: str
) -> None:
    ticket, life = TICKETS.issue(Principal(CLAIMS), origin=origin)
    assert life == 30
    assert shown(ticket, origin) == Principal(CLAIMS)
    assert shown(ticket, origin + "x") is None
    at %= len(ticket)
    changed = ticket[:at] + other + ticket[at + 1 :]
    assert changed == ticket or shown(changed, origin) is None


@many
@given(st.binary(max_size=80) | st.from_regex(rb"[A-Za-z0-9.\[\]:-]{0,60}(:[0-9]{0,7})?"))
def test_whatever_the_host_it_is_one_or_none(value: bytes) -> None:
    found = read_host(value)
    if found is not None:
        name, port = found
        assert name == name.lower()
        assert not set(name) & set("/\\@?# \t\r\n%")
        assert port is None or 0 <= port <= 65535


@many
@given(st.binary(max_size=200) | values.map(lambda value: json.dumps({"keys": value}).encode()))
def test_whatever_a_key_set_says_it_is_one_or_a_value_error(raw: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse_jwks(raw)


@many
@given(texts, st.from_regex(JWT, fullmatch=True), texts)
def test_no_token_is_left_in_what_an_error_repeats(before: str, token: str, after: str) -> None:
    told = without_tokens(f"{before} {token} {after}")
    assert token not in told
    assert without_tokens(told) == told
