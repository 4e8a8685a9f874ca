"""Runs one row of the fault matrix: load, fault, heal, drain, verdict. Which fault it is, the row brings itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from checker import Bounds, check, leaks, report
from devices import Device
from facts import Facts
from faulty import Row
from history import SECOND, Answered, Fault, Gapped, History, Refused
from plan import Plan, Site
from workload import Workload

LATELY = 100
"""Pushes that count as lately."""


@dataclass
class Scene:
    """What a fault is given: the load that runs, and where to write down what it does."""

    row: Row
    load: Workload
    history: History
    unrevoked: list[Device] = field(default_factory=list)
    """Devices that the plan wants revoked and nobody has yet: ``load.revoke(scene.unrevoked.pop())``."""

    @contextlib.contextmanager
    def fault(self, name: str, *, dark: Sequence[Site] = (), deaf: Sequence[Site] = ()) -> Iterator[None]:
        """It lasts as long as the block, and is counted. ``dark``: nodes that can neither store nor serve meanwhile;
        ``deaf``: nodes that hear nothing of the others."""
        silent, unhearing = (tuple(site.name for site in sites) for sites in (dark, deaf))
        self.row.faults += 1
        name = f"{name} {self.row.faults}"
        self.history.note(Fault(self.history.now, name, "start", silent, unhearing))
        try:
            yield
        finally:
            self.history.note(Fault(self.history.now, name, "stop", silent, unhearing))


Injection = Callable[[Scene], Awaitable[None]]


async def run_row(
    row: Row,
    sites: Sequence[Site],
    *,
    during: Injection,
    place: Path,
    plan: Plan | None = None,
    bounds: Bounds | None = None,
    measured: Sequence[str] = (),
) -> Scene:
    """Load the nodes, let ``during`` break something and heal it, and judge everything that was seen.

    ``during`` returns when all is healed. Fills the counts of ``row``. On any failure the history is written to
    ``place``, and the assertion says where. ``measured``: rules whose violations are counted, and no failure.
    """
    plan, bounds, history = plan or Plan(), bounds or Bounds(), History(row.seed)
    scene = Scene(row, Workload(sites, history, plan), history)
    try:
        await _run(scene, during, plan, bounds)
        _judge(scene, bounds, measured)
    except BaseException as error:
        path = history.dump(place / f"history-{row.seed}.jsonl")
        error.add_note(f"{row}\nwhat happened stands in {path}")
        raise
    return scene


async def _run(scene: Scene, during: Injection, plan: Plan, bounds: Bounds) -> None:
    load, row = scene.load, scene.row
    await load.prepare()
    scene.unrevoked = list(load.victims)
    async with load:
        await load.more(plan.warm // 2)
        if scene.unrevoked:
            await load.revoke(scene.unrevoked.pop())
        await load.more(plan.warm // 2)
        await load.until(lambda: not load.behind(dict.fromkeys(load.heads, 1), prompt=True), within=10, what="flow")
        working = asyncio.ensure_future(during(scene))
        try:
            await load.until(working.done, within=300, what="the fault")
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        working.result()
        row.also["back_s"] = round(await _back(load, bounds.alive_within), 2)
        await load.more(plan.after)
        await _as_quick_as_before(scene, bounds)
        while scene.unrevoked:
            await load.revoke(scene.unrevoked.pop())
        await load.settle()
        await load.drain()
        async with asyncio.timeout(plan.settled_within):
            await asyncio.gather(*[load.refused_everywhere(device) for device in load.victims])
        await load.read_inboxes()


async def _back(load: Workload, within: float) -> float:
    """Seconds until every user was sent something new, and it and all before it is with every prompt device (I10)."""
    healed, before = time.monotonic(), dict(load.heads)
    what = "I10: everybody is sent to again, and has it"
    await load.until(lambda: all(load.heads[user] > before[user] for user in before), within=within, what=what)
    due, left = dict(load.heads), within - (time.monotonic() - healed)
    await load.until(lambda: not load.behind(due, prompt=True), within=left, what=what)
    return time.monotonic() - healed


async def _as_quick_as_before(scene: Scene, bounds: Bounds) -> None:
    """I10: the 99th percentile of what was pushed lately is back to one and a half times that before any fault."""
    history = scene.history
    first = min((one.at for one in history.of(Fault)), default=0)
    usual = percentile(delays(Facts(history), until=first, heard_by=first))
    while True:
        facts = Facts(history)
        since = sorted(one.intent.invoked for one in facts.accepted)[-LATELY:][0]
        lately = percentile(delays(facts, since=max(since, facts.healed), until=facts.end))
        if lately <= usual * 1.5 + bounds.quick_slack:
            break
        took = (facts.end - facts.healed) / SECOND
        assert took < bounds.quick_within, f"I10: p99 is {lately:.2f} s {took:.0f} s after the heal, was {usual:.2f} s"
        await scene.load.more(LATELY // 2)
    scene.row.also |= {"p99_ms": round(usual * 1000), "p99_after_ms": round(lately * 1000)}


def _judge(scene: Scene, bounds: Bounds, measured: Sequence[str]) -> None:
    load, row, history = scene.load, scene.row, scene.history
    found = check(history, bounds=bounds)
    violations = [violation for violation in found if violation.rule not in measured]
    row.also |= {f"measured_{rule}": sum(violation.rule == rule for violation in found) for rule in measured}
    logs = {f"the log of {site.name}": site.node.log_text() for site in load.sites}
    violations += leaks(load.canaries, logs)
    facts = Facts(history)
    answers = list(history.of(Answered))
    row.attempted += len(facts.intents)
    row.ok += sum(intent.agreed is not None for intent in facts.intents.values())
    row.indeterminate += sum(answer.outcome == "unknown" for answer in answers)
    row.received += sum(len(device.heard) for device in facts.devices.values())
    row.dup += sum(device.again for device in facts.devices.values())
    row.lost += sum(violation.rule == "I1" for violation in violations)
    row.also |= {
        "resumes": sum(len(device.visits) for device in facts.devices.values()),
        "replayed": sum(answer.replayed for answer in answers),
        "gaps": sum(1 for _ in history.of(Gapped)),
        "revoked": len(facts.revoked),
        "violations": len(violations),
        **latencies(facts),
    }
    assert not violations, report(violations)
    assert not any(device.errors for device in load.devices), [device.errors for device in load.devices]
    failed = [answer for answer in answers if answer.outcome == "fail"]
    assert not failed, f"refused: {failed[:5]}"
    refused = {one.session for one in history.of(Refused) if one.code == 1008 and one.reason == "token_revoked"}
    assert refused >= facts.revoked.keys(), "a revoked credential was never seen refused"
    row.judge()


def delays(facts: Facts, *, since: int = 0, until: int, heard_by: int | None = None) -> list[float]:
    """Seconds from the push to each prompt device, of what was asked for then. What has not arrived counts so far;
    ``heard_by``: only what had by then."""
    prompt: dict[str, list[dict[str, int]]] = defaultdict(list)
    for device in facts.devices.values():
        if device.signed_in.prompt and facts.revoked_at(device.signed_in.session) is None:
            prompt[device.signed_in.user].append(facts.heard[device.signed_in.session])
    return [
        (heard.get(one.given.id, facts.end) - one.intent.invoked) / SECOND
        for one in facts.accepted
        if since <= one.intent.invoked < until and not facts.gone(one, inbox_max=Bounds().inbox_max)
        for heard in prompt[one.given.user]
        if heard_by is None or heard.get(one.given.id, facts.end) < heard_by
    ]


def percentile(times: list[float], share: float = 0.99) -> float:
    return sorted(times)[int(len(times) * share)] if times else 0.0


def latencies(facts: Facts) -> dict[str, object]:
    """From the push to a prompt device: median before any fault, worst of the whole run. And the pushes per second."""
    first = min((one.at for one in facts.history.of(Fault)), default=facts.end)
    before, worst = list[int](), 0
    for one in facts.accepted:
        for device in facts.devices.values():
            if device.signed_in.prompt and (at := device.heard.get(one.given.id)) is not None:
                took = at - one.intent.invoked
                worst = max(worst, took)
                if at < first:
                    before.append(took)
    before.sort()
    quiet = sorted(one.answer.at for one in facts.accepted if one.answer.at < first)
    return {
        "median_ms": round(before[len(before) // 2] / 1e6, 1) if before else None,
        "worst_s": round(worst / SECOND, 2),
        "per_s": round(len(quiet) * SECOND / max(1, quiet[-1] - quiet[0])) if len(quiet) > 1 else None,
    }
