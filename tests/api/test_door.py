"""The door before sign-ins: few begin in a turn of the loop, in order; while it is full nobody is let through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api.door import Door, Pace
from gateway.auth.passwords import usual_hashers


def noting(into: list[object], what: Callable[[Scope], object]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        into.append(what(scope))

    return app


async def receive() -> dict[str, object]:
    raise AssertionError("the body is not read")


async def send(message: object) -> None: ...


async def turn() -> None:
    await asyncio.sleep(0)  # noqa: TID251 - lets the loop turn, waits for no time


async def test_of_a_crowd_two_begin_in_a_turn_in_their_order() -> None:
    begun: list[object] = []
    door = Door(noting(begun, lambda scope: scope["n"]), pace=Pace(2), refusal=noting(begun, lambda scope: "refused"))
    crowd = [asyncio.create_task(door({"n": n}, receive, send)) for n in range(7)]
    seen = []
    for _ in range(20):
        await turn()
        seen.append(len(begun))
    assert begun == list(range(7))
    steps = [after - before for before, after in zip([0, *seen], seen, strict=False)]
    assert max(steps) == 2, seen
    assert all(task.done() for task in crowd)


async def test_whoever_leaves_the_line_keeps_nobody_up() -> None:
    begun: list[object] = []
    door = Door(noting(begun, lambda scope: scope["n"]), pace=Pace(1), refusal=noting(begun, lambda scope: "refused"))
    crowd = [asyncio.create_task(door({"n": n}, receive, send)) for n in range(5)]
    await turn()
    for left in (1, 2, 3):
        crowd[left].cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    assert begun == [0, 4]


async def test_two_doors_of_one_pace_share_it() -> None:
    begun: list[object] = []
    pace = Pace(1)
    doors = [Door(noting(begun, lambda scope: 1), pace=pace, refusal=noting(begun, lambda scope: 0)) for _ in range(2)]
    crowd = [asyncio.create_task(door({}, receive, send)) for door in doors * 3]
    await turn()
    assert len(begun) == 1
    await asyncio.gather(*crowd)
    assert begun == [1] * 6


async def test_a_full_door_refuses_before_the_body_is_read_and_opens_again() -> None:
    answers: list[object] = []
    full = True
    door = Door(
        noting(answers, lambda scope: "in"),
        pace=Pace(),
        full=lambda scope: full,
        refusal=noting(answers, lambda scope: "refused"),
    )
    await door({}, receive, send)
    full = False
    await door({}, receive, send)
    assert answers == ["refused", "in"]


def test_hashing_leaves_each_worker_a_core() -> None:
    assert usual_hashers(1, cores=1) == 1, "it cannot do without"
    assert [usual_hashers(1, cores=cores) for cores in (2, 3, 4, 64)] == [1, 2, 2, 2]
    assert [usual_hashers(4, cores=cores) for cores in (4, 8, 12)] == [1, 1, 2]
