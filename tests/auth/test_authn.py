"""Token → Principal: what each kind of bad news raises, and which is told first."""

from __future__ import annotations

import pytest

from gateway.auth.tokens import Keyring, generate_signing_key
from gateway.authn import Authn
from gateway.closing import TOKEN_REVOKED, USER_DISABLED
from gateway.errors import (
    GatewayError,
    InsufficientScope,
    RevocationsStale,
    TokenExpired,
    TokenInvalid,
    TokenMissing,
    TokenRevoked,
    UserDisabled,
)
from gateway.model import Ban
from gateway.revocations import Revocations

NOW = 1_800_000_000.5
FOREVER = 1 << 60


class House:
    """An Authn with clocks that stand still until they are moved."""

    def __init__(self) -> None:
        self.now, self.monotonic = NOW, 100.0
        self.keyring = Keyring([generate_signing_key(NOW)], issuer="i", audience="a", max_ttl=900, leeway=0)
        self.revocations = Revocations()
        self.revocations.refreshed(at=100.0)
        self.authn = Authn(self.keyring, self.revocations, lambda: self.now, lambda: self.monotonic)

    def token(self, *, subject: str = "alice", session: str | None = "S1", issued_at: int | None = None) -> str:
        return self.keyring.sign(
            subject=subject,
            client_id=subject if session is None else "c~gateway",
            scopes=frozenset({"inbox"}),
            session=session,
            token_id="T1",
            now=self.now,
            ttl=900,
            issued_at=issued_at,
        )

    def ban(self, kind: str, subject: str, *, why: str = "token_revoked", cut: int | None = None) -> None:
        self.revocations.add([Ban(len(self.revocations) + 1, kind, subject, None, cut, FOREVER, why)])  # type: ignore[arg-type]


@pytest.fixture
def house() -> House:
    return House()


def test_a_good_token_is_a_principal(house: House) -> None:
    principal = house.authn.principal(house.token())
    assert (principal.subject, principal.claims.session, principal.has("inbox")) == ("alice", "S1", True)
    assert house.authn.verdict(principal) is None


@pytest.mark.parametrize("raw", [None, ""])
def test_WSH_01_no_token_is_missing(house: House, raw: str | None) -> None:
    with pytest.raises(TokenMissing):
        house.authn.principal(raw)


def test_a_bad_and_an_old_token_are_what_they_are(house: House) -> None:
    raw = house.token()
    with pytest.raises(TokenInvalid):
        house.authn.principal(raw + "x")
    house.now += 900
    with pytest.raises(TokenExpired):
        house.authn.principal(raw)


@pytest.mark.parametrize(
    ("kind", "subject", "why", "error"),
    [
        ("session", "S1", "token_revoked", TokenRevoked),
        ("session", "S1", "user_disabled", UserDisabled),
        ("token", "T1", "token_revoked", TokenRevoked),
        ("session", "S1", "something else", TokenRevoked),
    ],
)
def test_a_revoked_token_says_why(house: House, kind: str, subject: str, why: str, error: type[GatewayError]) -> None:
    raw = house.token()
    principal = house.authn.principal(raw)
    house.ban(kind, subject, why=why)
    with pytest.raises(error):
        house.authn.principal(raw)
    assert house.authn.verdict(principal) is (USER_DISABLED if error is UserDisabled else TOKEN_REVOKED)


def test_a_revocation_reaches_nobody_else(house: House) -> None:
    house.ban("session", "S2")
    house.ban("token", "T2")
    house.ban("client", "c~gateway", cut=int(NOW) + 60)
    assert house.authn.principal(house.token())


def test_a_client_is_cut_off_up_to_a_second_and_not_after(house: House) -> None:
    house.ban("client", "c~shop", cut=int(NOW))
    with pytest.raises(TokenRevoked):
        house.authn.principal(house.token(subject="c~shop", session=None))
    back = house.token(subject="c~shop", session=None, issued_at=int(NOW) + 1)
    assert house.authn.principal(back).subject == "c~shop"
    assert house.authn.principal(house.token(subject="c~other", session=None)).subject == "c~other"


def test_while_news_is_late_nobody_gets_in(house: House) -> None:
    raw = house.token()
    house.monotonic += 1.0
    assert house.authn.principal(raw)
    house.monotonic += 0.001
    with pytest.raises(RevocationsStale):
        house.authn.principal(raw)
    house.revocations.refreshed(at=house.monotonic)
    assert house.authn.principal(raw)


def test_late_news_does_not_hide_what_is_known(house: House) -> None:
    house.monotonic += 60
    house.ban("session", "S1")
    with pytest.raises(TokenRevoked):
        house.authn.principal(house.token())
    with pytest.raises(TokenInvalid):
        house.authn.principal("x.y.z")


def test_a_scope_is_had_or_not(house: House) -> None:
    principal = house.authn.principal(house.token())
    house.authn.require(principal, "inbox")
    with pytest.raises(InsufficientScope) as refusal:
        house.authn.require(principal, "admin")
    assert refusal.value.scope == "admin"


def test_TOK_17_who_came_in_by_a_key_that_is_retired_meanwhile_has_to_go(house: House) -> None:
    principal = house.authn.principal(house.token())
    house.keyring.replace([generate_signing_key(NOW)])
    assert house.authn.verdict(principal) is TOKEN_REVOKED
    with pytest.raises(TokenRevoked):
        house.authn.standing(principal.claims)  # a ticket that was made of that token
    assert house.authn.verdict(house.authn.principal(house.token())) is None
