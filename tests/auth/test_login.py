"""Signing in, refreshing and changing a password, over small in-memory stores that keep the promises of the ports."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kept import KeptFailures
from passlib.hash import argon2

from gateway.allowance import AT_ONCE, EVERY
from gateway.attempts import Attempts
from gateway.auth.passwords import Passwords
from gateway.auth.refresh import RefreshTokens, sha256
from gateway.auth.tokens import Keyring, generate_signing_key
from gateway.authn import Authn
from gateway.errors import (
    BadCredentials,
    CredentialsChanged,
    Invalid,
    Limited,
    NotFound,
    StoreUnavailable,
    TokenRevoked,
    TooManyAttempts,
    UserDisabled,
)
from gateway.granting import REFRESH_EVERY, REFRESHES_AT_ONCE, Granting, TokenAnswer, ban_until
from gateway.limiting.memory import MemoryLimiter
from gateway.login import ROUNDS, Login, new_client_secret
from gateway.model import Actor, Ban, Claims, Client, Principal, Session, SignIn, User
from gateway.ports import Audit, Clients, Sessions, Users
from gateway.revocations import Revocations
from gateway.trail import FAILURES_AT_ONCE, REFUSALS_AT_ONCE, Trail

START = 1_800_000_000.5
ACCESS, SESSION, IDLE, GRACE = 900, 10_000, 3_000, 30
KEY = b"k" * 32
PASSWORD = "correct horse"


@dataclass
class Row:
    session: Session
    hash: bytes
    generation: int = 0
    rotated_at: int = 0


@dataclass
class Store:
    """Users, sessions, clients and audit in dictionaries. Every method lets others run before it acts, once."""

    users: dict[str, tuple[User, str]] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    secrets: dict[str, tuple[Client, bytes]] = field(default_factory=dict)
    audited: list[tuple[str, str | None, Mapping[str, object], Actor]] = field(default_factory=list)
    full: bool = False
    asked: list[SignIn] = field(default_factory=list)
    meanwhile: list[Callable[[], None]] = field(default_factory=list)
    """What others commit just before a session starts: one of them each time."""
    successors: list[bytes] = field(default_factory=list)

    async def get(self, id: str) -> User:
        if id not in self.users:
            raise NotFound("user")
        return self.users[id][0]

    async def credentials(self, username: str) -> tuple[User, str] | None:
        return next(((user, stored) for user, stored in self.users.values() if user.username == username), None)

    async def password_hash(self, id: str) -> str:
        if id not in self.users:
            raise NotFound("user")
        return self.users[id][1]

    async def rehash(self, id: str, *, old: str, new: str) -> None:
        user, stored = self.users[id]
        if stored == old:
            self.users[id] = user, new

    async def set_password(
        self,
        id: str,
        *,
        password_hash: str,
        keep_session: str | None,
        by: Actor,
        now: int,
        until: int,
        replaces: str | None = None,
    ) -> tuple[Ban, ...]:
        if replaces not in (None, self.users[id][1]):
            raise BadCredentials
        self.users[id] = self.users[id][0], password_hash
        bans: list[Ban] = []
        for row in self.rows.values():
            if row.session.user_id == id and row.session.id != keep_session and row.session.ended_at is None:
                row.session = replace(row.session, ended_at=now, ended_why="token_revoked")
                bans.append(Ban(len(bans) + 1, "session", row.session.id, id, None, until, "token_revoked"))
        return tuple(bans)

    async def start(self, sign_in: SignIn) -> tuple[Session, User]:
        self.asked.append(sign_in)
        if self.meanwhile:
            self.meanwhile.pop(0)()
        user, stored = self.users.get(sign_in.user_id, (None, ""))
        if user is None:
            raise BadCredentials
        if sign_in.hashes is not None and stored not in sign_in.hashes:
            raise CredentialsChanged
        if user.disabled:
            raise UserDisabled
        now, by = sign_in.now, sign_in.by
        session = Session(sign_in.id, user.id, sign_in.device, by.address, now, now, sign_in.expires_at, 0)
        self.rows[session.id] = Row(session, sign_in.refresh_hash)
        self.audited.append((sign_in.action, sign_in.target, sign_in.detail, by))
        return session, user

    def _live(self, id: str, now: int, idle: int) -> Row | None:
        row = self.rows.get(id)
        if row is None or row.session.ended_at is not None or self.users[row.session.user_id][0].disabled:
            return None
        return row if now < row.session.expires_at and now - row.session.refreshed_at < idle else None

    async def rotate(
        self, id: str, *, presented: bytes, generation: int, successor: bytes, now: int, idle: int
    ) -> tuple[Session, User] | None:
        await _turn()
        row = self._live(id, now, idle)
        if row is None or row.hash != presented or row.generation != generation:
            return None
        row.hash, row.generation, row.rotated_at = successor, generation + 1, now
        row.session = replace(row.session, refreshed_at=now)
        self.successors.append(successor)
        return row.session, self.users[row.session.user_id][0]

    async def refreshable(self, id: str, *, now: int, idle: int) -> tuple[Session, User, bytes, int, int] | None:
        await _turn()
        row = self._live(id, now, idle)
        if row is None:
            return None
        return row.session, self.users[row.session.user_id][0], row.hash, row.generation, row.rotated_at

    async def authenticate(self, client_id: str, *, secret_hash: bytes) -> Client | None:
        await _turn()
        client, stored = self.secrets.get(client_id, (None, b""))
        return client if stored == secret_hash else None

    async def record(
        self, action: str, *, target: str | None, detail: Mapping[str, object], by: Actor, now: int
    ) -> None:
        if self.full:
            raise StoreUnavailable
        self.audited.append((action, target, detail, by))


class House:
    """A Login over a Store, and a clock that stands still until it is moved. ``failures``: forgiven; 0: any number."""

    def __init__(self, passwords: Passwords, *, failures: int = 0) -> None:
        self.now = START
        self.failures = KeptFailures()
        self.store, self.revocations, self.passwords = Store(), Revocations(), passwords
        self.revocations.refreshed(at=0)
        self.keyring = Keyring([generate_signing_key(0)], issuer="i", audience="a", max_ttl=ACCESS, leeway=0)
        self.ended: list[tuple[str, Actor]] = []
        self.login = Login(
            users=cast("Users", self.store),
            sessions=cast("Sessions", self.store),
            clients=cast("Clients", self.store),
            passwords=passwords,
            attempts=Attempts(
                self.failures,
                secret=KEY,
                limit=failures,
                window=900,
                clock=lambda: self.now,
            ),
            trail=Trail(cast("Audit", self.store), lambda: self.now),
            granting=Granting(
                sessions=cast("Sessions", self.store),
                keyring=self.keyring,
                revocations=self.revocations,
                limiter=MemoryLimiter(lambda: self.now),
                server_key=KEY,
                access_ttl=ACCESS,
                session_ttl=SESSION,
                refresh_idle=IDLE,
            ),
            clock=lambda: self.now,
            refresh_grace=GRACE,
            apply_bans=self.apply,
            end_session=self.end,
        )
        self.authn = Authn(self.keyring, self.revocations, lambda: self.now, lambda: 0)

    def apply(self, bans: Sequence[Ban]) -> int:
        return len(self.revocations.add(bans))

    async def end(self, session: str, by: Actor, because: tuple[str, Mapping[str, object]]) -> None:
        row = self.store.rows[session]
        if row.session.ended_at is None:
            row.session = replace(row.session, ended_at=int(self.now * 1000), ended_why="token_revoked")
            self.store.audited.append((because[0], session, because[1], by))
            self.ended.append((session, by))

    def add(self, id: str, stored: str, *, role: str = "user", disabled: bool = False) -> None:
        self.store.users[id] = User(id, id.upper(), cast("Any", role), disabled, 0), stored

    async def sign_in(self, id: str = "alice") -> TokenAnswer:
        return await self.login.password(id.upper(), PASSWORD, device="phone", address="192.0.2.1", request_id="r1")

    async def refresh(self, answer: TokenAnswer | str) -> TokenAnswer:
        return await self.login.refresh(_text(answer), address="192.0.2.2")

    def put(self, id: str, stored: str) -> None:
        """Another hash, whoever set it."""
        self.store.users[id] = self.store.users[id][0], stored

    def claims(self, answer: TokenAnswer) -> Claims:
        return self.keyring.verify(answer.access_token, now=self.now)


@pytest.fixture(scope="module")
def stored() -> str:
    return str(argon2.using(type="ID", memory_cost=19_456, rounds=2, parallelism=1).hash(PASSWORD))


@pytest.fixture
async def house(stored: str) -> AsyncIterator[House]:
    passwords = Passwords(2)
    house = House(passwords)
    house.add("alice", stored)
    yield house
    passwords.close()


def _text(answer: TokenAnswer | str) -> str:
    text = answer if isinstance(answer, str) else answer.refresh_token
    assert text is not None
    return text


async def _turn() -> None:
    turned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turned.set_result, None)
    await turned


# -- password ----------------------------------------------------------------------------------------------------


async def test_signing_in_starts_a_session_and_answers_its_tokens(house: House) -> None:
    answer = await house.sign_in()
    claims, row = house.claims(answer), next(iter(house.store.rows.values()))
    assert (claims.subject, claims.session, claims.client_id) == ("alice", row.session.id, "c~gateway")
    assert (answer.scope, answer.expires_in, answer.refresh_expires_in) == ("inbox", ACCESS, IDLE)
    assert row.session.expires_at == int(START * 1000) + SESSION * 1000
    assert (row.session.device, row.session.address) == ("phone", "192.0.2.1")
    assert ("login", row.session.id, {"device": "phone"}, Actor("alice", "192.0.2.1", "r1")) in house.store.audited


async def test_RT_01_only_the_hash_of_a_refresh_token_is_stored(house: House) -> None:
    answer = await house.sign_in()
    row = next(iter(house.store.rows.values()))
    assert row.hash == sha256(_text(answer))
    assert _text(answer).split(".")[2] not in repr(house.store)
    assert _text(answer) not in repr(answer)
    assert answer.access_token not in repr(answer)


async def test_an_admin_gets_the_scopes_of_an_admin(house: House, stored: str) -> None:
    house.add("root", stored, role="admin")
    answer = await house.sign_in("root")
    assert answer.scope == "admin inbox notifications:write"
    assert house.claims(answer).scopes == {"admin", "inbox", "notifications:write"}


@pytest.mark.parametrize(("username", "target"), [("ALICE", "alice"), ("NOBODY", None)])
async def test_AUTH_05_wrong_password_and_unknown_user_are_one_refusal(
    house: House, username: str, target: str | None
) -> None:
    with pytest.raises(BadCredentials) as refusal:
        await house.login.password(username, "wrong horse", device=None, address="192.0.2.9", request_id="r2")
    assert str(refusal.value) == BadCredentials.detail
    assert house.store.rows == {}
    assert house.store.audited == [
        ("login_failed", target, {"reason": "password"}, Actor("~", "192.0.2.9", "r2")),
    ]


async def test_a_disabled_user_is_told_so_only_with_the_right_password(house: House, stored: str) -> None:
    house.add("bob", stored, disabled=True)
    with pytest.raises(UserDisabled):
        await house.sign_in("bob")
    with pytest.raises(BadCredentials):
        await house.login.password("BOB", "wrong horse", device=None, address=None)
    assert house.store.rows == {}


async def test_AUTH_02_a_weaker_hash_is_replaced_in_place(house: House) -> None:
    house.add("carol", argon2.using(type="ID", memory_cost=1024, rounds=1, parallelism=1).hash(PASSWORD))
    answers = await asyncio.gather(*(house.sign_in("carol") for _ in range(3)))
    assert house.store.users["carol"][1].startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert len({house.claims(answer).session for answer in answers}) == 3
    assert house.ended == []


async def test_AUTH_10_a_corrupt_hash_is_bad_credentials(house: House) -> None:
    house.add("dave", "")
    with pytest.raises(BadCredentials):
        await house.sign_in("dave")


async def test_a_password_reset_while_it_is_being_checked_leaves_no_session(house: House) -> None:
    other = await house.passwords.hash("another horse")
    house.store.meanwhile = [lambda: house.put("alice", other)]
    with pytest.raises(BadCredentials) as refusal:
        await house.sign_in()
    assert type(refusal.value) is BadCredentials
    assert (house.store.rows, house.ended) == ({}, [])
    assert house.store.audited == [
        ("login_failed", "alice", {"reason": "password"}, Actor("~", "192.0.2.1", "r1")),
    ]


async def test_the_same_password_under_another_hash_is_looked_at_once_more(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = await house.passwords.hash(PASSWORD)
    house.store.meanwhile = [lambda: house.put("alice", again)]
    seen = counting(house, monkeypatch)
    answer = await house.sign_in()
    assert (len(seen), len(house.store.rows)) == (2, 1)
    assert house.store.asked[-1].hashes == frozenset({again})
    assert house.claims(answer).session == house.store.asked[-1].id
    assert [action for action, *_ in house.store.audited] == ["login"]


async def test_a_password_that_is_replaced_again_and_again_is_not_looked_at_for_ever(house: House) -> None:
    others = [await house.passwords.hash(PASSWORD) for _ in range(5)]
    house.store.meanwhile = [partial(house.put, "alice", other) for other in others]
    with pytest.raises(BadCredentials):
        await house.sign_in()
    assert (len(house.store.asked), house.store.rows) == (ROUNDS, {})
    assert [action for action, *_ in house.store.audited] == ["login_failed"]


async def test_a_sign_in_that_looks_twice_counts_once_for_its_user(house: House, stored: str) -> None:
    again = await house.passwords.hash(PASSWORD)
    for _ in range(AT_ONCE - 1):
        await house.login._granting.allow("alice")
    house.store.meanwhile = [lambda: house.put("alice", again)]
    assert await house.sign_in()


async def test_a_sign_in_is_one_read_and_one_write(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for name in ("get", "credentials", "password_hash", "rehash", "start", "record", "refreshable"):
        method = getattr(house.store, name)

        def told(*args: Any, name: str = name, method: Any = method, **named: Any) -> Any:
            asked.append(name)
            return method(*args, **named)

        monkeypatch.setattr(house.store, name, told)
    await house.sign_in()
    assert asked == ["credentials", "start"]


async def test_the_store_is_told_when_a_sign_in_began_so_that_a_revocation_can_overtake_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = house.store.credentials

    async def slowly(username: str) -> tuple[User, str] | None:
        house.now += 3
        return await credentials(username)

    monkeypatch.setattr(house.store, "credentials", slowly)
    assert await house.sign_in()
    assert [row.session.created_at for row in house.store.rows.values()] == [int(START * 1000)]


async def test_a_name_that_is_another_ones_by_now_is_bad_credentials(house: House, stored: str) -> None:
    again = await house.passwords.hash(PASSWORD)

    def renamed() -> None:
        """Another of that name, who happens to have the same password."""
        house.add("alice", again)
        house.store.users = {
            "alice2": (replace(house.store.users["alice"][0], id="alice2"), again),
            "alice": (replace(house.store.users["alice"][0], username="other"), again),
        }

    for meanwhile in (renamed, lambda: house.store.users.clear()):
        house.add("alice", stored)
        house.store.meanwhile = [meanwhile]
        with pytest.raises(BadCredentials):
            await house.sign_in()
    assert house.store.rows == {}


async def test_who_is_disabled_while_the_session_starts_is_told_so(house: House, stored: str) -> None:
    house.store.meanwhile = [lambda: house.add("alice", stored, disabled=True)]
    with pytest.raises(UserDisabled):
        await house.sign_in()
    assert house.store.rows == {}


async def test_a_role_taken_away_while_the_session_starts_is_not_granted(house: House, stored: str) -> None:
    house.add("alice", stored, role="admin")
    house.store.meanwhile = [lambda: house.add("alice", stored)]
    assert (await house.sign_in()).scope == "inbox"


# -- refresh -----------------------------------------------------------------------------------------------------


async def test_RT_01_a_refresh_answers_new_tokens_of_the_same_session(house: House) -> None:
    first = await house.sign_in()
    house.now += 100
    second = await house.refresh(first)
    assert _text(second) != _text(first)
    assert house.claims(second).session == house.claims(first).session
    assert house.claims(second).token_id != house.claims(first).token_id
    assert house.claims(second).issued_at == int(START) + 100
    assert _text(await house.refresh(second)).split(".")[1] == "2"


async def test_RT_02_an_old_token_after_the_grace_ends_the_session(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    first = await house.sign_in()
    second = await house.refresh(first)
    house.now += GRACE + 0.001
    with caplog.at_level(logging.INFO, "gateway.login"), pytest.raises(BadCredentials):
        await house.refresh(first)
    session = house.claims(first).session
    assert [ended for ended, _ in house.ended] == [session]
    action, target, detail, by = house.store.audited[-1]
    assert (action, target) == ("refresh_reuse", session)
    assert detail == {"user": "alice", "generation": 0, "current": 1}
    assert by.address == "192.0.2.2"
    assert any(record.levelno == logging.WARNING for record in caplog.records)
    assert _text(first) not in caplog.text
    with pytest.raises(BadCredentials):
        await house.refresh(second)


async def test_RT_03_fifty_parallel_refreshes_have_one_successor(house: House) -> None:
    answer = await house.sign_in()
    for _ in range(20):
        answers = await asyncio.gather(*(house.refresh(answer) for _ in range(50)))
        assert len({_text(each) for each in answers}) == 1
        assert len({house.claims(each).token_id for each in answers}) == 50
        answer = answers[0]
    assert len(house.store.successors) == 20
    assert house.ended == []


async def test_RT_04_a_lost_answer_is_given_again_within_the_grace(house: House) -> None:
    first = await house.sign_in()
    lost = await house.refresh(first)
    house.now += GRACE
    again = await house.refresh(first)
    assert _text(again) == _text(lost)
    assert house.claims(again).issued_at == int(house.now)
    house.now += 1
    assert await house.refresh(again)
    assert house.ended == []


async def test_RT_05_the_grace_is_for_the_direct_predecessor_only(house: House) -> None:
    first = await house.sign_in()
    third = await house.refresh(await house.refresh(first))
    with pytest.raises(BadCredentials):
        await house.refresh(first)
    assert len(house.ended) == 1
    with pytest.raises(BadCredentials):
        await house.refresh(third)


async def test_RT_05_reuse_is_recognised_hundreds_of_generations_later(house: House) -> None:
    first = answer = await house.sign_in()
    for _ in range(700):
        house.now += REFRESH_EVERY
        answer = await house.refresh(answer)
    with pytest.raises(BadCredentials):
        await house.refresh(first)
    assert len(house.ended) == 1


async def test_RT_02_of_many_that_reuse_a_token_at_once_one_is_noted(house: House) -> None:
    first = await house.sign_in()
    await house.refresh(first)
    house.now += GRACE + 1
    answers = await asyncio.gather(*(house.refresh(first) for _ in range(20)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {BadCredentials}
    assert [action for action, *_ in house.store.audited].count("refresh_reuse") == 1


async def test_a_session_is_refreshed_only_so_often_and_the_refused_token_stays_good(house: House) -> None:
    answer = await house.sign_in()
    for _ in range(REFRESHES_AT_ONCE):
        before, answer = answer, await house.refresh(answer)
    with pytest.raises(Limited) as refusal:
        await house.refresh(answer)
    assert (refusal.value.policy, refusal.value.quota, refusal.value.window) == ("refreshes", 60, 600)
    assert refusal.value.retry_after == pytest.approx(REFRESH_EVERY, abs=0.01)
    assert _text(await house.refresh(before)) == _text(answer), "a lost answer is no refresh"
    other = await house.sign_in()
    assert await house.refresh(other), "each session for itself"
    house.now += REFRESH_EVERY
    answer = await house.refresh(answer)
    with pytest.raises(Limited):
        await house.refresh(answer)
    house.now -= 3_600
    with pytest.raises(Limited) as refusal:
        await house.refresh(answer)
    assert refusal.value.retry_after < 3 * REFRESH_EVERY, "a clock that was set back keeps nobody out for its hour"


async def test_who_makes_tokens_that_live_for_seconds_may_refresh_as_quickly(stored: str) -> None:
    granting = House(Passwords(1)).login._granting
    granting.access_ttl = 4
    session = Session("s", "alice", None, None, 0, 0, 10**12, 0)
    granting.allow_refresh(session, generation=REFRESHES_AT_ONCE + 50, now=2.0 * 51)
    with pytest.raises(Limited):
        granting.allow_refresh(session, generation=REFRESHES_AT_ONCE + 51, now=2.0 * 51)


async def test_a_forged_token_ends_nobodys_session(house: House) -> None:
    first = await house.sign_in()
    second = await house.refresh(await house.refresh(first))
    session = house.claims(first).session
    stranger = RefreshTokens(b"x" * 32)
    forgeries = [f"{session}.{generation}.{'A' * 43}" for generation in (0, 1, 2, 3, 999_999_999)]
    forgeries += [stranger.successor(_text(first)), _text(first)[:-1] + "_", f"S.{_text(second).partition('.')[2]}"]
    forgeries += [_text(first).replace(".0.", ".1."), _text(second).replace(".2.", ".1."), "", "x", _text(second) + " "]
    forgeries += [first.access_token, "\ud800"]
    writes = len(house.store.successors)
    for forged in forgeries:
        if forged not in (_text(first), _text(second)):
            with pytest.raises(BadCredentials):
                await house.refresh(forged)
    assert len(house.store.successors) == writes, "a made-up token waited for the writer"
    assert house.ended == []
    assert await house.refresh(second)


async def test_RT_07_a_session_not_refreshed_for_long_is_over(house: House) -> None:
    answer = await house.sign_in()
    house.now += IDLE
    with pytest.raises(BadCredentials):
        await house.refresh(answer)
    assert house.ended == []


async def test_RT_07_a_session_ends_however_often_it_is_refreshed(house: House) -> None:
    answer = await house.sign_in()
    while house.now + IDLE - 1 < START + SESSION:
        house.now += IDLE - 1
        answer = await house.refresh(answer)
    left = int(START + SESSION - house.now)
    assert 0 < left < IDLE
    assert answer.refresh_expires_in == left
    house.now = START + SESSION - 100
    answer = await house.refresh(answer)
    assert (answer.expires_in, house.claims(answer).expires_at) == (100, int(START) + SESSION)
    house.now += 99.9
    answer = await house.refresh(answer)
    assert answer.expires_in == 1
    house.now += 0.1
    with pytest.raises(BadCredentials):
        await house.refresh(answer)


async def test_a_disabled_user_refreshes_nothing(house: House) -> None:
    answer = await house.sign_in()
    user, stored = house.store.users["alice"]
    house.store.users["alice"] = replace(user, disabled=True), stored
    with pytest.raises(BadCredentials):
        await house.refresh(answer)


async def test_a_changed_role_shows_in_the_next_token(house: House) -> None:
    answer = await house.sign_in()
    user, stored = house.store.users["alice"]
    house.store.users["alice"] = replace(user, role="admin"), stored
    assert (await house.refresh(answer)).scope == "admin inbox notifications:write"


# -- clients -----------------------------------------------------------------------------------------------------


def add_client(house: House, client_id: str = "c~shop") -> str:
    secret, hashed = new_client_secret()
    scopes = frozenset({"notifications:write", "other"})
    house.store.secrets[client_id] = Client(client_id, "shop", scopes, 0), hashed
    return secret


async def test_a_client_signs_in_with_its_secret(house: House) -> None:
    secret = add_client(house)
    answer = await house.login.client_credentials("c~shop", secret, scope=None)
    claims = house.claims(answer)
    assert (claims.subject, claims.client_id, claims.session) == ("c~shop", "c~shop", None)
    assert (answer.scope, answer.refresh_token, answer.refresh_expires_in) == ("notifications:write other", None, None)
    for scope in ("notifications:write", " notifications:write  notifications:write "):
        answer = await house.login.client_credentials("c~shop", secret, scope=scope)
        assert answer.scope == "notifications:write"
        assert house.claims(answer).scopes == {"notifications:write"}


async def test_a_client_gets_no_scope_it_does_not_have(house: House) -> None:
    secret = add_client(house)
    for scope in ("admin", "notifications:write admin"):
        with pytest.raises(Invalid) as refusal:
            await house.login.client_credentials("c~shop", secret, scope=scope)
        assert refusal.value.code == "invalid_scope"


async def test_a_wrong_secret_is_bad_credentials(house: House) -> None:
    secret = add_client(house)
    for client_id, presented in [("c~shop", secret + "x"), ("c~shop", ""), ("c~no", secret), ("pw", "\ud800")]:
        with pytest.raises(BadCredentials):
            await house.login.client_credentials(client_id, presented, scope=None, address="192.0.2.3")
    assert [target for _, target, _, _ in house.store.audited] == ["c~shop", "c~shop", "c~no", None]
    assert secret not in repr(house.store.audited)


async def test_a_client_revoked_this_very_second_can_come_back(house: House) -> None:
    secret = add_client(house)
    before = await house.login.client_credentials("c~shop", secret, scope=None)
    house.apply([Ban(1, "client", "c~shop", None, int(house.now), 1 << 60, "token_revoked")])
    with pytest.raises(TokenRevoked):
        house.authn.principal(before.access_token)
    after = await house.login.client_credentials("c~shop", secret, scope=None)
    assert house.authn.principal(after.access_token).claims.issued_at == int(START) + 1


async def test_RT_06_a_revocation_while_a_client_signs_in_catches_its_token(house: House) -> None:
    secret = add_client(house)
    signing_in = asyncio.ensure_future(house.login.client_credentials("c~shop", secret, scope=None))
    await _turn()
    house.apply([Ban(1, "client", "c~shop", None, int(house.now), 1 << 60, "token_revoked")])
    with pytest.raises(TokenRevoked):
        house.authn.principal((await signing_in).access_token)


async def test_who_signs_in_in_the_second_of_a_restore_is_not_cut_off(house: House) -> None:
    house.apply([Ban(1, "all", "", None, int(house.now), 1 << 60, "token_revoked")])
    assert house.authn.principal((await house.sign_in()).access_token)


# -- passwords ---------------------------------------------------------------------------------------------------


async def test_RT_08_a_changed_password_ends_every_other_session(house: House) -> None:
    own, other = await house.sign_in(), await house.sign_in()
    principal = house.authn.principal(own.access_token)
    await house.login.change_password(principal, PASSWORD, "better horse", address="192.0.2.1", request_id="r3")
    assert house.authn.principal(own.access_token)
    with pytest.raises(TokenRevoked):
        house.authn.principal(other.access_token)
    with pytest.raises(BadCredentials):
        await house.refresh(other)
    assert await house.refresh(own)
    with pytest.raises(BadCredentials):
        await house.sign_in()
    assert await house.login.password("ALICE", "better horse", device=None, address=None)


async def test_a_reset_that_overtakes_a_change_of_the_password_stands(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    principal = house.authn.principal((await house.sign_in()).access_token)
    other = await house.passwords.hash("another horse")
    hashed = house.passwords.hash

    async def hash_while_an_admin_resets(password: str) -> str:
        await house.store.set_password(
            "alice", password_hash=other, keep_session=None, by=Actor("root"), now=1, until=2
        )
        return await hashed(password)

    monkeypatch.setattr(house.passwords, "hash", hash_while_an_admin_resets)
    with pytest.raises(BadCredentials):
        await house.login.change_password(principal, PASSWORD, "better horse", address="192.0.2.1")
    assert house.store.users["alice"][1] == other


async def test_changing_a_password_needs_the_current_one_and_a_good_new_one(house: House) -> None:
    principal = house.authn.principal((await house.sign_in()).access_token)
    with pytest.raises(BadCredentials):
        await house.login.change_password(principal, "wrong horse", "better horse", address="192.0.2.1")
    assert house.store.audited[-1][:3] == ("login_failed", "alice", {"reason": "current_password"})
    with pytest.raises(Invalid) as refusal:
        await house.login.change_password(principal, PASSWORD, "short", address="192.0.2.1")
    assert [pointer for pointer, _ in refusal.value.errors] == ["/new_password"]
    for common in ("jennifer", "Alice-1234567890"):
        with pytest.raises(Invalid) as refusal:
            await house.login.change_password(principal, PASSWORD, common, address="192.0.2.1")
        assert (refusal.value.code, refusal.value.errors[0][0]) == ("password_common", "/new_password")
    assert await house.sign_in()


async def test_a_password_set_by_somebody_else_is_checked_and_hashed(house: House) -> None:
    assert (await house.passwords.verify("better horse", await house.login.hash_new("better horse", username="bob")))[0]
    with pytest.raises(Invalid, match="at least 8"):
        await house.login.hash_new("short", username="bob")
    for common in ("jennifer", "Baseball", "notification-gateway1", "Bob-the-Bobber"):
        with pytest.raises(Invalid) as refusal:
            await house.login.hash_new(common, username="Bob-the-bobber")
        assert (refusal.value.code, refusal.value.errors[0][0]) == ("password_common", "/password")


async def test_a_user_signs_in_only_so_often_and_others_are_not_concerned(house: House, stored: str) -> None:
    house.add("bob", stored)
    for _ in range(AT_ONCE):
        await house.login._granting.allow("alice")
    with pytest.raises(Limited) as refusal:
        await house.sign_in()
    assert (refusal.value.policy, refusal.value.quota, refusal.value.window) == ("sign-ins", AT_ONCE, AT_ONCE * EVERY)
    assert refusal.value.retry_after == pytest.approx(EVERY)
    assert (house.store.rows, house.store.audited) == ({}, [])
    assert await house.sign_in("bob")
    house.now += EVERY
    own = await house.sign_in()
    with pytest.raises(Limited):  # a new password writes as much as a sign-in
        await house.login.change_password(Principal(house.claims(own)), PASSWORD, "another horse", address="192.0.2.1")
    house.now += EVERY
    await house.login.change_password(Principal(house.claims(own)), PASSWORD, "another horse", address="192.0.2.1")


def test_a_client_secret_is_random_and_kept_as_its_hash() -> None:
    secret, hashed = Login.new_client_secret()
    assert (len(secret), hashed) == (43, sha256(secret))
    assert new_client_secret()[0] != secret


def test_a_ban_outlasts_every_token_it_kills() -> None:
    leeway_and_the_second_after_a_cut = 30 + 1
    assert ban_until(1_000, ACCESS) >= 1_000 + (ACCESS + leeway_and_the_second_after_a_cut) * 1000


def test_the_fakes_have_the_methods_of_the_ports() -> None:
    ports = SimpleNamespace(users=Users, sessions=Sessions, clients=Clients, audit=Audit)
    for port, names in {
        "users": ["get", "credentials", "password_hash", "rehash", "set_password"],
        "sessions": ["start", "rotate", "refreshable"],
        "clients": ["authenticate"],
        "audit": ["record"],
    }.items():
        for name in names:
            asked, kept = getattr(getattr(ports, port), name), getattr(Store, name)
            assert asked.__annotations__ == kept.__annotations__, name


async def test_a_flood_of_failures_does_not_fill_the_audit_trail(house: House) -> None:
    """Each row waits for the disk in front of the pushes, and anybody can fail. What was left out is counted."""

    async def fail() -> None:
        with pytest.raises(BadCredentials):
            await house.login.client_credentials("c~nobody", "wrong", scope=None)

    for _ in range(FAILURES_AT_ONCE + 300):
        await fail()
    assert len(house.store.audited) == FAILURES_AT_ONCE
    house.now += 1
    await fail()
    assert house.store.audited[-1][2] == {"reason": "client", "not_noted_before": 300}
    await fail()
    assert house.store.audited[-1][2] == {"reason": "client"}


# -- AUTH-06: limits ----------------------------------------------------------------------------------------------


@pytest.fixture
async def strict(stored: str) -> AsyncIterator[House]:
    """A house that forgives three failures."""
    passwords = Passwords(2)
    house = House(passwords, failures=3)
    house.add("alice", stored)
    yield house
    passwords.close()


def counting(house: House, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that are looked at."""
    verify, seen = house.passwords.verify, list[str]()

    async def counted(password: str, stored: str | None) -> tuple[bool, str | None]:
        seen.append(password)
        return await verify(password, stored)

    monkeypatch.setattr(house.passwords, "verify", counted)
    return seen


@pytest.mark.parametrize("username", ["ALICE", "NOBODY"])
async def test_AUTH_06_beyond_the_limit_no_password_is_looked_at(
    strict: House, monkeypatch: pytest.MonkeyPatch, username: str
) -> None:
    seen = counting(strict, monkeypatch)
    for _ in range(3):
        with pytest.raises(BadCredentials):
            await strict.login.password(username, "wrong horse", device=None, address="192.0.2.1")
    with pytest.raises(TooManyAttempts) as refusal:
        await strict.login.password(username, PASSWORD, device=None, address="192.0.2.1", request_id="r9")
    assert (len(seen), refusal.value.retry_after) == (3, 300)
    assert strict.store.audited[-1] == (
        "login_limited",
        None,
        {"policy": "sign-in-address"},
        Actor("~", "192.0.2.1", "r9"),
    )
    assert await strict.login.password("ALICE", PASSWORD, device=None, address="198.51.100.1")


async def test_AUTH_06_guesses_at_the_current_password_count_for_the_account(strict: House) -> None:
    principal = strict.authn.principal((await strict.sign_in()).access_token)
    for _ in range(3):
        with pytest.raises(BadCredentials):
            await strict.login.change_password(principal, "wrong horse", "better horse", address="192.0.2.1")
    for address in ("192.0.2.1", "192.0.2.99"):
        with pytest.raises(TooManyAttempts):
            await strict.login.change_password(principal, PASSWORD, "better horse", address=address)
        with pytest.raises(TooManyAttempts):
            await strict.login.password("ALICE", PASSWORD, device=None, address=address)
    await strict.login.change_password(principal, PASSWORD, "better horse", address="198.51.100.1")


async def test_AUTH_06_a_client_with_an_old_secret_is_refused_where_it_fails(strict: House) -> None:
    secret, hashed = new_client_secret()
    strict.store.secrets["c~a"] = Client("c~a", "a", frozenset(), 0, None), hashed
    for _ in range(3):
        with pytest.raises(BadCredentials):
            await strict.login.client_credentials("c~a", "old", scope=None, address="192.0.2.1")
    with pytest.raises(TooManyAttempts):
        await strict.login.client_credentials("c~a", secret, scope=None, address="192.0.2.1")
    assert await strict.login.client_credentials("c~a", secret, scope=None, address="192.0.2.2")
    assert await strict.login.password("ALICE", PASSWORD, device=None, address="192.0.2.1")


async def test_AUTH_06_a_failure_is_one_even_if_nothing_can_be_written(strict: House) -> None:
    strict.store.full, strict.failures.writable = True, False
    for _ in range(3):
        with pytest.raises(BadCredentials):
            await strict.login.password("ALICE", "wrong horse", device=None, address="192.0.2.1")
    with pytest.raises(TooManyAttempts):
        await strict.login.password("ALICE", PASSWORD, device=None, address="192.0.2.1")
    strict.store.full = False
    with pytest.raises(TooManyAttempts):
        await strict.sign_in()
    assert strict.store.audited[-1][2] == {"policy": "sign-in-address", "not_noted_before": 1}


async def test_AUTH_06_nobody_signs_in_while_the_failures_cannot_be_read(strict: House) -> None:
    strict.failures.readable = False
    with pytest.raises(StoreUnavailable):
        await strict.sign_in()
    strict.failures.readable = True
    assert await strict.sign_in()


async def test_a_flood_of_refusals_does_not_fill_the_audit_trail(strict: House) -> None:
    for _ in range(3 + REFUSALS_AT_ONCE + 100):
        with pytest.raises((BadCredentials, TooManyAttempts)):
            await strict.login.password("ALICE", "wrong horse", device=None, address="192.0.2.1")
    actions = [action for action, *_ in strict.store.audited]
    assert (actions.count("login_failed"), actions.count("login_limited")) == (3, REFUSALS_AT_ONCE)
