"""``docs/protocol/vectors``, run by both our clients and, where a gateway has to say something, by a real one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from jsclient import needs_node, run_node
from scripted import Heard, hello, notification, says, scripted
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from wire import Node, eventually_async

from gateway import closing, frames
from gateway.client import Stopped, Subscription
from gateway.client import listener as listening
from gateway.client.listener import Listener
from gateway.client.rules import Backoff, Position
from gateway.sockets import wire

VECTORS = Path(__file__).parent.parent / "docs" / "protocol" / "vectors"
FENCE = "fence"


def read(name: str, *lists: str) -> list[Any]:
    vectors = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    return [pytest.param(vector, id=f"{name}: {vector['name']}") for one in lists for vector in vectors[one]]


SCENARIOS = [*read("frames", "scenarios"), *read("resume", "scenarios")]
CLOSES = read("closes", "cases")


class Tokens:
    renew_at = 1e12

    def __init__(self) -> None:
        self.renewals = 0

    async def token(self) -> str:
        return "token"

    async def renew(self) -> str:
        self.renewals += 1
        return "token"


def listener(url: str, heard: Heard, *, draw: float = 0.5, **more: Any) -> Listener:
    async def sleep(seconds: float) -> None:
        heard.waits.append(seconds)

    given = {"tokens": Tokens(), "show": heard.shown.append, "note": heard.notes.append, "sleep": sleep, **more}
    return Listener(url=url, direct=True, backoff=Backoff(random=lambda: draw), **given)


class Plays:
    """One connection of a vector: says what it says, waits for what has to come back, ends as it ends."""

    def __init__(self, heard: Heard, vector: Any) -> None:
        self.heard, self.vector, self.acks, self.over = heard, vector, list[int](), asyncio.Event()

    async def __call__(self, connection: ServerConnection) -> None:
        hearing = asyncio.create_task(self._hear(connection))
        for frame in self.vector["frames"]:
            await connection.send(json.dumps(frame))
        for _ in range(2):  # once all was taken, and once it has done what is due
            await self._fence(connection)
        if self.vector["acks"] is not None:
            await eventually_async(lambda: self.acks and self.acks[-1] >= self.vector["acks"], what="the ack")
        end = self.vector.get("end", {"code": 1008, "reason": "token_revoked"})
        if end["code"] == 1006:
            connection.transport.abort()
        else:
            await connection.close(end["code"], end["reason"])
        await hearing
        self.over.set()

    async def _fence(self, connection: ServerConnection) -> None:
        """The client has taken all that was sent before."""

        def noted() -> int:
            return sum(FENCE in note for note in self.heard.notes)

        before = noted()
        await connection.send(json.dumps({"type": "error", "code": FENCE, "detail": ""}))
        await eventually_async(lambda: noted() > before, what="all of it was taken")

    async def _hear(self, connection: ServerConnection) -> None:
        try:
            async for text in connection:
                frame = json.loads(text)
                if frame["type"] == "ack":
                    self.acks.append(frame["seq"])
        except ConnectionClosed:
            pass


# -- our clients ---------------------------------------------------------------------------------------------------


@needs_node
def test_the_javascript_client_keeps_to_them() -> None:
    run_node("--test", "../../tests/clients/vectors.test.js")


@pytest.mark.parametrize("vector", SCENARIOS)
async def test_the_python_client_keeps_to_the_scenarios(vector: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "ACK_EVERY", 0.05)
    position = Position()
    if vector["kept"]:
        position = Position(after=vector["kept"]["seq"], epoch=vector["kept"]["epoch"])
    plays = list[Plays]()

    async def play(connection: ServerConnection) -> None:
        await plays[len(heard.requests) - 1](connection)

    async with scripted(*[play for _ in vector["connections"]]) as (url, heard):
        plays += [Plays(heard, one) for one in vector["connections"]]
        with pytest.raises(Stopped, match="token_revoked"):
            await listener(url, heard, position=position).run()
    for request, one in zip(heard.requests, vector["connections"], strict=True):
        query = httpx2.URL(url + request.path).params
        assert dict(query) == {name: str(value) for name, value in one["asks"].items()}
    assert [play.acks[-1] if play.acks else None for play in plays] == [one["acks"] for one in vector["connections"]]
    assert [frame["id"] for frame in heard.shown if frame["type"] == "notification"] == vector["shows"]
    assert [frame["id"] for frame in heard.shown if frame["type"] == "withdrawn"] == vector["removes"]
    assert {"seq": position.after, "epoch": position.epoch} == vector["keeps"]


@pytest.mark.parametrize("vector", read("acks", "cases"))
async def test_the_python_client_keeps_to_the_acks(vector: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if "at_most" not in vector:
        monkeypatch.setattr(listening, "ACK_EVERY", 0.05)

    def sign_in(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"access_token": "a", "refresh_token": "r", "expires_in": 900})

    plays = list[Plays]()

    async def deal(subscription: Subscription) -> None:
        async for one in subscription:
            if one.id in vector["unhandled"]:
                await plays[0].over.wait()

    async def play(connection: ServerConnection) -> None:
        await plays[0](connection)

    async with scripted(play) as (url, heard):
        plays.append(Plays(heard, vector))
        given: dict[str, Any] = {"transport": httpx2.MockTransport(sign_in), "on_note": heard.notes.append}
        async with Subscription(url, username="alice", password="pw", **given) as subscription:
            with pytest.raises(Stopped, match="token_revoked"):
                await deal(subscription)
    acks = plays[0].acks
    assert (acks[-1] if acks else None) == vector["acks"]
    assert len(acks) <= vector.get("at_most", 3)


@pytest.mark.parametrize("vector", CLOSES)
@pytest.mark.parametrize("draw", [0.0, 1.0])
async def test_the_python_client_keeps_to_the_closes(vector: Any, draw: float) -> None:
    tokens = Tokens()

    async def play(connection: ServerConnection) -> None:
        await connection.send(json.dumps(hello()))
        if "reconnect_after_ms" in vector:
            frame = {"type": "reconnect", "after_ms": vector["reconnect_after_ms"], "reason": "draining"}
            await connection.send(json.dumps(frame))
        if vector["code"] == 1006:
            connection.transport.abort()
        else:
            await connection.close(vector["code"], vector["reason"])

    async def welcome(connection: ServerConnection) -> None:
        await says(heard, hello(), notification(1))(connection)

    async with scripted(play, welcome) as (url, heard):
        run = listener(url, heard, draw=draw, tokens=tokens, wanted=1).run()
        if vector["delay_ms"] is None:
            with pytest.raises(Stopped) as caught:
                await run
            assert caught.value.bug == (vector["client"] == "bug")
            return
        await run
    (wait,) = heard.waits
    assert vector["delay_ms"][0] <= wait * 1000 <= vector["delay_ms"][1]
    assert tokens.renewals == (vector["client"] == "refresh")


@pytest.mark.parametrize("row", read("closes", "rows"))
@pytest.mark.parametrize("draw", [0.0, 1.0])
async def test_the_python_client_keeps_to_rows_of_closes(row: Any, draw: float) -> None:
    left = list(row["ends"])

    async def play(connection: ServerConnection) -> None:
        end: Any = left.pop(0) if left else {"code": 1008, "reason": "token_revoked"}
        await connection.close(end["code"], end["reason"])

    async with scripted(*[play] * (len(left) + 1)) as (url, heard):
        with pytest.raises(Stopped):
            await listener(url, heard, draw=draw).run()
    assert len(heard.waits) == len(row["delays_ms"])
    for wait, (least, most) in zip(heard.waits, row["delays_ms"], strict=True):
        assert least <= wait * 1000 <= most


def test_every_close_of_the_table_has_its_vector() -> None:
    given = {(vector["code"], vector["reason"]): vector["client"] for vector in (one.values[0] for one in CLOSES)}
    for close in closing.ALL:
        if wire.travels(close.code):
            assert given[close.code, close.reason] == close.retry


# -- a gateway -----------------------------------------------------------------------------------------------------


def filled(value: Any, values: dict[str, str]) -> Any:
    """With what only this run knows in the place of ``$name``."""
    if isinstance(value, str):
        return values.get(value, value)
    if isinstance(value, dict):
        return {key: filled(one, values) for key, one in value.items()}
    return [filled(one, values) for one in value] if isinstance(value, list) else value


def part_of(expected: dict[str, Any], frame: dict[str, Any]) -> bool:
    return expected == {name: frame.get(name) for name in expected}


async def test_a_gateway_answers_frames_as_they_say(node: Node, shop: str) -> None:
    alice, bob = node.user(), node.user()
    ids = [node.push(shop, user_id=alice.id)["id"] for _ in range(3)]
    token = alice.token()
    values = {"$id1": ids[0], "$token": token, "$stranger": bob.token()}
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(f"ws{node.url.removeprefix('http')}/ws", additional_headers=headers, proxy=None) as socket:
        answers = ("pong", "ok", "error")

        async def answer() -> dict[str, Any]:
            while True:
                frame: dict[str, Any] = json.loads(await socket.recv())
                if frame["type"] in answers:
                    return frame

        for vector in json.loads((VECTORS / "says.json").read_text(encoding="utf-8"))["cases"]:
            say = filled(vector["say"], values)
            await socket.send(say if isinstance(say, str) else json.dumps(say))
            await socket.send(json.dumps({"type": "ping", "ref": FENCE}))
            expected = [] if vector["answer"] is None else [vector["answer"]]
            heard = list[dict[str, Any]]()
            # What needs the database is answered later than a ping: wait for both.
            while len(heard) < len(expected) + 1:
                heard.append(await asyncio.wait_for(answer(), 10))
            heard.remove({"type": "pong", "ref": FENCE})
            assert len(heard) == len(expected)
            for frame, one in zip(heard, expected, strict=True):
                assert part_of(one, frame), (vector, frame)
                assert ("ref" in frame) == ("ref" in one), (vector, frame)


def test_what_it_answers_covers_its_grammar() -> None:
    said = [vector["say"] for vector in json.loads((VECTORS / "says.json").read_text(encoding="utf-8"))["cases"]]
    parsed = set()
    for say in said:
        try:
            parsed.add(type(frames.parse(say if isinstance(say, str) else json.dumps(say))))
        except frames.FrameError as error:
            parsed.add(error.code)  # type: ignore[arg-type]
    assert parsed == {
        frames.Ack, frames.Read, frames.Renew, frames.Ping, "invalid_json", "invalid_frame", "unknown_type",
    }  # fmt: skip


async def test_a_gateway_opens_as_they_say(node: Node, shop: str) -> None:
    alice = node.user()
    token = alice.token()
    headers = {"Authorization": f"Bearer {token}"}
    ids = [node.push(shop, user_id=alice.id)["id"] for _ in range(5)]
    for id in ids[1:3]:
        node.request("DELETE", f"/notifications/{id}", token=shop, expect=204)
    epoch = node.inbox(token)["epoch"]
    node.request("POST", "/inbox/ack", token=token, json={"seq": 1, "epoch": epoch}, expect=204)
    for vector in json.loads((VECTORS / "openings.json").read_text(encoding="utf-8"))["cases"]:
        asks, says = filled(vector["asks"], {"$epoch": epoch}), filled(vector["says"], {"$epoch": epoch})
        url = httpx2.URL(f"ws{node.url.removeprefix('http')}/ws", params=asks)
        async with connect(str(url), additional_headers=headers, proxy=None) as socket:
            for expected in says:
                frame = json.loads(await asyncio.wait_for(socket.recv(), 10))
                assert part_of(expected, frame), (vector["name"], frame)
            if "closes" in vector:
                await asyncio.wait_for(socket.wait_closed(), 10)
                assert {"code": socket.close_code, "reason": socket.close_reason} == vector["closes"], vector["name"]
            else:
                await socket.send('{"type": "ping"}')
                assert json.loads(await asyncio.wait_for(socket.recv(), 10)) == {"type": "pong"}, "and nothing more"
