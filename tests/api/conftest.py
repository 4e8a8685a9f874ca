"""A gateway behind the HTTP interface that keeps everything in plain dicts: what the endpoints ask for, and no more."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from gateway.api.openapi import install
from gateway.epoch import Epoch
from gateway.errors import (
    BadCredentials,
    Conflict,
    GatewayError,
    InsufficientScope,
    Invalid,
    NotFound,
    TokenExpired,
    TokenInvalid,
)
from gateway.granting import TokenAnswer
from gateway.metrics import Metrics
from gateway.model import (
    ADMIN,
    INBOX,
    PUSH,
    Actor,
    Appended,
    Claims,
    ConnectionInfo,
    Entry,
    Listing,
    MarkedRead,
    NodePresence,
    PresenceInfo,
    PresenceSummary,
    Principal,
    Receipt,
    Revocation,
    Roster,
    Session,
    State,
    Stored,
    Target,
    User,
    new_id,
)
from gateway.origins import Origins
from gateway.publish import Push
from gateway.services import Readiness

NOW = 1_800_000_000_000
"""2027-01-15T08:00:00.000Z."""


def principal(subject: str, *scopes: str, session: str | None = None) -> Principal:
    return Principal(Claims(subject, "c~gateway", frozenset(scopes), session, f"jti-{subject}", 1, 1_800_000_900))


class FakeAuthn:
    tokens: Mapping[str, Principal] = {
        "ada": principal("ada", INBOX, session="s-ada"),
        "bob": principal("bob", INBOX, session="s-bob"),
        "root": principal("root", INBOX, PUSH, ADMIN, session="s-root"),
        "shop": principal("c~shop", PUSH),
        "mail": principal("c~mail", PUSH),
    }

    def principal(self, raw: str) -> Principal:
        if raw == "old":
            raise TokenExpired
        if raw not in self.tokens:
            raise TokenInvalid("no such fake")
        return self.tokens[raw]

    def require(self, principal: Principal, scope: str) -> None:
        if not principal.has(scope):
            raise InsufficientScope(scope)


class FakePublisher:
    """Stores for the users it knows; keys are kept for ever. ``fail`` comes out for every push when set."""

    def __init__(self) -> None:
        self.users = {"ada", "bob", "root"}
        self.pushed: list[tuple[str, Push]] = []
        self.passed: list[tuple[str, tuple[str, ...] | None, str]] = []
        self.admitted: list[tuple[str, int]] = []
        self.withdrawn: list[tuple[str, str | None]] = []
        self.hidden: list[tuple[str, str]] = []
        self.marked: list[tuple[str, tuple[str, ...], int | None]] = []
        self.fail: Exception | None = None
        self.limited: GatewayError | None = None
        self._keys: dict[tuple[str, str], tuple[bytes, Appended]] = {}
        self._seq: Iterator[int] = itertools.count(1)

    async def admit(self, sender: str, amount: int) -> None:
        self.admitted.append((sender, amount))
        if self.limited is not None:
            raise self.limited

    async def push_all(self, sender: str, pushes: Sequence[Push]) -> list[Appended | GatewayError]:
        assert pushes
        if self.fail is not None and not isinstance(self.fail, GatewayError):
            raise self.fail
        return [self.fail if isinstance(self.fail, GatewayError) else self._push(sender, push) for push in pushes]

    def _push(self, sender: str, push: Push) -> Appended | GatewayError:
        self.pushed.append((sender, push))
        if push.key is not None and (sender, push.key[0]) in self._keys:
            fingerprint, first = self._keys[sender, push.key[0]]
            if fingerprint != push.key[1]:
                return Invalid(code="idempotency_mismatch")
            return Appended(first.outcomes, replayed=True)
        appended = Appended(tuple(self._store(user_id, push) for user_id in push.recipients))
        if push.key is not None:
            self._keys[sender, push.key[0]] = push.key[1], appended
        return appended

    def _store(self, user_id: str, push: Push) -> Stored:
        seq = next(self._seq) if user_id in self.users else None
        return Stored(user_id, new_id(NOW / 1000), seq, NOW, NOW + push.ttl * 1000, user_id == "ada")

    async def online_count(self, user_ids: Sequence[str] | None) -> int | None:
        return 2

    def pass_by(self, sender: str, recipients: tuple[str, ...] | None, content: str) -> str:
        self.passed.append((sender, recipients, content))
        return "passing"

    async def online(self, user_ids: Sequence[str]) -> Mapping[str, bool | None]:
        return {user_id: user_id == "ada" for user_id in user_ids}

    async def withdraw(self, id: str, *, sender: str | None) -> None:
        self.withdrawn.append((id, sender))

    async def mark_read(self, user_id: str, *, ids: Sequence[str] = (), up_to: int | None = None) -> MarkedRead:
        self.marked.append((user_id, tuple(ids), up_to))
        return MarkedRead(user_id, 8, 1, tuple(ids), up_to)

    async def hide(self, user_id: str, id: str) -> None:
        self.hidden.append((user_id, id))


class FakeInbox:
    def __init__(self) -> None:
        self.entries = [
            Entry(2, "n2", '"title":"zwei"', NOW, NOW + 1000, NOW),
            Entry(1, "n1", '"title":"one"', NOW, NOW),
        ]
        self.asked: list[dict[str, Any]] = []
        self.acked: list[tuple[str, str, int]] = []

    async def listing(self, user_id: str, **asked: Any) -> Listing:
        self.asked.append({"user_id": user_id, **asked})
        return Listing(tuple(self.entries), State(2, 7, 1), 1)

    async def entry(self, user_id: str, id: str, *, now: int) -> Entry:
        for entry in self.entries:
            if entry.id == id and user_id == "ada":
                return entry
        raise NotFound("notification")

    async def ack(self, user_id: str, *, session: str, seq: int, now: int) -> None:
        if seq > 2:
            raise Conflict("ack_out_of_range", "Beyond the head.")
        self.acked.append((user_id, session, seq))

    async def receipt(self, id: str, *, now: int) -> Receipt:
        if id != "n1":
            raise NotFound("notification")
        return Receipt("n1", "ada", "c~shop", 1, "acknowledged", NOW, NOW + 1000, NOW + 5, None)


class FakeLogin:
    """Everybody's password and secret is ``right``; a refresh token is good if it is ``good``."""

    def __init__(self) -> None:
        self.devices: list[str | None] = []

    def _user(self) -> TokenAnswer:
        return TokenAnswer("access", 900, INBOX, "fresh", 3600)

    async def password(self, username: str, password: str, *, device: str | None, **more: object) -> TokenAnswer:
        if password != "right":
            raise BadCredentials
        self.devices.append(device)
        return self._user()

    async def refresh(self, refresh_token: str, **more: object) -> TokenAnswer:
        if refresh_token != "good":
            raise BadCredentials
        return self._user()

    async def client_credentials(
        self, client_id: str, secret: str, *, scope: str | None, **more: object
    ) -> TokenAnswer:
        if (client_id, secret) != ("c~" + "5" * 32, "right"):
            raise BadCredentials
        if scope not in (None, PUSH):
            raise Invalid("The client may not have this scope.", code="invalid_scope")
        return TokenAnswer("access", 900, PUSH)

    async def hash_new(self, password: str, *, username: str) -> str:
        if len(password) < 8:
            raise Invalid(code="password_too_short", errors=[("/password", "too short")])
        return "hash"


class FakeUsers:
    def __init__(self) -> None:
        self.rows = {"root": User("root", "root", "admin", False, NOW), "ada": User("ada", "ada", "user", False, NOW)}

    async def get(self, id: str) -> User:
        if id not in self.rows:
            raise NotFound("user")
        return self.rows[id]

    async def list(self, *, query: str | None, limit: int, cursor: str | None) -> tuple[Sequence[User], str | None]:
        return list(self.rows.values()), None

    async def create(self, *, id: str, username: str, role: Any, **more: object) -> User:
        if any(user.username == username for user in self.rows.values()):
            raise Conflict("username_taken", "The username is taken.")
        self.rows[id] = User(id, username, role, False, NOW)
        return self.rows[id]

    async def update(self, id: str, *, role: Any, disabled: bool | None, **more: object) -> tuple[User, tuple[()]]:
        user = await self.get(id)
        off = user.disabled if disabled is None else disabled
        self.rows[id] = User(id, user.username, role or user.role, off, NOW)
        return self.rows[id], ()

    async def delete(self, id: str, **more: object) -> tuple[()]:
        await self.get(id)
        del self.rows[id]
        return ()


class FakeSessions:
    def __init__(self) -> None:
        self.rows = {
            id: Session(id, id[2:], "phone", "::1", NOW, NOW, NOW + 1, 0) for id in ("s-ada", "s-bob", "s-root")
        }

    async def get(self, id: str) -> Session:
        if id not in self.rows:
            raise NotFound("session")
        return self.rows[id]

    async def list(self, user_id: str | None, **more: object) -> tuple[Sequence[Session], str | None]:
        return [one for one in self.rows.values() if user_id in (None, one.user_id)], None


class FakeRevoker:
    def __init__(self) -> None:
        self.revoked: list[tuple[Target, str | None, Actor]] = []

    async def revoke(
        self, target: Target, *, reason: str | None, by: Actor, listed: bool = True
    ) -> tuple[Revocation, int]:
        self.revoked.append((target, reason, by))
        return Revocation("r1", target, reason, by.id, NOW, NOW), 3

    def apply(self, bans: Sequence[object]) -> int:
        return 0

    def until(self) -> int:
        return NOW


class FakeReadiness:
    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.degraded: list[str] = []

    async def __call__(self) -> Readiness:
        return Readiness(tuple(self.reasons), tuple(self.degraded))


class FakePresence:
    """Ada is online on two nodes; of Cyd it cannot be known."""

    complete = True

    async def of(self, user_ids: Sequence[str]) -> Sequence[PresenceInfo]:
        known = {
            "ada": PresenceInfo("ada", online=True, since=NOW, devices=2, connections=3, nodes=("n1", "n2")),
            "cyd": PresenceInfo("cyd", online=None),
        }
        return [known.get(user_id, PresenceInfo(user_id, online=False)) for user_id in user_ids]

    async def summary(self) -> PresenceSummary:
        return PresenceSummary((NodePresence("n1", 2, 3, NOW), NodePresence("n2", 1, 1, NOW)), self.complete)


class FakeBus:
    def __init__(self) -> None:
        self.open: list[ConnectionInfo] = []
        self.missing: tuple[str, ...] = ()

    async def connections(self, user_id: str | None, *, after: str | None, limit: int) -> Roster:
        found = [one for one in self.open if user_id in (None, one.user_id) and (after is None or one.id > after)]
        return Roster(tuple(sorted(found, key=lambda one: one.id)[:limit]), self.missing)


async def exposition() -> bytes:
    return b"gateway_up 1\n"


@pytest.fixture
def services() -> SimpleNamespace:
    return SimpleNamespace(
        epoch=Epoch("e1"),
        clock=lambda: NOW / 1000,
        authn=FakeAuthn(),
        origins=Origins(["https://app.example"]),
        tickets=SimpleNamespace(issue=lambda principal, origin: (f"t~{principal.subject}", 30)),
        publisher=FakePublisher(),
        inbox=FakeInbox(),
        login=FakeLogin(),
        users=FakeUsers(),
        sessions=FakeSessions(),
        session_idle=10**9,
        revoker=FakeRevoker(),
        exposition=exposition,
        presence=FakePresence(),
        bus=FakeBus(),
        metrics=Metrics(),
        keyring=SimpleNamespace(jwks=lambda: {"keys": [{"kid": "k"}]}),
        readiness=FakeReadiness(),
    )


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI(title="test", version="1")
    install(app)
    return app


@pytest.fixture
async def http(app: FastAPI, services: SimpleNamespace) -> AsyncIterator[httpx2.AsyncClient]:
    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"services": services}
        await app(scope, receive, send)

    transport = httpx2.ASGITransport(app=with_state)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def as_() -> Any:
    """``as_("ada")``: the header that makes one be Ada."""
    return bearer
