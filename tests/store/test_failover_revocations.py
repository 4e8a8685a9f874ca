"""What a node keeps in memory of the rules, when the log behind it is another one: numbers are given a second time."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wire import eventually_async

from gateway.bus.memory import MemoryBus
from gateway.hub import Hub
from gateway.model import INBOX, Ban, Claims, Principal
from gateway.opening import open_gateway
from gateway.revocations import Revocations
from gateway.revoke import Revoker
from gateway.settings import read_settings

UNTIL = 4_000_000_000_000


def claims(session: str) -> Claims:
    return Claims("ada", "c~gateway", frozenset({INBOX}), session, f"jti-{session}", 1, UNTIL // 1000)


def rule(number: int, session: str) -> Ban:
    return Ban(number, "session", session, "ada", None, UNTIL, "token_revoked")


def test_a_number_that_is_given_again_is_another_rule_and_both_count_until_they_are_forgotten() -> None:
    rules = Revocations()
    assert rules.add([rule(7, "lost"), rule(7, "lost")]) == [rule(7, "lost")]
    assert rules.add([rule(7, "new")]) == [rule(7, "new")]
    assert rules.verdict(claims("lost"))
    assert rules.verdict(claims("new"))
    rules.forget(now=UNTIL)
    assert len(rules) == 0
    assert rules.verdict(claims("lost")) is rules.verdict(claims("new")) is None


async def test_under_another_epoch_rules_with_low_numbers_are_read_too(url: str, path: Path) -> None:
    settings = read_settings({"GATEWAY_DATABASE_URL": url, "GATEWAY_BOOTSTRAP_ADMIN_PASSWORD": "correct horse battery"})
    async with open_gateway(settings) as services:

        def write(number: int, session: str) -> None:
            with sqlite3.connect(path) as database:
                database.execute(
                    "INSERT INTO revocations (number, id, kind, subject, user_id, until, why, actor, created_at)"
                    " VALUES (?, ?, 'session', ?, 'ada', ?, 'token_revoked', 'root', 1)",
                    (number, session, session, UNTIL),
                )
            database.close()

        def known(session: str) -> bool:
            signed = replace(claims(session), kid=next(iter(services.keyring.kids)))
            return services.authn.verdict(Principal(signed)) is not None

        write(100, "before")
        await eventually_async(lambda: known("before"), what="the rule of before")
        write(5, "after")
        services.epoch.became("another")
        await eventually_async(lambda: known("after"), what="the rule of after")
        assert known("before")


async def test_what_was_read_before_the_epoch_changed_neither_counts_as_fresh_nor_hides_a_lower_number() -> None:
    asked: list[int] = []

    class Log:
        async def since(self, number: int, *, now: int, limit: int | None = None) -> Sequence[Ban]:
            asked.append(number)
            if len(asked) == 1:
                revoker.begin_again()  # a failover is noticed while the answer of the old server is on its way
            return [rule(100, "before")]

    log: Any = Log()
    revoker = Revoker(
        store=log, memory=Revocations(), hub=Hub(node="n", per_user=9, per_address=0, most=9), bus=MemoryBus(),
        clock=lambda: 1.0, monotonic=lambda: 1.0, access_ttl=900,
    )  # fmt: skip
    await revoker.poll()
    assert not revoker.fresh
    await revoker.poll()
    assert revoker.fresh
    assert asked == [0, 0]
