"""An answer in one write, or uvicorn's own; which of the two, nobody can tell from the bytes."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.sockets.answer import Answering

HEAD = b"HTTP/1.1 200 OK\r\ndate: today\r\n"


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True


class Spoken:
    """What is written for ``app``, and how often uvicorn was told that the response is complete."""

    def __init__(self, *, method: str = "GET", keep_alive: bool = True) -> None:
        self.wire, self.ended = Wire(), 0
        self.cycle = RequestResponseCycle(
            scope=cast("Any", {"type": "http", "asgi": {"spec_version": "2.4"}, "method": method, "headers": []}),
            transport=self.wire,
            flow=FlowControl(self.wire),
            logger=logging.getLogger("test"),
            access_logger=logging.getLogger("test"),
            access_log=False,
            default_headers=[(b"date", b"today")],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=self._end,
        )

    def _end(self) -> None:
        self.ended += 1

    async def run(self, app: Any) -> list[bytes]:
        await self.cycle.run_asgi(cast("Any", Answering(app, self.cycle)))
        return self.wire.writes


def answering(response: Response) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await response(scope, receive, send)

    return app


async def test_head_and_body_are_one_write() -> None:
    spoken = Spoken()
    assert await spoken.run(answering(Response(b"hello", headers={"x-a": "b"}))) == [
        HEAD + b"x-a: b\r\ncontent-length: 5\r\n\r\nhello"
    ]
    assert spoken.cycle.response_complete
    assert spoken.ended == 1
    assert not spoken.wire.closed


@pytest.mark.parametrize(
    ("method", "keep_alive", "response"),
    [
        ("HEAD", True, Response(b"hello")),
        ("GET", False, Response(b"hello")),
        ("GET", True, Response(b"hello", headers={"connection": "close"})),
        ("GET", True, Response(status_code=204)),
        ("GET", True, Response(status_code=304)),
        ("GET", True, StreamingResponse(iter([b"a", b"b"]))),
    ],
    ids=["HEAD", "last request", "connection: close", "204", "304", "pieces"],
)
async def test_what_is_not_plain_is_written_as_uvicorn_does(method: str, keep_alive: bool, response: Response) -> None:
    ours, theirs = Spoken(method=method, keep_alive=keep_alive), Spoken(method=method, keep_alive=keep_alive)
    again = StreamingResponse(iter([b"a", b"b"])) if isinstance(response, StreamingResponse) else response
    await ours.run(answering(response))
    await theirs.cycle.run_asgi(answering(again))
    assert ours.wire.writes == theirs.wire.writes
    assert (ours.wire.closed, ours.ended) == (theirs.wire.closed, theirs.ended)


@pytest.mark.parametrize("value", [b"a\r\nx-b: c", b"a\nb", b"a\rb", b"a\0b", b"a\x1bb", b"a\x7fb"])
async def test_a_field_that_would_be_two_is_not_written(value: bytes) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", value)]})
        await send({"type": "http.response.body", "body": b""})

    spoken = Spoken()
    assert await spoken.run(app) == []
    assert spoken.wire.closed


@pytest.mark.parametrize("length", [b"4", b"6", b"05"])
async def test_a_length_that_is_not_the_bodys_is_uvicorns_to_judge(length: bytes) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": b"hello"})

    spoken = Spoken()
    await spoken.run(app)
    assert spoken.wire.closed is (length != b"05")


async def test_an_application_that_breaks_off_after_the_head_has_answered_500() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError

    spoken = Spoken()
    written = b"".join(await spoken.run(app))
    assert written.startswith(b"HTTP/1.1 500 ")
    assert b"200" not in written


async def test_nothing_is_written_to_a_peer_that_left() -> None:
    spoken = Spoken()
    spoken.cycle.disconnected = True
    assert await spoken.run(answering(Response(b"hello"))) == []


async def test_a_peer_that_does_not_read_is_waited_for() -> None:
    spoken = Spoken()
    spoken.cycle.flow.pause_writing()
    running = asyncio.ensure_future(spoken.run(answering(Response(b"hello"))))
    await asyncio.wait([running], timeout=0)
    assert spoken.wire.writes == []
    spoken.cycle.flow.resume_writing()
    assert b"".join(await running).endswith(b"\r\n\r\nhello")


async def test_a_body_that_comes_twice_is_refused() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        whole: list[Message] = [
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]},
            {"type": "http.response.body", "body": b"a"},
        ]
        for message in [*whole, whole[1]]:
            await send(message)

    spoken = Spoken()
    assert await spoken.run(app) == [HEAD + b"content-length: 1\r\n\r\na"]
    assert spoken.wire.closed
