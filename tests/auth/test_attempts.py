"""AUTH-06, AUTH-08: how many sign-ins may fail, on a clock that stands until it is moved."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from kept import KeptFailures

from gateway.attempts import UNWRITTEN, Attempts, places
from gateway.errors import StoreUnavailable, TooManyAttempts, Unavailable
from gateway.underway import WAITING

HOME, WORK, FAR = "192.0.2.7", "198.51.100.7", "203.0.113.7"
LIMIT, WINDOW = 10, 900
STEP = WINDOW / LIMIT


class Door:
    """Attempts at passwords, with a clock. Everybody's password is ``right``."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.now = 1_800_000_000.0
        self.failures = KeptFailures()
        self.attempts = Attempts(self.failures, secret=b"s" * 32, limit=limit, window=WINDOW, clock=lambda: self.now)
        self.verified: list[tuple[str, str | None]] = []
        self.verifying = asyncio.Event()
        self.verifying.set()

    @property
    def nobody(self) -> bool:
        under_way = self.attempts._under_way
        return not (under_way._places or under_way._lines or under_way.waiting)

    async def try_(self, password: str = "wrong", *, account: str = "ann", address: str | None = HOME) -> str:
        try:
            async with self.attempts.of_account(account, address) as attempt:
                self.verified.append((account, address))
                await self.verifying.wait()
                if password == "right":
                    await attempt.succeeded()
                    return "in"
                await attempt.failed()
                return "out"
        except TooManyAttempts as refusal:
            return refusal.policy
        except Unavailable as error:
            return error.code

    async def tries(self, amount: int, **more: Any) -> Counter[str]:
        return Counter([await self.try_(**more) for _ in range(amount)])

    async def at_once(self, amount: int, **more: Any) -> Counter[str]:
        return Counter(await asyncio.gather(*(self.try_(**more) for _ in range(amount))))


@pytest.fixture
def door() -> Door:
    return Door()


async def until(condition: Callable[[], object]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)  # noqa: TID251 - lets the others run; no time passes
    raise AssertionError("it never came to that")


def spread(amount: int) -> list[str]:
    """Addresses of as many networks."""
    return [f"10.{number // 250}.{number % 250}.1" for number in range(amount)]


# -- what is counted ----------------------------------------------------------------------------------------------


async def test_an_address_fails_ten_times_and_then_once_every_tenth_of_the_window(door: Door) -> None:
    names = [f"user {number}" for number in range(11)]
    assert [await door.try_(account=name) for name in names] == ["out"] * 10 + ["sign-in-address"]
    assert await door.try_("right", account="ann") == "sign-in-address"
    assert await door.try_("right", account="ann", address=WORK) == "in"
    door.now += STEP
    assert [await door.try_(account=name) for name in names[:2]] == ["out", "sign-in-address"]
    door.now += WINDOW
    assert await door.tries(11) == {"out": 10, "sign-in-address": 1}


async def test_a_refusal_says_when_one_more_is_let_through_and_costs_nothing(door: Door) -> None:
    await door.tries(10)
    rows, writes = dict(door.failures.rows), door.failures.writes
    door.now += 10
    with pytest.raises(TooManyAttempts) as refusal:
        async with door.attempts.of_account("bob", HOME):
            raise AssertionError("let through")
    error = refusal.value
    assert (error.code, error.policy, error.quota, error.window) == ("too_many_attempts", "sign-in-address", 10, WINDOW)
    assert error.retry_after == STEP - 10
    await door.tries(50)
    assert (door.failures.rows, door.failures.writes) == (rows, writes), "a refusal does not prolong what it is for"
    door.now += error.retry_after
    assert await door.tries(2) == {"out": 1, "sign-in-address": 1}


async def test_the_right_password_is_let_in_from_elsewhere_however_many_guess(door: Door) -> None:
    guessed = Counter([await door.try_(address=address) for address in spread(60)])
    assert guessed == {"out": 60}, "one guess a network, each from its own"
    assert await door.try_("right", address=WORK) == "in"


async def test_at_a_full_account_a_network_has_one_guess_a_window(door: Door) -> None:
    for address in spread(10):
        await door.try_(address=address)
    assert [await door.try_(address=FAR) for _ in range(3)] == ["out", "sign-in-account", "sign-in-account"]
    assert await door.try_(address="203.0.113.99") == "sign-in-account", "the same network"
    assert await door.try_(account="bob", address=FAR) == "out", "another account is another matter"
    door.now += STEP - 1
    for address in spread(12)[10:]:
        await door.try_(address=address)  # the account stays full
    assert await door.try_("right", address=FAR) == "sign-in-account"
    door.now += WINDOW
    assert await door.try_("right", address=FAR) == "in"


async def test_an_unknown_name_is_counted_like_any_other(door: Door) -> None:
    """The policy is not even told which exist; nothing but the name goes into the key."""
    for address in spread(10):
        await door.try_(account="no such user", address=address)
    assert await door.tries(2, account="no such user") == {"out": 1, "sign-in-account": 1}


async def test_a_network_fails_five_times_as_often_as_an_address(door: Door) -> None:
    outcomes = [await door.try_(account=f"u{number}", address=f"192.0.2.{number}") for number in range(52)]
    assert outcomes == ["out"] * 50 + ["sign-in-network"] * 2
    assert await door.try_("right", address="192.0.3.1") == "in"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", (True, True)),
        ("192.0.2.1", "192.0.2.2", (False, True)),
        ("192.0.2.1", "192.0.3.1", (False, False)),
        ("192.0.2.1", "::ffff:192.0.2.1", (True, True)),
        ("2001:db8::1", "2001:db8::ffff:1:2:3", (True, True)),
        ("2001:db8::1", "2001:db8:0:1::1", (False, True)),
        ("2001:db8::1", "2001:db8:1::1", (False, False)),
        ("fe80::1%eth0", "fe80::2", (True, True)),
        ("::1", "0.0.0.1", (False, False)),
        ("unknown", "made up", (True, True)),
    ],
)
def test_an_address_counts_for_itself_and_for_its_network(one: str, other: str, same: tuple[bool, bool]) -> None:
    (host, network), (other_host, other_network) = places(one), places(other)
    assert (host == other_host, network == other_network) == same
    assert all((host, network))


async def test_without_an_address_there_is_the_account_alone(door: Door) -> None:
    assert places(None) == ("", "")
    assert await door.tries(12, address=None) == {"out": 10, "sign-in-account": 2}
    assert await door.try_(account="bob", address=None) == "out"


async def test_the_keys_tell_neither_name_nor_address(door: Door) -> None:
    await door.try_(account="my secret password")
    other = Attempts(door.failures, secret=b"t" * 32, limit=LIMIT, window=WINDOW, clock=lambda: door.now)
    before = set(door.failures.rows)
    assert len(before) == 4
    assert all(len(key) == 16 for key in before)
    async with other.of_account("my secret password", HOME) as attempt:
        await attempt.failed()
    assert len(door.failures.rows) == 8, "another secret makes other keys of the same names"


async def test_what_stands_where_does_not_matter(door: Door) -> None:
    """``ab`` from ``c`` is not ``a`` from ``bc``: the parts of a key are told apart."""
    keys = {door.attempts._count("account", 1, *parts).key for parts in (("ab", "c"), ("a", "bc"), ("abc",))}
    assert len(keys) == 3
    assert await door.try_(account="\ud800 lone surrogate") == "out"


# -- what a success gives back ------------------------------------------------------------------------------------


async def test_the_right_password_clears_the_account_but_not_the_address(door: Door) -> None:
    await door.tries(6)
    assert await door.try_("right") == "in"
    assert await door.tries(5) == {"out": 4, "sign-in-address": 1}
    for address in spread(6):
        assert await door.try_(address=address) == "out"
    assert await door.tries(2, address=spread(1)[0]) == {"sign-in-account": 2}
    door.now += STEP
    assert await door.try_("right", address=WORK) == "in"
    assert await door.tries(9, address=FAR) == {"out": 9}, "the account begins anew"


async def test_whoever_has_an_account_gains_no_guesses_at_others(door: Door) -> None:
    outcomes = []
    for number in range(30):
        outcomes += [await door.try_("right", account="mallory"), await door.try_(account=f"victim {number}")]
    assert Counter(outcomes)["out"] == 10


async def test_a_sign_in_without_failures_writes_nothing(door: Door) -> None:
    for _ in range(20):
        assert await door.try_("right") == "in"
    assert door.failures.writes == 0


async def test_an_attempt_of_which_nothing_is_known_counts_for_nothing(door: Door) -> None:
    for _ in range(20):
        with pytest.raises(ZeroDivisionError):
            async with door.attempts.of_account("ann", HOME):
                raise ZeroDivisionError
    assert door.failures.rows == {}
    assert await door.try_("right") == "in"


# -- many at once -------------------------------------------------------------------------------------------------


async def test_of_a_hundred_guesses_at_once_ten_are_looked_at() -> None:
    door = Door()
    outcomes = await door.at_once(100)
    assert outcomes["out"] == 10
    assert len(door.verified) == 10
    assert outcomes["sign-in-address"] == WAITING
    assert outcomes["unavailable"] == 100 - 10 - WAITING
    assert door.nobody
    assert not door.attempts._looks


async def test_guesses_at_one_account_from_everywhere_at_once_are_one_a_network_once_it_is_full(door: Door) -> None:
    for address in spread(10):
        await door.try_(address=address)
    outcomes = await door.at_once(40, address=FAR)
    assert outcomes == {"out": 1, "sign-in-account": 39}


async def test_many_who_know_their_passwords_are_all_let_in_at_once(door: Door) -> None:
    """An office behind one address: they wait for each other, and nobody is refused."""
    outcomes = await asyncio.gather(*(door.try_("right", account=f"user {number}") for number in range(WAITING)))
    assert set(outcomes) == {"in"}


async def test_no_more_are_under_way_than_could_fail(door: Door) -> None:
    await door.tries(7)
    door.verifying.clear()
    door.verified.clear()
    trying = [asyncio.create_task(door.try_("right", account=f"user {number}")) for number in range(8)]
    await until(lambda: len(door.verified) == 3 and door.attempts._under_way.waiting == 5)
    door.verifying.set()
    assert set(await asyncio.gather(*trying)) == {"in"}


async def test_a_crowd_at_one_address_goes_in_in_the_order_it_came_and_asks_no_more_than_twice_each(door: Door) -> None:
    door.verifying.clear()
    trying = [asyncio.create_task(door.try_("right", account=f"user {number}")) for number in range(10 + WAITING)]
    await until(lambda: door.attempts._under_way.waiting == WAITING)
    assert door.attempts.crowded(HOME)
    assert not door.attempts.crowded(FAR), "who comes from elsewhere need not wait"
    door.verifying.set()
    assert set(await asyncio.gather(*trying)) == {"in"}
    assert door.failures.reads == (10 + WAITING) + WAITING, "all when they came, and who waited when it was their turn"
    assert [account for account, _ in door.verified] == [f"user {number}" for number in range(10 + WAITING)]
    assert door.nobody
    assert not door.attempts.crowded(HOME)


async def test_who_knows_that_there_is_less_room_is_not_passed_by_who_does_not(door: Door) -> None:
    await door.tries(9)
    door.verifying.clear()
    door.verified.clear()
    trying = [asyncio.create_task(door.try_("right", account=f"user {number}")) for number in range(3)]
    await until(lambda: len(door.verified) == 1 and door.attempts._under_way.waiting == 2)
    late = asyncio.create_task(door.try_("right", account="late"))
    await until(lambda: door.attempts._under_way.waiting == 3)
    door.verifying.set()
    assert set(await asyncio.gather(*trying, late)) == {"in"}
    assert [account for account, _ in door.verified] == ["user 0", "user 1", "user 2", "late"]


async def test_who_waits_at_an_account_is_passed_by_the_innocent_from_elsewhere(door: Door) -> None:
    for address in spread(10):
        await door.try_(address=address)
    door.verifying.clear()
    door.verified.clear()
    guessing = [asyncio.create_task(door.try_(address=FAR)) for _ in range(3)]
    await until(lambda: len(door.verified) == 1 and door.attempts._under_way.waiting == 2)
    owner = asyncio.create_task(door.try_("right", address=WORK))
    await until(lambda: ("ann", WORK) in door.verified)
    door.verifying.set()
    assert await owner == "in"
    assert set(await asyncio.gather(*guessing)) == {"out"}, "the owner has cleared the account"
    assert door.nobody


async def test_whose_turn_comes_as_they_go_away_leaves_the_place_to_the_next(door: Door) -> None:
    door.verifying.clear()
    trying = [asyncio.create_task(door.try_("right", account=f"user {number}")) for number in range(12)]
    await until(lambda: door.attempts._under_way.waiting == 2)
    line = next(iter(door.attempts._under_way._lines.values()))
    first = line[0]
    trying[0].cancel()
    await until(first.turn.done)
    trying[10].cancel()
    door.verifying.set()
    outcomes = await asyncio.gather(*trying, return_exceptions=True)
    assert Counter(str(outcome) for outcome in outcomes) == {"in": 10, "": 2}
    assert door.nobody


async def test_an_answer_that_is_older_than_a_failure_does_not_hide_it(door: Door) -> None:
    await door.tries(9)
    door.verifying.clear()
    first = asyncio.create_task(door.try_())
    await until(lambda: len(door.verified) == 10)
    door.failures.answering.clear()
    reads = door.failures.reads
    second = asyncio.create_task(door.try_())
    await until(lambda: door.failures.reads > reads)  # and what it has read knows of nine
    door.verifying.set()
    assert await first == "out"
    door.failures.answering.set()
    assert await second == "sign-in-address"


async def test_who_waits_and_goes_away_leaves_nothing_behind(door: Door) -> None:
    door.verifying.clear()
    trying = [asyncio.create_task(door.try_()) for _ in range(30)]
    await until(lambda: door.attempts._under_way.waiting == 20)
    for task in trying:
        task.cancel()
    await asyncio.gather(*trying, return_exceptions=True)
    assert door.nobody
    assert not door.attempts._looks


# -- the database is away -----------------------------------------------------------------------------------------


async def test_nobody_is_let_through_while_the_failures_cannot_be_read(door: Door) -> None:
    door.failures.readable = False
    with pytest.raises(StoreUnavailable):
        async with door.attempts.of_account("ann", HOME):
            raise AssertionError("let through")
    door.failures.readable = True
    assert await door.try_("right") == "in"


async def test_failures_count_while_they_cannot_be_written(door: Door) -> None:
    door.failures.writable = False
    assert await door.tries(12) == {"out": 10, "sign-in-address": 2}
    assert await door.try_("right", address=WORK) == "in"
    door.failures.writable = True
    assert await door.try_("right") == "sign-in-address", "and afterwards"
    door.now += WINDOW
    assert await door.try_("right") == "in"


async def test_what_cannot_be_written_counts_upon_what_is_kept_and_what_is_written_upon_that(door: Door) -> None:
    assert await door.tries(6) == {"out": 6}
    door.failures.writable = False
    assert await door.tries(6) == {"out": 4, "sign-in-address": 2}
    door.failures.writable = True
    door.now += 2 * STEP
    assert await door.tries(6) == {"out": 2, "sign-in-address": 4}


async def test_who_goes_away_while_their_failure_is_written_has_failed(door: Door) -> None:
    await door.tries(9)
    adding, add = asyncio.Event(), door.failures.add

    async def stalls(counts: Sequence[tuple[bytes, int, int]], *, now: int) -> None:
        adding.set()
        await asyncio.Event().wait()

    door.failures.add = stalls  # type: ignore[method-assign]
    guessing = asyncio.create_task(door.try_())
    await adding.wait()
    guessing.cancel()
    await asyncio.wait([guessing])
    door.failures.add = add  # type: ignore[method-assign]
    assert await door.try_() == "sign-in-address"
    assert door.nobody


async def test_who_stood_behind_one_who_knew_more_and_went_away_need_not_wait(door: Door) -> None:
    await door.tries(9)
    door.verifying.clear()
    trying = [asyncio.create_task(door.try_("right", account=f"user {number}", address=HOME)) for number in range(2)]
    await until(lambda: door.attempts._under_way.waiting == 1)
    neighbour = asyncio.create_task(door.try_("right", account="user 2", address=HOME))
    await until(lambda: door.attempts._under_way.waiting == 2)
    door.now += WINDOW  # by now there is room, which nobody has told them
    trying[1].cancel()
    await until(lambda: ("user 2", HOME) in door.verified)
    door.verifying.set()
    await asyncio.wait([*trying, neighbour])
    assert door.nobody


async def test_a_crowd_that_learns_of_failures_one_by_one_goes_in_in_order(door: Door) -> None:
    door.verifying.clear()
    trying = [asyncio.create_task(door.try_("right", account=f"user {number}")) for number in range(30)]
    await until(lambda: door.attempts._under_way.waiting == 20)
    ((count,), _) = door.attempts._of_address(*places(HOME))
    door.failures.rows[count.key] = int(door.now * 1000) + 5 * count.step  # five have failed at another node
    late = []
    for number in range(10):
        trying[number].cancel()  # one place after another
        late.append(asyncio.create_task(door.try_("right", account=f"late {number}")))
        turns = itertools.count(-10)
        await until(lambda: next(turns) > 0)  # noqa: B023 - it is awaited here. Who has the place has asked, and knows
    door.verifying.set()
    await asyncio.wait([*trying, *late])
    came = [account for account, _ in door.verified]
    assert came[10:] == [f"user {number}" for number in range(10, 30)] + [f"late {number}" for number in range(10)]
    assert door.failures.reads <= 10 + 2 * 30 + 10
    assert door.nobody


async def test_what_could_not_be_written_is_bounded(door: Door) -> None:
    door.failures.writable = False
    for number in range(UNWRITTEN // 4 + 10):
        await door.try_(account=f"user {number}", address=f"2001:db8:{number:x}::1")
    assert len(door.attempts._unwritten) == UNWRITTEN


async def test_a_clock_that_was_set_back_keeps_nobody_out_for_hours(door: Door) -> None:
    await door.tries(10)
    door.now -= 3600
    assert await door.try_("right") == "in"
    assert await door.tries(11, account="bob") == {"out": 10, "sign-in-address": 1}, "and they are counted anew"


# -- clients, and no limit ----------------------------------------------------------------------------------------


async def client(door: Door, client_id: str = "c~shop", *, address: str = HOME, right: bool = False) -> str:
    try:
        async with door.attempts.of_client(client_id, address) as attempt:
            if right:
                return "in"
            await attempt.failed()
            return "out"
    except TooManyAttempts as refusal:
        return refusal.policy


async def test_a_deployment_with_an_old_secret_locks_out_neither_others_nor_its_client(door: Door) -> None:
    assert [await client(door) for _ in range(12)] == ["out"] * 10 + ["sign-in-client"] * 2
    assert await client(door, right=True, address=WORK) == "in"
    assert await client(door, "c~mail", right=True) == "in"
    assert await door.try_("right") == "in"


async def test_secrets_of_made_up_clients_are_limited_by_address(door: Door) -> None:
    outcomes = Counter([await client(door, f"c~{number}") for number in range(60)])
    assert outcomes == {"out": 50, "sign-in-clients": 10}


async def test_hundreds_may_show_the_right_secret_at_once(door: Door) -> None:
    assert set(await asyncio.gather(*(client(door, right=True) for _ in range(500)))) == {"in"}


async def test_a_limit_of_0_is_none() -> None:
    door = Door(limit=0)
    assert await door.at_once(500) == {"out": 500}
    assert {await client(door) for _ in range(100)} == {"out"}
    assert (door.failures.reads, door.failures.writes) == (0, 0)
