"""N13 on two nodes: a credential ends while its owner connects, or while the inbox is played to him. Hundreds of times.

Whoever is let in a moment before is put out a second later at most, whoever comes a moment after stays out, and no
door is left open at either node. Judged by the rules of every row.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from checker import Bounds, check, report
from facts import Facts
from faultproxy import Links
from faulty import FastNode, Row, all_done, flood
from fleets import Fleet, assemble
from history import SECOND, Closed, Dialled, Gapped, History, Opened, Received, Refused, Revoked, SignedIn, digest
from plainhttp import Caller
from plan import Site
from servers import Redis
from websockets.exceptions import ConnectionClosed
from wire import HS256_KEYS, called_off, claims_of, forged

BACKLOG = 150
AT_ONCE = 15
KINDS = ("connecting", "connecting", "replaying", "replaying", "expiring")


class Guest:
    """One credential, from its first use to its end. ``subject``: what the checker takes for its session."""

    def __init__(self, name: str, token: str, target: dict[str, str], history: History) -> None:
        self.name, self.token, self.target, self._history = name, token, target, history
        self.user = str(claims_of(token)["sub"])
        self.subject = f"{name}:{claims_of(token)['jti']}"
        self.heard, self.dials = 0, 0
        self.last: tuple[int, str] | None = None
        """How its last connection ended."""
        self.enough, self.reached = 0, asyncio.Event()
        """Set when it has heard so many, or its connection is over."""
        history.note(SignedIn(history.now, name, self.user, self.subject, prompt=True))

    async def come(self, site: Site) -> None:
        """Connect, be played the inbox, and listen until the end."""
        self.dials += 1
        history, connection = self._history, f"{self.name}#{self.dials}"
        history.note(Dialled(history.now, self.name, self.subject, connection, site.name))
        socket = await site.node.raw(self.token)
        epoch = ""
        try:
            while True:
                frame = orjson.loads(await asyncio.wait_for(socket.recv(decode=False), 20))
                now = history.now
                match frame["type"]:
                    case "hello":
                        epoch = frame["epoch"]
                        history.note(
                            Opened(
                                now, self.name, self.subject, frame["user"], connection, site.name, epoch,
                                frame["head"], frame["rev"], frame["cursor"], frame["after"], frame["reset"],
                            )
                        )  # fmt: skip
                    case "notification":
                        self.heard += 1
                        if self.heard >= self.enough:
                            self.reached.set()
                        history.note(
                            Received(now, self.name, self.user, connection, epoch, frame["seq"], frame["id"],
                                     digest(frame))
                        )  # fmt: skip
                    case "gap":
                        history.note(Gapped(now, self.name, self.user, connection, epoch, frame["from"], frame["to"]))
                    case other:
                        raise AssertionError(other)
        except ConnectionClosed as closed:
            code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
            self.last = (code, reason)
            self.reached.set()
            if epoch:
                history.note(Closed(history.now, self.name, self.subject, connection, code, reason, ours=False))
            else:
                history.note(Refused(history.now, self.name, self.subject, connection, site.name, code, reason))


class Rounds:
    """``outcomes``: how the first connection of each kind ended, and whether it had been greeted."""

    def __init__(self, here: Fleet, row: Row, history: History, token: str, fresh: Callable[[], str]) -> None:
        self.here, self._row, self._history, self._token, self._fresh = here, row, history, token, fresh
        self._admin = here.nodes[0].admin
        self.outcomes: Counter[str] = Counter()
        self.resets = 0

    async def play(self, numbers: list[int]) -> None:
        while numbers:
            await self.one(numbers.pop())

    async def one(self, number: int) -> None:
        kind = self._row.rng.choice(KINDS)
        self._row.attempted += 1
        if kind == "expiring":
            guest = await self._expires(number)
        else:
            guest = await self._revoked(number, kind)
        self._row.faults += 1
        self._row.received += guest.heard
        self.outcomes[f"{kind}:{'heard' if guest.heard else 'nothing'}"] += 1
        for site in self.here.sites:  # and now nobody lets it in
            await guest.come(site)
            wanted = "token_expired" if kind == "expiring" else "token_revoked"
            assert guest.last == (1008, wanted), f"{guest.name} at {site.name}: {guest.last}"
        self._row.ok += 1

    async def _revoked(self, number: int, kind: str) -> Guest:
        rng = self._row.rng
        if number % 10 == 0:  # the whole sign-in
            token = await asyncio.to_thread(self._fresh)
            guest = Guest(f"{kind}{number}", token, {"session": claims_of(token)["sid"]}, self._history)
        else:  # this token alone
            token = forged(self._token, jti=f"n13-{self._row.seed}-{number}")
            guest = Guest(f"{kind}{number}", token, {"jti": claims_of(token)["jti"]}, self._history)
        coming = asyncio.create_task(self._comes(guest, rng.uniform(0, 0.03) if kind == "connecting" else 0.0))
        if kind == "connecting":
            await asyncio.sleep(rng.uniform(0, rng.choice((0.03, 0.2))))
        else:
            guest.enough = rng.randrange(1, BACKLOG)
            async with asyncio.timeout(20):
                await guest.reached.wait()
        counted = await self._revoke(guest)
        async with asyncio.timeout(10):
            await coming
        self._put_out(guest, "token_revoked")
        await asyncio.sleep(max(0.0, counted / SECOND + 1.0 - self._history.now / SECOND))
        return guest

    def _put_out(self, guest: Guest, reason: str) -> None:
        """With its reason; or with a reset, if it is behind: a goodbye would queue up behind what it does not read."""
        assert guest.last == (1008, reason) or (guest.last == (1006, "") and guest.heard), f"{guest.name}: {guest.last}"
        self.resets += guest.last == (1006, "")

    async def _comes(self, guest: Guest, after: float) -> None:
        await asyncio.sleep(after)
        await guest.come(self._row.rng.choice(self.here.sites))

    async def _revoke(self, guest: Guest) -> int:
        """When it counted."""
        site, history = self._row.rng.choice(self.here.sites), self._history
        caller = Caller(site.port, patience=10.0)
        history.note(Revoked(history.now, guest.subject, "", "asked"))
        try:
            reply = await caller.ask("POST", "/admin/revocations", token=self._admin, body=guest.target)
            assert reply.status == 201, reply
        finally:
            caller.close()
        history.note(Revoked(history.now, guest.subject, site.name, "ok"))
        return history.now

    async def _expires(self, number: int) -> Guest:
        """It comes while it still counts, or just not any more, and what it is played takes a while."""
        end = int(time.time()) + 2
        guest = Guest(f"expiring{number}", forged(self._token, exp=end, jti=f"n13-{number}"), {}, self._history)
        at = self._history.now + round((end - time.time()) * SECOND)
        self._history.note(Revoked(at, guest.subject, "", "asked"))
        self._history.note(Revoked(at, guest.subject, "", "ok"))
        await asyncio.sleep(max(0.0, end - time.time() - self._row.rng.uniform(-0.15, 0.4)))
        async with asyncio.timeout(10):
            await guest.come(self._row.rng.choice(self.here.sites))
        self._put_out(guest, "token_expired")
        await asyncio.sleep(max(0.0, end - time.time()))
        return guest


@pytest.mark.parametrize("rounds", [200, pytest.param(1000, marks=pytest.mark.nightly)])
async def test_N13_a_credential_that_ends_while_it_is_used_lets_nothing_more_through(
    launch: Callable[..., FastNode], database: Callable[[], str], links: Links, valkey_server: Redis, row: Row,
    tmp_path: Path, rounds: int,
) -> None:  # fmt: skip
    here = await assemble(
        launch, database, links, valkey_server, count=2, signing_keys=HS256_KEYS, token_leeway=0,
        connections_per_user=1000,
    )  # fmt: skip
    first = here.nodes[0]
    user, shop = await asyncio.to_thread(first.user), await asyncio.to_thread(first.client_token)
    token = await asyncio.to_thread(user.token)
    await asyncio.to_thread(flood, first, shop, user.id, BACKLOG)
    history = History(row.seed)
    game = Rounds(here, row, history, token, user.token)

    async def talk() -> None:
        """Something new now and then, from either node: for those who are caught up."""
        callers = [Caller(site.port) for site in here.sites]
        try:
            while True:
                body: dict[str, Any] = {"user_id": user.id, "title": "live"}
                await row.rng.choice(callers).ask("POST", "/notifications", token=shop, body=body)
                await asyncio.sleep(0.1)
        finally:
            for caller in callers:
                caller.close()

    talking = asyncio.create_task(talk())
    numbers = list(range(rounds))
    try:
        await all_done(*[asyncio.create_task(game.play(numbers)) for _ in range(AT_ONCE)])
    finally:
        await called_off(talking)
        history.dump(tmp_path / f"history-{row.seed}.jsonl")
    violations = [one for one in check(history, bounds=Bounds()) if one.rule != "I2"]  # nobody noted what was pushed
    facts = Facts(history)
    row.also |= dict(sorted(game.outcomes.items())) | {"resets": game.resets, "latest_s": round(latest(facts), 2)}
    assert not violations, report(violations)
    assert game.resets < rounds // 4, "hardly anybody was told why"
    for kind in set(KINDS):
        assert game.outcomes[f"{kind}:heard"] > 1, f"vacuous: nobody was {kind} in time: {game.outcomes}"
        late = game.outcomes[f"{kind}:nothing"]
        assert late > 0 or kind == "replaying", f"vacuous: nobody was {kind} too late: {game.outcomes}"
    row.judge()
    assert here.complaints() == []


def latest(facts: Facts) -> float:
    """Seconds from the end of a credential to the last that its owner was told."""
    worst = 0
    for device in facts.devices.values():
        ban = facts.revoked_at(device.signed_in.session)
        assert ban is not None
        worst = max([worst, *(told.at - ban[1] for visit in device.visits for told in visit.told)])
    return worst / SECOND
