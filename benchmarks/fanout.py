"""S3: frames a second when one ``ttl: 0`` push goes to everyone, beside servers that do nothing else. Judges nothing.

The server has core 0, the load core 1. A round is BURST pushes in as many milliseconds, from the moment the first is
due to the last frame at the last socket; the rounds' frames through the rounds' time is the figure. Every peer sends
the very bytes that the gateway makes of such a push. The gateway's sockets are one user each, signed in.

The gateway writes what of a burst waits for the same sockets in one go, which its peers do not; so the same is measured
with one push a round, where there is nothing to be joined.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bars import GATEWAY, LOOP
from benchmarks.fan_peers import bare_loop, nchan, nchan_is_missing
from benchmarks.load import Load, Watch
from benchmarks.people import MARK, post, prepare, raw_post, sender_token, write_paths
from benchmarks.record import Record
from benchmarks.servers import NODE_MISSING, Server, copied, gateway, node_is_missing, node_peer, python_peer
from gateway import frames
from gateway.model import Passing, new_id

BURST = 10
"""Pushes of a round: many, and fewer than the gateway lets wait (``relay.MOST_PASSING``)."""
CONTENT = {"title": "Order shipped", "body": "Arrives Friday", "data": {"at": MARK}}


@dataclass(frozen=True, slots=True)
class Scale:
    pairs: int
    sockets: int
    rounds: int


FULL = Scale(pairs=5, sockets=5000, rounds=8)
QUICK = Scale(pairs=1, sockets=1000, rounds=4)


@dataclass(frozen=True, slots=True)
class Fanout:
    record: Record
    scale: Scale
    directory: Path

    def run(self) -> None:
        home = self.directory
        (home / "fan").mkdir()
        prepare(home / "fan", users=self.scale.sockets)
        write_paths(home / "fan-paths", users=self.scale.sockets)
        ours = {"everyone": True, "ttl": 0, **CONTENT}
        self._write(GATEWAY, post("/notifications", ours, sender_token()))
        self._write("peer", raw_post("/everyone", _frame(), sender_token()))
        for pair in range(1, self.scale.pairs + 1):
            print(f"  to everyone, pair {pair} of {self.scale.pairs}")
            for starting in self._servers():
                with starting() as server:
                    self._measure(server)

    def _servers(self) -> list[Callable[[], AbstractContextManager[Server]]]:
        found: list[Callable[[], AbstractContextManager[Server]]] = [
            lambda: gateway(copied(self.directory / "fan")),
            bare_loop,
            lambda: python_peer(LOOP, None),
        ]
        if nchan_is_missing():
            self.record.remark("S3: nchan is left out: nginx or its module is not installed (libnginx-mod-nchan)")
        else:
            found.append(lambda: nchan(self.directory))
        if node_is_missing():
            self.record.remark(f"S3: {NODE_MISSING}")
        else:
            found.append(node_peer)
        return found

    def _write(self, whose: str, request: bytes) -> None:
        (self.directory / f"fan-{whose}").write_bytes(b"%d\n" % len(request) + request)

    def _measure(self, server: Server) -> None:
        sockets, ours = self.scale.sockets, server.name == GATEWAY
        file = self.directory / f"fan-{GATEWAY if ours else 'peer'}"
        with Load() as load:
            opened = load(f"open {server.port} {self.directory / 'fan-paths'} {sockets} 64 {int(ours)}")
            if opened["failed"]:
                self.record.remark(f"S3, {server.name}: {opened['failed']} of {sockets} sockets were not opened")
            self._round(load, server, file, opened["opened"])  # warms up
            came, spent = 0, 0.0
            with Watch(server, load) as watch:
                for _ in range(self.scale.rounds):
                    frames_of_it, seconds = self._round(load, server, file, opened["opened"])
                    came, spent = came + frames_of_it, spent + seconds
            self.record.judge(f"S3 {server.name}", watch)
            self.record.note("fanout", server.name, came / spent)
            alone = [self._round(load, server, file, opened["opened"], burst=1) for _ in range(self.scale.rounds)]
            self.record.note(
                "fanout alone", server.name, sum(came for came, _ in alone) / sum(took for _, took in alone)
            )
            load("drop")

    def _round(self, load: Load, server: Server, file: Path, sockets: int, *, burst: int = BURST) -> tuple[int, float]:
        posted = load(f"post {server.port} {file} 1 {burst / 1000} 1000")
        heard = load(f"count {burst * sockets} 3")
        if posted["refused"] or heard["frames"] != burst * sockets:
            refused, came = posted["refused"], heard["frames"]
            self.record.remark(f"S3, {server.name}: {refused} refused, {came} of {burst * sockets} frames came")
        return heard["frames"], (max(heard["last"], posted["to"]) - posted["from"]) / 1e9


def _frame() -> bytes:
    """The JSON that the gateway makes of such a push."""
    content = frames.content(
        title=str(CONTENT["title"]), body=str(CONTENT["body"]), data=b'{"at":"%s"}' % MARK.encode(), category=None,
        priority="normal",
    )  # fmt: skip
    return frames.passing(Passing(None, new_id(0.0), content, 0)).json
