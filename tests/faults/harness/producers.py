"""Producers of a workload: they push under keys, note the outcomes, ask again until nothing is unknown. No verdicts."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from history import Answered, Given, History, Invoked, Kind, Outcome, Withdrew, digest
from plainhttp import Caller, Reply, Unanswered
from plan import Plan, Site

KINDS: tuple[Kind, ...] = ("one", "many", "batch")
SHARES = (70, 10, 20)
LONG = 3500
"""Characters of a long body: a few of them are more than a narrow reader's kernel holds."""


@dataclass(slots=True)
class Op:
    """One notification under one key. ``index``: its place in the first request."""

    name: str
    index: int
    users: tuple[str, ...]
    body: dict[str, Any]
    attempts: int = 0
    agreed: bool = False


@dataclass(slots=True, eq=False)
class Request:
    """A POST; what of it stays unknown is sent again by itself."""

    name: str
    kind: Kind
    ops: list[Op] = field(default_factory=list)


class Producer:
    """Sends until it is stopped; ``settle`` then asks for what is still unknown. ``accepted`` hears of every 2xx."""

    def __init__(
        self,
        number: int,
        token: str,
        users: Sequence[str],
        *,
        sites: Sequence[Site],
        history: History,
        plan: Plan,
        accepted: Callable[[Given], None],
    ) -> None:
        self._name, self._token, self._users = f"p{number}", token, users
        self._sites, self._history, self._plan, self._accepted = sites, history, plan, accepted
        self._rng = random.Random(f"{history.seed}/{self._name}")
        self._callers = {site.name: Caller(site.port, patience=plan.patience) for site in sites}
        self._number = 0
        self._recent: deque[str] = deque(maxlen=50)
        self._done: deque[Request] = deque(maxlen=20)
        self.unknown: deque[Request] = deque()
        self.stopping = False

    async def live(self) -> None:
        pace = self._plan.producers / self._plan.rate
        while not self.stopping:
            request = self._choose()
            sent = len(request.ops)
            if not await self.send(request):
                await asyncio.sleep(self._rng.uniform(0.02, 0.1))  # whoever refuses is not to be hammered
            if self._recent and self._rng.random() < self._plan.taken_back:
                await self._take_back()
            await asyncio.sleep(self._rng.expovariate(1 / (pace * sent)))

    def _choose(self) -> Request:
        """Mostly a new one; now and then one that is unknown, or, as a nervous client would, one that was answered."""
        drawn = self._rng.random()
        if self.unknown and drawn < 0.2:
            return self.unknown.popleft()
        if self._done and drawn > 0.97:
            return self._rng.choice(list(self._done))
        return self.draw()

    async def settle(self) -> None:
        """Until every op is answered 2xx or 4xx. The caller bounds the time."""
        while self.unknown:
            if not await self.send(self.unknown.popleft()):
                await asyncio.sleep(self._rng.uniform(0.05, 0.2))

    def close(self) -> None:
        for caller in self._callers.values():
            caller.close()

    # -- one request ---------------------------------------------------------------------------------------------

    def draw(self) -> Request:
        self._number += 1
        kind = self._rng.choices(KINDS, SHARES)[0]
        request = Request(f"{self._name}.{self._number}", kind)
        count = self._rng.randint(2, 6) if kind == "batch" else 1
        for index in range(count):
            name = f"{request.name}.{index}"
            most = min(3, len(self._users))
            users = self._rng.sample(list(self._users), self._rng.randint(min(2, most), most) if kind == "many" else 1)
            body: dict[str, Any] = {
                "title": name, "body": "x" * self._rng.choice((0, 20, 200, 200, 1000, LONG)), "data": {"op": name},
                "category": self._rng.choice(("orders", "news")), "priority": self._rng.choice(("low", "high")),
                "ttl": self._rng.randint(1, 2) if self._rng.random() < self._plan.short_lived else 86_400,
            }  # fmt: skip
            request.ops.append(Op(name, index, tuple(users), body))
        return request

    async def send(self, request: Request) -> bool:
        """Whether everything in it is answered now; what is not stands in ``unknown``."""
        site = self._rng.choice(list(self._sites))
        for op in request.ops:
            op.attempts += 1
            self._history.note(
                Invoked(
                    self._history.now,
                    op.name,
                    request.name,
                    op.index,
                    op.attempts,
                    site.name,
                    request.kind,
                    op.users,
                    digest(op.body),
                )
            )
        try:
            reply = await self._post(request, self._callers[site.name])
        except Unanswered as silence:
            for op in request.ops:
                self._answered(op, site, "unknown", 0, detail=str(silence))
            self.unknown.append(request)
            return False
        return self._take(request, site, reply)

    async def _post(self, request: Request, caller: Caller) -> Reply:
        if request.kind == "batch":
            items = [{**op.body, "user_id": op.users[0], "idempotency_key": op.name} for op in request.ops]
            return await caller.ask("POST", "/notifications/batch", token=self._token, body={"notifications": items})
        (op,) = request.ops
        target = {"user_id": op.users[0]} if request.kind == "one" else {"user_ids": list(op.users)}
        return await caller.ask(
            "POST", "/notifications", token=self._token, body=op.body | target, Idempotency_Key=op.name
        )

    def _take(self, request: Request, site: Site, reply: Reply) -> bool:
        """Note the answer, item by item."""
        replayed = reply.fields.get("idempotency-replayed") == "true"
        left = Request(request.name, request.kind)
        if reply.status not in (200, 201):
            outcome: Outcome = "unknown" if reply.status >= 500 else "fail"
            for op in request.ops:
                self._answered(op, site, outcome, reply.status, detail=reply.body[:500].decode(errors="replace"))
            left.ops = request.ops if outcome == "unknown" else []
        elif request.kind == "batch":
            for op, result in zip(request.ops, reply.json()["results"], strict=True):
                if self._result(op, site, [result], replayed) == "unknown":
                    left.ops.append(op)
        else:
            members = reply.json()
            (op,) = request.ops
            results = members["results"] if request.kind == "many" else [members | {"status": 201}]
            if self._result(op, site, results, replayed) == "unknown":
                left.ops.append(op)
        if left.ops:
            self.unknown.append(left)
        elif request not in self._done:
            self._done.append(request)
        return not left.ops

    def _result(self, op: Op, site: Site, results: list[dict[str, Any]], replayed: bool) -> Outcome:
        statuses = {int(result["status"]) for result in results}
        if statuses != {201}:
            outcome: Outcome = "unknown" if max(statuses) >= 500 else "fail"
            self._answered(op, site, outcome, max(statuses), detail=str(results)[:500])
            return outcome
        given = tuple(
            Given(result["user_id"], result["id"], result["seq"], self._history.at(result["expires_at"]))
            for result in results
        )
        self._history.note(Answered(self._history.now, op.name, op.attempts, site.name, "ok", 201, given, replayed))
        for one in given if not op.agreed else ():
            self._accepted(one)
            self._recent.append(one.id)
        op.agreed = True
        return "ok"

    def _answered(self, op: Op, site: Site, outcome: Outcome, status: int, *, detail: str) -> None:
        self._history.note(Answered(self._history.now, op.name, op.attempts, site.name, outcome, status, detail=detail))

    async def _take_back(self) -> None:
        id = self._rng.choice(list(self._recent))
        self._recent.remove(id)
        self._history.note(Withdrew(self._history.now, id, "asked"))
        caller = self._callers[self._rng.choice(list(self._sites)).name]
        try:
            reply = await caller.ask("DELETE", f"/notifications/{id}", token=self._token)
        except Unanswered:
            outcome: Outcome = "unknown"
        else:
            outcome = "ok" if reply.status == 204 else "unknown" if reply.status >= 500 else "fail"
        self._history.note(Withdrew(self._history.now, id, outcome))
