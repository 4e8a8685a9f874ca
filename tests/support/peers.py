"""Raw peers on ``/ws`` of a real gateway: accepted and greeted; from then on they say whatever bytes a test likes."""

from __future__ import annotations

import json

from rawpeer import CLOSE, PING, TEXT, Raw, frame, head
from wire import Node, User, eventually


class Peer(Raw):
    """A peer whose ``next`` passes over the pings that a gateway sends whenever it is time; no test's pong is empty."""

    def next(self) -> tuple[int, bytes]:
        while (found := super().next()) == (PING, b""):
            pass
        return found

    def is_heard(self, ref: str = "heard") -> None:
        """A frame of the protocol is understood and answered: the next thing said is its ``pong``."""
        self.send(frame(TEXT, json.dumps({"type": "ping", "ref": ref}).encode()))
        assert json.loads(self.text()) == {"type": "pong", "ref": ref}

    def fails_with(self, code: int, reason: str) -> None:
        """The gateway closes with this, and then hangs up: nothing of the connection is left."""
        assert self.closed() == (code, reason)
        self.ended(within=2)

    def to_the_close(self) -> tuple[int, str]:
        """As ``closed``, but whatever was said before is passed over."""
        while (found := self.next())[0] != CLOSE:
            pass
        payload = found[1]
        return (int.from_bytes(payload[:2]), payload[2:].decode()) if payload else (1005, "")


class Gate:
    """``/ws`` of ``node`` for one user; what was opened here is shut by ``hang_up``."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.user: User = node.user()
        self.token = self.user.token()
        self._peers: list[Peer] = []
        self._others: list[Gate] = []

    def dial(self, *, receive_buffer: int | None = None) -> Peer:
        peer = Peer(self.node.port, receive_buffer=receive_buffer)
        self._peers.append(peer)
        return peer

    def open(self, *, receive_buffer: int | None = None) -> Peer:
        """A connection that has been accepted and has heard ``hello``."""
        peer = self.dial(receive_buffer=receive_buffer).send(head(f"/ws?token={self.token}"))
        status, _ = peer.response()
        assert status == 101, status
        assert json.loads(peer.text())["type"] == "hello"
        return peer

    def stalled(self) -> tuple[Gate, Peer]:
        """A peer of another user that takes nothing any more: its buffers are full, the rest waits in the inbox."""
        other = Gate(self.node)
        self._others.append(other)
        peer = other.open(receive_buffer=4096)
        items = [{"user_id": other.user.id, "body": "x" * 3900}] * 200
        assert all(one["status"] == 201 for one in self.node.batch(self.node.admin, *items))
        eventually(
            lambda: [one["behind"] for one in self.node.connections(other.user)] == [True], what="a stalled reader"
        )
        return other, peer

    def shut(self) -> None:
        """Close what a test left open."""
        for peer in self._peers:
            peer.shut()
        self._peers.clear()
        for other in self._others:
            other.shut()

    def hang_up(self) -> None:
        """As ``shut``, and wait until the gateway has noticed: tests share it."""
        self.shut()
        eventually(lambda: self.node.connections(self.user) == [], what="no connection left")
        while self._others:
            self._others.pop().hang_up()
