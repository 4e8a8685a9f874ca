"""A user's inbox over HTTP: pages, reading, acknowledging, hiding, and all of it one's own (contract 6)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from gateway.frames import MAX_SEQ


async def test_a_page_is_items_with_the_counters_of_the_inbox(http: httpx2.AsyncClient, as_: Any) -> None:
    answer = (await http.get("/inbox", headers=as_("ada"))).json()
    items = answer.pop("items")
    assert answer == {"head": 2, "rev": 7, "epoch": "e1", "unread": 1, "next": 1}
    assert [(one["seq"], one["id"], one["title"]) for one in items] == [(2, "n2", "zwei"), (1, "n1", "one")]
    assert items[0]["read_at"] == "2027-01-15T08:00:00.000Z"
    assert "read_at" not in items[1]


async def test_an_empty_inbox_is_a_page_too(http: httpx2.AsyncClient, services: SimpleNamespace, as_: Any) -> None:
    services.inbox.entries = []
    assert (await http.get("/inbox", headers=as_("ada"))).json()["items"] == []


async def test_the_query_says_which_part(http: httpx2.AsyncClient, services: SimpleNamespace, as_: Any) -> None:
    await http.get("/inbox", headers=as_("ada"))
    await http.get("/inbox?after=3&before=9&limit=200&unread=true&category=orders", headers=as_("bob"))
    plain, full = services.inbox.asked
    nothing = {"after": None, "before": None, "limit": 50, "unread": False, "category": None}
    assert plain == {"user_id": "ada", "now": 1_800_000_000_000} | nothing
    asked = {"after": 3, "before": 9, "limit": 200, "unread": True, "category": "orders"}
    assert full == {"user_id": "bob", "now": 1_800_000_000_000} | asked


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "after=-1",
        f"after={MAX_SEQ + 1}",
        "before=1.5",
        "unread=perhaps",
        "category=a%00b",
    ],
)
async def test_a_query_out_of_range_is_422(http: httpx2.AsyncClient, as_: Any, query: str) -> None:
    answer = await http.get(f"/inbox?{query}", headers=as_("ada"))
    assert [one["pointer"] for one in answer.json()["errors"]] == [f"query:{query.partition('=')[0]}"]


async def test_one_entry_is_its_owners_only(http: httpx2.AsyncClient, as_: Any) -> None:
    assert (await http.get("/inbox/n2", headers=as_("ada"))).json()["title"] == "zwei"
    assert (await http.get("/inbox/n2", headers=as_("bob"))).status_code == 404


@pytest.mark.parametrize(
    ("body", "marked"), [({"ids": ["n1", "n2"]}, (("n1", "n2"), None)), ({"up_to": 2, "ids": None}, ((), 2))]
)
async def test_reading_takes_ids_or_a_position(
    http: httpx2.AsyncClient, services: SimpleNamespace, as_: Any, body: Any, marked: Any
) -> None:
    answer = await http.post("/inbox/read", json=body, headers=as_("ada"))
    assert (answer.status_code, answer.json()) == (200, {"unread": 1, "rev": 8})
    assert services.publisher.marked == [("ada", *marked)]


@pytest.mark.parametrize(
    "body",
    [{}, {"ids": ["a"], "up_to": 1}, {"ids": []}, {"ids": ["a"] * 101}, {"up_to": -1}, {"up_to": True}, {"ids": [1]}],
)
async def test_reading_anything_else_is_422(
    http: httpx2.AsyncClient, services: SimpleNamespace, as_: Any, body: Any
) -> None:
    assert (await http.post("/inbox/read", json=body, headers=as_("ada"))).status_code == 422
    assert not services.publisher.marked


async def test_an_ack_moves_the_cursor_of_the_session_that_asks(
    http: httpx2.AsyncClient, services: SimpleNamespace, as_: Any
) -> None:
    answer = await http.post("/inbox/ack", json={"seq": 2, "epoch": "e1"}, headers=as_("ada"))
    assert (answer.status_code, answer.content) == (204, b"")
    assert services.inbox.acked == [("ada", "s-ada", 2)]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"seq": 1, "epoch": "e0"}, 409, "epoch_mismatch"),
        ({"seq": 3, "epoch": "e1"}, 409, "ack_out_of_range"),
        ({"seq": -1, "epoch": "e1"}, 422, "validation_failed"),
        ({"seq": 1}, 422, "validation_failed"),
        ({"seq": "1", "epoch": "e1"}, 422, "validation_failed"),
        ({"seq": False, "epoch": "e1"}, 422, "validation_failed"),
    ],
)
async def test_an_ack_that_cannot_be_meant_moves_nothing(
    http: httpx2.AsyncClient, services: SimpleNamespace, as_: Any, body: Any, status: int, code: str
) -> None:
    answer = await http.post("/inbox/ack", json=body, headers=as_("ada"))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert not services.inbox.acked


async def test_hiding_is_for_oneself(http: httpx2.AsyncClient, services: SimpleNamespace, as_: Any) -> None:
    assert (await http.delete("/inbox/n1", headers=as_("ada"))).status_code == 204
    assert services.publisher.hidden == [("ada", "n1")]
