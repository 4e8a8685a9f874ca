"""P3, P5 on three nodes: one stands still, one after the other is replaced. The others serve as if nothing were.

The schema of a newer version comes in the middle of it, as it does in a real update.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from clusters import bugs
from faultproxy import Links
from faulty import FastNode, Row
from fleets import Fleet, assemble
from history import Closed
from plainhttp import Caller, Unanswered
from plan import Plan
from rows import Scene, run_row
from servers import Postgres, Redis
from wire import User, called_off

Assemble = Callable[..., Awaitable[Fleet]]


@pytest.fixture
def fleet(launch: Callable[..., FastNode], database: Callable[[], str], links: Links, valkey_server: Redis) -> Assemble:
    return partial(assemble, launch, database, links, valkey_server)


# -- P3: a node stands still -------------------------------------------------------------------------------------------


@pytest.mark.nightly
@pytest.mark.parametrize("pause", [5.0, 60.0])
async def test_P3_a_node_that_stood_still_tells_nothing_to_who_was_revoked_meanwhile_at_another(
    fleet: Assemble, row: Row, tmp_path: Path, pause: float
) -> None:
    here = await fleet()
    # They wait for the stopped node, so that somebody is there when it goes on; and so many that some never ask it.
    plan = Plan(users=6, devices=2, producers=24, rate=200, leaves=2000, patience=pause + 10, settled_within=60)

    async def stand_still(scene: Scene) -> None:
        load, victim = scene.load, scene.unrevoked.pop()
        await load.until(lambda: victim.connected, within=10, what="the victim listens")
        assert victim.site is not None
        stopped = next(site for site in here.sites if site.name == victim.site.name)
        others = [site for site in here.sites if site is not stopped]
        with scene.fault("SIGSTOP", dark=[stopped]):
            os.kill(stopped.node.pid, signal.SIGSTOP)
            try:
                await load.passed(pause / 2)
                await load.revoke(victim, site=others[0])
                await load.passed(pause / 2)
                row.also["meanwhile"] = sum(  # what the other nodes have told, while one stood still
                    device.position for device in load.staying() if device.site and device.site.name != stopped.name
                )
                assert victim.site.name == stopped.name, "it went elsewhere: this shows nothing"
            finally:
                os.kill(stopped.node.pid, signal.SIGCONT)
        await here.hear()

    await run_row(row, here.sites, during=stand_still, place=tmp_path, plan=plan)
    assert bugs(here.sites) == []


# -- P5: one after the other is replaced -------------------------------------------------------------------------------

NEWER = (
    "ALTER TABLE inbox ADD COLUMN topic TEXT",
    "ALTER TABLE sessions ADD COLUMN platform TEXT NOT NULL DEFAULT ''",
    "CREATE TABLE topics (name TEXT PRIMARY KEY)",
    "CREATE INDEX by_topic ON inbox (topic) WHERE topic IS NOT NULL",
    "UPDATE alembic_version SET version_num = '0099'",
)
"""What the next version may bring: it adds, and takes nothing away."""


async def migrate(url: str) -> None:
    """Step by step; a step that waits for others makes them wait, so none waits for long."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute("SET lock_timeout = '500ms'")
        for step in NEWER:
            while True:
                try:
                    await connection.execute(step)
                    break
                except asyncpg.LockNotAvailableError:
                    await asyncio.sleep(0.05)
    finally:
        await connection.close()


class SigningIn:
    """People who sign in at one of ``serving``, one after the other, all the time: nobody too often. ``answers``: how
    often with which status."""

    def __init__(self, users: list[User], serving: list[FastNode], row: Row) -> None:
        self._users, self.serving, self._row = itertools.cycle(users), serving, row
        self.answers: Counter[int] = Counter()

    async def live(self) -> None:
        while True:
            caller = Caller(self._row.rng.choice(self.serving).port, patience=10.0)
            name = next(self._users).username
            try:
                body = {"username": name, "password": f"pw of {name}"}
                self.answers[(await caller.ask("POST", "/auth/login", body=body)).status] += 1
            except Unanswered:
                self.answers[0] += 1
            finally:
                caller.close()
            await asyncio.sleep(0.1)


@pytest.mark.nightly
async def test_P5_three_nodes_are_replaced_one_after_the_other_and_a_newer_schema_comes_in_the_middle(
    fleet: Assemble, row: Row, tmp_path: Path, postgres: Postgres
) -> None:
    here = await fleet(drain_grace=5)
    serving = list(here.nodes)
    people = SigningIn([await asyncio.to_thread(here.nodes[0].user) for _ in range(5)], serving, row)

    async def replace(scene: Scene) -> None:
        signing_in = asyncio.create_task(people.live())
        try:
            for number, node in enumerate(here.nodes):
                serving.remove(node)  # as a balancer does that has been told
                with scene.fault("SIGTERM"):
                    assert await asyncio.to_thread(node.stop) == 0
                    if number == 1:
                        await migrate(str(node.settings["database_url"]))
                    await scene.load.more(50)
                    await asyncio.to_thread(node.start)
                await here.hear()
                serving.append(node)
                await scene.load.more(50)
        finally:
            await called_off(signing_in)

    scene = await run_row(row, here.sites, during=replace, place=tmp_path, plan=Plan(users=6, devices=3, rate=200))
    row.also["sign_ins"] = people.answers.total()
    assert set(people.answers) == {200}, people.answers
    assert people.answers.total() > 20
    moved = [one for one in scene.history.of(Closed) if (one.code, one.reason) == (1012, "draining")]
    row.also["moved"] = len(moved)
    assert moved, "nobody was told to go"
    assert here.complaints() == []
