"""More upgrades than the node takes at once: some wait, the rest hears 1013, and everybody else is answered."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import held
import pytest
from wire import HS256_KEYS, Node, Socket, eventually_async


class HeldNode(Node):
    """A gateway whose handshakes stand still while ``gate`` is there; two at once, two wait."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, signing_keys=HS256_KEYS, upgrades_at_once=2, upgrades_waiting=2)
        self.gate = directory / "gate"

    def start(self, *, wait: bool = True) -> HeldNode:
        self.process: subprocess.Popen[bytes] | None = held.spawn(self.gate, environment=self.environment, log=self.log)
        if wait:
            self.until_ready()
        return self


@pytest.fixture
def node(tmp_path: Path) -> Iterator[HeldNode]:
    node = HeldNode(tmp_path).start()
    try:
        yield node
        assert node.stop() == 0
    finally:
        node.kill()
    assert "Traceback" not in node.log_text()


def refused(node: Node) -> str:
    text = node.request("GET", "/metrics", token=node.admin, expect=200).text
    found = [line for line in text.splitlines() if line.startswith("gateway_upgrades_refused_total")]
    return " ".join(found)


async def test_what_is_too_much_waits_or_hears_overloaded_and_rest_answers_meanwhile(node: HeldNode) -> None:
    user = node.user()
    token = user.token()
    stored = node.push(node.admin, user_id=user.id)
    stayed = await node.open(token)
    await stayed.next("notification")
    node.gate.touch()
    coming = [asyncio.create_task(node.raw(token)) for _ in range(6)]
    await eventually_async(lambda: sum(one.done() for one in coming) == 2, what="two are answered")
    for one in coming:
        if one.done():
            assert await Socket(one.result()).until_closed() == ([], (1013, "overloaded"))
    # While all of that stands still:
    assert [item["id"] for item in node.inbox(token)["items"]] == [stored["id"]]
    live = await asyncio.to_thread(node.push, node.admin, user_id=user.id)
    assert (await stayed.next("notification"))["id"] == live["id"]
    assert refused(node) == 'gateway_upgrades_refused_total{reason="overloaded"} 2.0'
    assert sum(not one.done() for one in coming) == 4, "they wait"
    node.gate.unlink()
    waited = [Socket(one) for one in await asyncio.gather(*coming) if one.close_code is None]
    assert len(waited) == 4
    for socket in waited:
        await socket.next("hello")
        assert [frame["id"] for frame in await socket.notifications(2)] == [stored["id"], live["id"]]
