"""What waits to be sent is bounded, and whose signals were lost is known."""

from __future__ import annotations

import pytest

from gateway.bus.outbox import (
    BATCH_BYTES,
    BATCH_MESSAGES,
    MOST_BYTES,
    MOST_MESSAGES,
    MOST_MISSED,
    NAMED_TOGETHER,
    Item,
    Missed,
    Outbox,
    Remedy,
)
from gateway.model import Again, RevocationsChanged


@pytest.fixture
def missed() -> Missed:
    return Missed(more=lambda: None)


@pytest.fixture
def unsent() -> list[int]:
    return []


def outbox(missed: Missed, unsent: list[int]) -> Outbox:
    return Outbox(missed=missed, unsent=unsent.append)


def item(user_id: str | None = None, payload: bytes = b"x") -> Item:
    remedy: Remedy = None if user_id is None else Again((user_id,))
    return Item(payload, remedy)


def test_it_comes_out_in_order_in_pipelines_of_bounded_size(missed: Missed, unsent: list[int]) -> None:
    box = outbox(missed, unsent)
    items = [item(str(n)) for n in range(BATCH_MESSAGES + 1)]
    for one in items:
        box.add(one)
    assert box.take() == items[:-1]
    assert box.take() == items[-1:]
    assert box.take() == []
    large = item("a", b"x" * BATCH_BYTES)
    for _ in range(2):
        box.add(large)
    assert box.take() == [large]
    assert len(box) == 1


@pytest.mark.parametrize(("most", "payload"), [(MOST_MESSAGES, b""), (16, b"x" * (MOST_BYTES // 16))])
def test_what_does_not_fit_is_lost_and_remembered(most: int, payload: bytes, missed: Missed, unsent: list[int]) -> None:
    box = outbox(missed, unsent)
    for _ in range(most):
        box.add(item("early", payload))
    assert not missed
    box.add(item("late"))
    box.add(item(None))
    assert (len(box), missed.take(), unsent) == (most, [Again(("late",))], [1])
    box.take()
    box.add(item("later"))
    assert not missed, "there is room again"


def test_everybody_who_missed_something_is_told_once(missed: Missed) -> None:
    called = []
    missed = Missed(more=lambda: called.append(1))
    for remedy in (Again(("a",)), RevocationsChanged(), Again(("b", "a")), RevocationsChanged()):
        missed.add(remedy)
    assert (bool(missed), len(called)) == (True, 4)
    assert missed.take() == [RevocationsChanged(), Again(("a", "b"))]
    assert not missed
    assert missed.take() == []


def test_many_are_told_in_parts_and_too_many_are_everybody(missed: Missed) -> None:
    users = tuple(f"u{n}" for n in range(MOST_MISSED))
    missed.add(Again(users))
    parts = missed.take()
    assert len(parts) == MOST_MISSED // NAMED_TOGETHER
    assert [user for part in parts if isinstance(part, Again) for user in part.user_ids or ()] == list(users)
    missed.add(Again(users))
    missed.add(Again(("one more",)))
    assert missed._users == {}
    missed.add(Again(("and another",)))
    assert missed.take() == [Again(None)]
    missed.add(Again(None))
    assert missed.take() == [Again(None)]


def test_all_that_waits_can_be_lost_at_once(missed: Missed, unsent: list[int]) -> None:
    box = outbox(missed, unsent)
    for one in (item("a"), item(None), item("b"), item(None)):
        box.add(one)
    box.lose_all()
    assert (len(box), missed.take(), unsent) == (0, [Again(("a", "b"))], [2])
