"""Contract section 8: users, clients, revocations, sessions, connections, audit, as an admin meets them over HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from hostile import is_problem, refused_over_http
from wire import ADMIN_PASSWORD, Node, claims_of

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def admin(node: Node) -> Callable[..., httpx2.Response]:
    """A request under ``/admin`` by the admin."""

    def ask(method: str, path: str, json: Any = None, *, expect: int | None = None) -> httpx2.Response:
        return node.request(method, f"/admin{path}", token=node.admin, json=json, expect=expect)

    return ask


Ask = Callable[..., httpx2.Response]


def paged(admin: Ask, path: str, *, limit: int) -> Iterator[list[dict[str, Any]]]:
    """Every page of a list, until it says that there is no other."""
    cursor, joint = None, "&" if "?" in path else "?"
    while True:
        more = f"&cursor={cursor}" if cursor is not None else ""
        page = admin("GET", f"{path}{joint}limit={limit}{more}", expect=200).json()
        assert set(page) - {"missing"} == {"items", "next"}
        assert len(page["items"]) <= limit
        yield page["items"]
        cursor = page["next"]
        if cursor is None:
            return


# -- users --------------------------------------------------------------------------------------------------------


def test_a_user_is_created_seen_changed_and_deleted(node: Node, admin: Ask) -> None:
    new = {"username": "Zoë", "password": "a long enough one", "id": "zoe-1"}
    made = admin("POST", "/users", new, expect=201)
    assert made.headers["location"] == "/admin/users/zoe-1"
    user = made.json()
    assert INSTANT.fullmatch(user.pop("created_at"))
    assert user == {"id": "zoe-1", "username": "Zoë", "role": "user", "disabled": False}
    assert admin("GET", "/users/zoe-1", expect=200).json() == made.json()
    for query in ("zoe", "ZOË", "E-1"):
        found = admin("GET", f"/users?query={query}", expect=200).json()["items"]
        assert [one["id"] for one in found] == ["zoe-1"]
    node.sign_in("Zoë", "a long enough one")
    assert admin("PATCH", "/users/zoe-1", {"disabled": True}, expect=200).json()["disabled"] is True
    assert admin("GET", "/users/zoe-1", expect=200).json()["disabled"] is True
    admin("DELETE", "/users/zoe-1", expect=204)
    for method, path, body in (
        ("GET", "", None), ("DELETE", "", None), ("PATCH", "", {"disabled": False}),
        ("PUT", "/password", {"password": "a long enough one"}),
    ):  # fmt: skip
        is_problem(admin(method, f"/users/zoe-1{path}", body), 404, "unknown_user")


def test_the_id_of_a_deleted_user_is_never_given_again_and_the_name_is_free(node: Node, admin: Ask) -> None:
    user = node.user(id="once-only")
    shop = node.client_token()
    node.push(shop, user_id=user.id)
    admin("DELETE", "/users/once-only", expect=204)
    body = {"username": "somebody-else", "password": user.password, "id": "once-only"}
    is_problem(admin("POST", "/users", body), 409, "id_taken")
    assert node.push(shop, user_id="once-only", expect=404)["code"] == "unknown_user"
    again = admin("POST", "/users", {"username": user.username, "password": user.password}, expect=201).json()
    assert again["id"] != "once-only"
    token = node.sign_in(user.username, user.password)["access_token"]
    assert node.inbox(token)["head"] == 0, "what was the other's is not theirs"


def test_no_two_users_have_one_name_or_one_id(node: Node, admin: Ask) -> None:
    user = node.user(id="taken")
    is_problem(admin("POST", "/users", {"username": user.username, "password": "x" * 12}), 409, "username_taken")
    is_problem(admin("POST", "/users", {"username": "other", "password": "x" * 12, "id": "taken"}), 409, "id_taken")
    for id in ("c~x", "", "a/b", "x" * 65, "\u00e9", ".", "..", "a\n"):
        body = {"username": "other", "password": "x" * 12, "id": id}
        problem = is_problem(admin("POST", "/users", body), 422, "validation_failed")
        assert [one["pointer"] for one in problem["errors"]] == ["/id"]


async def test_a_changed_role_ends_the_sessions_and_counts_at_the_next_sign_in(node: Node, admin: Ask) -> None:
    user = node.user()
    token = user.token()
    device = await node.open(token)
    is_problem(node.request("GET", "/admin/users", token=token), 403, "insufficient_scope")
    assert admin("PATCH", f"/users/{user.id}", {"role": "admin"}, expect=200).json()["role"] == "admin"
    assert await device.until_closed(within=1) == ([], (1008, "token_revoked"))
    refused_over_http(node, token, code="token_revoked")
    raised = user.token()
    assert claims_of(raised)["scope"].split() == ["admin", "inbox", "notifications:write"]
    node.request("GET", "/admin/users", token=raised, expect=200)
    admin("PATCH", f"/users/{user.id}", {"role": "user"}, expect=200)
    refused_over_http(node, raised, code="token_revoked", path="/admin/users")
    same = user.token()
    admin("PATCH", f"/users/{user.id}", {"role": "user"}, expect=200)
    node.request("GET", "/inbox", token=same, expect=200)


async def test_the_last_admin_stays_one_also_if_two_take_each_other_s_role_at_once(start: Callable[..., Node]) -> None:
    node = start()
    root = next(iter(node.request("GET", "/admin/users", token=node.admin, expect=200).json()["items"]))
    for method, body in (("PATCH", {"role": "user"}), ("PATCH", {"disabled": True}), ("DELETE", None)):
        answer = node.request(method, f"/admin/users/{root['id']}", token=node.admin, json=body)
        is_problem(answer, 409, "last_admin")
    other = node.user(role="admin")
    node.request("PATCH", f"/admin/users/{root['id']}", token=other.token(), json={"disabled": True}, expect=200)
    node.forget_admin()
    answer = node.request("PATCH", f"/admin/users/{other.id}", token=other.token(), json={"role": "user"})
    is_problem(answer, 409, "last_admin")
    admins = [other, *(node_user(node, other.token()) for _ in range(3))]
    tokens = [one.token() for one in admins]
    async with httpx2.AsyncClient(base_url=node.url, timeout=30, verify=False) as client:
        answers = await asyncio.gather(*(
            client.patch(f"/admin/users/{target.id}", json={"role": "user"}, headers={"Authorization": f"Bearer {by}"})
            for by, target in zip(tokens, admins[1:] + admins[:1], strict=True)
        ))  # fmt: skip
    assert {answer.status_code for answer in answers} <= {200, 401, 409}
    left = [one for one in admins if claims_of(one.token())["scope"] != "inbox"]
    assert left, "somebody can still administer"


def node_user(node: Node, token: str) -> Any:
    """Another admin, made by the admin of ``token``."""
    node._admin = token
    return node.user(role="admin")


# -- clients --------------------------------------------------------------------------------------------------------


def test_a_client_s_secret_is_shown_once_and_rotation_kills_the_old_one_at_once(node: Node, admin: Ask) -> None:
    made = admin("POST", "/clients", {"name": "shop", "scopes": ["notifications:write"]}, expect=201).json()
    id, secret = made["client_id"], made.pop("client_secret")
    assert id.startswith("c~")
    assert (made["name"], made["scopes"], made["rotated_at"]) == ("shop", ["notifications:write"], None)
    assert made in [one for page in paged(admin, "/clients", limit=2) for one in page]
    assert secret not in admin("GET", "/clients?limit=200", expect=200).text
    token = node.client_token((id, secret))
    rotated = admin("POST", f"/clients/{id}/rotate", expect=200).json()
    assert INSTANT.fullmatch(rotated["rotated_at"])
    form = {"grant_type": "client_credentials"}
    answer = node.request("POST", "/auth/token", data=form, auth=(id, secret), expect=401)
    assert (answer.json()["error"], answer.headers["www-authenticate"][:5]) == ("invalid_client", "Basic")
    fresh = node.client_token((id, rotated["client_secret"]))
    for one in (token, fresh):
        assert node.request("GET", "/auth/me", token=one, expect=200).json()["client_id"] == id
    admin("DELETE", f"/clients/{id}", expect=204)
    for one in (token, fresh):
        refused_over_http(node, one, code="token_revoked", path="/auth/me")
    node.request("POST", "/auth/token", data=form, auth=(id, rotated["client_secret"]), expect=401)
    for method, path in (("DELETE", ""), ("POST", "/rotate")):
        is_problem(admin(method, f"/clients/{id}{path}"), 404, "unknown_client")


@pytest.mark.parametrize("scopes", [["admin"], ["inbox"], ["notifications:write", "admin"], [], "notifications:write"])
def test_a_client_can_push_and_nothing_else(admin: Ask, scopes: Any) -> None:
    is_problem(admin("POST", "/clients", {"name": "x", "scopes": scopes}), 422, "validation_failed")


# -- lists --------------------------------------------------------------------------------------------------------


def test_every_list_comes_in_pages_without_a_gap_or_a_double(node: Node, admin: Ask) -> None:
    user = node.user("paged")
    tokens = [user.token() for _ in range(5)]
    for token in tokens[:3]:
        node.revoke(jti=claims_of(token)["jti"])
    for path, name in (
        ("/users", "id"), ("/clients", "client_id"), ("/sessions", "id"), (f"/sessions?user_id={user.id}", "id"),
        ("/revocations", "id"), ("/audit", "number"),
    ):  # fmt: skip
        whole = [one[name] for one in admin("GET", f"{path}{'&' if '?' in path else '?'}limit=200").json()["items"]]
        pages = list(paged(admin, path, limit=2))
        assert [one[name] for page in pages for one in page] == whole
        assert len(set(whole)) == len(whole)
        assert len(pages) >= 2 or path == "/clients"
    for path in ("/users", "/clients", "/sessions", "/revocations", "/connections", "/audit"):
        for query in ("limit=0", "limit=201", "limit=x"):
            is_problem(admin("GET", f"{path}?{query}"), 422, "validation_failed")
        assert admin("GET", f"{path}?cursor=nonsense").status_code in (200, 422)


async def test_sessions_and_connections_say_whose_they_are_and_until_when(node: Node, admin: Ask) -> None:
    user = node.user()
    signed_in = user.sign_in(device="Telephone")
    before = datetime.now(UTC)
    devices = [await node.open(signed_in["access_token"]) for _ in range(3)]
    claims = claims_of(signed_in["access_token"])
    (session,) = admin("GET", f"/sessions?user_id={user.id}", expect=200).json()["items"]
    assert (session["id"], session["user_id"], session["device"]) == (claims["sid"], user.id, "Telephone")
    assert (session["address"], session["current"]) == ("127.0.0.1", False)
    listed = [one for page in paged(admin, f"/connections?user_id={user.id}", limit=2) for one in page]
    assert {one["id"] for one in listed} == {device.hello["connection"] for device in devices}
    for one in listed:
        assert (one["user_id"], one["session"], one["address"]) == (user.id, claims["sid"], "127.0.0.1")
        assert (one["node"], one["transport"], one["behind"]) == (devices[0].hello["node"], "ws", False)
        assert one["token_expires_at"] == devices[0].hello["token_expires_at"]
        assert abs(datetime.fromisoformat(one["opened_at"]) - before) < timedelta(seconds=10)
    other = node.user()
    nothing: dict[str, Any] = {"items": [], "next": None}
    assert admin("GET", f"/connections?user_id={other.id}", expect=200).json() == nothing | {"missing": []}
    assert admin("GET", f"/sessions?user_id={other.id}", expect=200).json() == nothing


def test_the_revocations_in_force_are_listed_as_they_were_asked_for(node: Node, admin: Ask) -> None:
    user, (client, _) = node.user(), node.client()
    session = claims_of(user.token())["sid"]
    before = "2026-01-02T03:04:05.678Z"
    asked: list[dict[str, str]] = [
        {"session": session, "reason": "lost phone"}, {"user_id": user.id}, {"jti": "some-token"},
        {"user_id": user.id, "issued_before": before}, {"client_id": client, "reason": "leaked \u202e\n\"'"},
    ]  # fmt: skip
    made = [admin("POST", "/revocations", body, expect=201).json() for body in asked]
    assert all(set(one) == {"id", "connections_closed"} for one in made)
    node.request("POST", "/auth/logout", token=user.token(), expect=204)
    listed = admin("GET", "/revocations?limit=5", expect=200).json()["items"]
    root = claims_of(node.admin)["sub"]
    for one, answer, body in zip(reversed(listed), made, asked, strict=True):
        assert one["id"] == answer["id"]
        assert one["actor"] == root
        assert {name: one[name] for name in body} == body
        assert INSTANT.fullmatch(one["created_at"])
        assert one["until"] > one["created_at"]
    for bad in ({}, {"session": session, "jti": "x"}, {"jti": "x", "issued_before": before}, {"jti": 1}, {"sid": "x"},
                {"user_id": user.id, "issued_before": "yesterday"},
                {"user_id": user.id, "issued_before": "2999-01-01T00:00:00Z"}):  # fmt: skip
        is_problem(admin("POST", "/revocations", bad), 422, "validation_failed")


def test_the_audit_says_who_did_what_from_where_in_which_request(node: Node, admin: Ask) -> None:
    root = claims_of(node.admin)["sub"]
    done: list[tuple[str, str | None, str]] = []

    def act(name: str, target: str | None, method: str, path: str, *, by: str | None, actor: str, **more: Any) -> Any:
        answer = node.request(method, path, token=by, **more)
        done.append((name, target, actor))
        ids.append(answer.headers["x-request-id"])
        return answer.json() if answer.content else None

    ids: list[str] = []
    new = {"username": "audited", "password": "secret-7-secret", "id": "audited"}
    act("user_created", "audited", "POST", "/admin/users", by=node.admin, actor=root, json=new)
    wrong = {"username": "audited", "password": "wrong-7-wrong"}
    act("login_failed", "audited", "POST", "/auth/login", by=None, actor="~", json=wrong)
    tokens = act(
        "login", None, "POST", "/auth/login", by=None, actor="audited", json={**wrong, "password": new["password"]}
    )
    session = claims_of(tokens["access_token"])["sid"]
    own = tokens["access_token"]
    act("session_ended", session, "POST", "/auth/logout", by=own, actor="audited")
    body = {"password": "other-7-other"}
    act("password_set", "audited", "PUT", "/admin/users/audited/password", by=node.admin, actor=root, json=body)
    act("revoked", "audited", "POST", "/admin/revocations", by=node.admin, actor=root, json={"user_id": "audited"})
    act("user_updated", "audited", "PATCH", "/admin/users/audited", by=node.admin, actor=root, json={"disabled": True})
    act("user_deleted", "audited", "DELETE", "/admin/users/audited", by=node.admin, actor=root)
    client = act("client_created", None, "POST", "/admin/clients", by=node.admin, actor=root, json={"name": "audited"})
    id = client["client_id"]
    form = {"grant_type": "client_credentials"}
    act("login_failed", id, "POST", "/auth/token", by=None, actor="~", data=form, auth=(id, "wrong-7-wrong"))
    act("client_rotated", id, "POST", f"/admin/clients/{id}/rotate", by=node.admin, actor=root)
    act("client_deleted", id, "DELETE", f"/admin/clients/{id}", by=node.admin, actor=root)
    answer = admin("GET", f"/audit?limit={len(done)}", expect=200)
    rows = list(reversed(answer.json()["items"]))
    assert [(row["action"], row["actor"]) for row in rows] == [(name, actor) for name, _, actor in done]
    for row, (_, target, _), request_id in zip(rows, done, ids, strict=True):
        assert target is None or row["target"] == target
        assert (row["address"], row["request_id"]) == ("127.0.0.1", request_id)
        assert INSTANT.fullmatch(row["at"])
    assert [row["number"] for row in rows] == sorted(row["number"] for row in rows)
    for secret in ("-7-", tokens["refresh_token"], client["client_secret"], "argon2", "eyJ", ADMIN_PASSWORD):
        assert secret not in answer.text
    for method in ("DELETE", "PUT", "PATCH", "POST"):
        is_problem(admin(method, "/audit"), 405, "method_not_allowed")
