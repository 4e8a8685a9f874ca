"""The rule of the feed, over schedules nobody would think of."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.feed import Feed, Gap, Verdict
from gateway.model import Entry, Page, State


def entry(seq: int) -> Entry:
    return Entry(seq, f"id-{seq}", "", 0, 0)


class Log:
    """An inbox in memory: what is stored, what is gone, and the counters."""

    def __init__(self) -> None:
        self.live: dict[int, Entry] = {}
        self.head = self.rev = 0

    def append(self) -> int:
        self.head += 1
        self.live[self.head] = entry(self.head)
        return self.head

    def page(self, after: int, *, rows: int) -> Page:
        state = State(self.head, self.rev, 0)
        found = [self.live[seq] for seq in sorted(self.live) if seq > after][:rows]
        full = len(found) == rows
        return Page(tuple(found), found[-1].seq if full else self.head, state)


def test_a_live_notification_that_is_the_next_one_is_written() -> None:
    feed = Feed(after=4, rev=0)
    assert feed.settle(State(4, 0, 0)) is Verdict.DROP
    assert feed.offer(5) is Verdict.WRITE
    assert feed.offer(5) is Verdict.DROP
    assert feed.offer(7) is Verdict.READ
    assert feed.behind


def test_a_signal_that_comes_while_the_inbox_is_read_is_not_forgotten() -> None:
    log, feed = Log(), Feed(after=0, rev=0)
    log.append()
    page = log.page(0, rows=10)
    assert feed.offer(log.append()) is Verdict.READ  # committed after the page's snapshot
    assert list(feed.play(page)) == [entry(1)]
    assert feed.settle(page.state) is Verdict.READ
    page = log.page(feed.after, rows=10)
    assert list(feed.play(page)) == [entry(2)]
    assert feed.settle(page.state) is Verdict.DROP


def test_numbers_that_will_not_come_are_told_once_and_neighbours_together() -> None:
    log, feed = Log(), Feed(after=0, rev=0)
    for _ in range(9):
        log.append()
    for gone in (1, 2, 5, 8, 9):
        del log.live[gone]
    assert list(feed.play(log.page(0, rows=10))) == [
        Gap(1, 2),
        entry(3),
        entry(4),
        Gap(5, 5),
        entry(6),
        entry(7),
        Gap(8, 9),
    ]


def test_a_caller_that_cannot_write_any_more_resumes_where_it_stopped() -> None:
    log, feed = Log(), Feed(after=0, rev=0)
    for _ in range(5):
        log.append()
    del log.live[2]
    playing = feed.play(log.page(0, rows=10))
    assert [next(playing), next(playing)] == [entry(1), Gap(2, 2)]
    del playing
    assert list(feed.play(log.page(feed.after, rows=10))) == [entry(3), entry(4), entry(5)]


def test_a_change_of_state_that_was_missed_is_told_as_changed() -> None:
    feed = Feed(after=0, rev=3)
    feed.settle(State(0, 3, 0))
    assert feed.state(4) is Verdict.WRITE
    assert feed.state(4) is Verdict.DROP
    assert feed.state(6) is Verdict.CHANGED
    assert feed.state(5) is Verdict.DROP


def test_leaving_behind_compares_the_state() -> None:
    feed = Feed(after=0, rev=3)
    assert feed.state(4) is Verdict.READ
    assert feed.settle(State(0, 3, 0)) is Verdict.READ  # the snapshot is older than what was heard
    assert feed.settle(State(0, 5, 0)) is Verdict.CHANGED
    assert feed.state(5) is Verdict.DROP


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 4)),
        st.tuples(st.just("remove"), st.integers(1, 60)),
        st.tuples(st.just("change"), st.just(0)),
        st.tuples(st.just("deliver"), st.integers(0, 60)),  # signals in any order, doubled or never
        st.tuples(st.just("snapshot"), st.integers(1, 4)),  # a page is read …
        st.tuples(st.just("play"), st.integers(1, 6)),  # … and played later, perhaps only in part
        st.tuples(st.just("block"), st.just(0)),  # the transport takes no more
    ),
    max_size=120,
)


@settings(max_examples=600, deadline=None)
@given(ACTIONS, st.integers(0, 5))
def test_every_number_is_told_exactly_once_and_in_order_whatever_the_signals(
    actions: list[tuple[str, int]], start: int
) -> None:
    log = Log()
    for _ in range(start):
        log.append()
    feed = Feed(after=start, rev=0)
    told: list[int] = []
    revs = [0]
    pending: Page | None = None

    def tell(item: Entry | Gap) -> None:
        if isinstance(item, Gap):
            assert item.first == (told[-1] if told else start) + 1
            for seq in range(item.first, item.last + 1):
                assert seq not in log.live, "a live entry was told as a gap"
            told.extend(range(item.first, item.last + 1))
        else:
            assert item.seq == (told[-1] if told else start) + 1
            told.append(item.seq)

    def play(page: Page, most: int) -> None:
        for count, item in enumerate(feed.play(page), 1):
            tell(item)
            if count == most:
                return
        if feed.settle(page.state) is Verdict.CHANGED:
            revs.append(feed.rev)

    for action, number in actions:
        if action == "append":
            for _ in range(number):
                log.append()
        elif action == "remove":
            log.live.pop(number, None)
            log.rev += 1
        elif action == "change":
            log.rev += 1
        elif action == "deliver" and 0 < number <= log.head:
            if feed.offer(number) is Verdict.WRITE:
                tell(entry(number))
        elif action == "deliver":
            if feed.state(log.rev) in (Verdict.WRITE, Verdict.CHANGED):
                revs.append(feed.rev)
        elif action == "snapshot":
            pending = log.page(feed.after, rows=number)
        elif action == "play" and pending is not None and feed.behind:
            play(pending, number)
            pending = None
        elif action == "block":
            feed.behind = True

    feed.heard(head=log.head, rev=log.rev)  # the slow re-check
    for _ in range(1000):
        if not feed.behind:
            break
        play(log.page(feed.after, rows=3), 10**6)
    assert told == list(range(start + 1, log.head + 1))
    assert feed.rev == log.rev
    assert revs == sorted(set(revs))
