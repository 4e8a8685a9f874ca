"""What ``make bench`` makes of its figures: verdicts and ratios. Measures nothing."""

from __future__ import annotations

from benchmarks.bars import BARS, GATEWAY, LARGE, NUMBERS, ONE, SMALL, TWO, Bar, ratios, verdicts
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
