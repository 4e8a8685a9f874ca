"""The JavaScript client (``clients/js``) in Node: its own tests, its size, and gateways that stop, revoke, expire."""

from __future__ import annotations

import gzip
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jsclient import CLIENT, Listener, needs_node, run_node
from wire import Node

MOST_BYTES = 6144
pytestmark = needs_node


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    """Starts clients; all are ended with the test."""
    listeners: list[Listener] = []

    def begin(*arguments: Any, **options: Any) -> Listener:
        listeners.append(Listener(*arguments, **options))
        return listeners[-1]

    yield begin
    for listener in listeners:
        listener.end()


# -- as it is shipped ----------------------------------------------------------------------------------------------


def test_its_own_tests_pass() -> None:
    run_node("--test", *(f"test/{file.name}" for file in sorted((CLIENT / "test").glob("*.test.js"))))


def test_what_a_page_loads_is_what_the_sources_make_and_small() -> None:
    run_node("strip.mjs", "--check")
    loaded = (CLIENT / "gateway.min.js").read_bytes()
    assert len(gzip.compress(loaded, 9, mtime=0)) <= MOST_BYTES
    # Libraries differ by some bytes: what the browser's own makes of it has to fit as well.
    sizes = "const { gzipSync } = await import('node:zlib'); const { readFileSync } = await import('node:fs');"
    sizes += "console.log(gzipSync(readFileSync('gateway.min.js')).length)"
    assert int(run_node("--input-type=module", "--eval", sizes)) <= MOST_BYTES
    assert run_node(
        "--input-type=module",
        "--eval",
        "import * as made from './gateway.min.js'; import * as source from './src/index.js';"
        "console.log(Object.keys(made).join() === Object.keys(source).join() && typeof made.connect)",
    ).split() == ["function"]


def test_it_is_licensed_as_the_rest() -> None:
    assert (CLIENT / "LICENSE").read_bytes() == (CLIENT.parent.parent / "LICENSE").read_bytes()


# -- against real gateways -----------------------------------------------------------------------------------------


def test_nothing_is_missed_or_doubled_through_restarts(
    start: Callable[..., Node], listen: Callable[..., Listener]
) -> None:
    node = start()
    user, shop = node.user(), node.client_token()
    listener = listen(node, user)
    listener.until_open()
    pushed = 0

    def push(count: int) -> None:
        nonlocal pushed
        node.batch(shop, *({"user_id": user.id} for _ in range(count)))
        pushed += count

    for round, end in enumerate((signal.SIGTERM, signal.SIGKILL, signal.SIGTERM), start=2):
        push(20)
        assert node.process is not None
        node.process.send_signal(end)
        node.process.wait(20)
        node.start()
        push(20)  # before it is back, or while it catches up
        listener.until_open(round)
        push(1)
        listener.until(lambda it: len(it.shown()) >= pushed, what=f"{pushed} shown")
    assert listener.shown() == list(range(1, pushed + 1))
    assert set(listener.of("token")) == {"connect"}, "the token was good all the time"
    reasons = {event.get("reason") for event in listener.of("state") if event["state"] == "waiting"}
    assert "draining" in reasons
    assert node.stop() == 0


def test_a_revoked_session_is_the_end_and_the_process_may_exit(node: Node, listen: Callable[..., Listener]) -> None:
    user = node.user()
    listener = listen(node, user)
    listener.until_open()
    node.revoke(user_id=user.id)
    assert listener.until(lambda it: it.of("close"), what="close") == [{"code": 1008, "reason": "token_revoked"}]
    assert listener.process.wait(10) == 0, "nothing keeps it alive"
    assert node.connections(user) == []


def test_a_token_is_renewed_on_the_open_socket(start: Callable[..., Node], listen: Callable[..., Listener]) -> None:
    node = start(access_token_ttl=4)
    user = node.user()
    listener = listen(node, user)
    listener.until_open()
    listener.until(lambda it: it.of("token").count("renew") >= 2, what="renewals")
    node.push(node.client_token(), user_id=user.id)
    listener.until(lambda it: it.shown() == [1], what="shown")
    assert [event["state"] for event in listener.of("state")] == ["connecting", "open"]
    assert node.stop() == 0


def test_one_that_expired_is_refreshed_and_it_goes_on_where_it_was(
    start: Callable[..., Node], listen: Callable[..., Listener]
) -> None:
    node = start(access_token_ttl=2)
    user = node.user()
    listener = listen(node, user, stale=True)
    listener.until_open()
    node.push(node.client_token(), user_id=user.id)
    listener.until_open(2)
    node.push(node.client_token(), user_id=user.id)
    listener.until(lambda it: len(it.shown()) >= 2, what="shown")
    assert listener.shown() == [1, 2]
    assert "token_expired" in listener.of("token")
    waits = [event for event in listener.of("state") if event["state"] == "waiting"]
    assert waits[0]["reason"] == "token_expired"
    assert waits[0]["delay"] == 0
    assert node.stop() == 0


def test_it_is_acknowledged_when_the_handler_has_succeeded_and_not_before(
    node: Node, shop: str, listen: Callable[..., Listener]
) -> None:
    user = node.user()
    listener = listen(node, user, held=True)
    listener.until_open()
    first, second = (node.push(shop, user_id=user.id)["id"] for _ in range(2))
    listener.until(lambda it: it.shown() == [1, 2], what="shown")

    def state(id: str) -> str:
        return str(node.request("GET", f"/notifications/{id}", token=shop, expect=200).json()["state"])

    listener.call("release", 2)
    listener.call("markRead", [first])  # so that more than a second is not needed to know that no ack was sent
    listener.until(lambda it: it.of("read"), what="read")
    assert state(second) == "stored", "1 is not handled yet"
    listener.call("release", 1)
    listener.until(lambda _: state(second) == "acknowledged", what="acknowledged")


def test_one_that_dies_between_handler_and_acknowledgement_is_told_again_and_only_what_was_not_done(
    node: Node, shop: str, listen: Callable[..., Listener]
) -> None:
    user = node.user()
    session = {"refresh_token": user.sign_in()["refresh_token"]}
    first = listen(node, user, held=True, **session)
    first.until_open()
    done, handled = (node.push(shop, user_id=user.id)["id"] for _ in range(2))
    first.until(lambda it: it.shown() == [1, 2], what="shown")
    first.call("release", 1)

    def state(id: str) -> str:
        return str(node.request("GET", f"/notifications/{id}", token=shop, expect=200).json()["state"])

    first.until(lambda _: state(done) == "acknowledged", what="acknowledged")
    first.process.kill()  # it has shown the second, and said so to nobody
    first.process.wait(10)
    assert state(handled) == "stored"
    again = listen(node, user, **session)
    again.until(lambda _: state(handled) == "acknowledged", what="acknowledged by the next")
    assert again.shown() == [2]


def test_what_the_user_has_read_and_hidden(node: Node, shop: str, listen: Callable[..., Listener]) -> None:
    user = node.user()
    one, other = listen(node, user), listen(node, user)
    for listener in (one, other):
        listener.until_open()
    ids = [node.push(shop, user_id=user.id)["id"] for _ in range(4)]
    for listener in (one, other):
        listener.until(lambda it: len(it.shown()) == 4, what="shown")
    one.call("markRead", ids[0])
    other.until(lambda it: it.of("unread")[-1:] == [3], what="3 unread")
    one.call("hide", ids[1])
    other.until(lambda it: it.of("unread")[-1:] == [2], what="2 unread")
    other.call("readAll")
    one.until(lambda it: it.of("unread")[-1:] == [0], what="0 unread")
    one.call("inbox", {"limit": 2})
    one.until(lambda it: len(it.of("answer")) == 3, what="answers")
    for listener in (one, other):
        assert [event.get("ids", event.get("up_to")) for event in listener.of("read")] == [[ids[0]], 4]
        assert [event["id"] for event in listener.of("withdrawn")] == [ids[1]]
        assert listener.of("changed") == []
        assert listener.of("unread") == [0, 1, 2, 3, 4, 3, 2, 0]
    page = one.of("answer")[-1]
    assert [item["id"] for item in page["items"]] == [ids[3], ids[2]]
    one.call("hide", "nothing")
    one.until(lambda it: it.of("answer")[-1:] == [{"error": "unknown_notification"}], what="refused")
    one.call("close")
    one.until(lambda it: it.of("close") == [{"code": 1000, "reason": "closed"}], what="closed")
    assert one.process.wait(10) == 0


def test_an_event_stream_where_sockets_are_blocked(start: Callable[..., Node], listen: Callable[..., Listener]) -> None:
    node = start(access_token_ttl=4)
    user, shop = node.user(), node.client_token()
    listener = listen(node, user, events=True)
    listener.until_open()
    assert [event["transport"] for event in listener.of("state") if event["state"] == "open"] == ["events"]
    first = node.push(shop, user_id=user.id)["id"]
    listener.until(lambda it: it.shown() == [1], what="shown")

    def state() -> str:
        return str(node.request("GET", f"/notifications/{first}", token=shop, expect=200).json()["state"])

    listener.until(lambda _: state() == "acknowledged", what="acknowledged over HTTP")
    assert node.stop() == 0
    node.start()
    node.push(shop, user_id=user.id)
    listener.until_open(2)
    listener.until(lambda it: len(it.shown()) == 2, what="shown after the restart")
    listener.until(lambda it: "renew" in it.of("token"), what="renewed")
    listener.until_open(3)
    node.push(shop, user_id=user.id)
    listener.until(lambda it: len(it.shown()) == 3, what="shown on the new stream")
    assert listener.shown() == [1, 2, 3]
    node.forget_admin()
    node.revoke(user_id=user.id)
    assert listener.until(lambda it: it.of("close"), what="close") == [{"code": 1008, "reason": "token_revoked"}]
    assert node.stop() == 0
