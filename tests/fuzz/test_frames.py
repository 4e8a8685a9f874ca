"""Mutated frames against a real gateway, many sockets at once: nothing fails inside, grows, hangs, or disturbs others.

A failure names the seed, and the last frame in hex (all of them in a file): ``FUZZ_SEED=… make fuzz`` draws the same
again, though what meets what on the way is another each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import struct
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mutating import Mutator
from rawpeer import CLOSE, KEY, PING, PONG, TEXT, frame, head
from wire import Node, Socket, eventually_async, running

FRAMES = int(os.environ.get("FUZZ_FRAMES") or 2000)
BATCH = 1000
SOCKETS = 40
GROWTH = 16 << 20
"""Bytes the process may grow by after the first batch, however many follow."""
HANG = 30.0
"""Seconds in which a socket whose client has said all has to end."""

SAID = {"hello", "notification", "gap", "read", "withdrawn", "changed", "reconnect", "pong", "ok", "error"}
OURS = {
    (1002, "protocol_error"), (1003, "binary_frame"), (1007, "invalid_text"), (1009, "message_too_big"),
    (1008, "rate_limited"), (1008, "token_expired"),
}  # fmt: skip

OVERLOADED = (1013, "overloaded")
"""Before hello: the machine gave the gateway no time for a second. One in a thousand sockets may hear it."""


class Found(Exception):
    """What went wrong on a socket: what the gateway had said there, and the mutants sent before, the latest last."""

    def __str__(self) -> str:
        error, said, mutants = self.args
        return f"{error}\nit had said: {said[-200:].hex()}\nthe last mutant: {mutants[-1][:2000].hex()}"


@dataclass
class Tried:
    """What became of the sockets, and how many mutants they carried."""

    mutants: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)


@dataclass
class Script:
    """What one socket will say: mutants of the JSON kind with sane frames between, then one broken in its bytes."""

    writes: list[bytes]
    mutants: list[bytes]
    resets: bool

    @classmethod
    def drawn(cls, mutator: Mutator, rng: random.Random) -> Script:
        mutants = [frame(TEXT, mutator.text()) for _ in range(rng.randrange(10))]
        said = [one if rng.random() < 0.8 else frame(PING, b"p") + one for one in mutants]
        mutants.append(mutator.broken())
        writes = [piece for one in [*said, mutants[-1]] for piece in mutator.pieces(one)]
        return cls(writes, mutants, rng.random() < 0.05)


def judge(said: bytes) -> tuple[str, Counter[str]]:
    """How the gateway ended it, and the codes of its ``error`` frames. AssertionError for what it may never say."""
    errors: Counter[str] = Counter()
    end, at = "hung up", 0
    while at + 2 <= len(said):
        assert end == "hung up", "something follows the close frame"
        first, size, skip = said[at], said[at + 1], 2
        assert first & 0xF0 == 0x80, "a server's frame is whole and has no reserved bits"
        assert size < 128, "a server's frame is not masked"
        if size >= 126:
            form, width = ("!H", 2) if size == 126 else ("!Q", 8)
            size, skip = struct.unpack_from(form, said, at + 2)[0], 2 + width
        payload = said[at + skip : at + skip + size]
        assert len(payload) == size, "a frame cut short"
        opcode = first & 0x0F
        if opcode == TEXT:
            told = json.loads(payload)
            assert told["type"] in SAID, told
            if told["type"] == "error":
                errors[told["code"]] += 1
        elif opcode == CLOSE:
            end = closing(payload)
        else:
            assert opcode in (PING, PONG), opcode
        at += skip + size
    assert at == len(said), "half a frame head"
    return end, errors


def closing(payload: bytes) -> str:
    """One of ours, or the echo of what the mutant has become."""
    if not payload:
        return "echo"
    code, reason = struct.unpack_from("!H", payload)[0], payload[2:].decode()
    if (code, reason) in OURS or (code, reason) == OVERLOADED:
        return f"{code} {reason}"
    assert reason != "internal_error", "1011: the gateway failed inside"
    assert 1000 <= code < 5000, (code, reason)
    assert code not in (1004, 1005, 1006, 1012, 1013, 1015), (code, reason)
    return "echo"


async def converse(port: int, upgrade: bytes, script: Script, tried: Tried) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    said = b""
    try:
        writer.write(upgrade)
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HANG)
        assert answer.startswith(b"HTTP/1.1 101"), answer[:100]
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for piece in script.writes:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if script.resets:
                writer.transport.abort()
                tried.ends["we reset it"] += 1
                return
            with contextlib.suppress(OSError):  # ENOTCONN: it has reset who would not stop
                writer.write_eof()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # it has hung up on who would not stop
            async with asyncio.timeout(HANG):
                while data := await reader.read(1 << 20):
                    said += data
        end, errors = judge(said)
        tried.ends[end] += 1
        tried.errors += errors
    except (AssertionError, TimeoutError, ValueError, KeyError, OSError) as error:
        raise Found(repr(error), said, script.mutants) from error
    finally:
        tried.mutants += len(script.mutants)
        writer.close()


async def batch(node: Node, upgrades: list[bytes], scripts: Iterator[Script], tried: Tried) -> None:
    """As many mutants as a batch has, from SOCKETS sockets at a time."""
    enough = tried.mutants + BATCH

    async def work(upgrade: bytes) -> None:
        while tried.mutants < enough:
            await converse(node.port, upgrade, next(scripts), tried)

    async with asyncio.TaskGroup() as group:
        for number in range(SOCKETS):
            group.create_task(work(upgrades[number % len(upgrades)]))


def complaints(log: Path, start: int) -> list[str]:
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    return [line for line in lines if "Traceback" in line or '"level": "error"' in line or "never retrieved" in line]


async def test_whatever_frames_a_client_sends_the_gateway_lives_and_others_hear_everything_in_order(
    tmp_path: Path, seed: int, request: pytest.FixtureRequest
) -> None:
    rng, tried, began = random.Random(seed), Tried(), time.monotonic()
    with running(tmp_path, log_level="info", connections_per_user=1000, upgrade_rate=0) as node:
        users = [node.user() for _ in range(4)]
        tokens = [user.token() for user in users]
        witness, shop = node.user(), node.client_token()
        watching = await node.open(witness.token())
        idle = node.open_files()
        # A good one moves the deadline of one of them, and is of another session to the rest.
        mutator = Mutator(rng, [*tokens, users[0].token(), "eyJ.eyJ.x", "", tokens[0][:-4] + "AAAA"])
        upgrades = [head(f"/ws?token={token}", f"Sec-WebSocket-Key: {KEY}") for token in tokens]
        scripts = iter(lambda: Script.drawn(mutator, rng), None)
        before = read = pushed = 0
        while tried.mutants < FRAMES:
            try:
                await batch(node, upgrades, scripts, tried)
            except* Found as found:
                first = found.exceptions[0]
                frames = tmp_path / "mutants.hex"
                frames.write_text("\n".join(one.hex() for one in first.args[2]))
                pytest.fail(f"FUZZ_SEED={seed}, all mutants of the socket are in {frames}: {first}")
            assert node.process is not None
            assert node.process.poll() is None, f"FUZZ_SEED={seed}: the gateway has ended"
            assert node.request("GET", "/healthz").status_code == 200
            assert complaints(node.log, read) == [], f"FUZZ_SEED={seed}, after {tried.mutants} mutants"
            read = node.log.stat().st_size
            pushed += 1
            await asyncio.to_thread(node.push, shop, user_id=witness.id)
            assert await heard(watching) == pushed
            await eventually_async(
                lambda: node.open_files() <= idle + 2, what=f"FUZZ_SEED={seed}: descriptors are back"
            )
            before = before or node.resident()  # the first batch is what the allocator takes once
            grown = node.resident() - before
            assert grown < GROWTH, f"FUZZ_SEED={seed}: grown by {grown} bytes after {tried.mutants} mutants"
        await watching.close()
    counts = {**dict(tried.ends.most_common()), **dict(tried.errors.most_common())}
    request.node.user_properties.append(
        ("row", f"{tried.mutants} mutants in {time.monotonic() - began:.0f} s, grown by {grown >> 10} KiB: {counts}")
    )
    assert {
        "1002 protocol_error",
        "1007 invalid_text",
        "1009 message_too_big",
        "1003 binary_frame",
    } <= tried.ends.keys()
    assert tried.ends[f"{OVERLOADED[0]} {OVERLOADED[1]}"] <= tried.ends.total() / 1000
    assert {"invalid_json", "invalid_frame", "unknown_type"} <= tried.errors.keys(), "the mutants were too tame"


async def heard(watching: Socket) -> int:
    return int((await watching.next("notification"))["seq"])
