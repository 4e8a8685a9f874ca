"""What a presented token is taken for while this node cannot know of revocations, and what asking leaves alone."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.allowance import AT_ONCE, EVERY
from gateway.auth.refresh import RefreshTokens, sha256
from gateway.auth.tokens import Keyring, generate_signing_key
from gateway.authn import Authn
from gateway.errors import Limited, RevocationsStale
from gateway.limiting.memory import MemoryLimiter
from gateway.model import Actor, Ban, Session, Target, User, millis
from gateway.presented import PresentedTokens
from gateway.revocations import FRESH_FOR, Revocations
from gateway.tickets import Tickets

NOW = 1_700_000_000.0
IDLE = 3600
ADA = User("ada", "ada", "user", disabled=False, created_at=0)


class House:
    """One session of Ada, which the fake sessions know, and a revoker that notes whom it was sent after."""

    def __init__(self) -> None:
        self.now, self.monotonic = NOW, 100.0
        self.keyring = Keyring([generate_signing_key(NOW)], issuer="i", audience="a", max_ttl=900, leeway=0)
        self.denylist = Revocations()
        self.denylist.refreshed(at=100.0)
        authn = Authn(self.keyring, self.denylist, lambda: self.now, lambda: self.monotonic)
        self.refresh_tokens = RefreshTokens(b"k" * 32)
        self.current, self.generation, self.living = self.refresh_tokens.first("S1"), 0, True
        self.revoked: list[tuple[Target, Actor, bool]] = []
        fake: Any = self
        self.presented = PresentedTokens(
            keyring=self.keyring,
            authn=authn,
            tickets=Tickets(key=b"t" * 32, authn=authn, used=fake, clock=lambda: self.now),
            refresh_tokens=self.refresh_tokens,
            refresh_idle=IDLE,
            sessions=fake,
            denylist=self.denylist,
            revoker=fake,
            limiter=MemoryLimiter(lambda: self.monotonic),
            clock=lambda: self.now,
        )

    async def refreshable(self, id: str, *, now: int, idle: int) -> tuple[Session, User, bytes, int, int] | None:
        at = millis(NOW)
        if id != "S1" or not self.living or now - idle >= at:
            return None
        session = Session("S1", "ada", None, None, at, at, at + 10**12, 0)
        return session, ADA, sha256(self.current), self.generation, at

    async def revoke(self, target: Target, *, reason: str | None, by: Actor, listed: bool = True) -> tuple[object, int]:
        self.revoked.append((target, by, listed))
        return None, 0

    def token(self, id: str = "T1") -> str:
        return self.keyring.sign(
            subject="ada", client_id="c~gateway", scopes=frozenset({"inbox"}), session="S1", token_id=id, now=NOW,
            ttl=900,
        )  # fmt: skip

    def rotate(self) -> None:
        self.current, self.generation = self.refresh_tokens.successor(self.current), self.generation + 1


@pytest.fixture
def house() -> House:
    return House()


async def test_REV_07_a_good_token_is_neither_active_nor_not_while_news_of_revocations_is_late(house: House) -> None:
    token = house.token()
    house.monotonic += FRESH_FOR + 0.1
    with pytest.raises(RevocationsStale):
        await house.presented.introspect(token)
    assert await house.presented.introspect(token + "x") is None
    said = await house.presented.introspect(house.current)
    assert said is not None, "of a refresh token the database knows"
    await house.presented.revoke(token, address=None)
    assert [target for target, _, _ in house.revoked] == [Target(token_id="T1")], "to end one no news are needed"


async def test_REV_07_an_access_token_is_active_as_long_as_its_session_lives_in_the_database(house: House) -> None:
    said = await house.presented.introspect(house.token())
    assert said is not None
    assert (said["active"], said["sub"], said["sid"], said["username"]) == (True, "ada", "S1", "ada")
    house.living = False
    assert await house.presented.introspect(house.token()) is None


async def test_REV_07_a_refresh_token_is_active_until_its_session_would_end(house: House) -> None:
    said = await house.presented.introspect(house.current)
    assert said is not None
    assert (said["token_type"], said["exp"]) == ("refresh_token", int(NOW) + IDLE)
    house.now += IDLE
    assert await house.presented.introspect(house.current) is None


async def test_REV_01_a_revoked_token_is_not_revoked_again(house: House) -> None:
    await house.presented.revoke(house.token(), address="192.0.2.1", request_id="r")
    house.denylist.add([Ban(1, "token", "T1", None, None, 10**15, "token_revoked")])
    await house.presented.revoke(house.token(), address="192.0.2.1", request_id="r")
    assert house.revoked == [(Target(token_id="T1"), Actor("ada", "192.0.2.1", "r"), False)]


async def test_REV_01_who_ends_one_token_after_the_other_is_told_to_wait_and_can_end_the_session(house: House) -> None:
    for number in range(AT_ONCE):
        await house.presented.revoke(house.token(f"T{number}"), address=None)
    with pytest.raises(Limited) as refusal:
        await house.presented.revoke(house.token("last"), address=None)
    assert (refusal.value.policy, refusal.value.retry_after) == ("token-revocations", EVERY)
    house.denylist.add([Ban(1, "token", "T1", None, None, 10**15, "token_revoked")])
    await house.presented.revoke(house.token("T1"), address=None)
    await house.presented.revoke(house.current, address=None)
    assert house.revoked[-1][0] == Target(session="S1")
    house.monotonic += EVERY
    await house.presented.revoke(house.token("last"), address=None)
    assert len(house.revoked) == AT_ONCE + 2


@pytest.mark.parametrize("steps", [0, 1, 2, 7])
async def test_REV_02_a_genuine_refresh_token_of_any_generation_ends_the_session(house: House, steps: int) -> None:
    token = house.current
    for _ in range(steps):
        house.rotate()
    house.now += 2 * IDLE  # it could not be refreshed any more; what came of it may still live
    await house.presented.revoke(token, address=None)
    assert [target for target, _, _ in house.revoked] == [Target(session="S1")]


async def test_REV_02_a_forged_refresh_token_ends_nobodys(house: House) -> None:
    genuine = house.current
    for _ in range(3):
        house.rotate()
    secret = genuine.rpartition(".")[2]
    flipped = ("A" if secret[0] != "A" else "B") + secret[1:]
    for forged in (
        *(f"S1.{generation}.{flipped}" for generation in range(6)),
        *(f"S1.{generation}.{secret}" for generation in range(1, 6)),
        f"S2.0.{secret}",
        house.refresh_tokens.successor(house.current),  # who has the key could; it was never given out
    ):
        await house.presented.revoke(forged, address=None)
    assert house.revoked == []
    house.living = False
    await house.presented.revoke(house.current, address=None)
    assert house.revoked == []
