"""The parent of several processes: who is begun when, what replaces what, how all of it ends. Nobody serves here."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 10.0

PROGRAM = """
import os, signal, sys, time
from gateway.sockets import forking, workers

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

class Told(BaseException):
    pass

def ends(*_):
    raise Told

def work(post):
    {before}
    for number in (signal.SIGTERM, workers.LEAVE, workers.HURRY):
        signal.signal(number, lambda number, _: (say(post.number, signal.Signals(number).name), {told}))
    say(post.number, "is", os.getpid())
    try:
        post.tell("worker", str(post.number))
        post.ready()  # it may be told to stop from here on
        while True:
            signal.pause()
    except Told:
        say(post.number, "ends")

crew = workers.Workers(
    work, count={count}, stop_within={stop_within}, on_ready=lambda: say("all are ready"), on_stop=lambda: say("stop"),
    told=lambda *words: say("told", *words),
)
workers.SETTLED = {settled}
try:
    crew.run()
except forking.NotStarted as error:
    say("not started:", error)
    sys.exit(error.code)
say("over")
"""


class Crew:
    """A parent and what it and its workers have said."""

    def __init__(
        self,
        *,
        count: int = 2,
        before: str = "pass",
        told: str = "ends()",
        stop_within: float = 10.0,
        settled: float = 10.0,
    ) -> None:
        program = PROGRAM.format(count=count, before=before, told=told, stop_within=stop_within, settled=settled)
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.said = ""
        self.met: set[int] = set()

    def until(self, pattern: str) -> str:
        """All that was said up to ``pattern``; what follows is left for the next question."""
        end = time.monotonic() + DEADLINE
        while (found := re.search(pattern, self.said, re.MULTILINE)) is None:
            assert self._read(end - time.monotonic()), f"ended without {pattern}:\n{self.said}"
        before, self.said = self.said[: found.end()], self.said[found.end() :]
        return before

    def _read(self, within: float) -> bool:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], max(0.0, within))[0], f"silent after:\n{self.said}"
        part = os.read(self.process.stdout.fileno(), 65536).decode()
        self.met |= {int(pid) for pid in re.findall(r"\d is (\d+)", part)}
        self.said += part
        return bool(part)

    def up(self) -> dict[int, int]:
        """Wait until all are ready: number → pid."""
        return pids(self.until("all are ready\n"))

    def again(self, number: int) -> int:
        """Wait until this one has begun once more: its pid."""
        return pids(self.until(rf"^{number} is \d+\n"))[number]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Exit status, and what was said to the end."""
        while self._read(DEADLINE):
            pass
        return self.process.wait(DEADLINE), self.said

    def close(self) -> None:
        self.process.kill()
        orphans = [pid for pid in self.met if not gone(pid)]
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()
        assert orphans == [], "they have outlived their parent"


def pids(said: str) -> dict[int, int]:
    return {int(number): int(pid) for number, pid in re.findall(r"^(\d) is (\d+)$", said, re.MULTILINE)}


def gone(pid: int) -> bool:
    """Within the deadline: what is only not waited for by its new parent is gone."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        select.select([], [], [], 0.01)
    return False


Begin = Callable[..., Crew]


@pytest.fixture
def begin() -> Iterator[Begin]:
    begun: list[Crew] = []

    def one(**how: object) -> Crew:
        begun.append(Crew(**how))  # type: ignore[arg-type]
        return begun[-1]

    yield one
    for crew in begun:
        crew.close()


def test_the_first_is_ready_before_the_others_begin_and_readiness_is_told_once_of_all(begin: Begin) -> None:
    crew = begin(count=3)
    said = crew.until("all are ready\n")
    first = said.index("told worker 1")
    assert all(said.index(f"{number} is") > first for number in (2, 3))
    assert len(set(pids(said).values())) == 3
    crew.signal(signal.SIGTERM)
    assert "ready" not in crew.end()[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_reaches_all_of_them_and_is_a_success(begin: Begin, number: signal.Signals) -> None:
    crew = begin(count=3)
    crew.up()
    crew.signal(number)
    code, said = crew.end()
    assert code == 0
    assert sorted(line for line in said.splitlines() if line[:1].isdigit()) == sorted(
        [f"{n} SIGTERM" for n in (1, 2, 3)] + [f"{n} ends" for n in (1, 2, 3)]
    )
    assert said.index("stop\n") < said.index("SIGTERM")
    assert said.endswith("over\n")


def test_ctrl_c_in_a_terminal_means_one_request_however_many_processes_hear_it(begin: Begin) -> None:
    crew = begin()
    for pid in crew.up().values():
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGHUP)
    crew.signal(signal.SIGINT)
    code, said = crew.end()
    assert (code, said.count("SIGTERM"), said.count("ends")) == (0, 2, 2)


def test_a_second_request_hurries_them(begin: Begin) -> None:
    crew = begin(told="number == workers.HURRY and ends()")
    crew.up()
    crew.signal(signal.SIGTERM)
    crew.until("SIGTERM\n(.*\n)*.*SIGTERM\n")
    crew.signal(signal.SIGTERM)
    code, said = crew.end()
    assert (code, said.count("SIGUSR2"), said.count("ends")) == (0, 2, 2)


def test_one_that_does_not_end_in_time_is_killed(begin: Begin) -> None:
    crew = begin(told="None", stop_within=0.3)
    found = crew.up()
    crew.signal(signal.SIGTERM)
    code, said = crew.end()
    assert code == 0
    assert said.count("did not end in time and is killed") == 2
    assert all(gone(pid) for pid in found.values())


def test_one_that_dies_is_begun_again_under_its_number_and_the_others_stay(begin: Begin) -> None:
    crew = begin(settled=0.0)
    found = crew.up()
    os.kill(found[2], signal.SIGKILL)
    new = crew.again(2)
    assert new != found[2]
    assert not Path(f"/proc/{found[2]}").exists()
    assert Path(f"/proc/{found[1]}").exists()
    crew.signal(signal.SIGTERM)
    assert crew.end()[0] == 0


def test_one_that_dies_at_once_every_time_is_waited_for_longer_every_time(begin: Begin) -> None:
    crew = begin()
    pid = crew.up()[2]
    pauses = []
    for _ in range(3):
        died = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        pid = crew.again(2)
        pauses.append(time.monotonic() - died)
    assert [pause >= least for pause, least in zip(pauses, (0.5, 1.0, 2.0), strict=True)] == [True] * 3


def test_a_refusal_at_the_start_ends_all_with_its_words_and_its_status(begin: Begin) -> None:
    crew = begin(count=3, before="if post.number == 2: raise forking.NotStarted('the cellar is flooded', code=2)")
    code, said = crew.end()
    assert code == 2
    assert "not started: the cellar is flooded" in said
    assert "ready" not in said


def test_one_that_dies_before_it_is_ready_ends_the_start(begin: Begin) -> None:
    code, said = begin(before="os.kill(os.getpid(), 9)").end()
    assert code == 1
    assert "not started: the gateway did not start" in said
    assert "2 is" not in said


def test_a_refusal_later_ends_nothing(begin: Begin, tmp_path: Path) -> None:
    flood = tmp_path / "flood"
    crew = begin(
        settled=0.0, before=f"if os.path.exists({str(flood)!r}): raise forking.NotStarted('it is flooded', code=2)"
    )
    found = crew.up()
    flood.touch()
    os.kill(found[1], signal.SIGKILL)
    crew.until("it is flooded")
    flood.unlink()
    crew.again(1)
    assert Path(f"/proc/{found[2]}").exists()
    crew.signal(signal.SIGTERM)
    assert crew.end()[0] == 0


def test_a_hangup_replaces_one_after_the_other_the_new_one_ready_before_the_old_one_leaves(begin: Begin) -> None:
    crew = begin(count=3)
    before = crew.up()
    crew.signal(signal.SIGHUP)
    said = crew.until("3 ends\n")
    steps = re.findall(r"^(\d .*)$", said, re.MULTILINE)
    expected = [[f"{n} is", f"{n} SIGUSR1", f"{n} ends"] for n in (1, 2, 3)]
    assert [re.sub(r"is \d+", "is", step) for step in steps] == [step for three in expected for step in three]
    assert set(pids(said).values()).isdisjoint(before.values())
    crew.signal(signal.SIGTERM)
    assert crew.end()[0] == 0


def test_if_a_new_one_cannot_begin_the_old_ones_stay(begin: Begin, tmp_path: Path) -> None:
    flood = tmp_path / "flood"
    crew = begin(before=f"if os.path.exists({str(flood)!r}): raise forking.NotStarted('it is flooded', code=2)")
    found = crew.up()
    flood.touch()
    crew.signal(signal.SIGHUP)
    crew.until("the others stay: it is flooded")
    assert all(Path(f"/proc/{pid}").exists() for pid in found.values())
    flood.unlink()
    crew.signal(signal.SIGHUP)
    crew.until("2 ends\n")
    crew.signal(signal.SIGTERM)
    assert crew.end()[0] == 0


def test_a_stop_while_one_is_being_replaced_ends_the_old_and_the_new(begin: Begin) -> None:
    crew = begin(told="number != workers.LEAVE and ends()")
    crew.up()
    crew.signal(signal.SIGHUP)
    crew.until("1 SIGUSR1\n")
    crew.signal(signal.SIGTERM)
    code, said = crew.end()
    assert (code, said.count("1 ends"), said.count("2 ends")) == (0, 2, 1)


def test_when_the_parent_is_killed_no_worker_lives_on(begin: Begin) -> None:
    crew = begin(count=3, told="None")
    found = crew.up()
    crew.process.kill()
    assert all(gone(pid) for pid in found.values())
