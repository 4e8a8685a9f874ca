"""RT-07: how long a session lives when nobody ends it, shown on a process whose clock is moved. Rotates honestly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clocks import Clock
from wire import Node, claims_of, running

DAY = 86_400
IDLE, ABSOLUTE = 30 * DAY, 365 * DAY
"""The defaults, as docs/configuration.md has them."""

Wait = Callable[[int], None]


@pytest.fixture
def aging(tmp_path: Path) -> Iterator[tuple[Node, Wait]]:
    """A gateway, and what lets so many seconds pass for it."""
    clock, ahead = Clock(tmp_path), 0

    def wait(seconds: int) -> None:
        nonlocal ahead
        ahead += seconds
        clock.set(ahead)
        node.forget_admin()

    prefix = ("env", *(f"{name}={value}" for name, value in clock.environment.items()))
    with running(tmp_path, prefix=prefix) as node:
        yield node, wait


def refresh(node: Node, token: str) -> dict[str, Any]:
    return dict(node.request("POST", "/auth/refresh", json={"refresh_token": token}, expect=200).json())


def is_over(node: Node, token: str) -> None:
    problem = node.request("POST", "/auth/refresh", json={"refresh_token": token}, expect=401).json()
    assert problem["code"] == "bad_credentials"
    form = {"grant_type": "refresh_token", "refresh_token": token}
    assert node.request("POST", "/auth/token", data=form, expect=400).json()["error"] == "invalid_grant"


def test_RT_07_a_session_that_is_not_used_ends_after_the_idle_limit(aging: tuple[Node, Wait]) -> None:
    node, wait = aging
    user = node.user()
    used, idle = user.sign_in(), user.sign_in()
    assert used["refresh_expires_in"] == IDLE
    wait(IDLE - 60)
    used = refresh(node, used["refresh_token"])
    wait(61)
    is_over(node, idle["refresh_token"])
    wait(IDLE - 120)
    used = refresh(node, used["refresh_token"])
    wait(IDLE + 1)
    is_over(node, used["refresh_token"])


def test_RT_07_a_session_that_is_used_all_the_time_ends_after_the_absolute_limit(
    aging: tuple[Node, Wait],
) -> None:
    node, wait = aging
    tokens = node.user().sign_in()
    begun = claims_of(tokens["access_token"])["iat"]
    for days in range(20, 365, 20):
        wait(20 * DAY)
        tokens = refresh(node, tokens["refresh_token"])
        assert tokens["refresh_expires_in"] <= ABSOLUTE - days * DAY
    wait(5 * DAY - 60)
    tokens = refresh(node, tokens["refresh_token"])
    assert claims_of(tokens["access_token"])["exp"] <= begun + ABSOLUTE, "no token outlives its session"
    assert tokens["expires_in"] <= 60
    wait(66)  # what is forgiven of a clock's difference included
    is_over(node, tokens["refresh_token"])
    node.request("GET", "/inbox", token=tokens["access_token"], expect=401)
