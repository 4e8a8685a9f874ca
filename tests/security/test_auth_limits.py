"""AUTH-06: guessing is limited by account, address and network; who knows the password gets in from elsewhere."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable, Iterator

import httpx2
import pytest
from callers import PROXIED, crowd, guesses, login, statuses, token
from cluster import Cluster
from wire import Node, running

LIMIT, WINDOW = 10, 86_400
"""The failures of the default; in a day, so that none is forgiven in the course of a test."""
WRONG = "not the password"

Place = Callable[..., str]
_cities = itertools.count(1)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A gateway behind a proxy that tells it who calls."""
    with running(tmp_path_factory.mktemp("door"), login_window=WINDOW, **PROXIED) as node:
        yield node


@pytest.fixture
def at() -> Place:
    """``at(network, host)``: an address from where no other test calls."""
    city = next(_cities)
    return lambda network=0, host=7: f"10.{city}.{network}.{host}"


def refused(answer: httpx2.Response, policy: str, *, quota: int = LIMIT) -> None:
    assert answer.status_code == 429, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["code"], problem["status"]) == ("too_many_attempts", 429)
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert problem["violated-policies"] == [policy]
    wait = int(answer.headers["retry-after"])
    assert 1 <= wait <= WINDOW
    assert answer.headers["ratelimit"] == f'"{policy}";r=0;t={wait}'
    assert answer.headers["ratelimit-policy"] == f'"{policy}";q={quota};w={WINDOW}'
    assert answer.headers["cache-control"] == "no-store"


def fail(node: Node, times: int, *, at: str, username: str | None = None) -> None:
    """Of a name that nobody else tries, if none is given."""
    for number in range(times):
        answer = login(node, username or f"name {number} {at}", WRONG, at=at)
        assert answer.status_code == 401, (number, answer.text)


def test_AUTH_06_an_address_that_fails_ten_times_is_refused_and_others_are_not(door: Node, at: Place) -> None:
    user = door.user()
    fail(door, LIMIT, at=at())
    refused(login(door, "one more name", WRONG, at=at()), "sign-in-address")
    refused(login(door, user.username, user.password, at=at()), "sign-in-address")
    refused(token(door, grant_type="password", username=user.username, password="x", at=at()), "sign-in-address")
    assert login(door, user.username, user.password, at=at(host=8)).status_code == 200


def test_AUTH_06_the_right_password_is_let_in_from_elsewhere_while_others_guess(door: Node, at: Place) -> None:
    user = door.user()
    for network in range(LIMIT + 5):
        fail(door, 1, username=user.username, at=at(network))
    for network in range(LIMIT + 5):
        refused(login(door, user.username, "another guess", at=at(network)), "sign-in-account")
    refused(login(door, user.username, user.password, at=at(0)), "sign-in-account")
    assert login(door, user.username, user.password, at=at(99)).status_code == 200


def test_AUTH_06_a_network_that_fails_fifty_times_is_refused(door: Node, at: Place) -> None:
    user = door.user()
    for number in range(5 * LIMIT):
        fail(door, 1, at=at(0, number))
    refused(login(door, user.username, user.password, at=at(0, 200)), "sign-in-network", quota=5 * LIMIT)
    assert login(door, user.username, user.password, at=at(1)).status_code == 200


def test_AUTH_06_the_addresses_of_one_ipv6_customer_are_one(door: Node) -> None:
    for number in range(LIMIT):
        fail(door, 1, at=f"2001:db8:6:6:{number + 1:x}::1")
    refused(login(door, "admin", WRONG, at="2001:db8:6:6:ffff:ffff:ffff:ffff"), "sign-in-address")
    assert login(door, "nobody at all", WRONG, at="2001:db8:6:7::1").status_code == 401


def test_AUTH_06_an_unknown_name_is_refused_exactly_as_a_known_one(door: Node, at: Place) -> None:
    """Or the limit would say which names there are. Each name is tried from networks of its own."""
    user = door.user()
    seen = []
    for part, name in ((100, user.username), (200, "no such user")):
        for number in range(LIMIT + 1):
            fail(door, 1, username=name, at=at(part + number))
        answer = login(door, name, WRONG, at=at(part))
        refused(answer, "sign-in-account")
        changing = ("date", "x-request-id", "retry-after", "ratelimit")
        seen.append((answer.content, {key: value for key, value in answer.headers.items() if key not in changing}))
        assert int(answer.headers["retry-after"]) <= 2 * WINDOW // LIMIT
    assert seen[0] == seen[1]


def test_AUTH_06_signing_in_to_ones_own_account_buys_no_guesses_at_others(door: Node, at: Place) -> None:
    mallory = door.user()
    outcomes = []
    for number in range(LIMIT + 3):
        outcomes.append(login(door, f"victim {number}", WRONG, at=at()).status_code)
        login(door, mallory.username, mallory.password, at=at())
    assert outcomes == [401] * LIMIT + [429] * 3


async def test_AUTH_06_of_a_hundred_guesses_at_once_ten_are_looked_at(door: Node, at: Place) -> None:
    async with crowd(door, at=at()) as client:
        outcomes = statuses(await guesses(client, 100, username="admin", password=WRONG))
        assert outcomes[401] == LIMIT, outcomes
        assert set(outcomes) <= {401, 429, 503}, outcomes
        assert statuses(await guesses(client, 100, username="admin", password=WRONG)) == {429: 100}


async def test_AUTH_06_an_office_of_people_who_know_their_passwords_is_let_in_at_once(door: Node, at: Place) -> None:
    users = [door.user() for _ in range(3)]
    async with crowd(door, at=at()) as client:
        answers = await asyncio.gather(
            *(guesses(client, 12, username=user.username, password=user.password) for user in users)
        )
    assert statuses(itertools.chain.from_iterable(answers)) == {200: 36}


def test_AUTH_06_guesses_at_the_current_password_count_too(door: Node, at: Place) -> None:
    user = door.user()
    access = str(login(door, user.username, user.password, at=at(1)).json()["access_token"])

    def change(current: str, at: str) -> httpx2.Response:
        body = {"current_password": current, "new_password": "quite another phrase"}
        return door.request("PUT", "/auth/password", token=access, json=body, headers={"X-Forwarded-For": at})

    assert [change(f"guess {number}", at()).status_code for number in range(LIMIT)] == [401] * LIMIT
    refused(change(user.password, at()), "sign-in-address")
    refused(change(user.password, at(0, 99)), "sign-in-account")
    refused(login(door, user.username, user.password, at=at(0, 99)), "sign-in-account")
    assert change(user.password, at(1)).status_code == 204


def test_AUTH_06_a_deployment_with_an_old_secret_locks_out_only_itself(door: Node, at: Place) -> None:
    client_id, secret = door.client()
    other = door.client()

    def credentials(client_id: str, secret: str, at: str) -> httpx2.Response:
        return token(door, grant_type="client_credentials", auth=(client_id, secret), at=at)

    assert [credentials(client_id, "old", at()).status_code for _ in range(LIMIT)] == [401] * LIMIT
    refused(credentials(client_id, secret, at()), "sign-in-client")
    assert credentials(client_id, secret, at(0, 8)).status_code == 200
    assert credentials(*other, at()).status_code == 200
    assert login(door, "nobody here", WRONG, at=at()).status_code == 401


def test_AUTH_06_failures_survive_a_restart_and_the_limit_is_a_setting(start: Callable[..., Node], at: Place) -> None:
    node = start(login_failures=2, login_window=3600, **PROXIED)
    fail(node, 2, at=at())
    node.kill()
    node.start()
    answer = login(node, "somebody", WRONG, at=at())
    assert (answer.status_code, answer.headers["ratelimit-policy"]) == (429, '"sign-in-address";q=2;w=3600')
    assert 1000 < int(answer.headers["retry-after"]) <= 1800
    assert node.stop() == 0
    node.settings["login_failures"] = 0
    node.start()
    fail(node, 15, at=at())


def test_AUTH_06_failures_are_shared_between_nodes(cluster: Cluster, at: Place) -> None:
    one, other = cluster(2, login_window=WINDOW, **PROXIED)
    for number in range(LIMIT):
        fail((one, other)[number % 2], 1, username=f"name {number}", at=at())
    for place, node in enumerate((one, other), 1):
        refused(login(node, "admin", WRONG, at=at()), "sign-in-address")
        assert login(node, "admin", WRONG, at=at(place)).status_code == 401


async def test_AUTH_06_two_nodes_at_once_let_through_no_more_than_each_its_own(cluster: Cluster, at: Place) -> None:
    """What is under way at the other node is not known here; what has failed there is."""
    one, other = cluster(2, login_window=WINDOW, **PROXIED)
    async with crowd(one, at=at()) as first, crowd(other, at=at()) as second:
        sent = await asyncio.gather(
            *(guesses(client, 60, username="admin", password=WRONG) for client in (first, second))
        )
        outcomes = statuses(itertools.chain.from_iterable(sent))
        assert LIMIT <= outcomes[401] <= 2 * LIMIT, outcomes
        for client in (first, second):
            assert statuses(await guesses(client, 20, username="admin", password=WRONG)) == {429: 20}


def test_AUTH_06_a_hit_stands_in_the_log_and_in_the_audit_trail_without_the_name(
    start: Callable[..., Node], at: Place
) -> None:
    node = start(login_window=WINDOW, **PROXIED)
    fail(node, LIMIT, username="canary-typed-as-name", at=at())
    for _ in range(30):
        answer = login(node, "canary-typed-as-name", "x", at=at(), **{"X-Request-Id": "req-7"})
        refused(answer, "sign-in-address")
    rows = node.request("GET", "/admin/audit?limit=200", token=node.admin, expect=200).json()["items"]
    hits = [row for row in rows if row["action"] == "login_limited"]
    assert 20 <= len(hits) <= 25
    assert hits[-1]["actor"] == "~"
    assert (hits[-1]["address"], hits[-1]["request_id"]) == (at(), "req-7")
    assert hits[-1]["detail"] == {"policy": "sign-in-address"}
    counted = node.request("GET", "/metrics", token=node.admin, expect=200).text
    assert 'gateway_rate_limited_total{policy="sign-in-address"} 30.0' in counted
    logged = [line for line in node.log_text().splitlines() if "sign-in refused" in line]
    assert len(logged) == 30
    assert re.search(r'"policy": ?"sign-in-address"', logged[0])
    assert "canary-typed-as-name" not in node.log_text() + str(rows)


def test_AUTH_06_a_foreign_page_cannot_fail_in_the_name_of_its_reader(door: Node, at: Place) -> None:
    """A form is sent without asking first: with it any page could lock out the address of whoever looks at it."""
    user, client, here = door.user(), door.client(), at()
    form = {"grant_type": "password", "username": user.username, "password": WRONG}
    page = {"X-Forwarded-For": here, "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    for _ in range(LIMIT + 2):
        assert door.request("POST", "/auth/token", data=form, headers=page).status_code == 403
    wrong = {"token": "x", "client_id": client[0], "client_secret": WRONG}
    for path in ("/auth/introspect", "/auth/revoke"):
        for _ in range(LIMIT + 2):
            answer = door.request("POST", path, data=wrong, headers=page)
            assert (answer.status_code, answer.json()["code"]) == (403, "origin_refused")
    own = {**page, "Origin": door.url}
    answer = door.request("POST", "/auth/token", data={**form, "password": user.password}, headers=own)
    assert answer.status_code == 200, answer.text
    for path in ("/auth/introspect", "/auth/revoke"):
        answer = door.request("POST", path, data={**wrong, "client_secret": client[1]}, headers=own)
        assert answer.status_code == 200, answer.text
