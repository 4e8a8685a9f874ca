"""REV-04: a revoked socket whose reader has stalled: its descriptor is gone, whatever waits to be sent to it.

The row of the fault matrix of that name (tests/faults/test_stalled.py) does the same by every way there is to revoke.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import flood
from rawpeer import Raw, head
from wire import HS256_KEYS, Node, claims_of, eventually, running

STALLED = 3


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("node"), signing_keys=HS256_KEYS, log_level="info") as node:
        yield node


def descriptors(node: Node, peers: list[Raw]) -> list[str]:
    """The descriptors of the process that are the other ends of these, as ``/proc`` shows them."""
    ports = {peer.sock.getsockname()[1] for peer in peers}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {
        f"socket:[{row[9]}]" for row in rows
        if int(row[1].split(":")[1], 16) == node.port and int(row[2].split(":")[1], 16) in ports
    }  # fmt: skip
    found = []
    for entry in Path(f"/proc/{node.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(entry.readlink()) in inodes:
                found.append(entry.name)
    return found


def stalled(node: Node, token: str) -> Raw:
    """A peer with a small buffer that has been accepted and reads nothing more."""
    raw = Raw(node.port, receive_buffer=4096)
    raw.send(head(f"/ws?token={token}"))
    assert raw.response()[0] == 101
    return raw


def test_REV_04_the_descriptor_of_a_stalled_reader_is_gone_within_two_seconds(node: Node) -> None:
    user, bystander = node.user(), node.user()
    token, other = user.token(), bystander.token()
    with contextlib.ExitStack() as stack:
        peers = [stalled(node, token) for _ in range(STALLED)]
        beside = stalled(node, other)
        for peer in (*peers, beside):
            stack.callback(peer.shut)
        for one in (user, bystander):
            flood(node, node.admin, one.id, 200)
        behind = eventually(
            lambda: (listed := node.connections(user)) and all(one["behind"] for one in listed) and listed,
            what="all are behind",
        )
        assert len(behind) == STALLED
        assert (len(descriptors(node, peers)), len(descriptors(node, [beside]))) == (STALLED, 1)
        assert node.revoke(session=claims_of(token)["sid"])["connections_closed"] == STALLED
        eventually(lambda: descriptors(node, peers) == [], within=2, what="the descriptors are gone")
        assert len(descriptors(node, [beside])) == 1, "just as stalled, and not revoked"
        assert node.connections(user) == []
