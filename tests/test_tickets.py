"""Tickets with clocks that stand still: what each carries, when it is over, and what is asked again after its use."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import MemoryTickets, Seconds

from gateway.auth.tokens import Keyring, generate_signing_key
from gateway.authn import Authn
from gateway.errors import GatewayError, RevocationsStale, TokenExpired, TokenInvalid, TokenRevoked
from gateway.model import Ban, Principal
from gateway.revocations import Revocations
from gateway.tickets import LIFE, Tickets

KEY = bytes(range(32))


class Booth:
    """Everything that sells and takes tickets."""

    def __init__(self, used: Any = None) -> None:
        self.clock = Seconds()
        self.monotonic = Seconds(100.0)
        self.keyring = Keyring([generate_signing_key(self.clock())], issuer="i", audience="a", max_ttl=900, leeway=0)
        self.revocations = Revocations()
        self.revocations.refreshed(at=100.0)
        self.authn = Authn(self.keyring, self.revocations, self.clock, self.monotonic)
        self.tickets = Tickets(key=KEY, authn=self.authn, used=used or MemoryTickets(), clock=self.clock)

    def principal(self, *, ttl: int = 900) -> Principal:
        token = self.keyring.sign(
            subject="ada", client_id="c~gateway", scopes=frozenset({"inbox"}), session="S1", token_id="T1",
            now=self.clock(), ttl=ttl,
        )  # fmt: skip
        return self.authn.principal(token)

    def ban(self) -> None:
        self.revocations.add([Ban(1, "session", "S1", "ada", None, 1 << 60, "token_revoked")])


def why(error: type[GatewayError], booth: Booth, raw: str, *, origin: str | None = None) -> str:
    with pytest.raises(error) as refused:
        booth.tickets.read(raw, origin=origin)
    return getattr(refused.value, "why", "")


async def test_it_is_the_token_it_was_asked_with() -> None:
    booth = Booth()
    principal = booth.principal()
    raw, life = booth.tickets.issue(principal, origin=None)
    assert life == LIFE == 30
    assert await booth.tickets.redeem(raw) == principal, "its key included"


async def test_WSH_03_it_is_over_after_thirty_seconds_and_not_before() -> None:
    booth = Booth()
    raw, _ = booth.tickets.issue(booth.principal(), origin=None)
    booth.clock.now += LIFE - 1
    booth.tickets.read(raw, origin=None)
    booth.clock.now += 1
    why(TokenExpired, booth, raw)


async def test_WSH_03_it_does_not_outlive_its_token() -> None:
    booth = Booth()
    raw, life = booth.tickets.issue(booth.principal(ttl=7), origin=None)
    assert life == 7
    booth.clock.now += 7
    why(TokenExpired, booth, raw)


async def test_WSH_03_it_is_good_once_and_of_two_no_two_are_the_same() -> None:
    booth = Booth()
    principal = booth.principal()
    first, second = (booth.tickets.issue(principal, origin=None)[0] for _ in range(2))
    await booth.tickets.redeem(first)
    with pytest.raises(TokenInvalid):
        await booth.tickets.redeem(first)
    await booth.tickets.redeem(second)


async def test_WSH_03_another_key_or_any_other_letter_is_no_ticket() -> None:
    booth, other = Booth(), Booth()
    raw, _ = booth.tickets.issue(booth.principal(), origin=None)
    stranger = Tickets(key=bytes(32), authn=other.authn, used=MemoryTickets(), clock=other.clock)
    with pytest.raises(TokenInvalid):
        stranger.read(raw, origin=None)
    for place in range(len(raw)):
        bent = raw[:place] + ("A" if raw[place] != "A" else "B") + raw[place + 1 :]
        assert why(TokenInvalid, booth, bent) == "no ticket of ours"
    for bent in ("", "t~", "t~.", raw + "=", raw + "\n", raw * 20, raw.replace(".", "..")):
        assert why(TokenInvalid, booth, bent) == "no ticket of ours"


async def test_WSH_03_it_is_for_the_page_that_asked_if_one_did() -> None:
    booth = Booth()
    bound, _ = booth.tickets.issue(booth.principal(), origin="https://a.example")
    free, _ = booth.tickets.issue(booth.principal(), origin=None)
    assert why(TokenInvalid, booth, bound, origin="https://b.example") == "a ticket of another origin"
    for raw, origin in ((bound, "https://a.example"), (bound, None), (free, "https://b.example"), (free, None)):
        booth.tickets.read(raw, origin=origin)


async def test_what_a_token_does_not_survive_a_ticket_does_not() -> None:
    for end in ("ban", "key", "stale"):
        booth = Booth()
        raw, _ = booth.tickets.issue(booth.principal(), origin=None)
        error: type[GatewayError] = TokenRevoked
        if end == "ban":
            booth.ban()
        elif end == "key":
            booth.keyring.replace([generate_signing_key(booth.clock())])
        else:
            booth.monotonic.now += 10
            error = RevocationsStale
        why(error, booth, raw)


async def test_what_happened_while_its_use_was_written_down_counts() -> None:
    class Slow(MemoryTickets):
        async def use(self, id: str, *, until: int) -> bool:
            booth.ban()
            return await super().use(id, until=until)

    booth = Booth(Slow())
    raw, _ = booth.tickets.issue(booth.principal(), origin=None)
    with pytest.raises(TokenRevoked):
        await booth.tickets.redeem(raw)
