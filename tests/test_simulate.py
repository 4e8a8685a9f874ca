"""The simulation of a reconnect storm: its arithmetic, and that it is the same every time. Starts no gateway."""

from __future__ import annotations

import math
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.simulate_reconnect import (
    WAYS,
    Outcome,
    Scene,
    Way,
    doubling,
    every_second,
    full_jitter,
    million,
    simulate,
    told_when,
)
from gateway.client.rules import Backoff

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("way", [*WAYS.values(), told_when])
def test_everybody_comes_back_once_and_every_attempt_is_accounted_for(way: Way) -> None:
    scene = Scene(clients=500, nodes=3, rate=100, opens=4, queue=50, patience=2)
    outcome = simulate(scene, way)
    assert len(outcome.back) == 500
    assert outcome.attempts == 500 + outcome.refused + outcome.given_up
    assert list(outcome.back) == sorted(outcome.back)
    assert outcome.back[0] >= 4


def test_the_same_seed_is_the_same_outcome_and_another_is_another() -> None:
    scene = Scene(clients=300, nodes=2, rate=50, opens=2)
    assert simulate(scene, full_jitter, seed=7) == simulate(scene, full_jitter, seed=7)
    assert simulate(scene, full_jitter, seed=7) != simulate(scene, full_jitter, seed=8)


def test_clients_that_wait_alike_come_all_in_one_second_and_are_served_in_turn() -> None:
    outcome = simulate(Scene(clients=100, nodes=2, rate=10), doubling)
    assert outcome.peak == outcome.attempts == 100
    # Each node serves 50 of them at 10 a second, from second 1 on.
    assert [outcome.after(percent) for percent in (0, 50, 100)] == pytest.approx([1.1, 3.5, 6.0])


def test_nobody_is_served_before_the_port_is_open_nor_before_the_node_is_ready() -> None:
    refused = simulate(Scene(clients=8, nodes=1, rate=8, opens=2.5), every_second)
    assert (refused.refused, refused.back[0]) == (16, 3.125)
    waited = simulate(Scene(clients=8, nodes=1, rate=8, ready=2.5), every_second)
    assert (waited.refused, waited.back[0]) == (0, 2.625)


def test_who_finds_the_queue_full_is_refused_at_once() -> None:
    outcome = simulate(Scene(clients=24, nodes=1, rate=8, queue=8), every_second)
    # Eight a second: of 24 in second 1 sixteen are refused, of those eight in second 2.
    assert (outcome.refused, outcome.back[-1]) == (24, 4.0)


def test_who_is_not_served_within_its_patience_gives_up_and_its_work_is_done_all_the_same() -> None:
    outcome = simulate(Scene(clients=24, nodes=1, rate=8, patience=2), every_second)
    # The last eight give up in second 3 and come again in second 4, when the node has just ended their first try.
    assert outcome.given_up == 8
    assert outcome.back[-1] == 5.0


def test_what_ends_tls_works_for_those_too_whom_no_node_takes() -> None:
    free = simulate(Scene(clients=100, nodes=1, rate=1000, opens=1.5, front=100), every_second)
    # The attempts of second 1 hold the front until second 2: half are through before there is a node, half after.
    assert 40 <= free.refused <= 60
    assert free.attempts == 100 + free.refused


def test_a_client_learns_of_a_dead_machine_at_any_time_within_the_notice() -> None:
    outcome = simulate(Scene(clients=1000, nodes=1, rate=10_000, notice=35), every_second)
    assert outcome.peak < 60
    assert 30 < outcome.back[-1] < 37


def test_jitter_is_what_the_client_of_this_repository_does() -> None:
    ours, theirs = random.Random(3).random, Backoff(random.Random(3).random)
    assert [full_jitter(failures, ours) for failures in range(12)] == [theirs.next() for _ in range(12)]


def test_a_part_of_a_symmetric_scene_is_the_scene() -> None:
    whole = Scene(clients=4000, nodes=20, rate=50, opens=3, front=600, front_queue=2000, queue=100)
    one, all_of_it = simulate(whole.part(20), doubling), simulate(whole, doubling)
    assert one.refused * 20 == pytest.approx(all_of_it.refused, rel=0.05)
    for percent in (50, 99):
        assert one.after(percent) == pytest.approx(all_of_it.after(percent), rel=0.05)
    with pytest.raises(ValueError, match="equal parts"):
        whole.part(3)


def test_half_of_them_are_back_when_the_middle_one_is() -> None:
    outcome = Outcome(4, [1.0, 2.0, 3.0, 4.0], attempts=4, peak=1, refused=0, given_up=0)
    assert [outcome.after(percent) for percent in (0, 25, 50, 51, 99, 100)] == [1, 1, 2, 3, 4, 4]
    assert Outcome(5, outcome.back, attempts=4, peak=1, refused=0, given_up=0).after(100) == math.inf


def test_without_jitter_work_for_those_who_gave_up_can_fill_a_node_for_ever() -> None:
    # 30 s of work against 10 s of patience: whoever comes at once comes again before the node is through.
    scene = Scene(clients=3000, nodes=1, rate=100)
    assert simulate(scene, every_second).after(100) == math.inf
    assert simulate(scene, full_jitter).after(100) < 300
    # What keeps the line shorter than the patience heals it.
    assert simulate(replace(scene, queue=800), every_second).after(100) < 35


@pytest.mark.parametrize("wrong", [{"clients": 0}, {"nodes": 0}, {"rate": 0}, {"patience": 0}])
def test_a_scene_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Scene(**{"clients": 1, "nodes": 1, "rate": 1, **wrong})


def test_the_table_is_about_a_million_clients_on_twenty_nodes() -> None:
    scenes = million(4000)
    assert max(scene.clients for _, scene, _ in scenes) == 1_000_000
    assert {scene.clients // (20 - scene.nodes) for _, scene, _ in scenes if scene.nodes < 20} == {50_000}


def test_it_runs_as_the_paper_says() -> None:
    command = [sys.executable, "-m", "benchmarks.simulate_reconnect"]
    helped = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--check" in helped
    own = [*command, "--clients", "200", "--nodes", "2", "--rate", "100"]
    printed = subprocess.run(own, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [re.split(r": ", line)[-1].split(" |")[0] for line in printed[2:]] == list(WAYS)
