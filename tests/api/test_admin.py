"""Administration and operations over HTTP (contract 8 and 9)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from gateway.model import ConnectionInfo, Target

NEW = {"username": "eve", "password": "long enough"}


@pytest.fixture
def admin(http: httpx2.AsyncClient, as_: Any) -> Any:
    async def call(method: str, path: str, body: Any = None) -> httpx2.Response:
        return await http.request(method, f"/admin{path}", json=body, headers=as_("root"))

    return call


async def test_a_created_user_has_the_given_id_or_a_fresh_one(admin: Any) -> None:
    answer = await admin("POST", "/users", NEW | {"id": "4.2-x_Y"})
    assert (answer.status_code, answer.headers["location"]) == (201, "/admin/users/4.2-x_Y")
    assert answer.json() == {
        "id": "4.2-x_Y",
        "username": "eve",
        "role": "user",
        "disabled": False,
        "created_at": "2027-01-15T08:00:00.000Z",
    }
    other = await admin("POST", "/users", NEW | {"username": "mallory", "id": None, "role": "admin"})
    assert (len(other.json()["id"]), other.json()["role"]) == (32, "admin")


async def test_a_user_is_seen_as_the_store_has_it(admin: Any) -> None:
    answer = await admin("GET", "/users/ada")
    assert (answer.status_code, answer.json()) == (
        200,
        {"id": "ada", "username": "ada", "role": "user", "disabled": False, "created_at": "2027-01-15T08:00:00.000Z"},
    )
    for unknown in ("ghost", "a b", "x" * 65, "%00"):
        answer = await admin("GET", f"/users/{unknown}")
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_user")


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"id": "c~x"}, "/id"),
        ({"id": ""}, "/id"),
        ({"id": "x" * 65}, "/id"),
        ({"id": "a\n"}, "/id"),
        ({"username": ""}, "/username"),
        ({"username": "x" * 65}, "/username"),
        ({"username": "a\tb"}, "/username"),
        ({"username": " a"}, "/username"),
        ({"role": "root"}, "/role"),
        ({"password": "short"}, "/password"),
        ({"disabled": True}, "/disabled"),
    ],
)
async def test_a_user_that_cannot_be_is_422(admin: Any, more: Any, pointer: str) -> None:
    answer = await admin("POST", "/users", NEW | more)
    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]


async def test_a_taken_name_is_409(admin: Any) -> None:
    answer = await admin("POST", "/users", NEW | {"username": "ada"})
    assert (answer.status_code, answer.json()["code"]) == (409, "username_taken")


async def test_a_change_names_what_it_changes(admin: Any) -> None:
    assert (await admin("PATCH", "/users/ada", {"disabled": True})).json()["disabled"] is True
    assert (await admin("PATCH", "/users/ada", {"role": "admin"})).json()["disabled"] is True
    assert (await admin("PATCH", "/users/ada", {"disabled": False})).json()["role"] == "admin"
    assert (await admin("PATCH", "/users/ada", {"disabled": 1})).status_code == 422
    assert (await admin("PATCH", "/users/ghost", {"disabled": True})).status_code == 404


@pytest.mark.parametrize(
    ("body", "target"),
    [
        ({"session": "s"}, Target(session="s")),
        ({"user_id": "ada"}, Target(user_id="ada")),
        (
            {"user_id": "ada", "issued_before": "2027-01-15T09:00:00+01:00"},
            Target(user_id="ada", issued_before=1_800_000_000_000),
        ),
        ({"jti": "j"}, Target(token_id="j")),
        ({"client_id": "c~shop"}, Target(client_id="c~shop")),
    ],
)
async def test_a_revocation_has_one_target_and_says_what_it_closed(
    admin: Any, services: SimpleNamespace, body: Any, target: Target
) -> None:
    answer = await admin("POST", "/revocations", body | {"reason": "lost"})
    assert (answer.status_code, answer.json()) == (201, {"id": "r1", "connections_closed": 3})
    ((revoked, reason, by),) = services.revoker.revoked
    assert (revoked, reason, by.id) == (target, "lost", "root")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"reason": "why"}, ""),
        ({"session": "s", "jti": "j"}, ""),
        ({"session": "s", "issued_before": "2020-01-01T00:00:00Z"}, "/issued_before"),
        ({"user_id": "a", "issued_before": "2027-01-15T08:00:01Z"}, "/issued_before"),
        ({"user_id": "a", "issued_before": "2020-01-01"}, "/issued_before"),
        ({"user_id": "a", "issued_before": "2020-01-01T00:00:00"}, "/issued_before"),
        ({"user_id": "a", "issued_before": "2020-13-01T00:00:00Z"}, "/issued_before"),
        ({"user_id": "a", "issued_before": 1577836800}, "/issued_before"),
        ({"session": ""}, "/session"),
    ],
)
async def test_a_revocation_that_cannot_be_meant_revokes_nothing(
    admin: Any, services: SimpleNamespace, body: Any, pointer: str
) -> None:
    answer = await admin("POST", "/revocations", body)
    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]
    assert not services.revoker.revoked


async def test_connections_come_in_pages_by_id(admin: Any, services: SimpleNamespace) -> None:
    def one(id: str) -> ConnectionInfo:
        return ConnectionInfo(id, "ada", "s-ada", "n1", "websocket", "::1", 0, 0, False)

    services.bus.open = [one("c"), one("a"), one("b")]
    first = (await admin("GET", "/connections?limit=2")).json()
    assert ([item["id"] for item in first["items"]], first["next"], first["missing"]) == (["a", "b"], "b", [])
    rest = (await admin("GET", f"/connections?limit=2&cursor={first['next']}")).json()
    assert ([item["id"] for item in rest["items"]], rest["next"]) == (["c"], None)
    assert (await admin("GET", "/connections?user_id=bob")).json()["items"] == []


async def test_connections_say_which_nodes_did_not_answer(admin: Any, services: SimpleNamespace) -> None:
    services.bus.missing = ("n2", "n3")
    assert (await admin("GET", "/connections")).json() == {"items": [], "next": None, "missing": ["n2", "n3"]}


async def test_presence_is_told_of_each_user_asked_for_in_order(admin: Any) -> None:
    answer = await admin("GET", "/presence?user_id=cyd&user_id=ada&user_id=nobody")
    assert answer.status_code == 200
    nothing: dict[str, Any] = {"since": None, "devices": 0, "connections": 0, "nodes": []}
    assert answer.json() == {
        "items": [
            {"user_id": "cyd", "online": None, **nothing},
            {
                "user_id": "ada",
                "online": True,
                "since": "2027-01-15T08:00:00.000Z",
                "devices": 2,
                "connections": 3,
                "nodes": ["n1", "n2"],
            },
            {"user_id": "nobody", "online": False, **nothing},
        ]
    }


async def test_presence_is_asked_of_1_to_100_users(admin: Any) -> None:
    assert len((await admin("GET", "/presence?" + "&".join(["user_id=ada"] * 100))).json()["items"]) == 100
    for query in ("", "?" + "&".join(["user_id=ada"] * 101)):
        answer = await admin("GET", f"/presence{query}")
        assert answer.status_code == 422
        assert [one["pointer"] for one in answer.json()["errors"]] == ["query:user_id"]
    assert (await admin("GET", f"/presence?user_id={'x' * 65}")).status_code == 422


async def test_the_summary_adds_up_the_nodes(admin: Any, services: SimpleNamespace) -> None:
    node = {"since": "2027-01-15T08:00:00.000Z"}
    assert (await admin("GET", "/presence/summary")).json() == {
        "users": 3,
        "connections": 4,
        "nodes": [
            {"node": "n1", "users": 2, "connections": 3, **node},
            {"node": "n2", "users": 1, "connections": 1, **node},
        ],
        "complete": True,
    }
    services.presence.complete = False
    assert (await admin("GET", "/presence/summary")).json()["complete"] is False


@pytest.mark.parametrize("path", ["/presence?user_id=ada", "/presence/summary", "/connections"])
async def test_who_is_online_is_for_admins(http: httpx2.AsyncClient, as_: Any, path: str) -> None:
    for user in ("ada", "shop"):
        assert (await http.get(f"/admin{path}", headers=as_(user))).status_code == 403
    assert (await http.get(f"/admin{path}")).status_code == 401


@pytest.mark.parametrize("list_", ["users", "clients", "revocations", "sessions", "connections", "audit"])
@pytest.mark.parametrize("limit", [0, 201, "x"])
async def test_a_list_has_1_to_200_items_a_page(admin: Any, list_: str, limit: object) -> None:
    assert (await admin("GET", f"/{list_}?limit={limit}")).status_code == 422


async def test_an_admin_sees_everybodys_sessions(admin: Any) -> None:
    assert len((await admin("GET", "/sessions")).json()["items"]) == 3
    assert [one["user_id"] for one in (await admin("GET", "/sessions?user_id=ada")).json()["items"]] == ["ada"]


async def test_healthz_and_readyz(http: httpx2.AsyncClient, services: SimpleNamespace) -> None:
    for path in ("/healthz", "/readyz"):
        assert (await http.get(path)).status_code == 200
        assert (await http.head(path)).status_code == 200
    services.readiness.reasons = ["the database cannot be read"]
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert answer.json()["reasons"] == ["the database cannot be read"]
    assert (await http.head("/readyz")).status_code == 503
    services.readiness.degraded = ["the bus is down"]
    assert (await http.get("/readyz")).status_code == 503
    services.readiness.reasons = []
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "degraded", "reasons": ["the bus is down"]})
    assert (await http.head("/readyz")).status_code == 200
    services.readiness.degraded = []
    assert (await http.get("/readyz")).json() == {"status": "ready"}
    assert (await http.get("/healthz")).status_code == 200


async def test_metrics_are_text(http: httpx2.AsyncClient, as_: Any) -> None:
    answer = await http.get("/metrics", headers=as_("root"))
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.text == "gateway_up 1\n"
