"""Contract section 5 as the HTTP interface keeps it: what a push may say, what comes back, what is never stored."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import httpx2
import orjson
import pytest

from gateway.api import pushes
from gateway.errors import Invalid, Limited, StoreUnavailable

DAY = 86_400


@pytest.fixture
def push(http: httpx2.AsyncClient, as_: Any) -> Any:
    async def send(*, key: str | None = None, who: str = "shop", **body: Any) -> httpx2.Response:
        headers = as_(who) | ({"Idempotency-Key": key} if key is not None else {})
        return await http.post("/notifications", json=body, headers=headers)

    return send


@pytest.fixture
def batch(http: httpx2.AsyncClient, as_: Any) -> Any:
    async def send(*items: Any) -> httpx2.Response:
        return await http.post("/notifications/batch", json={"notifications": items}, headers=as_("shop"))

    return send


def pointers(answer: httpx2.Response) -> list[str]:
    assert answer.status_code == 422
    return [one["pointer"] for one in answer.json()["errors"]]


# -- one user ------------------------------------------------------------------------------------------------------


async def test_a_stored_notification_is_201_with_its_location(push: Any, services: SimpleNamespace) -> None:
    answer = await push(user_id="ada", title="Order shipped", ttl=DAY)
    assert answer.status_code == 201
    body = answer.json()
    assert answer.headers["location"] == f"/notifications/{body['id']}"
    assert body == {
        "id": body["id"],
        "user_id": "ada",
        "seq": 1,
        "created_at": "2027-01-15T08:00:00.000Z",
        "expires_at": "2027-01-16T08:00:00.000Z",
        "online": True,
    }
    assert "idempotency-replayed" not in answer.headers
    assert services.publisher.admitted == [("c~shop", 1)]


async def test_what_is_stored_is_rendered_once_with_its_defaults(push: Any, services: SimpleNamespace) -> None:
    await push(user_id="ada", title="hi")
    await push(user_id="ada", title="hi", body="b", data={"a": [1]}, category="c", priority="low", ttl=None)
    (_, bare), (sender, full) = services.publisher.pushed
    defaults: dict[str, Any] = {"title": "hi", "body": "", "data": {}, "category": None, "priority": "normal"}
    assert orjson.loads("{" + bare.content + "}") == defaults
    given = {"title": "hi", "body": "b", "data": {"a": [1]}, "category": "c", "priority": "low"}
    assert orjson.loads("{" + full.content + "}") == given
    assert (sender, full.category, full.ttl, full.key) == ("c~shop", "c", 30 * DAY, None)


async def test_null_is_absent(push: Any, services: SimpleNamespace) -> None:
    nothing = dict.fromkeys(
        ("user_ids", "topic", "everyone", "body", "data", "category", "priority", "ttl", "collapse_key", "deliver_at")
    )
    assert (await push(user_id="ada", title="hi", **nothing)).status_code == 201
    assert services.publisher.pushed[0][1].ttl == 30 * DAY


async def test_an_unknown_user_is_404(push: Any) -> None:
    answer = await push(user_id="nobody", title="hi")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_user")


async def test_an_admin_may_push_too(push: Any, services: SimpleNamespace) -> None:
    assert (await push(user_id="ada", title="hi", who="root")).status_code == 201
    assert services.publisher.pushed[0][0] == "root"


async def test_over_the_rate_nothing_is_stored(push: Any, services: SimpleNamespace) -> None:
    services.publisher.limited = Limited("push", retry_after=1, quota=1, window=1)
    assert (await push(user_id="ada", title="hi")).status_code == 429
    assert not services.publisher.pushed


# -- what a push may say -------------------------------------------------------------------------------------------

LIMITS: list[tuple[str, Any, Any]] = [
    ("title", "t", ""),
    ("title", "ä" * pushes.MAX_TITLE, "ä" * (pushes.MAX_TITLE + 1)),
    ("title", "\U0001f600" * pushes.MAX_TITLE, 7),
    ("body", "", 7),
    ("body", "ä" * pushes.MAX_TEXT, "ä" * (pushes.MAX_TEXT + 1)),
    ("data", {}, []),
    ("data", {"x": "y" * (pushes.MAX_DATA - len('{"x":""}'))}, {"x": "y" * (pushes.MAX_DATA - len('{"x":""}') + 1)}),
    ("data", {"x": "ä" * 2000}, "{}"),
    ("category", "c", ""),
    ("category", "ä" * pushes.MAX_CATEGORY, "ä" * (pushes.MAX_CATEGORY + 1)),
    ("category", "c", ["c"]),
    ("priority", "low", "urgent"),
    ("priority", "high", ["high"]),
    ("priority", "normal", 1),
    ("ttl", 1, -1),
    ("ttl", pushes.MAX_TTL, pushes.MAX_TTL + 1),
    ("ttl", 5, 5.0),
    ("ttl", 5, "5"),
    ("ttl", 5, True),
    ("user_id", "ada", ""),
    ("user_id", "ada", "x" * 65),
    ("user_id", "ada", 42),
]


@pytest.mark.parametrize(("name", "taken", "refused"), LIMITS)
async def test_a_limit_is_taken_and_one_beyond_is_not(
    push: Any, batch: Any, services: SimpleNamespace, name: str, taken: Any, refused: Any
) -> None:
    body = {"user_id": "ada", "title": "hi"}
    assert (await push(**body | {name: taken})).status_code == 201
    assert (await batch(body | {name: taken})).json()["results"][0]["status"] == 201
    assert len(services.publisher.pushed) == 2
    assert pointers(await push(**body | {name: refused})) == [f"/{name}"]
    (item,) = (await batch(body | {name: refused})).json()["results"]
    assert (item["status"], [one["pointer"] for one in item["errors"]]) == (422, [f"/{name}"])
    assert len(services.publisher.pushed) == 2


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"user_id": "ada"}, ["/title"]),
        ({"title": "hi"}, [""]),
        ({"title": "hi", "user_id": "ada", "user_ids": ["bob"]}, [""]),
        ({"title": "hi", "user_id": "ada", "everyone": True, "ttl": 0}, [""]),
        ({"title": "hi", "everyone": False, "ttl": 0}, ["/everyone"]),
        ({"title": "hi", "everyone": 1, "ttl": 0}, ["/everyone"]),
        ({"title": "hi", "user_ids": []}, ["/user_ids"]),
        ({"title": "hi", "user_ids": "ada"}, ["/user_ids"]),
        ({"title": "hi", "user_ids": ["ada", 1]}, ["/user_ids/1"]),
        ({"title": "hi", "user_ids": [str(at) for at in range(1001)]}, ["/user_ids"]),
        ({"title": "hi", "user_id": "ada", "tilte": "ho", "a/b": 1}, ["/tilte", "/a~1b"]),
        ({"title": "hi", "user_id": "ada", "idempotency_key": "k"}, ["/idempotency_key"]),
    ],
)
async def test_what_a_push_may_not_say(
    push: Any, services: SimpleNamespace, body: dict[str, Any], expected: list[str]
) -> None:
    assert pointers(await push(**body)) == expected
    assert not services.publisher.pushed


@pytest.mark.parametrize("raw", [b"[]", b'"hi"', b"null", b"1"])
async def test_a_push_is_an_object(http: httpx2.AsyncClient, as_: Any, raw: bytes) -> None:
    headers = as_("shop") | {"Content-Type": "application/json"}
    assert pointers(await http.post("/notifications", content=raw, headers=headers)) == [""]


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"user_id": "ada", "collapse_key": "k"}, "collapse_key"),
        ({"user_id": "ada", "deliver_at": "2030-01-01T00:00:00Z"}, "deliver_at"),
        ({"topic": "news"}, "topic"),
        ({"everyone": True}, "everyone"),
        ({"user_id": "ada", "collapse_key": "k", "ttl": 0}, "collapse_key"),
    ],
)
async def test_what_comes_later_is_refused_by_name(
    push: Any, services: SimpleNamespace, more: dict[str, Any], field: str
) -> None:
    answer = await push(title="hi", **more)
    assert pointers(answer) == [f"/{field}"]
    assert answer.json()["code"] == "not_supported"
    assert field in answer.json()["detail"]
    assert not services.publisher.pushed
    assert not services.publisher.passed


# -- several users -------------------------------------------------------------------------------------------------


async def test_several_users_get_an_id_each_and_duplicates_are_merged(push: Any, services: SimpleNamespace) -> None:
    answer = await push(user_ids=["bob", "nobody", "ada", "bob"], title="hi")
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [(one["status"], one["user_id"]) for one in results] == [(201, "bob"), (404, "nobody"), (201, "ada")]
    assert results[1]["code"] == "unknown_user"
    assert results[0]["id"] != results[2]["id"]
    assert services.publisher.pushed[0][1].recipients == ("bob", "nobody", "ada")
    assert services.publisher.admitted == [("c~shop", 3)]


async def test_several_users_are_503_as_a_whole(push: Any, services: SimpleNamespace) -> None:
    services.publisher.fail = StoreUnavailable()
    assert (await push(user_ids=["ada", "bob"], title="hi")).status_code == 503


# -- ttl 0 ---------------------------------------------------------------------------------------------------------


async def test_ttl_0_to_a_user_is_202_and_stored_nowhere(push: Any, services: SimpleNamespace) -> None:
    answer = await push(user_id="ada", title="hi", ttl=0)
    assert (answer.status_code, answer.json()) == (202, {"id": "passing", "online": True})
    ((sender, recipients, content),) = services.publisher.passed
    assert (sender, recipients, orjson.loads("{" + content + "}")["title"]) == ("c~shop", ("ada",), "hi")
    assert not services.publisher.pushed


@pytest.mark.parametrize(
    ("target", "recipients"), [({"user_ids": ["ada", "bob"]}, ("ada", "bob")), ({"everyone": True}, None)]
)
async def test_ttl_0_to_many_counts_who_is_online(
    push: Any, services: SimpleNamespace, target: dict[str, Any], recipients: tuple[str, ...] | None
) -> None:
    answer = await push(title="hi", ttl=0, **target)
    assert (answer.status_code, answer.json()) == (202, {"id": "passing", "online_count": 2})
    assert services.publisher.passed[0][1] == recipients


async def test_ttl_0_takes_no_key(push: Any, services: SimpleNamespace) -> None:
    assert pointers(await push(user_id="ada", title="hi", ttl=0, key="k")) == ["header:Idempotency-Key"]
    assert not services.publisher.passed


# -- idempotency ---------------------------------------------------------------------------------------------------


async def test_a_repeat_gets_the_same_answer_and_says_so(push: Any) -> None:
    first = await push(user_id="ada", title="hi", data={"a": 1, "b": 2}, key='"8f1c"')
    again = await push(data={"b": 2, "a": 1}, title="hi", user_id="ada", key='"8f1c"')
    assert (again.status_code, again.json(), again.headers["location"]) == (
        201, first.json(), first.headers["location"],
    )  # fmt: skip
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")


async def test_a_repeat_for_several_users_gets_the_same_results(push: Any) -> None:
    first, again = [await push(user_ids=["ada", "nobody"], title="hi", key="k") for _ in range(2)]
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["idempotency-replayed"] == "true"


async def test_the_key_with_another_request_is_a_mismatch(push: Any) -> None:
    await push(user_id="ada", title="hi", key="k")
    answer = await push(user_id="ada", title="ho", key="k")
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")


async def test_keys_of_another_client_are_other_keys(push: Any) -> None:
    first, other = (
        await push(user_id="ada", title="hi", key="k"),
        await push(user_id="ada", title="hi", key="k", who="mail"),
    )
    assert first.json()["id"] != other.json()["id"]


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "ä".encode(), b"a\x7f", "a\tb"])
async def test_a_malformed_key_is_400_and_nothing_is_stored(
    http: httpx2.AsyncClient, as_: Any, services: SimpleNamespace, key: str | bytes
) -> None:
    raw = key if isinstance(key, bytes) else key.encode()
    headers = [*as_("shop").items(), ("Idempotency-Key", raw)]
    for path in ("/notifications", "/notifications/batch"):
        answer = await http.post(path, json={"user_id": "ada", "title": "hi"}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_invalid")
    assert not services.publisher.pushed


async def test_255_characters_are_a_key_and_two_header_fields_are_none(
    http: httpx2.AsyncClient, as_: Any, push: Any
) -> None:
    assert (await push(user_id="ada", title="hi", key="~" * 255)).status_code == 201
    headers = [*as_("shop").items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    answer = await http.post("/notifications", json={"user_id": "ada", "title": "hi"}, headers=headers)
    assert answer.status_code == 400


async def test_a_key_is_the_same_in_a_batch_as_by_itself(push: Any, batch: Any) -> None:
    (item,) = (await batch({"user_id": "ada", "title": "hi", "idempotency_key": "k"})).json()["results"]
    again = await push(user_id="ada", title="hi", key="k")
    assert again.json()["id"] == item["id"]
    assert again.headers["idempotency-replayed"] == "true"


# -- batches -------------------------------------------------------------------------------------------------------


async def test_one_bad_item_does_not_fail_the_others(batch: Any, services: SimpleNamespace) -> None:
    answer = await batch(
        {"user_id": "ada", "title": "1"},
        {"user_id": "ada"},
        {"user_id": "nobody", "title": "3"},
        {"user_id": "ada", "title": "4", "ttl": 0},
        "five",
        {"user_id": "ada", "title": "6"},
        {"user_ids": ["ada"], "title": "7"},
        {"user_id": "ada", "title": "8", "collapse_key": "k"},
    )
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [one["status"] for one in results] == [201, 422, 404, 202, 422, 201, 422, 422]
    codes = ["validation_failed", "unknown_user", "validation_failed", "validation_failed", "not_supported"]
    assert [one["code"] for one in results if one["status"] >= 400] == codes
    assert results[3] == {"status": 202, "id": "passing", "online": True}
    assert results[0]["seq"] < results[5]["seq"]
    assert [orjson.loads("{" + push.content + "}")["title"] for _, push in services.publisher.pushed] == ["1", "3", "6"]
    assert services.publisher.admitted == [("c~shop", 8)]


@pytest.mark.parametrize("bad", [r'"\u0000"', r'"\ud800"', "NaN", "1e999", "9007199254740992"])
async def test_an_item_that_no_json_can_carry_fails_alone(http: httpx2.AsyncClient, as_: Any, bad: str) -> None:
    items = '{"user_id":"ada","title":"1"},{"user_id":"ada","title":"2","data":{"x":' + bad + "}}"
    raw = '{"notifications":[' + items + "]}"
    headers = as_("shop") | {"Content-Type": "application/json"}
    answer = await http.post("/notifications/batch", content=raw.encode(), headers=headers)
    first, second = answer.json()["results"]
    assert (first["status"], second["status"], second["errors"][0]["pointer"]) == (201, 422, "/data/x")


async def test_an_item_the_store_could_not_answer_for_is_503(batch: Any, services: SimpleNamespace) -> None:
    services.publisher.fail = StoreUnavailable()
    answer = await batch({"user_id": "ada", "title": "1"}, {"user_id": "ada"})
    assert answer.status_code == 200
    assert [one["status"] for one in answer.json()["results"]] == [503, 422]


async def test_an_item_with_a_mismatch_says_so(batch: Any) -> None:
    item = {"user_id": "ada", "title": "hi", "idempotency_key": "k"}
    results = (await batch(item, item, item | {"title": "ho"})).json()["results"]
    assert [one["status"] for one in results] == [201, 201, 422]
    assert results[0] == results[1]
    assert results[2]["code"] == "idempotency_mismatch"


async def test_a_batch_sent_again_is_marked_as_replayed(batch: Any) -> None:
    items = [{"user_id": "ada", "title": str(at), "idempotency_key": str(at)} for at in range(3)]
    first, again = [await batch(*items) for _ in range(2)]
    assert again.json() == first.json()
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ä", 7])
async def test_a_malformed_key_of_an_item_is_refused(batch: Any, key: Any) -> None:
    (item,) = (await batch({"user_id": "ada", "title": "hi", "idempotency_key": key})).json()["results"]
    assert [one["pointer"] for one in item["errors"]] == ["/idempotency_key"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ([], ""),
        ({}, "/notifications"),
        ({"notifications": {}}, "/notifications"),
        ({"notifications": [{}] * 1001}, "/notifications"),
        ({"notifications": [], "idempotency_key": "k"}, "/idempotency_key"),
    ],
)
async def test_what_is_no_batch_is_refused_as_a_whole(
    http: httpx2.AsyncClient, as_: Any, services: SimpleNamespace, body: Any, pointer: str
) -> None:
    assert pointers(await http.post("/notifications/batch", json=body, headers=as_("shop"))) == [pointer]
    assert not services.publisher.pushed


async def test_a_thousand_items_are_taken_and_none_is_fine_too(batch: Any, services: SimpleNamespace) -> None:
    results = (await batch(*[{"user_id": "ada", "title": "hi"}] * 1000)).json()["results"]
    assert [one["seq"] for one in results] == list(range(1, 1001))
    assert (await batch()).json() == {"results": []}


async def test_a_batch_refuses_the_header_key(http: httpx2.AsyncClient, as_: Any) -> None:
    headers = as_("shop") | {"Idempotency-Key": "k"}
    answer = await http.post("/notifications/batch", json={"notifications": []}, headers=headers)
    assert pointers(answer) == ["header:Idempotency-Key"]


# -- receipts and withdrawing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["shop", "root"])
async def test_its_sender_and_an_admin_see_the_receipt(http: httpx2.AsyncClient, as_: Any, who: str) -> None:
    assert (await http.get("/notifications/n1", headers=as_(who))).json() == {
        "id": "n1",
        "user_id": "ada",
        "seq": 1,
        "state": "acknowledged",
        "created_at": "2027-01-15T08:00:00.000Z",
        "expires_at": "2027-01-15T08:00:01.000Z",
        "acknowledged_at": "2027-01-15T08:00:00.005Z",
        "read_at": None,
    }


@pytest.mark.parametrize(("who", "id"), [("mail", "n1"), ("shop", "n2"), ("shop", "x" * 65), ("shop", "%00")])
async def test_for_anybody_else_there_is_no_receipt(http: httpx2.AsyncClient, as_: Any, who: str, id: str) -> None:
    answer = await http.get(f"/notifications/{id}", headers=as_(who))
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_notification")


@pytest.mark.parametrize(("who", "sender"), [("shop", "c~shop"), ("root", None)])
async def test_a_sender_withdraws_its_own_and_an_admin_any(
    http: httpx2.AsyncClient, as_: Any, services: SimpleNamespace, who: str, sender: str | None
) -> None:
    assert (await http.delete("/notifications/n1", headers=as_(who))).status_code == 204
    assert services.publisher.withdrawn == [("n1", sender)]


# -- the reader by itself ------------------------------------------------------------------------------------------


def test_the_fingerprint_is_that_of_the_value_not_of_the_text() -> None:
    one = pushes.read_push(json.loads('{"user_id":"ada","title":"hi","data":{"a":1,"b":[1,2]}}'), key="k")
    other = pushes.read_push(json.loads('{ "data": {"b":[1,2],"a":1}, "title":"hi", "user_id":"\\u0061da" }'), key="k")
    third = pushes.read_push(json.loads('{"user_id":"ada","title":"hi","data":{"a":1,"b":[2,1]}}'), key="k")
    assert one.key == other.key != third.key


def test_an_item_with_several_faults_tells_them_all() -> None:
    with pytest.raises(Invalid) as caught:
        pushes.read_item({"titel": "x", "ttl": "1", "priority": "x"})
    assert [where for where, _ in caught.value.errors] == ["/titel", "/user_id", "/title", "/priority", "/ttl"]
