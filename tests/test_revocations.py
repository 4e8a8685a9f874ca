"""REV-08: the denylist in memory, with a hundred thousand rules. No store and no clock: it is fed by hand."""

from __future__ import annotations

from gateway.closing import TOKEN_REVOKED
from gateway.model import Ban, Claims
from gateway.revocations import Revocations

MANY = 100_000
UNTIL = 1_000


class Counted(str):
    """A text that knows how often it was hashed or compared."""

    looked = 0

    def __hash__(self) -> int:
        Counted.looked += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        Counted.looked += 1
        return super().__eq__(other)


def ban(number: int, *, until: int = UNTIL) -> Ban:
    kind = ("token", "session", "client")[number % 3]
    return Ban(number, kind, f"{kind}-{number}", None, 10 if kind == "client" else None, until, "token_revoked")  # type: ignore[arg-type]


def denylist(count: int) -> Revocations:
    revocations = Revocations()
    revocations.add([ban(number) for number in range(1, count + 1)])
    return revocations


def claims(token: str = "free", session: str | None = "free", client: str = "free") -> Claims:
    return Claims("u", Counted(client), frozenset(), session and Counted(session), Counted(token), 10, 900)


def looks(revocations: Revocations, one: Claims) -> int:
    """How many looks one verdict takes."""
    Counted.looked = 0
    revocations.verdict(one)
    return Counted.looked


def test_REV_08_a_verdict_takes_as_many_looks_with_100_000_rules_as_with_ten() -> None:
    small, large = denylist(10), denylist(MANY)
    assert len(large) == MANY
    for one in (claims(), claims(session=None), claims(token="token-3"), claims(session="session-4")):
        assert looks(large, one) == looks(small, one) <= 6


def test_REV_08_every_one_of_100_000_rules_counts() -> None:
    revocations = denylist(MANY)
    for number in range(1, MANY + 1, 97):
        kind = ("token", "session", "client")[number % 3]
        named = f"{kind}-{number}"
        one = claims(token=named) if kind == "token" else claims(session=named)
        if kind == "client":
            one = claims(session=None, client=named)
        assert revocations.verdict(one) is TOKEN_REVOKED, named


def test_REV_08_what_can_no_longer_matter_is_forgotten_and_nothing_else() -> None:
    revocations = denylist(MANY)
    revocations.add([ban(MANY + 2, until=UNTIL + 1), ban(MANY + 3, until=UNTIL + 1)])
    revocations.forget(now=UNTIL - 1)
    assert len(revocations) == MANY + 2
    revocations.forget(now=UNTIL)
    assert len(revocations) == 2
    tables = [value for name in vars(revocations) if isinstance(value := getattr(revocations, name), dict)]
    assert sum(map(len, tables)) == 4, "nothing is left of them anywhere: each rule stands by number and by subject"
    assert revocations.verdict(claims(token="token-3")) is None
    for one in (claims(token=f"token-{MANY + 2}"), claims(session=f"session-{MANY + 3}")):
        assert revocations.verdict(one) is TOKEN_REVOKED
    revocations.forget(now=UNTIL + 1)
    assert len(revocations) == 0


def test_REV_08_a_rule_that_was_replaced_is_not_forgotten_with_its_predecessor() -> None:
    revocations = Revocations()
    revocations.add([Ban(1, "session", "s", None, None, UNTIL, "user_disabled")])
    revocations.add([Ban(2, "session", "s", None, None, UNTIL + 5, "token_revoked")])
    revocations.forget(now=UNTIL)
    assert revocations.verdict(claims(session="s")) is TOKEN_REVOKED


def test_REV_08_a_rule_that_stands_for_shorter_does_not_end_the_one_that_stands_for_longer() -> None:
    revocations = Revocations()
    for number, until in enumerate((UNTIL + 5, UNTIL)):
        revocations.add([Ban(number, "session", "s", None, None, until, "token_revoked")])
        revocations.add([Ban(number, "token", "t", None, None, until, "token_revoked")])
    revocations.forget(now=UNTIL)
    assert revocations.verdict(claims(session="s")) is TOKEN_REVOKED
    assert revocations.verdict(claims(token="t")) is TOKEN_REVOKED
