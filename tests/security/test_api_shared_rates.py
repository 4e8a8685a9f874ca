"""A client's rate on two nodes: one rate while they share a Redis, one each while they cannot, never none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster import Cluster
from faulty import FastNode
from servers import Redis, short_directory
from wire import eventually

from gateway.allowance import AT_ONCE

DEBT = 60
"""Notifications in one batch at a rate of one a second: nothing is let in for a minute afterwards."""


@pytest.fixture
def redis() -> Iterator[Redis]:
    with short_directory("rates") as directory:
        server = Redis(directory).start()
        yield server
        server.stop()


def spends(node: FastNode, token: str, user_id: str, *, amount: int = DEBT) -> int:
    """The status of a batch. A large one is let in when nothing was taken before, and has to be paid for."""
    body = {"notifications": [{"user_id": user_id, "title": "x"}] * amount}
    answer = node.request("POST", "/notifications/batch", token=token, json=body)
    if answer.status_code == 429:
        assert answer.headers["ratelimit-policy"] == '"push";q=1;w=1'
        assert answer.headers["ratelimit"] == f'"push";r=0;t={answer.headers["retry-after"]}'
    return answer.status_code


def ends_a_token(node: FastNode, client: tuple[str, str]) -> int:
    return node.request("POST", "/auth/revoke", data={"token": node.client_token(client)}).status_code


def hits(node: FastNode) -> float:
    told = node.request("GET", "/metrics", token=node.admin, expect=200).text
    lines = [line for line in told.splitlines() if line.startswith('gateway_rate_limited_total{policy="push"}')]
    return float(lines[0].split()[1]) if lines else 0


def test_API_09_two_nodes_let_through_one_clients_rate_together_and_never_more_than_one_each(
    cluster: Cluster, redis: Redis
) -> None:
    one, two = cluster(2, redis=redis, push_rate=1)
    user = one.user()

    def shared() -> bool:
        """Whether what a new client spends on one node is spent on the other."""
        token = one.client_token()
        assert spends(one, token, user.id) == 200
        return spends(two, token, user.id, amount=1) == 429

    eventually(shared, what="the rate is shared")
    before = hits(two)
    token = one.client_token()
    assert spends(two, token, user.id) == 200
    assert [spends(node, token, user.id, amount=1) for node in (one, two)] == [429, 429]
    assert hits(two) == before + 1

    client = one.client()
    assert 429 in [ends_a_token(one, client) for _ in range(AT_ONCE + 20)]
    assert 429 in [ends_a_token(two, client) for _ in range(3)], "one may be earned meanwhile"

    redis.kill()
    assert [ends_a_token(two, client) for _ in range(3)] == [200] * 3
    token = one.client_token()
    assert [spends(node, token, user.id) for node in (one, two)] == [200, 200], "each by itself"
    assert [spends(node, token, user.id, amount=1) for node in (one, two)] == [429, 429], "and none is open"

    redis.start()
    assert [spends(node, token, user.id, amount=1) for node in (one, two)] == [429, 429], "what was spent stays spent"
    eventually(shared, what="the rate is shared again")
