"""How long things took, read from a history: answers to pushes, and notifications to devices. Judges nothing."""

from __future__ import annotations

from facts import Facts
from history import SECOND, Fault

Span = tuple[int, int]
"""From, to: on the clock of the history."""


def before_faults(facts: Facts) -> Span:
    return 0, min((one.at for one in facts.history.of(Fault)), default=facts.end)


def of_faults(facts: Facts) -> list[Span]:
    """Every fault from its start to its end."""
    ends = {one.name: one.at for one in facts.history.of(Fault) if one.phase == "stop"}
    return [(one.at, ends[one.name]) for one in facts.history.of(Fault) if one.phase == "start"]


def answered_in(facts: Facts, *spans: Span) -> list[float]:
    """Seconds from each request of these spans to its answer, or to the end of the client's patience."""
    took = []
    for intent in facts.intents.values():
        asked = {attempt.attempt: attempt for attempt in intent.attempts}
        for answer in intent.answers:
            at = asked[answer.attempt].at
            if any(start <= at < stop for start, stop in spans):
                took.append((answer.at - at) / SECOND)
    return took


def delivered_in(facts: Facts, *spans: Span) -> list[float]:
    """Seconds from each push asked for in these spans to each prompt device that was connected all the while.

    What did not come counts until the end of that connection.
    """
    took = []
    for one in facts.accepted:
        at = one.intent.invoked
        if not any(start <= at < stop for start, stop in spans) or facts.gone(one, inbox_max=1 << 60):
            continue
        for device in facts.devices.values():
            who = device.signed_in
            if not who.prompt or who.user != one.given.user or facts.revoked_at(who.session) is not None:
                continue
            heard = device.heard.get(one.given.id, facts.end)
            for visit in device.visits:
                until = visit.closed.at if visit.closed else facts.end
                if visit.opened.at < at < until:
                    took.append((min(heard, until) - at) / SECOND)
    return took
