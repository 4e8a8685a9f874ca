"""The invariants of the fault rows, as pure functions over a history: what each finds broken. Knows no gateway.

Every rule has a test in ``test_harness.py`` with a history it passes and one it catches. What cannot be read from a
history (memory, descriptors, the integrity of a database) is measured by the rows themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from facts import Device, Facts, Visit
from history import SECOND, Answered, Closed, Fault, Gapped, History, Probed, Received, Refused

MOST_TOLD = 20
"""Violations of one rule that are listed; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds, and what the gateways under test are set to.

    ``revoked_within``: after that a revoked credential is good for nothing on any node. ``slack``: what the
    reader's own process may be late on a busy machine. ``alive_within``: after the last fault ended.
    ``degraded_within``: three heartbeats of the bus, and the one that finds them missing.
    """

    revoked_within: float = 1.0
    slack: float = 0.5
    alive_within: float = 10.0
    quick_within: float = 30.0
    quick_slack: float = 0.5
    ready_within: float = 5.0
    degraded_within: float = 8.0
    inbox_max: int = 10_000


@dataclass(frozen=True, slots=True)
class Violation:
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


Rule = Callable[[Facts, Bounds], Iterator[str]]


def no_loss(facts: Facts, bounds: Bounds) -> Iterator[str]:
    """I1: every 2xx is in the inbox and reached every device that was signed in before, unless it may be gone."""
    stored = {(listed.node, user): {item.id for item in listed.items} for user, all in facts.listed.items()
              for listed in all}  # fmt: skip
    devices: dict[str, list[Device]] = defaultdict(list)
    for device in facts.devices.values():
        if facts.revoked_at(device.signed_in.session) is None:
            devices[device.signed_in.user].append(device)
    for one in facts.accepted:
        given = one.given
        if facts.gone(one, inbox_max=bounds.inbox_max):
            continue
        lists = facts.listed.get(given.user, [])
        if not lists:
            yield f"the inbox of {given.user} was never read"
        for listed in lists:
            if given.id not in stored[listed.node, given.user]:
                yield f"{given.id} ({given.seq} of {given.user}) was answered 2xx, {listed.node} does not list it"
        for device in devices[given.user]:
            if device.signed_in.at < one.intent.invoked and given.id not in facts.heard[device.signed_in.session]:
                yield f"{given.id} ({given.seq} of {given.user}) never reached {device.signed_in.device}"


def no_invention(facts: Facts, bounds: Bounds) -> Iterator[str]:
    """I2: what is received or listed was asked for, for this user, with this content, before; and was not refused."""
    contents = {one.given.id: one.intent.digest for one in facts.accepted}

    def judge(where: str, user: str, id: str, digest: str, at: int) -> Iterator[str]:
        intent = facts.wanted.get(digest)
        if intent is None:
            yield f"{where}: {id} has a content that nobody sent"
        elif user not in intent.users:
            yield f"{where}: {id} ({intent.op}) was not meant for {user}"
        elif at < intent.invoked:
            yield f"{where}: {id} ({intent.op}) came before it was sent"
        elif intent.refused:
            yield f"{where}: {id} ({intent.op}) was refused with a 4xx, and is there"
        elif contents.get(id, digest) != digest:
            yield f"{where}: {id} has the content of another"

    for event in facts.history.of(Received):
        yield from judge(event.connection, event.user, event.id, event.digest, event.at)
    for listed in (one for all in facts.listed.values() for one in all):
        for item in listed.items:
            yield from judge(f"inbox at {listed.node}", listed.user, item.id, item.digest, listed.at)


def in_order(facts: Facts, bounds: Bounds) -> Iterator[str]:
    """I3: a connection starts where it should and covers every number after that, one by one, once."""
    fine = {(one.given.user, one.given.seq): one.given.id for one in facts.accepted
            if not facts.gone(one, inbox_max=bounds.inbox_max)} if len(facts.epochs) <= 1 else {}  # fmt: skip
    reached: dict[tuple[str, str], int] = defaultdict(int)
    for visit in sorted(facts.visits.values(), key=lambda visit: visit.opened.at):
        hello = visit.opened
        yield from _start(visit, reached[hello.user, hello.epoch])
        at = hello.after
        for told in visit.told:
            first, last = (told.seq, told.seq) if isinstance(told, Received) else (told.first, told.last)
            if first != at + 1 or last < first:
                yield f"{hello.connection}: {first}–{last} after {at}"
            if isinstance(told, Gapped):
                for seq in range(first, last + 1):
                    if (hello.user, seq) in fine:
                        yield f"{hello.connection}: a gap over {seq}, which is {fine[hello.user, seq]} and still there"
            at = max(at, last)
        reached[hello.user, hello.epoch] = max(reached[hello.user, hello.epoch], at)
        revs = [hello.rev, *(stated.rev for stated in visit.stated)]
        if any(later <= earlier for earlier, later in pairwise(revs)):
            yield f"{hello.connection}: the state went {revs}"


def _start(visit: Visit, reached: int) -> Iterator[str]:
    hello, asked = visit.opened, visit.dialled
    if asked is None or asked.after is None:
        if hello.reset or hello.after != hello.cursor:
            yield f"{hello.connection}: starts after {hello.after}, its cursor is {hello.cursor}"
    elif asked.epoch == hello.epoch and asked.after <= max(reached, hello.head):
        if hello.reset or hello.after != asked.after:
            yield f"{hello.connection}: asked for after {asked.after} of this epoch, starts after {hello.after}"
    elif not hello.reset or hello.after != hello.cursor:
        yield f"{hello.connection}: trusts {asked.after} of {asked.epoch}, the epoch is {hello.epoch}"


def agreed(facts: Facts, bounds: Bounds) -> Iterator[str]:
    """I4: in one epoch a number of a user is one id, for everybody and for ever, and an id is one number."""
    ids: dict[tuple[str, str, int], str] = {}
    places: dict[tuple[str, str], tuple[str, int]] = {}
    numbers: dict[str, set[int]] = defaultdict(set)

    def saw(where: str, epoch: str, user: str, seq: int, id: str) -> Iterator[str]:
        numbers[id].add(seq)
        if ids.setdefault((epoch, user, seq), id) != id:
            yield f"{where}: {seq} of {user} is {id}, was {ids[epoch, user, seq]}"
        if places.setdefault((epoch, id), (user, seq)) != (user, seq):
            yield f"{where}: {id} is {seq} of {user}, was {places[epoch, id]}"

    for event in facts.history.of(Received):
        yield from saw(event.connection, event.epoch, event.user, event.seq, event.id)
    for listed in (one for all in facts.listed.values() for one in all):
        for item in listed.items:
            yield from saw(f"inbox at {listed.node}", listed.epoch, listed.user, item.seq, item.id)
    only = next(iter(facts.epochs)) if len(facts.epochs) == 1 else None
    for one in facts.accepted:  # an answer names no epoch
        given = one.given
        if only is not None:
            yield from saw(f"answer to {one.intent.op}", only, given.user, given.seq, given.id)
        elif numbers[given.id] and given.seq not in numbers[given.id]:
            yield f"answer to {one.intent.op}: {given.id} is {given.seq}, elsewhere {numbers[given.id]}"


def real_time(facts: Facts, bounds: Bounds) -> Iterator[str]:
    """I5: what was over, or received, before the next was asked for has the lower number. A batch keeps its order."""
    if len(facts.epochs) > 1:
        return
    singles: dict[str, list[tuple[int, int, int, str]]] = defaultdict(list)
    batches: dict[tuple[str, str, int], list[tuple[int, int, str]]] = defaultdict(list)
    for one in facts.accepted:
        given, intent = one.given, one.intent
        over = min(one.answer.at, facts.first_seen.get(given.id, one.answer.at))
        if intent.kind == "one":
            singles[given.user].append((intent.invoked, over, given.seq, intent.op))
        elif intent.kind == "batch" and one.answer.attempt == 1:
            first = intent.attempts[0]
            batches[first.request, given.user, one.answer.at].append((first.index, given.seq, intent.op))
    for user, ops in singles.items():
        finished = sorted(ops, key=lambda op: op[1])
        highest, by, at = 0, "", 0
        for invoked, _, seq, op in sorted(ops):
            while at < len(finished) and finished[at][1] < invoked:
                if finished[at][2] > highest:
                    highest, by = finished[at][2], finished[at][3]
                at += 1
            if seq <= highest:
                yield f"{op} is {seq} of {user}, but {by} was {highest} before it was asked for"
    for (_, user, _), items in batches.items():
        items.sort()
        for (_, seq, op), (_, next_seq, next_op) in pairwise(items):
            if next_seq <= seq:
                yield f"{next_op} comes after {op} in its batch, but is {next_seq} of {user} after {seq}"


def once(facts: Facts, bounds: Bounds) -> Iterator[str]:
    """I6: a key is one notification, however often it was sent, and every answer to it is the same."""
    for intent in facts.intents.values():
        answers = {answer.given for answer in intent.answers if answer.outcome == "ok"}
        if len(answers) > 1:
            yield f"{intent.op} was answered differently: {sorted(answers)}"
        if answers and intent.refused:
            yield f"{intent.op} was answered both 2xx and 4xx"
    ids: dict[tuple[str, str], set[str]] = defaultdict(set)
    for one in facts.accepted:
        ids[one.given.user, one.intent.digest].add(one.given.id)
    for event in facts.history.of(Received):
        ids[event.user, event.digest].add(event.id)
    for listed in (one for all in facts.listed.values() for one in all):
        for item in listed.items:
            ids[listed.user, item.digest].add(item.id)
    for (user, digest), found in ids.items():
        if len(found) > 1 and digest in facts.wanted:
            yield f"{facts.wanted[digest].op} is {len(found)} notifications of {user}: {sorted(found)}"


def acknowledged(facts: Facts, bounds: Bounds) -> Iterator[str]:
    """I7: what was confirmed as acknowledged stays so, nothing else counts, and it is not sent again unasked."""
    sent: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for device in facts.devices.values():
        sent[device.signed_in.user] += [(ack.at, ack.seq) for ack in device.acked]
    for device in facts.devices.values():
        who = device.signed_in
        acked = facts.acked[who.session]  # by whichever of its sockets
        inherited = max((seq for at, seq in sent[who.user] if at < who.at), default=0)
        for visit in device.visits:
            hello, began = visit.opened, visit.dialled.at if visit.dialled else visit.opened.at
            mine = [ack for ack in acked if ack.epoch == hello.epoch]
            sure = max((ack.seq for ack in mine if ack.confirmed and ack.at < began), default=0)
            most = max((ack.seq for ack in acked if ack.at < hello.at), default=0)
            if hello.cursor < sure:
                yield f"{hello.connection}: the cursor is {hello.cursor}, {sure} was confirmed"
            if hello.cursor > max(most, inherited):
                yield f"{hello.connection}: the cursor is {hello.cursor}, {most} was acknowledged"
            if visit.dialled is None or visit.dialled.after is None:
                for told in visit.told:
                    if isinstance(told, Received) and told.seq <= sure:
                        yield f"{hello.connection}: {told.seq} came again, {sure} was confirmed"


def revoked(facts: Facts, bounds: Bounds) -> Iterator[str]:
    """I8: nothing reaches a revoked session, and it gets in nowhere; nobody else is told that he is revoked."""
    for device in facts.devices.values():
        session, name = device.signed_in.session, device.signed_in.device
        closes = [visit.closed for visit in device.visits if visit.closed is not None]
        ban = facts.revoked_at(session)
        if ban is None:
            for said in _ends(closes, device.refused):
                if said.code == 1008 and said.reason in ("token_revoked", "token_invalid", "user_disabled"):
                    yield f"{name} was told {said.reason}, and nobody had revoked it"
            continue
        _, counted, node = ban
        late = counted + round((bounds.revoked_within + bounds.slack) * SECOND)
        for visit in device.visits:
            hello = visit.opened
            for told in visit.told:
                if told.at > late:
                    yield f"{name} was told {_what(told)} {(told.at - counted) / SECOND:.2f} s after its revocation"
            began = visit.dialled.at if visit.dialled else hello.at
            limit = 0.0 if hello.node == node else bounds.revoked_within
            if began > counted + round(limit * SECOND):
                yield f"{name} got in at {hello.node} {(began - counted) / SECOND:.2f} s after its revocation"


def _ends(closed: Iterable[Closed], refused: Iterable[Refused]) -> Iterator[Closed | Refused]:
    yield from closed
    yield from refused


def _what(told: Received | Gapped) -> str:
    return str(told.seq) if isinstance(told, Received) else f"a gap {told.first}–{told.last}"


def no_cross_talk(facts: Facts, bounds: Bounds) -> Iterator[str]:
    """I9: what belongs to one user is never on the socket, or in the inbox, of another."""
    owners = {one.given.id: one.given.user for one in facts.accepted}
    for event in facts.history.of(Received):
        if owners.setdefault(event.id, event.user) != event.user:
            yield f"{event.connection} of {event.user} received {event.id} of {owners[event.id]}"
        if event.user != facts.devices[event.device].signed_in.user:
            yield f"{event.connection} of {facts.devices[event.device].signed_in.user} speaks for {event.user}"
    for listed in (one for all in facts.listed.values() for one in all):
        for item in listed.items:
            if owners.setdefault(item.id, listed.user) != listed.user:
                yield f"the inbox of {listed.user} holds {item.id} of {owners[item.id]}"


def alive(facts: Facts, bounds: Bounds) -> Iterator[str]:
    """I10: once all is healed, what was answered 2xx is with every prompt device that stays connected, in time."""
    within = round(bounds.alive_within * SECOND)
    for one in facts.accepted:
        if facts.gone(one, inbox_max=bounds.inbox_max):
            continue
        since = max(one.answer.at, facts.healed)
        for device in facts.devices.values():
            who = device.signed_in
            if not who.prompt or who.user != one.given.user or who.at >= one.intent.invoked:
                continue
            if facts.revoked_at(who.session) is not None:
                continue
            for visit in device.visits:
                begin = max(since, visit.opened.at)
                if (visit.closed.at if visit.closed else facts.end) - begin >= within:
                    if facts.heard[who.session].get(one.given.id, facts.end + 1) > begin + within:
                        yield f"{one.given.id} was not with {who.device} {bounds.alive_within:g} s after the heal"
                    break


def honest(facts: Facts, bounds: Bounds) -> Iterator[str]:
    """I12: a node that can neither store nor serve answers no 2xx and is not ready; one that hears nothing of the
    others says so. Healed, it is ready again and has nothing to add."""
    for begun, stop in _faults(facts):
        name, start, dark = begun.name, begun.at, begun.dark
        for intent in facts.intents.values():
            if intent.agreed is not None and intent.agreed.at < start:
                continue  # stored long ago, and said again
            asked = {attempt.attempt: attempt for attempt in intent.attempts}
            for answer in intent.answers:
                began = asked[answer.attempt]
                if answer.outcome == "ok" and answer.node in dark and start < began.at and answer.at < stop:
                    yield f"{answer.node} answered {intent.op} with {answer.status} during {name}"
        late = start + round(bounds.ready_within * SECOND)
        for probe in facts.history.of(Probed):
            if probe.node in dark and probe.status == 200 and late < probe.asked and probe.at < stop:
                yield f"{probe.node} said it was ready {(probe.asked - start) / SECOND:.1f} s into {name}"
        late = start + round(bounds.degraded_within * SECOND)
        for probe in facts.history.of(Probed):
            well = probe.status == 200 and not probe.degraded
            if probe.node in begun.deaf and well and late < probe.asked and probe.at < stop:
                yield f"{probe.node} said all was well {(probe.asked - start) / SECOND:.1f} s into {name}"
    due = facts.healed + round(bounds.alive_within * SECOND)
    probes: dict[str, list[Probed]] = defaultdict(list)
    for probe in facts.history.of(Probed):
        if probe.asked > due:
            probes[probe.node].append(probe)
    for node, late_ones in probes.items():
        if all(probe.status != 200 for probe in late_ones):
            yield f"{node} was not ready again {bounds.alive_within:g} s after the heal"
        elif all(probe.degraded for probe in late_ones if probe.status == 200):
            yield f"{node} heard nothing of the others {bounds.alive_within:g} s after the heal"


def _faults(facts: Facts) -> Iterator[tuple[Fault, int]]:
    """Each with its end."""
    running: dict[str, Fault] = {}
    for event in facts.history.of(Fault):
        if event.phase == "start":
            running[event.name] = event
        elif event.name in running:
            yield running.pop(event.name), event.at


_TRACES = ("Traceback", 'File "', "sqlalchemy", "asyncpg", "redis.exceptions", "SELECT ", "INSERT ")


def discreet(facts: Facts, bounds: Bounds) -> Iterator[str]:
    """I13, of what clients are told: no close as 1011, no 500, no trace of the inside."""
    for event in _ends(facts.history.of(Closed), facts.history.of(Refused)):
        if event.code == 1011:
            yield f"{event.connection} was closed with 1011 {event.reason}"
        if any(trace in event.reason for trace in _TRACES):
            yield f"{event.connection} was told {event.reason}"
    for answer in facts.history.of(Answered):
        if answer.status == 500 or any(trace in answer.detail for trace in _TRACES):
            yield f"{answer.op} was answered {answer.status}: {answer.detail[:200]}"


def leaks(canaries: Iterable[str], texts: Mapping[str, str]) -> list[Violation]:
    """I13, of what is written down: none of these secrets stands in any of these texts (name → text)."""
    return [
        Violation("I13", f"{name} holds a secret that begins {canary[:6]}…")
        for name, text in texts.items()
        for canary in canaries
        if canary in text
    ]


RULES: dict[str, Rule] = {
    "I1": no_loss, "I2": no_invention, "I3": in_order, "I4": agreed, "I5": real_time, "I6": once, "I7": acknowledged,
    "I8": revoked, "I9": no_cross_talk, "I10": alive, "I12": honest, "I13": discreet,
}  # fmt: skip


def check(history: History, *, bounds: Bounds | None = None) -> list[Violation]:
    """Everything that is broken, by the order of the rules."""
    facts = Facts(history)
    return [Violation(name, text) for name, rule in RULES.items() for text in rule(facts, bounds or Bounds())]


def report(violations: list[Violation]) -> str:
    """For a failed assertion: the first of every rule, and how many there are."""
    by_rule: dict[str, list[str]] = defaultdict(list)
    for one in violations:
        by_rule[one.rule].append(one.text)
    lines = []
    for rule, texts in by_rule.items():
        lines += [f"{rule}: {text}" for text in texts[:MOST_TOLD]]
        if len(texts) > MOST_TOLD:
            lines.append(f"{rule}: … and {len(texts) - MOST_TOLD} more")
    return "\n".join(lines)
