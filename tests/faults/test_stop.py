"""P3, P4, N3, N5, N7: the process is stopped, continued, told to go, flooded with resets, slowness and nonsense.

No healthy client is dropped for a pause, nobody revoked meanwhile hears anything more, a shutdown is bounded and leaves
no request half done, and whatever a peer sends, it hears a close code that names its own fault and never ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import struct
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx2
from faulty import FastNode, Row, all_done, examine, flood, reset
from rawpeer import CLOSE, CONT, KEY, PING, PONG, TEXT, Raw, frame, head
from websockets.exceptions import ConnectionClosed
from wire import Socket, claims_of, eventually, eventually_async

# -- P3: a pause -------------------------------------------------------------------------------------------------


BACKLOG = 300
HELD = 60
"""Of a backlog of 4 KB each, how many the kernel and the transport may hold between them for one that does not read."""


async def test_P3_after_a_pause_nobody_healthy_is_dropped_and_who_was_revoked_meanwhile_hears_nothing_more(
    launch: Callable[..., FastNode], row: Row
) -> None:
    node = launch(heartbeat=2, connections_per_user=100, log_level="info")
    assert node.process is not None
    shop, user, laden = node.client_token(), node.user(), node.user()
    revoked, kept = user.token(), user.token()
    victims = [await node.open(revoked) for _ in range(5)]
    healthy = [await node.open(kept) for _ in range(50)]
    # Two that do not read, with a backlog before them: one to be revoked, one not.
    backlogs = [laden.token(), laden.token()]
    lost, spared = (node.upgrade(token, receive_buffer=4096) for token in backlogs)
    flood(node, shop, laden.id, BACKLOG)
    await eventually_async(lambda: sum(one["behind"] for one in node.everybody()) == 2, what="two are behind")
    heard: list[dict[str, Any]] = []

    async def listen(socket: Socket) -> tuple[int, str]:
        with contextlib.suppress(ConnectionClosed):
            while True:
                heard.append(await socket.receive(within=60))
        return await socket.closed()

    def read_on(raw: Raw) -> list[dict[str, Any]]:
        """All texts until the end, or the last of the backlog."""
        texts: list[dict[str, Any]] = []
        with contextlib.suppress(AssertionError):  # the stream ended
            while not texts or texts[-1].get("seq") != BACKLOG:
                opcode, payload = raw.next()
                if opcode == TEXT:
                    texts.append(json.loads(payload))
        return texts

    listening = [asyncio.create_task(listen(victim)) for victim in victims]
    pushing = Raw(node.port)
    request = _post(shop, user_id=user.id, title="while it stood still")
    passing = [Raw(node.port) for _ in range(8)]  # stored nowhere: between these and a socket no database stands
    node.process.send_signal(signal.SIGSTOP)
    try:
        stopped = time.monotonic()
        row.faults = 1
        # All this waits in the kernel when the process goes on, and comes before any news of revocations.
        await asyncio.to_thread(pushing.send, request)
        for raw in passing:
            await asyncio.to_thread(raw.send, _post(shop, user_id=user.id, title="in passing", ttl=0))
        reading = [asyncio.create_task(asyncio.to_thread(read_on, raw)) for raw in (lost, spared)]
        for token in (revoked, backlogs[0]):
            code, _, err = await asyncio.to_thread(node.command, "revoke", "--session", claims_of(token)["sid"])
            assert code == 0, err
        await eventually_async(lambda: time.monotonic() - stopped > 3, what="three seconds")
    finally:
        node.process.send_signal(signal.SIGCONT)
    went_on = time.monotonic()
    closed = await asyncio.gather(*listening)
    row.also["revoked_gone_after"] = round(time.monotonic() - went_on, 2)
    assert set(closed) == {(1008, "token_revoked")}
    assert heard == [], "a revoked session was sent something"
    assert time.monotonic() - went_on < 1.0
    nothing_more, everything = await asyncio.gather(*reading)
    row.also["held_for_the_revoked"] = len(nothing_more)
    assert len(nothing_more) < HELD, "its inbox was read for a revoked session"
    assert [one["seq"] for one in everything[1:]] == list(range(1, BACKLOG + 1))
    # What came first found a node that had no news for three seconds: it says so, or has them by then (contract 8).
    status, fields = await asyncio.to_thread(pushing.response)
    assert (status, "retry-after" in fields) in ((201, False), (503, True))
    if status == 503:
        node.push(shop, user_id=user.id, title="while it stood still")
    row.attempted = row.ok = 1 + BACKLOG
    row.received = len(everything) - 1
    for socket in healthy:
        while (frame := await socket.next("notification"))["seq"] is None:
            assert frame["title"] == "in passing"
        assert frame["title"] == "while it stood still"
        row.received += 1
    # The ticks after a pause may drop nobody either: two whole heartbeats later all are still there.
    later = time.monotonic() + 4.5
    await eventually_async(lambda: time.monotonic() > later, what="two heartbeats")
    assert len([one for one in node.everybody() if one["user_id"] == user.id]) == len(healthy)
    for socket in healthy:
        await socket.quiet()
        await socket.close()
    assert await node.refusal(revoked) == (1008, "token_revoked")
    for raw in (pushing, *passing, lost, spared):
        raw.shut()
    row.judge()
    assert node.complaints() == []


def _post(token: str, **members: object) -> bytes:
    """A push as it goes over the wire."""
    body = json.dumps(members).encode()
    return (
        f"POST /notifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


# -- P4: told to go ----------------------------------------------------------------------------------------------


class Answers:
    """POSTs, each on a connection of its own, and how each ended."""

    def __init__(self, node: FastNode, token: str, user: str) -> None:
        self.node, self.token, self.user = node, token, user
        self.kinds: Counter[str] = Counter()
        self.ids: list[str] = []
        self.halves: list[bytes] = []

    async def produce(self) -> None:
        while True:
            kind = await self.post()
            self.kinds[kind] += 1
            if kind == "refused":
                return

    async def post(self) -> str:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.node.port)
        except OSError:
            return "refused"
        body = json.dumps({"user_id": self.user, "title": "t"}).encode()
        writer.write(
            f"POST /notifications HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        answer = b""
        with contextlib.suppress(OSError):
            answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        top, _, rest = answer.partition(b"\r\n\r\n")
        if not answer:
            return "silence"
        try:
            members = json.loads(rest)
        except ValueError:
            self.halves.append(answer)
            return "half"
        status = top.split(b" ")[1].decode()
        if status == "201":
            self.ids.append(members["id"])
        return status


async def test_P4_a_shutdown_is_bounded_moves_the_healthy_with_1012_and_leaves_no_request_half_done(
    launch: Callable[..., FastNode], row: Row
) -> None:
    grace = 4
    node = launch(connections_per_user=300, drain_grace=grace, log_level="info")
    shop, user, stuck = node.client_token(), node.user(), node.user()
    token, stuck_token = user.token(), stuck.token()
    stalled = [node.upgrade(stuck_token, receive_buffer=4096) for _ in range(10)]
    flood(node, shop, stuck.id, 150)
    eventually(lambda: sum(one["behind"] for one in node.everybody()) == 10, what="ten stalled readers")
    sockets = [await node.open(token) for _ in range(190)]
    seen: list[list[dict[str, Any]]] = [[] for _ in sockets]

    async def listen(at: int) -> tuple[int, str]:
        with contextlib.suppress(ConnectionClosed):
            while True:
                seen[at].append(await sockets[at].receive(within=60))
        return await sockets[at].closed()

    listening = [asyncio.create_task(listen(at)) for at in range(len(sockets))]
    answers = Answers(node, shop, user.id)
    producers = [asyncio.create_task(answers.produce()) for _ in range(4)]
    await eventually_async(lambda: len(answers.ids) > 20, what="load")
    began = time.monotonic()
    os.kill(node.pid, signal.SIGTERM)
    row.faults = 1
    closed = await asyncio.gather(*listening)
    await all_done(*producers)
    assert await asyncio.to_thread(node.stop, within=20) == 0
    took = time.monotonic() - began
    for raw in stalled:
        raw.shut()
    assert Counter(closed) == {(1012, "draining"): 190}
    # Within the grace, and the moment that the slowest goodbye and the closing of the database take on a busy machine.
    assert took < grace + 2, took
    for frames in seen:
        (reconnect,) = [one for one in frames if one["type"] == "reconnect"]
        assert reconnect["reason"] == "draining"
        assert reconnect["after_ms"] > 0
        seqs = [one["seq"] for one in frames if one["type"] == "notification"]
        assert seqs == list(range(1, len(seqs) + 1))
    spread = {one["after_ms"] for frames in seen for one in frames if one["type"] == "reconnect"}
    assert len(spread) > 50, "they would all come back at once"
    assert answers.halves == []
    row.attempted, row.ok = sum(answers.kinds.values()), len(answers.ids)
    row.also = {"seconds": round(took, 2), **answers.kinds}
    # Silence is for those that the kernel had let in and nobody had read yet, when the listening ended.
    assert answers.kinds.keys() <= {"201", "503", "refused", "silence"}, answers.kinds
    assert answers.kinds["silence"] <= len(producers)
    assert answers.kinds["201"] == row.ok
    examine(node.database)
    node.start()
    listed: list[str] = []
    at: int | None = 0
    while at is not None:
        page = node.request("GET", f"/inbox?after={at}&limit=200", token=token, expect=200).json()
        listed += [item["id"] for item in page["items"]]
        at = page["next"]
    row.received, row.lost = len(listed), len(set(answers.ids) - set(listed))
    assert set(listed) == set(answers.ids), "stored, and its sender was told nothing"
    row.judge()
    assert node.complaints() == []


# -- N3, N5: storms ------------------------------------------------------------------------------------------------


async def test_N3_three_hundred_resets_in_a_second_leave_no_descriptor_and_no_traceback(
    launch: Callable[..., FastNode], row: Row
) -> None:
    node = launch(connections_per_user=1000, log_level="info")
    shop, user, bystander = node.client_token(), node.user(), node.user()
    token = user.token()
    beside = await node.open(bystander.token())
    node.request("GET", "/healthz", expect=200)
    idle = node.open_files()
    peers = [await asyncio.to_thread(node.upgrade, token) for _ in range(300)]
    assert node.open_files() >= idle + 290  # an idle connection of ours may have gone meanwhile
    stop = asyncio.Event()

    async def push() -> None:
        async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
            while not stop.is_set():
                for target in (user, bystander):
                    reply = await http.post(
                        f"{node.url}/notifications", json={"user_id": target.id, "title": "t"},
                        headers={"Authorization": f"Bearer {shop}"},
                    )  # fmt: skip
                    assert reply.status_code == 201
                row.ok += 2

    pushing = asyncio.create_task(push())
    await eventually_async(lambda: row.ok > 10, what="load")
    row.rng.shuffle(peers)
    for at, peer in enumerate(peers):
        reset(peer.sock)  # half of them with frames of ours unread, some with one of theirs on its way
        row.faults += 1
        if at % 20 == 0:
            await asyncio.sleep(0.01)
    # And a hundred that reset in the middle of the handshake.
    for _ in range(100):
        peer = Raw(node.port)
        whole = head(f"/ws?token={token}")
        peer.send(whole[: row.rng.randrange(len(whole) + 1)])
        reset(peer.sock)
        row.faults += 1
    enough = row.ok + 10
    await eventually_async(lambda: row.ok > enough, what="load goes on")
    stop.set()
    await all_done(pushing)
    row.attempted = row.ok
    await eventually_async(lambda: node.open_files() <= idle + 1, what="the descriptors are back")
    got = await beside.notifications(row.ok // 2)
    assert [one["seq"] for one in got] == list(range(1, row.ok // 2 + 1))
    row.received = len(got)
    await eventually_async(lambda: [one["user_id"] for one in node.everybody()] == [bystander.id], what="all gone")
    await beside.close()
    row.judge()
    assert node.complaints() == []


async def test_N5_connections_that_dawdle_are_dropped_and_health_is_answered_throughout(
    launch: Callable[..., FastNode], row: Row
) -> None:
    node = launch(log_level="info")
    user = node.user()
    listener = await node.open(user.token())
    idle = node.sockets()
    request = head(f"/ws?token={user.token()}")
    ways: dict[str, tuple[bytes, bytes]] = {
        "silent": (b"", b""),
        "head, byte by byte": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"X"),
        "fields without end": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"X-%d: y\r\n"),
        "handshake cut short": (request[:-2], b""),
        "handshake, byte by byte": (request[:40], b"a"),
        "request line only": (b"POST /auth/login", b"x"),
    }
    began = time.monotonic()
    dropped: dict[str, list[float]] = {name: [] for name in ways}

    async def dawdle(name: str) -> None:
        first, drip = ways[name]
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(first)
        row.faults += 1

        async def drop_by_drop() -> None:
            for number in range(60):
                writer.write(drip.replace(b"%d", str(number).encode()))
                await asyncio.sleep(0.5)

        dripping = asyncio.create_task(drop_by_drop())
        with contextlib.suppress(OSError):
            await reader.read()
        dropped[name].append(time.monotonic() - began)
        dripping.cancel()
        writer.close()

    slow = [asyncio.create_task(dawdle(name)) for name in ways for _ in range(8)]
    worst = 0.0
    async with httpx2.AsyncClient(timeout=10, trust_env=False) as http:
        while not all(task.done() for task in slow):
            assert time.monotonic() - began < 20, {name: len(times) for name, times in dropped.items()}
            asked = time.monotonic()
            for path in ("/healthz", "/readyz"):
                row.attempted += 1
                row.ok += (await http.get(node.url + path)).status_code == 200
            worst = max(worst, time.monotonic() - asked)
            await asyncio.sleep(0.1)
    await asyncio.gather(*slow)
    assert row.ok == row.attempted
    assert worst < 2.0
    latest = {name: round(max(times), 1) for name, times in dropped.items()}
    assert all(time <= 10 + 2.5 for time in latest.values()), latest
    row.also = {"latest": max(latest.values()), "slowest_health": round(worst, 3)}
    await listener.quiet()
    await listener.close()
    await eventually_async(lambda: node.sockets() <= idle, what="the descriptors are back")
    row.judge()
    assert node.complaints() == []


# -- N7: nonsense --------------------------------------------------------------------------------------------------

FRAMES = 2000


def sane(rng: random.Random) -> bytes:
    """A frame, or a few, as a client might send them."""
    texts = (
        {"type": "ack", "seq": rng.randrange(5)},
        {"type": "ping", "ref": "r"},
        {"type": "read", "up_to": 1},
        {"type": "read", "ids": ["x"]},
        {"type": "token", "token": "eyJ.eyJ.x"},
        {"type": "ünknown", "ref": 1},
    )
    text = json.dumps(rng.choice(texts), ensure_ascii=False).encode()
    return rng.choice(
        (
            frame(TEXT, text),
            frame(TEXT, text[:5], fin=False) + frame(PING, b"in between") + frame(CONT, text[5:]),
            frame(PING, b"p" * rng.randrange(125)),
            frame(PONG),
            frame(CLOSE, struct.pack("!H", 1000) + b"bye"),
            frame(TEXT, text + b" " * rng.randrange(20_000)),
            frame(2, text),
        )
    )


def mutated(rng: random.Random) -> bytes:
    """The same with something wrong: bits, bytes, lengths, order."""
    data = bytearray(sane(rng))
    for _ in range(rng.randint(1, 3)):
        at, how = rng.randrange(len(data)), rng.randrange(7)
        if how == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[min(rng.randrange(2), len(data) - 1)] ^= 1 << rng.randrange(8)  # the head, where it matters most
        elif how == 2:
            del data[at:]
        elif how == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 12))
        elif how == 4:
            del data[at : at + rng.randrange(1, 6)]
        elif how == 5:
            data += sane(rng)
        else:
            data[at] = rng.choice((0x00, 0x7F, 0x80, 0xFF, 0xED, 0xC0))
        if not data:
            break
    return bytes(data)


async def one_mutant(node: FastNode, upgrade: bytes, data: bytes) -> tuple[int | None, bytes]:
    """The close code that answers ``data`` (None: no close frame came), and all else that was said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    try:
        writer.write(upgrade)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        writer.write(data)
        writer.write_eof()
        said = b""
        with contextlib.suppress(ConnectionResetError):
            said = await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
    code: int | None = None
    at = 0
    while at + 2 <= len(said):
        assert code is None, f"something followed a close frame: {said!r}"
        opcode, size, skip = said[at] & 15, said[at + 1], 2
        assert said[at] & 0x70 == 0
        assert size < 127
        if size == 126:
            size, skip = struct.unpack_from("!H", said, at + 2)[0], 4
        payload = said[at + skip : at + skip + size]
        if opcode == CLOSE:
            code = struct.unpack_from("!H", payload)[0] if payload else 1005
        at += skip + size
    return code, said


async def test_N7_whatever_bytes_a_peer_sends_it_hears_of_its_own_fault_and_the_process_lives(
    launch: Callable[..., FastNode], row: Row
) -> None:
    node = launch(connections_per_user=100, log_level="info")
    user = node.user()
    token, watching = user.token(), await node.open(user.token())
    node.push(node.admin, user_id=user.id)
    await watching.notifications(1)
    upgrade = head(f"/ws?token={token}", f"Sec-WebSocket-Key: {KEY}")
    idle = node.sockets()
    codes: Counter[int | None] = Counter()
    mutants = iter([mutated(row.rng) for _ in range(FRAMES)])

    async def work() -> None:
        for data in mutants:
            code, said = await one_mutant(node, upgrade, data)
            codes[code] += 1
            row.faults += 1
            fault = (1002, 1003, 1007, 1008, 1009)
            # A close frame may have stayed, or become, one that a client may send: then its code is echoed.
            assert code in (None, 1005, *fault) or 1000 <= code < 1011 or 3000 <= code < 5000, (code, data, said)

    await all_done(*[asyncio.create_task(work()) for _ in range(8)])
    assert sum(codes.values()) == FRAMES
    assert {1002, 1003, 1007, 1009} <= codes.keys(), "the mutants were too tame"
    await watching.ask(type="ping")
    row.attempted, row.ok, row.received = FRAMES, 1, 1
    row.also = {str(code): count for code, count in sorted(codes.items(), key=str)}
    assert node.push(node.admin, user_id=user.id)["seq"] == 2
    await watching.close()
    await eventually_async(lambda: node.sockets() <= idle, what="the descriptors are back")
    row.judge()
    assert node.complaints() == []
