"""The chain of refresh tokens by itself: text, successor, proof."""

from __future__ import annotations

import pytest

from gateway.auth.refresh import FARTHEST, RefreshTokens, sha256

KEY = bytes(range(32))


def test_a_token_is_the_session_the_generation_and_256_bits() -> None:
    tokens = RefreshTokens(KEY)
    first = tokens.first("S1")
    session, generation, secret = first.split(".")
    assert (session, generation, len(secret)) == ("S1", "0", 43)
    assert tokens.first("S1") != first
    assert tokens.read(first) == ("S1", 0)
    assert tokens.read(tokens.successor(tokens.successor(first))) == ("S1", 2)


def test_a_token_has_one_successor_under_one_key() -> None:
    first = RefreshTokens(KEY).first("S1")
    assert RefreshTokens(KEY).successor(first) == RefreshTokens(KEY).successor(first)
    assert RefreshTokens(KEY).successor(first) != RefreshTokens(KEY[::-1]).successor(first)
    changed = first[:-1] + ("A" if first[-1] != "A" else "B")
    assert RefreshTokens(KEY).successor(first) != RefreshTokens(KEY).successor(changed)


@pytest.mark.parametrize(
    "text",
    [
        "", "S1", "S1.0", "S1.0." + "a" * 42, "S1.0." + "a" * 44, "S1.-1." + "a" * 43, "S1.01." + "a" * 43,
        "S1.1e3." + "a" * 43, ".0." + "a" * 43, "S1.0." + "a" * 43 + "\n", "S1.0." + "é" * 43, "S1.٣." + "a" * 43,
        "S" * 65 + ".0." + "a" * 43, "S1." + "9" * 5000 + "." + "a" * 43, "eyJ.eyJ.sig", "S1.0." + "a" * 1_000_000,
    ],
)  # fmt: skip
def test_what_is_no_refresh_token_is_not_read(text: str) -> None:
    assert RefreshTokens(KEY).read(text) is None


async def test_only_a_genuine_token_leads_to_a_later_one() -> None:
    tokens = RefreshTokens(KEY)
    old = current = tokens.first("S1")
    for _ in range(600):
        current = tokens.successor(current)
    assert await tokens.leads_to(old, sha256(current), steps=600)
    assert await tokens.leads_to(current, sha256(current), steps=0)
    assert not await tokens.leads_to(old, sha256(current), steps=599)
    assert not await tokens.leads_to(tokens.first("S1"), sha256(current), steps=600)
    assert not await tokens.leads_to(current, sha256(current), steps=-1)


async def test_the_proof_is_bounded() -> None:
    tokens = RefreshTokens(KEY)
    old = current = tokens.first("S1")
    for _ in range(FARTHEST + 1):
        current = tokens.successor(current)
    assert await tokens.leads_to(tokens.successor(old), sha256(current), steps=FARTHEST)
    assert not await tokens.leads_to(old, sha256(current), steps=FARTHEST + 1)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        RefreshTokens(b"short")
