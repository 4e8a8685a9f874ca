"""The harness bites: every rule passes a history that keeps it and catches one that breaks it. No gateway runs here."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from checker import RULES, Bounds, check, leaks, report
from facts import Facts
from faulty import Row
from history import (
    SECOND,
    Acked,
    Answered,
    Closed,
    Dialled,
    Fault,
    Gapped,
    Given,
    History,
    Invoked,
    Item,
    Kind,
    Listed,
    Opened,
    Outcome,
    Probed,
    Received,
    Refused,
    Revoked,
    SignedIn,
    Stated,
    Withdrew,
    digest,
)
from resources import Held
from rows import delays, latencies, percentile

FAR = 10**6 * SECOND
EPOCH = "e1"


def session(device: str) -> str:
    """Of d1b the one of d1: two sockets of one sign-in."""
    return f"s-{device.removesuffix('b')}"


class Story:
    """A history told by hand. Every event is a tenth of a second after the last, unless time is let pass."""

    def __init__(self) -> None:
        self.history = History(seed=7)
        self.now = 0
        self._sockets: dict[str, Opened] = {}

    def tick(self, seconds: float = 0.1) -> int:
        self.now += round(seconds * SECOND)
        return self.now

    def device(self, name: str = "d1", user: str = "ada", *, prompt: bool = True) -> None:
        self.history.note(SignedIn(self.tick(), name, user, session(name), prompt))

    def ask(
        self, op: str, *users: str, kind: Kind = "one", request: str = "", index: int = 0, attempt: int = 1
    ) -> None:
        self.history.note(
            Invoked(self.tick(), op, request or op, index, attempt, "n1", kind, users or ("ada",), f"<{op}>")
        )

    def answer(self, op: str, *given: tuple[str, int], user: str = "ada", attempt: int = 1, expires: int = FAR) -> None:
        """2xx: (id, seq) of each user it was for."""
        all = tuple(Given(user, id, seq, expires) for id, seq in given)
        self.history.note(Answered(self.tick(), op, attempt, "n1", "ok", 201, all))

    def no_answer(self, op: str, outcome: Outcome, status: int, detail: str = "") -> None:
        self.history.note(Answered(self.tick(), op, 1, "n1", outcome, status, detail=detail))

    def push(self, op: str, seq: int, *, user: str = "ada", expires: int = FAR) -> None:
        """Asked and answered; its id is ``i<op>``."""
        self.ask(op, user)
        self.answer(op, (f"i{op}", seq), user=user, expires=expires)

    def connect(
        self, connection: str, *, user: str = "ada", after: int = 0, cursor: int = 0, head: int = 0, node: str = "n1",
        claims: tuple[int, str] | None = None, reset: bool = False, epoch: str = EPOCH,
    ) -> None:  # fmt: skip
        """``connection``: device#number."""
        device = connection.partition("#")[0]
        seq, of = claims or (None, None)
        self.history.note(Dialled(self.tick(), device, session(device), connection, node, seq, of))
        self._sockets[connection] = self.history.note(
            Opened(self.tick(), device, session(device), user, connection, node, epoch, head, 0, cursor, after, reset)
        )

    def hears(self, connection: str, op: str, seq: int, *, id: str = "", content: str = "") -> None:
        at = self._sockets[connection]
        self.history.note(
            Received(self.tick(), at.device, at.user, connection, at.epoch, seq, id or f"i{op}", content or f"<{op}>")
        )

    def gap(self, connection: str, first: int, last: int) -> None:
        at = self._sockets[connection]
        self.history.note(Gapped(self.tick(), at.device, at.user, connection, at.epoch, first, last))

    def state(self, connection: str, rev: int) -> None:
        at = self._sockets[connection]
        self.history.note(Stated(self.tick(), at.device, at.user, connection, rev))

    def ack(self, connection: str, seq: int, *, confirmed: bool = True) -> None:
        at = self._sockets[connection]
        for sure in (False, True)[: 1 + confirmed]:
            self.history.note(Acked(self.tick(), at.device, at.session, at.user, at.epoch, seq, sure))

    def close(self, connection: str, code: int = 1006, reason: str = "", *, ours: bool = False) -> None:
        at = self._sockets[connection]
        self.history.note(Closed(self.tick(), at.device, at.session, connection, code, reason, ours))

    def refused(self, device: str, code: int = 1008, reason: str = "token_revoked") -> None:
        self.history.note(Refused(self.tick(), device, session(device), f"{device}#0", "n1", code, reason))

    def revoke(self, device: str, *, node: str = "n1") -> None:
        self.history.note(Revoked(self.tick(), session(device), "", "asked"))
        self.history.note(Revoked(self.tick(), session(device), node, "ok"))

    def fault(self, phase: str, *dark: str, deaf: tuple[str, ...] = ()) -> None:
        self.history.note(Fault(self.tick(), "it", "start" if phase == "start" else "stop", dark, deaf))

    def probe(self, status: int, node: str = "n1", *, degraded: bool = False) -> None:
        asked = self.tick()
        self.history.note(Probed(self.tick(), node, status, asked, degraded))

    def inbox(
        self, *ops: tuple[str, int], user: str = "ada", node: str = "n1", epoch: str = EPOCH, head: int = 0
    ) -> None:
        """What the API lists: (op, seq)."""
        items = tuple(Item(seq, f"i{op}", f"<{op}>") for op, seq in ops)
        top = max([head, *(seq for _, seq in ops)])
        self.history.note(Listed(self.tick(), node, user, epoch, top, 0, items))

    def two(self) -> Story:
        """A device that is told of two pushes as they come."""
        self.device()
        self.connect("d1#1")
        for seq, op in enumerate("ab", 1):
            self.push(op, seq)
            self.hears("d1#1", op, seq)
        return self


Told = Callable[[Story], None]


# -- histories that keep the promise -----------------------------------------------------------------------------------


def plain(story: Story) -> None:
    story.two().inbox(("a", 1), ("b", 2))


def expired_before_it_came(story: Story) -> None:
    story.device()
    story.push("a", 1, expires=story.now + SECOND // 5)
    story.push("b", 2)
    story.tick(1)
    story.connect("d1#1", head=2)
    story.gap("d1#1", 1, 1)
    story.hears("d1#1", "b", 2)
    story.inbox(("b", 2))


def taken_back(story: Story) -> None:
    story.two()
    story.push("c", 3)
    story.history.note(Withdrew(story.tick(), "ic", "asked"))
    story.gap("d1#1", 3, 3)
    story.inbox(("a", 1), ("b", 2), head=3)


def beyond_the_inbox_limit(story: Story) -> None:
    """Of ``Bounds(inbox_max=2)``."""
    story.device()
    for seq, op in enumerate("abc", 1):
        story.push(op, seq)
    story.connect("d1#1", head=3)
    story.gap("d1#1", 1, 1)
    story.hears("d1#1", "b", 2)
    story.hears("d1#1", "c", 3)
    story.inbox(("b", 2), ("c", 3))


def again_what_was_not_acknowledged(story: Story) -> None:
    story.two()
    story.ack("d1#1", 1)
    story.close("d1#1")
    story.connect("d1#2", after=1, cursor=1, head=2)
    story.hears("d1#2", "b", 2)
    story.inbox(("a", 1), ("b", 2))


def two_sockets_of_one_session_share_a_cursor(story: Story) -> None:
    story.two()
    story.device("d1b")
    story.ack("d1#1", 2)
    story.connect("d1b#1", after=2, cursor=2, head=2)
    story.close("d1b#1")
    story.close("d1#1")
    story.connect("d1#2", after=2, cursor=2, head=2)
    story.inbox(("a", 1), ("b", 2))


def deaf_and_says_so(story: Story) -> None:
    story.two()
    story.fault("start", deaf=("n1",))
    story.probe(200)
    story.tick(9)
    story.probe(200, degraded=True)
    story.probe(200, "n2")
    story.fault("stop", deaf=("n1",))
    story.tick(11)
    story.probe(200, degraded=True)
    story.probe(200)
    story.inbox(("a", 1), ("b", 2))


def resumed_by_its_own_position(story: Story) -> None:
    story.two()
    story.close("d1#1")
    story.push("c", 3)
    story.connect("d1#2", after=2, head=3, claims=(2, EPOCH), node="n2")
    story.hears("d1#2", "c", 3)
    story.inbox(("a", 1), ("b", 2), ("c", 3))


def another_epoch(story: Story) -> None:
    """Numbers are given anew; what was answered is still there, and the device forgets its numbers."""
    story.two()
    story.close("d1#1")
    story.connect("d1#2", after=0, head=2, claims=(2, EPOCH), reset=True, epoch="e2")
    story.hears("d1#2", "b", 1)
    story.hears("d1#2", "a", 2)
    story.inbox(("b", 1), ("a", 2), epoch="e2")


def unknown_then_settled(story: Story) -> None:
    story.device()
    story.connect("d1#1")
    story.ask("a")
    story.no_answer("a", "unknown", 0)
    story.hears("d1#1", "a", 1)
    story.ask("a", attempt=2)
    story.answer("a", ("ia", 1), attempt=2)
    story.inbox(("a", 1))


def unknown_and_never_stored(story: Story) -> None:
    story.two()
    story.ask("c")
    story.no_answer("c", "unknown", 503)
    story.inbox(("a", 1), ("b", 2))


def revoked_and_gone(story: Story) -> None:
    story.two()
    story.device("d2")
    story.connect("d2#1", head=2)
    story.revoke("d2")
    story.hears("d2#1", "a", 1)  # on its way already
    story.close("d2#1", 1008, "token_revoked")
    story.tick(2)
    story.refused("d2")
    story.inbox(("a", 1), ("b", 2))


def a_new_session_starts_where_another_device_was(story: Story) -> None:
    story.two()
    story.ack("d1#1", 2)
    story.device("d2")
    story.connect("d2#1", after=2, cursor=2, head=2)
    story.inbox(("a", 1), ("b", 2))


def overlapping_pushes_in_any_order(story: Story) -> None:
    story.device()
    story.connect("d1#1")
    story.ask("a")
    story.ask("b")
    story.answer("a", ("ia", 2))
    story.answer("b", ("ib", 1))
    story.hears("d1#1", "b", 1)
    story.hears("d1#1", "a", 2)
    story.inbox(("b", 1), ("a", 2))


def late_but_in_time(story: Story) -> None:
    story.two()
    story.fault("start", "n1")
    story.probe(503)
    story.tick(20)
    story.probe(503)
    story.fault("stop", "n1")
    story.push("c", 3)
    story.tick(8)
    story.hears("d1#1", "c", 3)
    story.tick(20)
    story.probe(200)
    story.inbox(("a", 1), ("b", 2), ("c", 3))


def said_again_in_the_dark(story: Story) -> None:
    """What was stored before can be answered by whoever cannot store."""
    story.two()
    story.fault("start", "n1")
    story.ask("b", attempt=2)
    story.answer("b", ("ib", 2), attempt=2)
    story.fault("stop", "n1")
    story.inbox(("a", 1), ("b", 2))


GOOD: tuple[Told, ...] = (
    *(plain, expired_before_it_came, taken_back, beyond_the_inbox_limit, again_what_was_not_acknowledged),
    *(resumed_by_its_own_position, another_epoch, unknown_then_settled, unknown_and_never_stored, revoked_and_gone),
    *(a_new_session_starts_where_another_device_was, overlapping_pushes_in_any_order, late_but_in_time),
    *(two_sockets_of_one_session_share_a_cursor, deaf_and_says_so, said_again_in_the_dark),
)


# -- histories that break it -------------------------------------------------------------------------------------------


def one_device_never_hears(story: Story) -> None:
    story.device("d2")
    story.connect("d2#1")
    plain(story)


def one_inbox_lacks_it(story: Story) -> None:
    story.two()
    story.inbox(("a", 1), ("b", 2))
    story.inbox(("a", 1), node="n2", head=2)


def a_gap_over_what_is_there(story: Story) -> None:
    story.two()
    story.close("d1#1")
    story.connect("d1#2", head=2)
    story.gap("d1#2", 1, 1)
    story.hears("d1#2", "b", 2)
    story.inbox(("a", 1), ("b", 2))


def nobody_sent_it(story: Story) -> None:
    story.two()
    story.hears("d1#1", "x", 3)
    story.inbox(("a", 1), ("b", 2))


def refused_and_there(story: Story) -> None:
    story.two()
    story.ask("c")
    story.no_answer("c", "fail", 422)
    story.hears("d1#1", "c", 3)
    story.inbox(("a", 1), ("b", 2))


def another_content(story: Story) -> None:
    story.two()
    story.ask("c")
    story.close("d1#1")
    story.connect("d1#2", head=2)
    story.hears("d1#2", "a", 1, content="<c>")
    story.hears("d1#2", "b", 2)
    story.inbox(("a", 1), ("b", 2))


def a_hole_on_a_connection(story: Story) -> None:
    story.device()
    story.connect("d1#1")
    for seq, op in enumerate("ab", 1):
        story.push(op, seq)
    story.hears("d1#1", "b", 2)
    story.close("d1#1")
    story.connect("d1#2", head=2)
    story.hears("d1#2", "a", 1)
    story.hears("d1#2", "b", 2)
    story.inbox(("a", 1), ("b", 2))


def twice_on_a_connection(story: Story) -> None:
    story.two().hears("d1#1", "b", 2)
    story.inbox(("a", 1), ("b", 2))


def a_resume_that_starts_late(story: Story) -> None:
    story.two()
    story.close("d1#1")
    story.connect("d1#2", after=2, cursor=0, head=2)
    story.inbox(("a", 1), ("b", 2))


def a_position_not_trusted(story: Story) -> None:
    story.two()
    story.close("d1#1")
    story.connect("d1#2", after=0, head=2, claims=(2, EPOCH), reset=True)
    story.inbox(("a", 1), ("b", 2))


def a_position_of_another_epoch_trusted(story: Story) -> None:
    story.two()
    story.close("d1#1")
    story.connect("d1#2", after=2, head=2, claims=(2, EPOCH), epoch="e2")
    story.inbox(("a", 1), ("b", 2), epoch="e2")


def the_state_goes_back(story: Story) -> None:
    story.two()
    story.state("d1#1", 2)
    story.state("d1#1", 1)
    story.inbox(("a", 1), ("b", 2))


def a_number_is_two_ids(story: Story) -> None:
    story.two()
    story.push("c", 2)
    story.history.note(Withdrew(story.tick(), "ic", "asked"))
    story.inbox(("a", 1), ("b", 2))


def an_id_is_two_numbers(story: Story) -> None:
    story.two().hears("d1#1", "b", 3)
    story.inbox(("a", 1), ("b", 2))


def the_later_one_has_the_lower_number(story: Story) -> None:
    story.device()
    story.push("a", 2)
    story.push("b", 1)
    story.connect("d1#1", head=2)
    story.hears("d1#1", "b", 1)
    story.hears("d1#1", "a", 2)
    story.inbox(("b", 1), ("a", 2))


def received_before_the_next_was_asked_for(story: Story) -> None:
    """Its answer is late, but somebody had it already."""
    story.device()
    story.connect("d1#1")
    story.ask("a")
    story.hears("d1#1", "a", 1)
    story.ask("b")
    story.answer("a", ("ia", 1))
    story.answer("b", ("ib", 0))
    story.close("d1#1")
    story.inbox(("a", 1))
    story.history.note(Withdrew(story.tick(), "ib", "asked"))


def a_batch_out_of_order(story: Story) -> None:
    story.device()
    for index, op in enumerate("ab"):
        story.ask(op, kind="batch", request="r", index=index)
    at = story.tick()
    for op, seq in (("a", 2), ("b", 1)):
        story.history.note(Answered(at, op, 1, "n1", "ok", 201, (Given("ada", f"i{op}", seq, FAR),)))
    story.connect("d1#1", head=2)
    story.hears("d1#1", "b", 1)
    story.hears("d1#1", "a", 2)
    story.inbox(("b", 1), ("a", 2))


def a_key_is_two_notifications(story: Story) -> None:
    story.two().hears("d1#1", "b", 3, id="another")
    story.inbox(("a", 1), ("b", 2))


def two_answers_to_a_key(story: Story) -> None:
    story.two()
    story.ask("b", attempt=2)
    story.answer("b", ("ib2", 3), attempt=2)
    story.history.note(Withdrew(story.tick(), "ib2", "asked"))
    story.inbox(("a", 1), ("b", 2))


def a_cursor_goes_back(story: Story) -> None:
    story.two()
    story.ack("d1#1", 2)
    story.close("d1#1")
    story.connect("d1#2", after=1, cursor=1, head=2)
    story.hears("d1#2", "b", 2)
    story.inbox(("a", 1), ("b", 2))


def a_cursor_nobody_set(story: Story) -> None:
    story.two()
    story.ack("d1#1", 1)
    story.close("d1#1")
    story.connect("d1#2", after=2, cursor=2, head=2)
    story.inbox(("a", 1), ("b", 2))


def told_after_its_revocation(story: Story) -> None:
    story.device("d2")
    story.connect("d2#1")
    story.two()
    story.revoke("d2")
    story.tick(3)
    story.hears("d2#1", "a", 1)
    story.inbox(("a", 1), ("b", 2))


def let_in_after_its_revocation(story: Story) -> None:
    story.two()
    story.device("d2")
    story.revoke("d2")
    story.tick(1)
    story.connect("d2#1", node="n2", head=2)
    story.inbox(("a", 1), ("b", 2))


def let_in_at_once_by_the_node_that_revoked_it(story: Story) -> None:
    story.two()
    story.device("d2")
    story.revoke("d2")
    story.connect("d2#1", head=2)
    story.inbox(("a", 1), ("b", 2))


def revoked_by_nobody(story: Story) -> None:
    story.two().close("d1#1", 1008, "token_revoked")
    story.inbox(("a", 1), ("b", 2))


def on_anothers_socket(story: Story) -> None:
    story.device("d2", "bob")
    story.connect("d2#1", user="bob")
    story.two()
    story.hears("d2#1", "a", 1)
    story.inbox(("a", 1), ("b", 2))
    story.inbox(user="bob")


def too_late_after_the_heal(story: Story) -> None:
    story.two()
    story.fault("start")
    story.fault("stop")
    story.push("c", 3)
    story.tick(11)
    story.hears("d1#1", "c", 3)
    story.inbox(("a", 1), ("b", 2), ("c", 3))


def accepted_in_the_dark(story: Story) -> None:
    story.two()
    story.fault("start", "n1")
    story.push("c", 3)
    story.fault("stop", "n1")
    story.hears("d1#1", "c", 3)
    story.inbox(("a", 1), ("b", 2), ("c", 3))


def ready_in_the_dark(story: Story) -> None:
    story.two()
    story.fault("start", "n1")
    story.tick(6)
    story.probe(200)
    story.fault("stop", "n1")
    story.inbox(("a", 1), ("b", 2))


def never_ready_again(story: Story) -> None:
    story.two()
    story.fault("start", "n1")
    story.fault("stop", "n1")
    story.tick(11)
    story.probe(503)
    story.inbox(("a", 1), ("b", 2))


def deaf_and_silent_about_it(story: Story) -> None:
    story.two()
    story.fault("start", deaf=("n1",))
    story.tick(9)
    story.probe(200)
    story.fault("stop", deaf=("n1",))
    story.inbox(("a", 1), ("b", 2))


def deaf_for_ever(story: Story) -> None:
    story.two()
    story.fault("start", deaf=("n1",))
    story.fault("stop", deaf=("n1",))
    story.tick(11)
    story.probe(200, degraded=True)
    story.inbox(("a", 1), ("b", 2))


def a_cursor_that_the_other_socket_moved_goes_back(story: Story) -> None:
    story.two()
    story.device("d1b")
    story.ack("d1#1", 2)
    story.connect("d1b#1", after=1, cursor=1, head=2)
    story.inbox(("a", 1), ("b", 2))


def closed_by_a_bug(story: Story) -> None:
    story.two().close("d1#1", 1011, "internal_error")
    story.inbox(("a", 1), ("b", 2))


def an_answer_with_a_trace(story: Story) -> None:
    story.two().ask("c")
    story.no_answer("c", "unknown", 503, "Traceback (most recent call last)")
    story.inbox(("a", 1), ("b", 2))


BAD: tuple[tuple[str, Told], ...] = (
    ("I1", one_device_never_hears),
    ("I1", one_inbox_lacks_it),
    ("I3", a_gap_over_what_is_there),
    ("I2", nobody_sent_it),
    ("I2", refused_and_there),
    ("I2", another_content),
    ("I3", a_hole_on_a_connection),
    ("I4", an_id_is_two_numbers),
    ("I3", twice_on_a_connection),
    ("I3", a_resume_that_starts_late),
    ("I3", a_position_not_trusted),
    ("I3", a_position_of_another_epoch_trusted),
    ("I3", the_state_goes_back),
    ("I4 I5", a_number_is_two_ids),
    ("I5", the_later_one_has_the_lower_number),
    ("I5", received_before_the_next_was_asked_for),
    ("I5", a_batch_out_of_order),
    ("I6", a_key_is_two_notifications),
    ("I6", two_answers_to_a_key),
    ("I7", a_cursor_goes_back),
    ("I7", a_cursor_nobody_set),
    ("I8", told_after_its_revocation),
    ("I8", let_in_after_its_revocation),
    ("I8", let_in_at_once_by_the_node_that_revoked_it),
    ("I8", revoked_by_nobody),
    ("I2 I4 I9", on_anothers_socket),
    ("I10", too_late_after_the_heal),
    ("I12", accepted_in_the_dark),
    ("I12", ready_in_the_dark),
    ("I12", never_ready_again),
    ("I12", deaf_and_silent_about_it),
    ("I12", deaf_for_ever),
    ("I7", a_cursor_that_the_other_socket_moved_goes_back),
    ("I13", closed_by_a_bug),
    ("I13", an_answer_with_a_trace),
)


@pytest.mark.parametrize("told", GOOD, ids=lambda told: told.__name__)
def test_a_history_that_keeps_the_promise_passes(told: Told) -> None:
    story = Story()
    told(story)
    bounds = Bounds(inbox_max=2 if told is beyond_the_inbox_limit else 10_000)
    assert report(check(story.history, bounds=bounds)) == ""


@pytest.mark.parametrize(("rules", "told"), BAD, ids=lambda value: getattr(value, "__name__", "breaks"))
def test_a_history_that_breaks_a_rule_is_caught_by_it(rules: str, told: Told) -> None:
    story = Story()
    told(story)
    found = check(story.history)
    assert {violation.rule for violation in found} == set(rules.split()), report(found)


def test_every_rule_is_seen_to_bite() -> None:
    assert {rule for rules, _ in BAD for rule in rules.split()} == RULES.keys()


def test_a_secret_in_a_log_is_found_and_not_repeated() -> None:
    found = leaks(["open-sesame-1234"], {"a log": "GET /ws?token=open-sesame-1234", "another": "nothing"})
    assert [(one.rule, "a log" in one.text, "sesame-1234" in one.text) for one in found] == [("I13", True, False)]


def test_a_history_survives_being_written_down(tmp_path: Path) -> None:
    story = Story()
    late_but_in_time(story)
    story.revoke("d9")
    path = story.history.dump(tmp_path / "history.jsonl")
    read = History.load(path)
    assert (read.seed, read.events) == (7, story.history.events)


def test_a_wall_time_falls_where_it_was_on_the_clock_of_the_history() -> None:
    history = History()
    written = datetime.now(UTC).isoformat()
    assert abs(history.at(written) - history.now) < SECOND


def test_the_content_is_what_was_sent_whatever_else_a_frame_has() -> None:
    sent = {"title": "t", "body": "", "data": {"b": 1, "a": 2}, "category": "c", "priority": "low", "ttl": 9}
    received = {"type": "notification", "seq": 4, **sent, "data": {"a": 2, "b": 1}, "read_at": "2026-01-01T00:00:00Z"}
    assert digest(sent) == digest(received)
    assert digest(sent) != digest(received | {"body": "x"})


def test_a_row_that_did_nothing_fails() -> None:
    row = Row("R0", random.Random(1), 1)
    with pytest.raises(AssertionError, match="nothing was acknowledged"):
        row.judge()
    row.ok = 1
    with pytest.raises(AssertionError, match="nothing was broken"):
        row.judge()
    row.faults, row.lost = 1, 1
    with pytest.raises(AssertionError, match="lost"):
        row.judge()
    assert "seed=1" in str(row)


def test_a_delay_is_that_of_a_prompt_device_and_lasts_until_it_has_it() -> None:
    story = Story().two()  # each is asked for, answered, heard: a tenth of a second apart
    story.push("late", 3)
    story.tick(0.9)
    facts = Facts(story.history)
    facts.end = story.now
    assert [round(delay, 1) for delay in delays(facts, until=facts.end)] == [0.2, 0.2, 1.0]
    assert [round(delay, 1) for delay in delays(facts, until=facts.end, heard_by=facts.end)] == [0.2, 0.2]
    assert percentile([0.1] * 98 + [5.0, 7.0]) == 7.0
    assert percentile([]) == 0.0


def test_what_a_node_holds_too_much_of_is_named() -> None:
    before = Held({"n0": 100 << 20}, {"n0": 40}, {"n0": 5})
    assert Held({"n0": 130 << 20}, {"n0": 51}, {"n0": 11}).excess(before) == []
    found = Held({"n0": 140 << 20}, {"n0": 60}, {"n0": 12}).excess(before)
    assert [told.split(" ")[1:3] for told in found] == [["holds", "140"], ["has", "60"], ["has", "12"]]


def test_latencies_are_those_of_prompt_devices() -> None:
    story = Story().two()
    story.device("d2", prompt=False)
    assert latencies(Facts(story.history)) == {"median_ms": 200.0, "worst_s": 0.2, "per_s": 7}
