"""When a key signs, and when it may go."""

from __future__ import annotations

import pytest

from gateway.auth.lifecycle import CLOCKS_DIFFER, check_retirable, signing_one, states
from gateway.errors import Conflict
from gateway.model import SigningKey

OLD, NEW, NEXT = (SigningKey(kid, "ES256", "", at) for kid, at in (("old", 0), ("new", 100_000), ("next", 200_000)))
TTL = 900
OVER = 100_000 + (TTL + CLOCKS_DIFFER) * 1000
"""When (ms) no token of ``old`` can be valid any more: it stopped when ``new`` began."""


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (-1, ["signs", "will sign", "will sign"]),  # the clock was set back before all of them
        (0, ["signs", "will sign", "will sign"]),
        (99_999, ["signs", "will sign", "will sign"]),
        (100_000, ["verifies", "signs", "will sign"]),
        (10**9, ["verifies", "verifies", "signs"]),
    ],
)
def test_TOK_17_one_key_signs_the_later_ones_will_and_the_earlier_ones_verify(now: int, expected: list[str]) -> None:
    assert [state for _, state in states([OLD, NEW, NEXT], now=now)] == expected


def test_TOK_17_of_keys_by_setting_the_last_signs() -> None:
    keys = [SigningKey(kid, "HS256", "") for kid in "ab"]
    assert signing_one(keys, now=5).kid == "b"
    assert [state for _, state in states(keys, now=5)] == ["verifies", "signs"]
    assert states([], now=5) == []


def retire(kid: str, *keys: SigningKey, now: int, force: bool = False) -> None:
    check_retirable(keys, kid, now=now, access_ttl=TTL, force=force)


@pytest.mark.parametrize("force", [False, True])
def test_TOK_17_neither_the_only_key_nor_the_one_that_signs_may_go(force: bool) -> None:
    for keys in ([OLD], [OLD, NEW]):
        with pytest.raises(Conflict, match="is the key that signs") as refused:
            retire("old", *keys, now=50_000, force=force)
        assert refused.value.code == "key_in_use"
    with pytest.raises(Conflict, match="There is no signing key"):
        retire("none", OLD, NEW, now=50_000, force=force)


def test_TOK_17_a_key_goes_when_its_tokens_have_run_out_or_by_force() -> None:
    with pytest.raises(Conflict, match="may be valid for 990 more seconds"):
        retire("old", OLD, NEW, now=100_000)
    with pytest.raises(Conflict, match="may be valid for 1 more seconds"):
        retire("old", OLD, NEW, NEXT, now=OVER - 1)
    retire("old", OLD, NEW, now=OVER)
    retire("old", OLD, NEW, now=100_000, force=True)


def test_TOK_17_a_key_that_has_not_signed_yet_may_go_at_once() -> None:
    retire("new", OLD, NEW, now=50_000)
