"""AUTH-01 … AUTH-03, AUTH-05, AUTH-10: how a password is hashed and compared, on real Argon2."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from passlib.hash import argon2
from passlib.utils import MAX_PASSWORD_SIZE

from gateway.auth import guessable
from gateway.auth.passwords import LONGEST, NICER, WAITING, Passwords
from gateway.errors import Invalid, Unavailable


@pytest.fixture
async def passwords() -> AsyncIterator[Passwords]:
    it = Passwords(2)
    await it.warm()
    yield it
    it.close()


def weaker(password: str, **cost: int | str) -> str:
    with_cost = argon2.using(**({"type": "ID", "memory_cost": 19_456, "rounds": 2, "parallelism": 1} | cost))
    return str(with_cost.hash(password))


async def test_AUTH_01_the_hash_is_argon2id_with_the_cost_of_owasp(passwords: Passwords) -> None:
    stored = await passwords.hash("correct horse")
    assert re.match(r"\$argon2id\$v=19\$m=19456,t=2,p=1\$", stored)
    assert stored != await passwords.hash("correct horse")


async def test_a_password_fits_its_own_hash_only(passwords: Passwords) -> None:
    stored = await passwords.hash("correct horse")
    assert await passwords.verify("correct horse", stored) == (True, None)
    for wrong in ("Correct horse", "correct horse ", "", "correct"):
        assert await passwords.verify(wrong, stored) == (False, None)


@pytest.mark.parametrize(
    "cost", [{"memory_cost": 1024}, {"rounds": 1}, {"type": "I"}, {"type": "D"}, {"memory_cost": 8192, "rounds": 4}]
)
async def test_AUTH_02_a_weaker_hash_comes_back_better(passwords: Passwords, cost: dict[str, int | str]) -> None:
    old = weaker("correct horse", **cost)
    ok, better = await passwords.verify("correct horse", old)
    assert ok
    assert better is not None
    assert better.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await passwords.verify("correct horse", better) == (True, None)
    assert await passwords.verify("wrong horse", old) == (False, None)


async def test_AUTH_02_a_stronger_hash_is_left_alone(passwords: Passwords) -> None:
    for cost in ({"memory_cost": 20_000}, {"rounds": 3}, {"parallelism": 2}):
        assert await passwords.verify("correct horse", weaker("correct horse", **cost)) == (True, None)


@pytest.mark.parametrize("length", [8, 64, 72, 128, 1024])
async def test_AUTH_03_every_character_counts(passwords: Passwords, length: int) -> None:
    password = ("päß wörd🐎" * 200)[:length]
    passwords.check_new(password, username="alice")
    stored = await passwords.hash(password)
    assert (await passwords.verify(password, stored))[0]
    assert not (await passwords.verify(password[:-1] + "x", stored))[0]
    assert not (await passwords.verify(password[:-1], stored))[0]


async def test_AUTH_03_a_nul_is_a_character(passwords: Passwords) -> None:
    stored = await passwords.hash("before\x00after")
    assert (await passwords.verify("before\x00after", stored))[0]
    assert not (await passwords.verify("before\x00other", stored))[0]
    assert not (await passwords.verify("before", stored))[0]


async def test_composed_and_decomposed_accents_are_the_same_password(passwords: Passwords) -> None:
    stored = await passwords.hash("cafe\u0301 noir")
    assert (await passwords.verify("caf\u00e9 noir", stored))[0]
    worst = "\ufb2c" * 1024  # one character becomes three
    passwords.check_new(worst, username="alice")
    assert (await passwords.verify(worst, await passwords.hash(worst)))[0]


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("", "password_too_short"),
        ("1234567", "password_too_short"),
        ("🐎" * 7, "password_too_short"),
        ("x" * 1025, "password_too_long"),
        ("x" * 5000, "password_too_long"),
        ("\ud800 surrogate", "validation_failed"),
    ],
)
async def test_AUTH_03_a_bad_new_password_is_told_where_it_stands(
    passwords: Passwords, password: str, code: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        passwords.check_new(password, username="alice")
    assert refusal.value.code == code
    assert [pointer for pointer, _ in refusal.value.errors] == ["/password"]
    with pytest.raises(Invalid) as refusal:
        passwords.check_new(password, username="alice", pointer="/new_password")
    assert [pointer for pointer, _ in refusal.value.errors] == ["/new_password"]


async def test_AUTH_03_a_password_nobody_can_have_is_wrong_and_no_error(passwords: Passwords) -> None:
    stored = await passwords.hash("correct horse")
    for password in ("x" * 5000, "x" * 1_000_000, "\ud800"):
        assert await passwords.verify(password, stored) == (False, None)


CORRUPT = [
    "", "x", "$", "$argon2id$", "$argon2id$v=19$m=19456,t=2,p=1$", "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$!!",
    "$argon2id$v=19$m=x,t=2,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNo", "$2b$12$" + "a" * 53, "plain", "\u00e9",
    "$argon2id$v=19$m=1,t=0,p=9$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2g",
]  # fmt: skip


@pytest.mark.parametrize("stored", CORRUPT)
async def test_AUTH_10_a_corrupt_hash_is_a_wrong_password(passwords: Passwords, stored: str) -> None:
    assert await passwords.verify("correct horse", stored) == (False, None)


async def test_AUTH_05_whoever_is_unknown_costs_what_a_wrong_password_costs(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: each is one Argon2 verification against a hash of our own cost."""
    stored = await passwords.hash("correct horse")
    computed: list[str] = []
    verify: Callable[[str, str], bool] = argon2.verify

    def counting(secret: str, hash: str) -> bool:
        computed.append(hash[: hash.index("$", 15)] if hash.count("$") > 3 else hash)
        return verify(secret, hash)

    monkeypatch.setattr(passwords._context.handler("argon2"), "verify", counting)
    for password, against in (("wrong horse", stored), ("wrong horse", None), ("x" * 5000, stored)):
        computed.clear()
        assert await passwords.verify(password, against) == (False, None)
        assert computed == ["$argon2id$v=19$m=19456,t=2,p=1"]
    for corrupt in CORRUPT[:2]:
        computed.clear()
        await passwords.verify("wrong horse", corrupt)
        assert computed[-1] == "$argon2id$v=19$m=19456,t=2,p=1"


async def test_no_more_than_so_many_compute_and_wait_and_the_loop_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = Passwords(2)
    gate, at_once, most = threading.Event(), 0, 0
    lock = threading.Lock()

    def slow(password: str) -> str:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        gate.wait(10)
        with lock:
            at_once -= 1
        return password

    monkeypatch.setattr(passwords, "_hash", slow)
    tasks = [asyncio.ensure_future(passwords.hash("x")) for _ in range(2 + WAITING)]
    await _turn()
    with pytest.raises(Unavailable, match="Too many sign-ins"):
        await passwords.hash("one too many")
    tasks[-1].cancel()  # gives its place up while it waits
    await _turn()
    last = asyncio.ensure_future(passwords.hash("y"))
    await _turn()
    gate.set()
    assert (await asyncio.gather(*tasks, last, return_exceptions=True))[-1] == "y"
    assert most == 2
    assert len(await asyncio.gather(*(passwords.hash("z") for _ in range(2 + WAITING)))) == 2 + WAITING
    passwords.close()
    with pytest.raises(Unavailable):
        await passwords.hash("after the end")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no niceness of its own")
async def test_AUTH_07_hashing_stands_back_and_the_event_loop_does_not(passwords: Passwords) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    theirs = await passwords._off_loop(lambda: os.getpriority(os.PRIO_PROCESS, 0))
    assert theirs == min(19, own + NICER)
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


async def test_without_warming_up_the_dummy_is_made_on_first_use() -> None:
    passwords = Passwords(1)
    assert await passwords.verify("x", None) == (False, None)
    passwords.close()


def test_the_longest_password_stays_within_the_limit_of_passlib() -> None:
    assert LONGEST * 3 <= MAX_PASSWORD_SIZE  # NFC makes three characters of one, at worst


async def _turn() -> None:
    turned = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turned.set_result, None)
    await turned
    again = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(again.set_result, None)
    await again


@pytest.mark.parametrize(
    "password",
    [
        *("password", "PassWord1", "jennifer", "1234567890", "zzzzzzzz", "!qaz2wsx"),
        *("alice-smith", "Alice-Smith", "1alice-smith!", "gateway1", "Notification-Gateway", "notification gateway"),
    ],
)
def test_AUTH_04_a_password_that_is_guessed_first_cannot_be_set(passwords: Passwords, password: str) -> None:
    with pytest.raises(Invalid) as refusal:
        passwords.check_new(password, username="Alice-Smith", pointer="/new_password")
    assert refusal.value.code == "password_common"
    assert [pointer for pointer, _ in refusal.value.errors] == ["/new_password"]


@pytest.mark.parametrize(
    "password",
    ["correct horse battery staple", "alice likes horses", "password\n12345678", "x7$kQ9!z", "паролььь", "======== "],
)
def test_AUTH_04_any_other_can(passwords: Passwords, password: str) -> None:
    passwords.check_new(password, username="Alice-Smith")
    passwords.check_new(password, username="12")  # of which nothing is left when digits are taken away


def test_AUTH_04_the_list_is_whole_and_says_where_it_is_from() -> None:
    head, _, body = (Path(guessable.__file__).parent / guessable.LIST).read_text("ascii").partition("=" * 40 + "\n")
    assert hashlib.sha256(body.encode()).hexdigest() in head
    assert all(word in head for word in ("Django 5.2", "BSD-3-Clause", "zxcvbn 4.5.0", "MIT", "Copyright"))
    words = body.splitlines()
    assert len(words) == len(set(words)) > 10_000
    assert all(len(word) >= 8 and word == word.lower() for word in words)
