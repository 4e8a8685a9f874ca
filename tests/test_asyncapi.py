"""``docs/protocol/asyncapi.yaml`` says of the wire what the code says, and all of it. Opens no socket."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml  # type: ignore[import-untyped]
from fakes import MemoryLog, Wire, make_ties, principal
from hypothesis import given
from hypothesis import strategies as st

from gateway import closing, cookies, frames
from gateway.client.rules import retry_after_close
from gateway.connection import Connection
from gateway.model import Entry, MarkedRead, Passing, Withdrawn
from gateway.sockets import wire
from gateway.sockets.asking import last_event

DOCS = Path(__file__).parent.parent / "docs"
DOCUMENT = yaml.safe_load((DOCS / "protocol" / "asyncapi.yaml").read_text(encoding="utf-8"))
CHANNELS, MESSAGES = DOCUMENT["channels"], DOCUMENT["components"]["messages"]
EPOCH = "2c26b46b68ffc68ff99b453c1d304134"
CONTENT = frames.content(title="Order shipped", body="", data=b'{"order":1}', category=None, priority="high")


def at(pointer: str) -> Any:
    found: Any = DOCUMENT
    for step in pointer.removeprefix("#/").split("/"):
        found = found[step]
    return found


def deref(node: Any) -> Any:
    while isinstance(node, dict) and "$ref" in node:
        node = at(node["$ref"])
    return node


@cache
def validator(name: str) -> Any:
    """Of ``components/schemas/<name>``; AsyncAPI schemas are those of JSON Schema draft 7."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return jsonschema_rs.Draft7Validator(schema, validate_formats=True)


def schema_of(message: Mapping[str, Any], part: str) -> str:
    return str(message[part]["$ref"].rpartition("/")[2])


def said_by(operation: str) -> dict[str, str]:
    """Message names of an operation (and of its reply), by the name of their schema."""
    described = DOCUMENT["operations"][operation]
    listed = [*described["messages"], *described.get("reply", {}).get("messages", [])]
    return {schema_of(deref(item), "payload"): item["$ref"].rpartition("/")[2] for item in listed}


# -- the document by itself ----------------------------------------------------------------------------------------


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


def test_every_reference_leads_somewhere_and_nothing_is_left_over() -> None:
    references = {node["$ref"] for node in walk(DOCUMENT) if "$ref" in node}
    for reference in references:
        assert at(reference), reference
    for kind in ("messages", "schemas", "securitySchemes"):
        unused = {f"#/components/{kind}/{name}" for name in DOCUMENT["components"][kind]} - references
        assert unused == set()
    for channel, described in CHANNELS.items():
        used = {reference for reference in references if reference.startswith(f"#/channels/{channel}/messages/")}
        assert {reference.rpartition("/")[2] for reference in used} == set(described["messages"])


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_has_examples_that_are_valid(name: str) -> None:
    message = MESSAGES[name]
    assert message["examples"]
    for case in message["examples"]:
        validator(schema_of(message, "payload")).validate(case["payload"])
        assert case["payload"]["type"] == message.get("name", name)
        if "headers" in message:
            validator(schema_of(message, "headers")).validate(case["headers"])
            assert case["headers"]["event"] == case["payload"]["type"]


# -- what the gateway says -----------------------------------------------------------------------------------------


def greeting() -> frames.Frame:
    """As a connection says it."""
    taken = Wire()

    async def connect() -> None:
        connection = Connection(principal(), ties=make_ties(MemoryLog("ada")), address=None, after=None)
        connection.attach(taken)
        connection.start()
        for _ in range(30):
            await asyncio.sleep(0)  # noqa: TID251 - lets the loop turn, waits for no time
        connection.lost(closing.PEER_GONE)

    asyncio.run(connect())
    return frames.hello({name: value for name, value in taken.frames[0].items() if name != "type"})


NOW = 1_700_000_000_000
ENTRY = Entry(7, "n-7", CONTENT, NOW, NOW + 1000)
SAMPLES: dict[Callable[..., frames.Frame], list[Callable[[], frames.Frame]]] = {
    frames.hello: [greeting],
    frames.notification: [
        lambda: frames.notification(ENTRY),
        lambda: frames.notification(Entry(8, "n-8", CONTENT, NOW, NOW + 1000, read_at=NOW + 1)),
    ],
    frames.passing: [lambda: frames.passing(Passing(None, "n-9", CONTENT, NOW))],
    frames.gap: [lambda: frames.gap(9, 12)],
    frames.read: [
        lambda: frames.read(MarkedRead("42", rev=3, unread=2, ids=("n-7",))),
        lambda: frames.read(MarkedRead("42", rev=4, unread=0, up_to=12)),
    ],
    frames.withdrawn: [lambda: frames.withdrawn(Withdrawn("42", rev=5, unread=1, id="n-7", seq=7))],
    frames.changed: [lambda: frames.changed(rev=9, unread=4)],
    frames.reconnect: [
        lambda: frames.reconnect(after_ms=5, reason=closing.DRAINING.reason),
        lambda: frames.reconnect(after_ms=5000, reason=closing.DRAINING.reason),
    ],
    frames.pong: [lambda: frames.pong(None), lambda: frames.pong(7)],
    frames.ok: [lambda: frames.ok("a"), lambda: frames.ok(8, token_expires_at="2026-11-20T17:57:03.000Z")],
    frames.error: [lambda: frames.error("invalid_json", "No.", None), lambda: frames.error("invalid_frame", "No.", 7)],
    frames.heartbeat: [frames.heartbeat],
    frames.close: [
        *(lambda close=close: wire.close_event(close) for close in closing.ALL if wire.travels(close.code)),
    ],
}


@cache
def rendered() -> dict[str, list[frames.Frame]]:
    """One of every shape of frame the code can render, by the name of its schema."""
    found: dict[str, list[frames.Frame]] = {}
    for make in SAMPLES.values():
        for sample in make:
            frame = sample()
            found.setdefault(frame.event, []).append(frame)
    return found


def test_every_renderer_has_a_sample() -> None:
    public = {
        function
        for name, function in vars(frames).items()
        if inspect.isfunction(function) and not name.startswith("_") and name != "together"  # joins what was rendered
    }
    public = {function for function in public if function.__annotations__.get("return") == "Frame"}
    assert public == set(SAMPLES)


def test_the_document_describes_the_frames_the_gateway_renders_and_no_others() -> None:
    made = set(rendered())
    assert set(said_by("tellStream")) == made - {"pong", "ok", "error"}
    answers = {schema_of(deref(item), "payload") for item in DOCUMENT["operations"]["hear"]["reply"]["messages"]}
    assert answers == {"pong", "ok", "error"}
    assert set(said_by("tell")) | answers == made - {"heartbeat", "close"}
    assert {schema_of(deref(item), "payload") for item in CHANNELS["socket"]["messages"].values()} == (
        (made - {"heartbeat", "close"}) | {"ack", "markRead", "token", "ping"}
    )


@pytest.mark.parametrize("name", sorted(rendered()))
def test_its_schema_has_their_fields_and_requires_those_they_always_have(name: str) -> None:
    said = [json.loads(frame.json) for frame in rendered()[name]]
    schema = at(f"#/components/schemas/{name}")
    for one in said:
        validator(name).validate(one)
    assert set(schema["properties"]) == set().union(*said)
    assert set(schema["required"]) == set.intersection(*map(set, said))
    for field in schema["required"]:
        assert not validator(name).is_valid({key: value for key, value in said[0].items() if key != field}), field


def fields_of(event: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """An event as rendered: its fields beside the data, and its data (HTML, section 9.2.6)."""
    lines = event.decode().removesuffix("\n\n").split("\n")
    fields = dict(line.split(": ", 1) for line in lines)
    data = json.loads(fields.pop("data"))
    return {**fields, **({"retry": int(fields["retry"])} if "retry" in fields else {})}, data


def test_events_have_the_fields_their_messages_describe() -> None:
    described: dict[str, list[str]] = {}
    for item in map(deref, CHANNELS["stream"]["messages"].values()):
        described.setdefault(schema_of(item, "payload"), []).append(schema_of(item, "headers"))
    for name, heads in described.items():
        for frame in rendered()[name]:
            fields, data = fields_of(frame.sse(EPOCH))
            assert fields["event"] == data["type"] == name
            fitting = [head for head in heads if validator(head).is_valid(fields)]
            assert fitting == ["positionedEvent" if frame.position is not None else "event"], fields
            assert set(fields) <= set(at(f"#/components/schemas/{fitting[0]}")["properties"])
            if frame.position is not None:
                assert last_event([(b"last-event-id", fields["id"].encode())]) == (frame.position, EPOCH)


def test_the_codes_of_errors_are_those_of_the_paper() -> None:
    paper = (DOCS / "protocol.md").read_text(encoding="utf-8")
    paragraph = paper[paper.index("`error` codes:") :].partition("\n\n")[0]
    named = re.findall(r"`([a-z_]+)`", paragraph.removeprefix("`error` codes:"))
    assert {name for name in named if name not in ("read", "token")} == set(
        at("#/components/schemas/error/properties/code/examples")
    )


# -- what a client says --------------------------------------------------------------------------------------------

SPOKEN = {"ack": "ack", "read": "markRead", "token": "token", "ping": "ping"}
_NUMBERS = st.sampled_from([-1, 0, 1, 7, frames.MAX_SEQ, frames.MAX_SEQ + 1, True, 1.5])
_TEXTS = st.sampled_from(["", "a", "x" * frames.MAX_REF, "x" * (frames.MAX_REF + 1), "ü" * frames.MAX_REF])
_LISTS = st.sampled_from([[], ["a"], ["a", 1], ["a"] * frames.MAX_IDS, ["a"] * (frames.MAX_IDS + 1)])
_ANY = st.one_of(_NUMBERS, _TEXTS, _LISTS, st.just({}))
FRAMES = st.fixed_dictionaries(
    {"type": st.sampled_from([*SPOKEN, "hello", "", 7])},
    optional={
        "seq": _ANY, "ids": _ANY, "up_to": _ANY, "token": _ANY, "ref": _ANY, "new": _ANY,
    },
)  # fmt: skip


def test_the_types_a_client_may_say_are_the_same() -> None:
    listed = [schema_of(deref(item), "payload") for item in DOCUMENT["operations"]["hear"]["messages"]]
    assert listed == list(SPOKEN.values())
    with pytest.raises(frames.FrameError) as caught:
        frames.parse('{"type": "x"}')
    assert caught.value.code == "unknown_type"
    assert str(caught.value) == f"The type is one of {', '.join(SPOKEN)}."


REFS: list[object] = [-1, 0, frames.MAX_SEQ + 1, 1.5, "", "ü" * 128, "x" * 129, {}, []]
EDGES: list[dict[str, Any]] = [
    *({"type": "ack", "seq": seq} for seq in (-1, 0, frames.MAX_SEQ, frames.MAX_SEQ + 1, True, "1")),
    *({"type": "read", "up_to": up_to} for up_to in (-1, 0, frames.MAX_SEQ, frames.MAX_SEQ + 1)),
    *({"type": "read", "ids": ids} for ids in ([], ["a"], ["a", 1], ["a"] * frames.MAX_IDS, ["a"] * 101, "a")),
    *({"type": "ping", "ref": ref} for ref in REFS),
    *({"type": "token", "token": token} for token in ("", "a", 7)),
    {"type": "read", "ids": ["a"], "up_to": 1},
    *({"type": kind} for kind in SPOKEN),
]


@pytest.mark.parametrize("frame", EDGES, ids=lambda frame: json.dumps(frame)[:40])
def test_what_the_document_allows_is_parsed_at_every_edge(frame: dict[str, Any]) -> None:
    same(frame)


@given(FRAMES)
def test_what_the_document_allows_is_parsed_and_nothing_else(frame: dict[str, Any]) -> None:
    same(frame)


def same(frame: dict[str, Any]) -> None:
    try:
        frames.parse(json.dumps(frame))
        parsed = True
    except frames.FrameError:
        parsed = False
    name = SPOKEN.get(frame["type"]) if isinstance(frame["type"], str) else None
    assert parsed == (name is not None and validator(name).is_valid(frame)), frame


# -- the opening and the end ---------------------------------------------------------------------------------------


def test_the_cookie_has_its_name() -> None:
    assert DOCUMENT["components"]["securitySchemes"]["cookie"]["name"] == cookies.ACCESS


def test_the_closes_are_those_of_the_table() -> None:
    for channel in CHANNELS.values():
        assert [(row["code"], row["reason"], row["client"]) for row in channel["x-closes"]["known"]] == [
            (close.code, close.reason, close.retry) for close in closing.ALL if wire.travels(close.code)
        ]
        for code in range(1000, 5000):
            expected = channel["x-closes"]["unknown"].get(code, "backoff")
            assert retry_after_close(code, "a_slug_of_tomorrow") == expected, code
