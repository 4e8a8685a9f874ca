"""LOG-03, AUTH-04, API-01: what anybody may send takes time by its length, and no more."""

from __future__ import annotations

import time
from collections.abc import Callable

from wire import Node

from gateway.auth.guessable import guessable
from gateway.logs import redact


def spent(work: Callable[[], object]) -> float:
    """Processor time, the least of a few."""
    least = float("inf")
    for _ in range(5):
        began = time.process_time()
        work()
        least = min(least, time.process_time() - began)
    return least


def is_linear(of: Callable[[int], object]) -> bool:
    """Of eight times as much it would be 64 times the work, were it by the square."""
    return spent(lambda: of(8000)) < 24 * spent(lambda: of(1000))


def test_LOG_03_a_line_is_searched_for_credentials_in_one_go() -> None:
    def line(piece: str) -> Callable[[int], object]:
        return lambda size: [redact(piece * (size // len(piece))) for _ in range(20)]

    for piece in ("eyJ", "eyJeyJ.", "t~", "a.0.", "://a:", "://", "://a@", "://a:@ ", "a:@", "bearer "):
        assert is_linear(line(piece)), piece
    assert is_linear(lambda size: [redact("://" + "a:@" * (size // 3) + "/") for _ in range(20)])
    assert is_linear(lambda size: [redact("://a:" + "b" * size) for _ in range(20)])
    assert "eyJhbGciOi" not in redact("x eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl y")


def test_AUTH_04_a_password_is_judged_in_one_go() -> None:
    assert is_linear(lambda size: [guessable("a" + "1" * size + "a", username="u") for _ in range(20)])
    assert guessable("1Gateway!!1", username="u")
    assert guessable("--ada99", username="ada")


def test_API_01_a_bad_range_is_no_plain_text(node: Node) -> None:
    for value in ("bytes=5-1", "bytes=99999999-", "lines=1"):
        answer = node.request("GET", "/docs/docs.js", headers={"Range": value}, expect=None)
        assert answer.status_code == 200 or answer.headers["content-type"] == "application/problem+json"
