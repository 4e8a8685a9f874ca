"""Contract 4 and 6: read, withdrawn and hidden on all devices of a user, the inbox over HTTP. Not: who is let in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from rawpeer import Raw, head
from wire import Node, Socket, User, eventually


class Reader:
    """A user with two devices that are listening, and some notifications."""

    def __init__(self, node: Node, user: User) -> None:
        self.node, self.user = node, user
        self.token = user.token()
        self.one: Socket
        self.two: Socket

    async def listening(self) -> Reader:
        self.one, self.two = await self.node.open(self.token), await self.node.open(self.user.token())
        return self

    async def told(self, shop: str, count: int, **more: Any) -> list[str]:
        """The ids of ``count`` new notifications, heard by both."""
        results = self.node.batch(shop, *[{"user_id": self.user.id, **more}] * count)
        for device in (self.one, self.two):
            await device.notifications(count)
        return [result["id"] for result in results]

    async def both(self, **expected: object) -> None:
        """The next frame of both devices."""
        for device in (self.one, self.two):
            assert await device.receive() == expected

    async def quiet(self) -> None:
        await self.one.quiet()
        await self.two.quiet()

    def over_http(self, method: str, path: str, status: int, body: object = None) -> Any:
        answer = self.node.request(method, path, token=self.token, json=body, expect=status)
        return answer.json() if answer.content else None

    def state(self) -> tuple[int, int]:
        inbox = self.node.inbox(self.token)
        return inbox["rev"], inbox["unread"]


@pytest.fixture
async def reader(node: Node) -> Reader:
    return await Reader(node, node.user()).listening()


# -- read ------------------------------------------------------------------------------------------------------------


async def test_read_is_heard_by_every_device_the_originator_too(reader: Reader, shop: str) -> None:
    ids = await reader.told(shop, 5)
    await reader.one.send(type="read", ids=ids[1:3])
    await reader.both(type="read", ids=ids[1:3], unread=3, rev=1)
    await reader.two.send(type="read", up_to=4, ref="r")
    await reader.one.next("read")
    assert await reader.two.next("read") == {"type": "read", "up_to": 4, "unread": 1, "rev": 2}
    assert await reader.two.receive() == {"type": "ok", "ref": "r"}
    assert reader.over_http("POST", "/inbox/read", 200, {"ids": [ids[4]]}) == {"unread": 0, "rev": 3}
    await reader.both(type="read", ids=[ids[4]], unread=0, rev=3)
    assert reader.over_http("POST", "/inbox/read", 200, {"up_to": 5}) == {"unread": 0, "rev": 3}
    await reader.quiet()  # nothing changed, nothing is told
    assert reader.state() == (3, 0)


async def test_unread_counts_what_was_not_sent_here_yet(reader: Reader, shop: str) -> None:
    (first,) = await reader.told(shop, 1)
    await reader.two.close()
    reader.node.batch(shop, *[{"user_id": reader.user.id}] * 2)
    await reader.one.notifications(2)
    await reader.one.send(type="read", ids=[first])
    assert (await reader.one.next("read"))["unread"] == 2


async def test_reading_what_is_unknown_gone_or_read_already_changes_nothing(
    reader: Reader, node: Node, shop: str
) -> None:
    ids = await reader.told(shop, 2)
    stranger = node.push(shop, user_id=node.user().id)["id"]
    await reader.one.send(type="read", ids=[ids[0], ids[0]])
    await reader.both(type="read", ids=[ids[0]], unread=1, rev=1)
    answer = await reader.one.ask(type="read", ids=[ids[0], stranger, "unknown"])
    assert answer["type"] == "ok"
    await reader.quiet()
    assert reader.state() == (1, 1)


async def test_up_to_beyond_the_head_is_refused_over_both(reader: Reader, shop: str) -> None:
    await reader.told(shop, 1)
    answer = await reader.one.ask(type="read", up_to=2)
    problem = reader.over_http("POST", "/inbox/read", 422, {"up_to": 2})
    assert (answer["type"], answer["code"]) == ("error", problem["code"]) == ("error", "validation_failed")
    bodies: list[dict[str, Any]] = [
        {}, {"ids": ["a"], "up_to": 1}, {"ids": []}, {"ids": ["a"] * 101}, {"up_to": -1}, {"up_to": "1"},
    ]  # fmt: skip
    for body in bodies:
        assert reader.over_http("POST", "/inbox/read", 422, body)["code"] == "validation_failed"
    assert reader.state() == (0, 1)


async def test_the_receipt_says_read_as_soon_as_one_device_has_read_it(reader: Reader, node: Node, shop: str) -> None:
    (id,) = await reader.told(shop, 1)
    reader.over_http("POST", "/inbox/read", 200, {"ids": [id]})
    receipt = node.request("GET", f"/notifications/{id}", token=shop, expect=200).json()
    assert (receipt["state"], receipt["read_at"]) == ("read", node.inbox(reader.token)["items"][0]["read_at"])


# -- withdrawn, hidden -----------------------------------------------------------------------------------------------


async def test_taken_back_by_its_sender_every_device_hears_it(reader: Reader, node: Node, shop: str) -> None:
    kept, gone = await reader.told(shop, 2)
    node.request("DELETE", f"/notifications/{gone}", token=shop, expect=204)
    await reader.both(type="withdrawn", id=gone, seq=2, unread=1, rev=1)
    node.request("DELETE", f"/notifications/{gone}", token=shop, expect=204)
    await reader.quiet()
    assert [item["id"] for item in node.inbox(reader.token)["items"]] == [kept]
    assert node.request("GET", f"/notifications/{gone}", token=shop).json()["state"] == "withdrawn"


async def test_hidden_by_the_user_every_device_hears_it_and_the_sender_sees_no_withdrawal(
    reader: Reader, node: Node, shop: str
) -> None:
    hidden, kept = await reader.told(shop, 2)
    reader.over_http("DELETE", f"/inbox/{hidden}", 204)
    await reader.both(type="withdrawn", id=hidden, seq=1, unread=1, rev=1)
    assert reader.over_http("GET", f"/inbox/{hidden}", 404)["code"] == "unknown_notification"
    assert reader.over_http("DELETE", f"/inbox/{hidden}", 404)["code"] == "unknown_notification"
    assert [item["id"] for item in node.inbox(reader.token)["items"]] == [kept]
    assert node.request("GET", f"/notifications/{hidden}", token=shop).json()["state"] == "acknowledged"


async def test_only_its_sender_takes_it_back_and_only_its_owner_hides_it(reader: Reader, node: Node, shop: str) -> None:
    (id,) = await reader.told(shop, 1)
    assert node.request("DELETE", f"/notifications/{id}", token=node.client_token()).status_code == 404
    assert node.request("GET", f"/notifications/{id}", token=node.client_token()).status_code == 404
    stranger = node.user().token()
    assert node.request("DELETE", f"/inbox/{id}", token=stranger).status_code == 404
    assert node.request("GET", f"/inbox/{id}", token=stranger).status_code == 404
    await reader.quiet()
    node.request("DELETE", f"/notifications/{id}", token=node.admin, expect=204)
    await reader.both(type="withdrawn", id=id, seq=1, unread=0, rev=1)


async def test_what_was_withdrawn_before_it_was_sent_is_a_gap(node: Node, shop: str) -> None:
    user = node.user()
    token = user.token()
    first, gone = [result["id"] for result in node.batch(shop, {"user_id": user.id}, {"user_id": user.id})]
    node.request("DELETE", f"/notifications/{gone}", token=shop, expect=204)
    device = await node.open(token)
    assert (device.hello["head"], device.hello["rev"], device.hello["unread"]) == (2, 1, 1)
    assert (await device.next("notification"))["id"] == first
    assert await device.receive() == {"type": "gap", "from": 2, "to": 2}
    node.push(shop, user_id=user.id)
    assert (await device.next("notification"))["seq"] == 3


async def test_a_withdrawal_is_heard_where_the_notification_was_never_sent(reader: Reader, shop: str) -> None:
    """A device that starts after it hears of it all the same: the page may have shown it from GET /inbox."""
    (id,) = await reader.told(shop, 1)
    epoch = reader.one.hello["epoch"]
    late = await reader.node.open(reader.token, after=1, epoch=epoch)
    reader.node.request("DELETE", f"/notifications/{id}", token=shop, expect=204)
    assert await late.receive() == {"type": "withdrawn", "id": id, "seq": 1, "unread": 0, "rev": 1}


# -- rev, and changed for what was missed ----------------------------------------------------------------------------


async def test_a_device_that_was_away_sees_by_rev_that_state_changed(reader: Reader, shop: str) -> None:
    ids = await reader.told(shop, 3)
    await reader.two.close()
    for id in ids[:2]:
        reader.over_http("POST", "/inbox/read", 200, {"ids": [id]})
    again = await reader.node.open(reader.token, after=3, epoch=reader.one.hello["epoch"])
    assert (again.hello["rev"], again.hello["unread"]) == (2, 1)
    await again.quiet()
    await again.send(type="read", ids=[ids[2]])
    assert await again.receive() == {"type": "read", "ids": [ids[2]], "unread": 0, "rev": 3}


@pytest.fixture
def slow(node: Node) -> Iterator[tuple[User, str, Raw]]:
    """A user whose one device has heard hello and then stopped reading, with little room in its kernel."""
    user = node.user()
    token = user.token()
    raw = Raw(node.port, receive_buffer=4096).send(head(f"/ws?token={token}"))
    assert raw.response()[0] == 101
    assert json.loads(raw.said()[1])["type"] == "hello"
    yield user, token, raw
    raw.shut()


def texts(raw: Raw, count: int) -> list[dict[str, Any]]:
    """The next ``count`` frames."""
    return [json.loads(raw.said()[1]) for _ in range(count)]


def test_a_device_that_fell_behind_hears_every_notification_once_and_changed_for_the_details_it_missed(
    node: Node, shop: str, slow: tuple[User, str, Raw]
) -> None:
    user, token, raw = slow
    big = {"user_id": user.id, "body": "x" * 4000}
    for _ in range(4):
        results = node.batch(shop, *[big] * 150)
    (listed,) = node.connections(user)
    eventually(lambda: node.connections(user)[0]["behind"], what="it is behind")
    assert listed["id"] == node.connections(user)[0]["id"], "and not dropped for it"
    node.request("POST", "/inbox/read", token=token, json={"up_to": 599}, expect=200)
    node.request("POST", "/inbox/read", token=token, json={"ids": [results[-1]["id"]]}, expect=200)
    frames = texts(raw, 601)
    assert [frame["seq"] for frame in frames[:600]] == list(range(1, 601))
    assert frames[600] == {"type": "changed", "rev": 2, "unread": 0}
    eventually(lambda: not node.connections(user)[0]["behind"], what="it has caught up")
    node.push(shop, user_id=user.id)
    node.request("POST", "/inbox/read", token=token, json={"up_to": 601}, expect=200)
    live, read = texts(raw, 2)
    assert live["seq"] == 601
    assert read == {"type": "read", "up_to": 601, "unread": 0, "rev": 3}


def test_what_was_withdrawn_while_a_device_was_behind_is_a_gap_there(
    node: Node, shop: str, slow: tuple[User, str, Raw]
) -> None:
    user, _, raw = slow
    ids = []
    for _ in range(4):
        ids += [result["id"] for result in node.batch(shop, *[{"user_id": user.id, "body": "x" * 4000}] * 150)]
    eventually(lambda: node.connections(user)[0]["behind"], what="it is behind")
    for id in ids[-3:-1]:
        node.request("DELETE", f"/notifications/{id}", token=shop, expect=204)
    frames = texts(raw, 600)
    assert [frame["seq"] for frame in frames[:597]] == list(range(1, 598))
    assert frames[597] == {"type": "gap", "from": 598, "to": 599}
    assert (frames[598]["type"], frames[598]["seq"]) == ("notification", 600)
    assert frames[599] == {"type": "changed", "rev": 2, "unread": 598}


# -- GET /inbox ------------------------------------------------------------------------------------------------------


async def test_the_inbox_lists_the_fields_of_the_frame_newest_first_and_agrees_with_the_socket(
    reader: Reader, node: Node, shop: str
) -> None:
    node.batch(shop, *[{"user_id": reader.user.id, "data": {"n": number}} for number in range(3)])
    frames = await reader.one.notifications(3)
    inbox = node.inbox(reader.token)
    assert [{"type": "notification", **item} for item in inbox["items"]] == frames[::-1]
    assert {name: inbox[name] for name in inbox if name != "items"} == {
        "head": 3, "rev": 0, "epoch": reader.one.hello["epoch"], "unread": 3, "next": None,
    }  # fmt: skip
    for frame in frames:
        assert {"type": "notification", **reader.over_http("GET", f"/inbox/{frame['id']}", 200)} == frame


async def test_pages_follow_each_other_in_both_directions(reader: Reader, node: Node, shop: str) -> None:
    await reader.told(shop, 7)

    def walk(**query: Any) -> list[list[int]]:
        """All pages from there on; ``next`` is the position to go on from, in the same direction."""
        pages, name = [], "after" if "after" in query else "before"
        while True:
            page = node.inbox(reader.token, limit=3, **query)
            pages.append([item["seq"] for item in page["items"]])
            if page["next"] is None:
                return pages
            query[name] = page["next"]

    assert walk() == [[7, 6, 5], [4, 3, 2], [1]]
    assert walk(after=0) == [[1, 2, 3], [4, 5, 6], [7]]
    assert walk(before=4) == [[3, 2, 1]]
    assert walk(after=2, before=6) == [[3, 4, 5]]
    assert walk(after=7) == [[]]


async def test_the_inbox_is_narrowed_to_what_is_unread_or_of_a_category(reader: Reader, node: Node, shop: str) -> None:
    ids = [*await reader.told(shop, 2, category="orders"), *await reader.told(shop, 2, category="news")]
    reader.over_http("POST", "/inbox/read", 200, {"ids": ids[1:3]})

    def seqs(**query: Any) -> list[int]:
        page = node.inbox(reader.token, **query)
        assert (page["head"], page["unread"]) == (4, 2), "the counters are of the whole inbox"
        return [item["seq"] for item in page["items"]]

    assert seqs(category="orders") == [2, 1]
    assert seqs(unread=True) == [4, 1]
    assert seqs(unread=True, category="news", after=0) == [4]
    assert seqs(category="other") == []


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "after=-1", "before=x", "after=9007199254740992", "unread=2"]
)
async def test_a_listing_that_cannot_be_read_is_a_422(reader: Reader, query: str) -> None:
    assert reader.over_http("GET", f"/inbox?{query}", 422)["code"] == "validation_failed"


# -- acknowledging over HTTP -----------------------------------------------------------------------------------------


async def test_an_ack_over_http_is_the_ack_of_the_socket(reader: Reader, node: Node, shop: str) -> None:
    await reader.told(shop, 3)
    epoch = reader.one.hello["epoch"]
    reader.over_http("POST", "/inbox/ack", 204, {"seq": 2, "epoch": epoch})
    reader.over_http("POST", "/inbox/ack", 204, {"seq": 1, "epoch": epoch})
    again = await node.open(reader.token)
    assert (again.hello["cursor"], (await again.next("notification"))["seq"]) == (2, 3)
    await reader.quiet()
    beyond = reader.over_http("POST", "/inbox/ack", 409, {"seq": 4, "epoch": epoch})
    other = reader.over_http("POST", "/inbox/ack", 409, {"seq": 3, "epoch": "another"})
    assert (beyond["code"], other["code"]) == ("ack_out_of_range", "epoch_mismatch")
    reader.over_http("POST", "/inbox/ack", 422, {"seq": 3})
    assert (await node.open(reader.token)).hello["cursor"] == 2
