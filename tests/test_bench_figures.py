"""What ``make bench`` and ``make soak`` make of their figures: verdicts, ratios, what is flat. Measures nothing."""

from __future__ import annotations

from typing import Any

from benchmarks.bars import BARE, BARS, GATEWAY, LARGE, NCHAN, NODE, NUMBERS, ONE, SMALL, TWO, Bar, ratios, verdicts
from benchmarks.probing import Prober, share
from benchmarks.soak_clients import Device, Told
from benchmarks.soak_watch import grown, with_cores
from benchmarks.talking import Wire


def bar_of(measure: str, ours: str = GATEWAY) -> Bar:
    [bar] = [bar for bar in BARS if bar.measure == measure and bar.ours == ours]
    return bar


def test_a_bar_without_figures_is_missed() -> None:
    assert {bar.verdict({}) for bar in BARS} == {"missed"}
    assert bar_of("sqlite push", LARGE).verdict({"sqlite push": {LARGE: [1.0]}}) == "missed"


def test_a_bar_with_a_peer_is_judged_by_the_median_of_the_ratios_of_the_pairs() -> None:
    samples = {"sqlite push": {SMALL: [1.0, 10.0, 2.0], LARGE: [1.2, 30.0, 2.4]}}
    assert ratios(samples, "sqlite push", SMALL, LARGE) == [1.2, 3.0, 1.2]
    assert bar_of("sqlite push", LARGE).verdict(samples) == "kept"


def test_the_stretch_is_told_from_the_bar_in_both_directions() -> None:
    assert bar_of("idle").verdict({"idle": {GATEWAY: [4.0]}}) == "stretch"
    assert bar_of("idle").verdict({"idle": {GATEWAY: [6.0]}}) == "kept"
    assert bar_of("idle").verdict({"idle": {GATEWAY: [9.0]}}) == "missed"
    assert bar_of("batch").verdict({"batch": {GATEWAY: [30_000.0]}}) == "stretch"
    assert bar_of("nodes single", TWO).verdict({"nodes single": {ONE: [1.0], TWO: [1.5]}}) == "kept"


def test_a_number_has_the_worst_verdict_of_its_bars_and_what_was_not_asked_is_named() -> None:
    samples = {"nodes single": {ONE: [1.0], TWO: [2.0]}}
    assert verdicts(samples, NUMBERS)["S11"] == "missed"
    assert verdicts(samples, ["S1"])["S11"] == "not asked"


def test_frames_are_taken_whole_whatever_their_size_and_however_they_come() -> None:
    wire = Wire.__new__(Wire)
    wire.left = bytearray()
    stream = b"\x81\x02hi" + b"\x81\x7e\x01\x00" + b"x" * 256 + b"\x88\x02\x03\xf0"
    found = []
    for byte in stream:
        wire.left.append(byte)
        found += wire.frames()
    assert found == [(1, b"hi"), (1, b"x" * 256), (8, b"\x03\xf0")]
    assert not wire.left


def test_fan_out_is_kept_only_beside_both_peers_and_better_only_near_the_bare_loop() -> None:
    level = {"fanout": {GATEWAY: [90.0], NODE: [90.0], BARE: [100.0]}}
    assert verdicts(level, ["S3"])["S3"] == "missed"  # nchan is not there
    assert verdicts({"fanout": {**level["fanout"], NCHAN: [91.0]}}, ["S3"])["S3"] == "missed"
    assert verdicts({"fanout": {**level["fanout"], NCHAN: [90.0]}}, ["S3"])["S3"] == "stretch"
    assert verdicts({"fanout": {**level["fanout"], NCHAN: [90.0], BARE: [101.0]}}, ["S3"])["S3"] == "kept"


def test_a_prober_knows_its_answers_by_when_they_were_due() -> None:
    prober = Prober(0, b"", every=1)
    prober.took = [(1.0, 0.5), (2.0, 0.1), (3.0, 0.2), (4.0, 9.0)]
    assert prober.between(1.5, 3.0) == [0.1, 0.2]
    assert Prober(0, b"", every=1)._answered(5.0, 5.0) == 6.0
    assert prober._answered(10.0, 12.5) == 13.0
    assert prober.between(10.0, 99.0) == [0.5, 1.5, 2.5]  # two more were due, and waited too
    assert share([float(number) for number in range(101)], 0.99) == 99


# -- the soak ----------------------------------------------------------------------------------------------------------


def soaked(memory: list[float]) -> list[dict[str, float]]:
    """Twelve samples of a soak of 120 seconds."""
    return [
        {"at": 10.0 * number, "cpu": float(number), "memory, MB": memory[number], "descriptors": 9, "threads": 9}
        for number in range(12)
    ]


def test_flat_is_the_last_sixth_against_the_second() -> None:
    warming = [50.0, 80.0, *[100.0] * 8]
    assert grown(soaked([*warming, 105.0, 105.0]), seconds=120) == []
    assert grown(soaked([*warming, 106.0, 106.0]), seconds=120) == ["memory, MB"]
    assert grown(soaked([*[7.0] * 10, 8.0, 8.0]), seconds=120) == []  # one thread more
    assert grown([], seconds=120) == ["nothing was seen"]
    assert grown(soaked([100.0] * 12)[:9], seconds=120) == ["memory, MB", "descriptors", "threads"]
    assert {one["cores"] for one in with_cores(soaked([100.0] * 12))} == {0.1}


def heard(*frames: dict[str, Any]) -> Told:
    told = Told()
    device = Device("u0", lambda: ("", 0.0), 0, told)
    for frame in frames:
        device.heard(frame)
    return told


def hello(after: int, *, epoch: str = "e", reset: bool = False) -> dict[str, Any]:
    return {"type": "hello", "after": after, "epoch": epoch, "reset": reset}


def numbered(seq: int | None) -> dict[str, Any]:
    return {"type": "notification", "seq": seq}


def test_a_soaked_device_notices_what_the_contract_rules_out() -> None:
    gap = {"type": "gap", "from": 3, "to": 5}
    assert not heard(hello(1), numbered(2), numbered(None), gap, numbered(6), hello(6), numbered(7)).wrong
    assert heard(hello(1), numbered(3)).wrong == {"lost": 1}
    assert heard(hello(1), numbered(2), numbered(2)).wrong == {"doubled": 1}
    assert heard(hello(1), numbered(2), hello(1)).wrong == {"hello": 1}
    assert heard(hello(1), hello(1, epoch="f")).wrong == {"hello": 1}
    assert heard(hello(1), hello(1, reset=True)).wrong == {"hello": 1}
    assert heard(hello(1), {"type": "error", "code": "token_expired"}).wrong == {"error": 1}
    late = heard(hello(1), {"type": "error", "code": "revocations_stale"})
    assert (late.wrong, late.late) == ({}, {"tokens": 1})
