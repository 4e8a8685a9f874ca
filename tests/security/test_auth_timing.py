"""AUTH-05: an unknown name is answered as a wrong password is, and as late."""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx2
import pytest
from wire import Node

SAMPLES, MANY = 120, 500
"""Of each kind: at every commit, and where there is time for it."""
ALIKE = 0.002
"""Seconds two medians may be apart, whatever else differs: a hash costs ten times as much."""
ROUNDS = 3
"""Chance calls one of a hundred pairs of equal samples different: then they are taken again."""


def ask(client: httpx2.Client, path: str, username: str) -> httpx2.Response:
    body = {"username": username, "password": "not the password"}
    if path == "/auth/login":
        return client.post(path, json=body)
    return client.post(path, data={"grant_type": "password", **body})


def same_distribution(one: Sequence[float], other: Sequence[float]) -> float:
    """The p-value of the Mann-Whitney U test, by the normal approximation. No ties: these are times."""
    ranked = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    ranks = sum(rank for rank, (_, which) in enumerate(ranked, 1) if which == 0)
    n, m = len(one), len(other)
    u = ranks - n * (n + 1) / 2
    z = (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
    return math.erfc(abs(z) / math.sqrt(2))


@pytest.mark.parametrize("samples", [SAMPLES, pytest.param(MANY, marks=pytest.mark.nightly)])
def test_AUTH_05_an_unknown_name_takes_as_long_as_a_wrong_password(start: Callable[..., Node], samples: int) -> None:
    tried = []
    for round in range(ROUNDS):
        node = start(login_failures=1000, log_level="warning")  # another one each time: it forgives no more than that
        user = node.user()
        with httpx2.Client(base_url=node.url, timeout=60) as client:
            taken: dict[str, list[float]] = {"known": [], "unknown": []}
            for number in range(samples):
                # In pairs and in changing order: what else the machine does meets both alike.
                for which in random.sample(sorted(taken), 2):
                    name = user.username if which == "known" else f"nobody-{round}-{number:08}"
                    began = time.perf_counter()
                    assert ask(client, "/auth/login", name).status_code == 401
                    taken[which].append(time.perf_counter() - began)
            apart = abs(statistics.median(taken["known"]) - statistics.median(taken["unknown"]))
            p = same_distribution(taken["known"], taken["unknown"])
            tried.append((round, f"{apart * 1000:.2f} ms", f"p={p:.3g}"))
            if apart < ALIKE or p > 0.01:
                return
    raise AssertionError(f"an unknown name can be told by the time it takes: {tried}")


def test_AUTH_05_the_test_tells_two_distributions_apart() -> None:
    chance = random.Random(5)
    one = [0.025 + chance.expovariate(200) for _ in range(SAMPLES)]
    other = [0.025 + chance.expovariate(200) for _ in range(SAMPLES)]
    assert same_distribution(one, other) > 0.01
    assert same_distribution(one, [value + 0.004 for value in other]) < 0.01


def test_AUTH_05_nothing_in_the_answer_tells_an_unknown_name(start: Callable[..., Node]) -> None:
    node = start()
    users = [node.user(), node.user()]
    node.request("PATCH", f"/admin/users/{users[1].id}", token=node.admin, json={"disabled": True}, expect=200)
    names = [users[0].username, users[1].username, "nobody", "", "x" * 5000, "n\u00f6 \U0001f40e"]
    with httpx2.Client(base_url=node.url, timeout=60) as client:
        for path in ("/auth/login", "/auth/token"):
            seen: list[Any] = []
            for name in names[: 3 if path == "/auth/token" else None]:
                answer = ask(client, path, name)
                headers = sorted(
                    (key, value) for key, value in answer.headers.items() if key not in ("date", "x-request-id")
                )
                seen.append((answer.status_code, answer.content, headers))
            assert len(list(itertools.groupby(seen))) == 1, seen
