"""What one connection still has to hear, as a cursor over the log. Pure: no I/O, no clock, no frames.

One rule: *if a live notification is the next one, write it; otherwise read the inbox after your cursor.*
It replaces replay gating, duplicate suppression and overflow policy. Signals may be lost, doubled or come in any
order; the log decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from gateway.model import Entry, Page, State


class Verdict(Enum):
    """What to do about something that was offered."""

    WRITE = auto()  # it is the next one
    DROP = auto()  # this connection has heard it
    READ = auto()  # something before it is missing: read the inbox
    CHANGED = auto()  # state only: details were missed; tell the numbers


class Gap(NamedTuple):
    """Numbers that will not come, both ends included."""

    first: int
    last: int


class Feed:
    """``after``: everything up to it was told on this connection. ``rev``: the last change of state told.

    ``behind`` means that nothing may be written from a signal: the inbox is read, and what signals said meanwhile is
    remembered only as numbers that the reading has to reach.
    """

    __slots__ = ("_known", "_known_rev", "after", "behind", "rev")

    def __init__(self, *, after: int, rev: int) -> None:
        self.after, self.rev = after, rev
        self.behind = True
        self._known, self._known_rev = after, rev

    def offer(self, seq: int) -> Verdict:
        """A notification was committed as ``seq``. On WRITE it counts as told."""
        if seq <= self.after:
            return Verdict.DROP
        if not self.behind and seq == self.after + 1:
            self.after = seq
            return Verdict.WRITE
        self.heard(head=seq, rev=self.rev)
        return Verdict.READ

    def state(self, rev: int) -> Verdict:
        """The state of the inbox changed for the ``rev``-th time. On WRITE and CHANGED it counts as told."""
        if rev <= self.rev:
            return Verdict.DROP
        if self.behind:
            self._known_rev = max(self._known_rev, rev)
            return Verdict.READ
        verdict = Verdict.WRITE if rev == self.rev + 1 else Verdict.CHANGED
        self.rev = rev
        return verdict

    def heard(self, *, head: int, rev: int) -> bool:
        """The inbox is known to be this far. Whether the connection is (now) behind."""
        if head > self.after or rev > self.rev:
            self.behind = True
            self._known, self._known_rev = max(self._known, head), max(self._known_rev, rev)
        return self.behind

    def play(self, page: Page) -> Iterator[Entry | Gap]:
        """What ``page`` has to tell this connection, in order and without holes. What is yielded counts as told,

        so a caller that cannot write any more just stops iterating and reads again later.
        """
        for entry in page.entries:
            if entry.seq <= self.after:
                continue
            if entry.seq > self.after + 1:
                missing = Gap(self.after + 1, entry.seq - 1)
                self.after = missing.last
                yield missing
            self.after = entry.seq
            yield entry
        if page.upto > self.after:
            missing = Gap(self.after + 1, page.upto)
            self.after = missing.last
            yield missing

    def settle(self, state: State) -> Verdict:
        """After playing a page of this ``state``: READ if there is more to read, else the connection is caught up.

        Then CHANGED says that state changed meanwhile without being told (it now counts as told); DROP: all is said.
        """
        if self.after < max(state.head, self._known) or state.rev < self._known_rev:
            return Verdict.READ
        self.behind = False
        if state.rev > self.rev:
            self.rev = state.rev
            return Verdict.CHANGED
        return Verdict.DROP
