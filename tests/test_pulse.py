"""Heartbeats and deadlines in virtual time: a tick is a second that ran, and nobody waits for one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.closing import TOKEN_EXPIRED, UNRESPONSIVE, Close
from gateway.ports import EncodedFrame
from gateway.pulse import ANSWER_WITHIN, SLICE, STALLED_FOR, Pulse

HEARTBEAT = 25


class Wire:
    kind: str = "fake"
    address: str | None = None

    def __init__(self) -> None:
        self.heard, self.queued, self.pings, self.writable = 0, 0, 0, True

    def ping(self) -> None:
        self.pings += 1

    def pending(self) -> int:
        return self.queued

    def write(self, *payloads: bytes) -> None: ...

    def encode(self, frame: EncodedFrame) -> bytes:
        return frame.json

    def send(self, frame: EncodedFrame) -> int:
        return 0

    def close(self, why: Close, *, linger: float) -> None: ...

    def abort(self) -> None: ...


class Peer:
    def __init__(self, number: int, *, deadline: int = 10**9) -> None:
        self.number, self.deadline, self.sent = number, deadline, 0
        self.transport = Wire()
        self.ended: list[Close] = []

    def close(self, why: Close) -> None:
        self.ended.append(why)

    abort = close


class Seconds:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make() -> tuple[Pulse, Seconds]:
    clock = Seconds()
    return Pulse(heartbeat=HEARTBEAT, clock=clock), clock


def tick(pulse: Pulse, clock: Seconds, seconds: int, *, answering: tuple[Peer, ...] = ()) -> None:
    for _ in range(seconds):
        clock.now += 1
        pulse.tick()
        for peer in answering:
            peer.transport.heard += peer.transport.pings > 0


def test_every_connection_is_pinged_once_a_heartbeat_and_not_all_at_once() -> None:
    pulse, clock = make()
    peers = [Peer(number) for number in range(100)]
    for peer in peers:
        pulse.attach(peer)
    for _ in range(HEARTBEAT):
        before = sum(peer.transport.pings for peer in peers)
        tick(pulse, clock, 1, answering=tuple(peers))
        assert sum(peer.transport.pings for peer in peers) - before == 4
    assert {peer.transport.pings for peer in peers} == {1}


def test_a_peer_that_answers_stays_and_one_that_does_not_is_dropped_ten_seconds_after_the_ping() -> None:
    pulse, clock = make()
    silent, lively = Peer(1), Peer(2)
    pulse.attach(silent)
    pulse.attach(lively)
    tick(pulse, clock, 1 + ANSWER_WITHIN - 1, answering=(lively,))
    assert silent.transport.pings == 1
    assert silent.ended == []
    tick(pulse, clock, 1, answering=(lively,))
    assert silent.ended == [UNRESPONSIVE]
    tick(pulse, clock, 200, answering=(lively,))
    assert lively.ended == []


def test_a_ping_that_the_peers_kernel_takes_is_no_sign_of_life() -> None:
    pulse, clock = make()
    peer = Peer(1)
    pulse.attach(peer)

    def ping() -> None:
        peer.transport.queued += 2  # on its way: not acknowledged yet when the tick ends

    peer.transport.ping = ping  # type: ignore[method-assign]
    tick(pulse, clock, 1)
    peer.transport.queued = 0
    tick(pulse, clock, ANSWER_WITHIN)
    assert peer.ended == [UNRESPONSIVE]


def test_a_slow_peer_that_takes_what_is_queued_is_not_dropped_though_its_pong_is_late() -> None:
    pulse, clock = make()
    peer = Peer(1)
    pulse.attach(peer)
    peer.sent, peer.transport.queued = 100_000, 90_000
    tick(pulse, clock, 5)
    peer.transport.queued = 80_000
    tick(pulse, clock, ANSWER_WITHIN)
    assert peer.ended == []


def test_a_peer_that_takes_nothing_is_aborted_after_thirty_seconds_even_if_it_talks() -> None:
    pulse, clock = make()
    peer = Peer(1)
    pulse.attach(peer)
    peer.sent, peer.transport.queued, peer.transport.writable = 50_000, 50_000, False
    pulse.suspect(peer)
    for second in range(STALLED_FOR - 1):
        peer.transport.heard += 1
        tick(pulse, clock, 1)
        assert peer.ended == [], second
    tick(pulse, clock, 1)
    assert peer.ended == [UNRESPONSIVE]


def test_progress_starts_the_thirty_seconds_again() -> None:
    pulse, clock = make()
    peer = Peer(1)
    pulse.attach(peer)
    peer.sent, peer.transport.queued, peer.transport.writable = 50_000, 50_000, False
    pulse.suspect(peer)
    for _ in range(20):
        peer.transport.queued -= 100
        for _ in range(STALLED_FOR - 1):
            peer.transport.heard += 1
            tick(pulse, clock, 1)
    assert peer.ended == []


def test_a_stopped_process_drops_nobody_for_the_time_it_did_not_run() -> None:
    pulse, clock = make()
    peers = [Peer(number) for number in range(50)]
    for peer in peers:
        pulse.attach(peer)
    tick(pulse, clock, 5, answering=tuple(peers))
    clock.now += 600  # stopped for ten minutes: one late tick, then the loop reads what came in
    tick(pulse, clock, 1)
    assert [peer for peer in peers if peer.ended] == []


def test_a_connection_ends_at_the_second_its_token_expires() -> None:
    pulse, clock = make()
    soon, later = Peer(3, deadline=1007), Peer(4, deadline=1120)
    pulse.attach(soon)
    pulse.attach(later)
    peers = (soon, later)
    tick(pulse, clock, 6, answering=peers)
    assert soon.ended == []
    tick(pulse, clock, 1, answering=peers)
    assert soon.ended == [TOKEN_EXPIRED]
    tick(pulse, clock, 112, answering=peers)
    assert later.ended == []
    tick(pulse, clock, 1, answering=peers)
    assert later.ended == [TOKEN_EXPIRED]


def test_a_connection_ends_at_the_tick_nearest_to_the_end_of_its_token() -> None:
    pulse, clock = make()
    clock.now += 0.6
    peer = Peer(3, deadline=1007)
    pulse.attach(peer)
    tick(pulse, clock, 5, answering=(peer,))
    assert peer.ended == []
    tick(pulse, clock, 1, answering=(peer,))
    assert peer.ended == [TOKEN_EXPIRED]


def test_a_renewed_token_moves_the_deadline() -> None:
    pulse, clock = make()
    peer = Peer(3, deadline=1007)
    pulse.attach(peer)
    tick(pulse, clock, 5, answering=(peer,))
    peer.deadline = 1100
    pulse.moved(peer)
    tick(pulse, clock, 94, answering=(peer,))
    assert peer.ended == []
    tick(pulse, clock, 1, answering=(peer,))
    assert peer.ended == [TOKEN_EXPIRED]


def test_a_detached_connection_is_forgotten() -> None:
    pulse, clock = make()
    peer = Peer(1)
    pulse.attach(peer)
    pulse.suspect(peer)
    pulse.detach(peer)
    pulse.suspect(peer)
    tick(pulse, clock, 100)
    assert (peer.transport.pings, peer.ended) == (0, [])


def test_a_token_that_expired_while_the_process_was_stopped_ends_its_connection_at_the_next_tick() -> None:
    pulse, clock = make()
    peers = [Peer(number, deadline=1100) for number in range(HEARTBEAT)]
    later = Peer(1, deadline=2000)
    for peer in (*peers, later):
        pulse.attach(peer)
    tick(pulse, clock, 5, answering=(*peers, later))
    clock.now += 600
    tick(pulse, clock, 1, answering=(*peers, later))
    assert [peer.ended for peer in peers] == [[TOKEN_EXPIRED]] * HEARTBEAT
    assert later.ended == []


def test_ticks_that_come_late_make_no_deadline_late() -> None:
    pulse, clock = make()
    peer = Peer(1, deadline=1065)  # looked at at 1036.4 and 1071.4
    pulse.attach(peer)
    while not peer.ended:
        clock.now += 1.4
        pulse.tick()
        peer.transport.heard += 1
    assert peer.ended == [TOKEN_EXPIRED]
    assert clock.now - peer.deadline < 1.4


def test_a_connection_that_is_gone_is_kept_by_nothing() -> None:
    pulse, clock = make()
    peer = Peer(1, deadline=1007)
    pulse.attach(peer)
    pulse.detach(peer)
    assert not any(pulse._expiring.values())
    tick(pulse, clock, 20)
    assert peer.ended == []


def step(pulse: Pulse, clock: Seconds, between: Callable[[], None]) -> int:
    """One tick, with something else in each turn of the loop; how many steps it took."""
    clock.now += 1
    steps = 0
    for _ in pulse.steps():
        steps += 1
        between()
    return steps


def test_a_second_of_many_connections_is_a_few_at_a_time() -> None:
    pulse, clock = make()
    peers = [Peer(HEARTBEAT * number, deadline=1100) for number in range(4 * SLICE)]
    for peer in peers:
        pulse.attach(peer)
    looked: list[int] = []

    def look() -> None:
        looked.append(sum(peer.transport.pings + len(peer.ended) for peer in peers))

    for _ in range(HEARTBEAT - 1):
        assert step(pulse, clock, look) == 0, "none of them is due"
    assert step(pulse, clock, look) == 4
    assert looked == [SLICE, 2 * SLICE, 3 * SLICE, 4 * SLICE]
    tick(pulse, clock, 1100 - 1025 - 1, answering=tuple(peers))
    looked.clear()
    before = sum(peer.transport.pings for peer in peers)
    assert step(pulse, clock, look) >= 4, "all expire in one second"
    assert [number - before for number in looked[:4]] == [SLICE, 2 * SLICE, 3 * SLICE, 4 * SLICE]
    assert all(peer.ended == [TOKEN_EXPIRED] for peer in peers)


def test_suspects_are_watched_a_few_at_a_time() -> None:
    pulse, clock = make()
    peers = [Peer(number) for number in range(3 * SLICE)]
    for peer in peers:
        pulse.attach(peer)
        peer.transport.writable = False
        pulse.suspect(peer)
    asked: list[int] = []
    for peer in peers:
        peer.transport.pending = lambda: asked.append(1) or 0  # type: ignore[method-assign, func-returns-value]
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, len(asked))
        asked.clear()

    step(pulse, clock, look)
    assert 0 < most <= SLICE


@pytest.mark.parametrize(
    ("what", "before"),
    [("expires", 0), ("is pinged", 0), ("does not answer", ANSWER_WITHIN), ("takes nothing", STALLED_FOR - 1)],
)
def test_who_goes_between_two_steps_is_touched_by_nothing_and_kept_by_nothing(what: str, before: int) -> None:
    pulse, clock = make()
    slot = 1 if what in ("is pinged", "does not answer") else 10
    deadline = 1001 if what == "expires" else 1000 + 2 * HEARTBEAT
    peers = [Peer(HEARTBEAT * number + slot, deadline=deadline) for number in range(3 * SLICE)]
    for peer in peers:
        pulse.attach(peer)
        if what == "takes nothing":
            peer.transport.writable = False
            pulse.suspect(peer)

    def touched() -> list[Peer]:
        return [peer for peer in peers if peer.ended or (what == "is pinged" and peer.transport.pings)]

    def go() -> None:
        stay = touched()
        for peer in peers:
            if peer not in stay:
                pulse.detach(peer)

    tick(pulse, clock, before, answering=() if what == "does not answer" else tuple(peers))
    step(pulse, clock, go)
    assert len(touched()) == SLICE
    for peer in touched():
        pulse.detach(peer)
    assert not any(pulse._expiring.values())
    assert pulse._suspects == {}
    tick(pulse, clock, 2 * HEARTBEAT)
    assert len(touched()) == SLICE
