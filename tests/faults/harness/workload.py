"""A seeded load on one gateway or several nodes of it: producers, devices, an admin who revokes. Breaks nothing itself.

Its length is a matter of operations and conditions, not of time. What it did and saw stands in its history.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from devices import Device, Silent
from history import Given, History, Item, Listed, Probed, Revoked, digest
from plainhttp import Caller, Unanswered
from plan import HABITS, Habit, Plan, Site
from producers import Producer
from websockets.exceptions import ConnectionClosed
from wire import ADMIN_PASSWORD, called_off, claims_of

PROBE_EVERY = 0.25
REVOKED_WITHIN = 1.0


class Workload:
    """Made by ``prepare``; runs inside ``async with``. Everything drawn comes from the seed of ``history``."""

    def __init__(self, sites: Sequence[Site], history: History, plan: Plan) -> None:
        self.sites, self.history, self.plan = sites, history, plan
        self.rng = random.Random(f"{history.seed}/workload")
        self.devices: list[Device] = []
        self.victims: list[Device] = []
        self.producers: list[Producer] = []
        self.canaries: list[str] = [ADMIN_PASSWORD]
        self.heads: dict[str, int] = {}
        """user → the highest number that was answered."""
        self.ok = 0
        self._revoked: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._admin = ""

    async def prepare(self) -> Workload:
        """Make the users and the client, and sign every device in. All nodes must be up."""
        node, plan = self.sites[0].node, self.plan
        self._admin = await asyncio.to_thread(lambda: node.admin)
        client = await asyncio.to_thread(node.client)
        token = await asyncio.to_thread(node.client_token, client)
        users = await asyncio.gather(*[asyncio.to_thread(node.user) for _ in range(plan.users)])
        signing_in = [asyncio.to_thread(user.token) for user in users for _ in range(plan.devices)]
        tokens = iter(await asyncio.gather(*signing_in))
        # One user's at most one, so that everybody keeps one; of the prompt ones, which are two of each user.
        victims = {number: self.rng.randrange(2) for number in self.rng.sample(range(plan.users), plan.victims)}
        for number, user in enumerate(users):
            self.heads[user.id] = 0
            for at in range(plan.devices):
                # Every user has one that acknowledges and one that keeps its position; then come the difficult ones.
                habit = HABITS[at if at < 2 else 2 + (at + number) % 2]
                mine = next(tokens)
                device = Device(
                    f"u{number}d{at}", user.id, mine, claims_of(mine)["sid"], habit, sites=self.sites,
                    history=self.history, plan=plan,
                )  # fmt: skip
                self.devices.append(device)
                if at == 0 and number < plan.twins:
                    self.devices.append(device.twin(Habit.SLOW if number % 2 else Habit.ACKS))
                if victims.get(number) == at:
                    self.victims.append(device)
        self.producers = [
            Producer(
                number, token, [user.id for user in users], sites=self.sites, history=self.history, plan=plan,
                accepted=self._accepted,
            )
            for number in range(plan.producers)
        ]  # fmt: skip
        self.canaries += [token, client[1], self._admin, *[user.password for user in users]]
        self.canaries += [device.token for device in self.devices]
        return self

    def _accepted(self, given: Given) -> None:
        self.ok += 1
        self.heads[given.user] = max(self.heads[given.user], given.seq)

    async def __aenter__(self) -> Workload:
        for device in self.devices:
            self._begin(device.live(), device.name)
        for number, producer in enumerate(self.producers):
            self._begin(producer.live(), f"p{number}")
        for site in self._nodes():
            self._begin(self._probe(site), f"probe {site.name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await called_off(*self._tasks)
        for producer in self.producers:
            producer.close()

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    def _nodes(self) -> list[Site]:
        """One site of every node."""
        return list({id(site.node): site for site in reversed(self.sites)}.values())

    # -- what a row waits for ------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], object], *, within: float, what: str) -> None:
        """Fails at once with whoever of the workload fails meanwhile."""
        end = asyncio.get_running_loop().time() + within
        while not condition():
            for task in self._tasks:
                if task.done() and not task.cancelled() and task.exception() is not None:
                    task.result()
            assert asyncio.get_running_loop().time() < end, f"{what}: not within {within:g} s"
            await asyncio.sleep(0.01)

    async def more(self, count: int, *, within: float = 60.0) -> None:
        """Until so many more notifications were answered 2xx."""
        enough = self.ok + count
        await self.until(lambda: self.ok >= enough, within=within, what=f"{count} more accepted")

    async def passed(self, seconds: float) -> None:
        """While the workload goes on."""
        end = asyncio.get_running_loop().time() + seconds
        await self.until(lambda: asyncio.get_running_loop().time() >= end, within=seconds + 5, what="time passes")

    def staying(self) -> list[Device]:
        """Devices that nobody has asked to revoke."""
        return [device for device in self.devices if device.session not in self._revoked]

    def behind(self, heads: dict[str, int], *, prompt: bool) -> list[Device]:
        """Devices that were not told everything up to ``heads`` yet."""
        return [
            device for device in self.staying()
            if device.position < heads[device.user] and (device.habit.prompt or not prompt)
        ]  # fmt: skip

    # -- revoking ------------------------------------------------------------------------------------------------

    async def revoke(
        self, device: Device, *, site: Site | None = None, by: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """By this node (or any) until it answers 201, however often it takes; or ``by`` something beside the nodes."""
        self._revoked.add(device.session)
        self.history.note(Revoked(self.history.now, device.session, "", "asked"))
        if by is not None:
            await by()
            self.history.note(Revoked(self.history.now, device.session, "", "ok"))
            return
        while True:
            at = site or self.rng.choice(list(self.sites))
            caller = Caller(at.port, patience=self.plan.patience)
            try:
                reply = await caller.ask(
                    "POST", "/admin/revocations", token=self._admin, body={"session": device.session}
                )
            except Unanswered:
                reply = None
            finally:
                caller.close()
            if reply is not None and reply.status == 201:
                self.history.note(Revoked(self.history.now, device.session, at.name, "ok"))
                return
            assert reply is None or reply.status >= 500, reply
            await asyncio.sleep(0.1)

    async def refused_everywhere(self, device: Device) -> None:
        """A revoked one tries every node until each has answered: with a close, or by letting it in."""
        counted = next(e for e in self.history.of(Revoked) if e.session == device.session and e.outcome == "ok").at
        wait = counted / 1e9 + REVOKED_WITHIN - self.history.now / 1e9
        await asyncio.sleep(max(0.0, wait))
        for site in self._nodes():
            while not await self._knock(device, site):  # noqa: ASYNC110 - nobody tells us, but the node we ask
                await asyncio.sleep(0.2)

    async def _knock(self, device: Device, site: Site) -> bool:
        """Whether the node has decided about it."""
        try:
            ws, connection = await device.dial(site, keeping=False)
        except ConnectionRefusedError:
            return False
        try:
            async with asyncio.timeout(self.plan.patience):
                frame = await ws.recv()
        except ConnectionClosed as closed:
            code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
            device.refused(connection, site, code, reason)
            return code == 1008
        except (TimeoutError, Silent):
            device.refused(connection, site, 0, "silent")
            return False
        else:
            device.let_in(frame, connection, site)
            return True
        finally:
            ws.transport.abort()

    # -- the end -------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """No new pushes; every unknown one is asked for until it is answered."""
        for producer in self.producers:
            producer.stopping = True
        names = {f"p{number}" for number in range(len(self.producers))}
        producing = [task for task in self._tasks if task.get_name() in names]
        within = self.plan.settled_within
        await self.until(lambda: all(task.done() for task in producing), within=within, what="producers stop")
        settling = asyncio.gather(*[producer.settle() for producer in self.producers])
        await self.until(settling.done, within=within, what="nothing is unknown any more")
        await settling

    async def drain(self) -> None:
        """Every device comes back once more and is told everything."""
        visits = {device: device.visits for device in self.staying()}
        for device in visits:
            device.hurried = True
        await asyncio.gather(*[device.rejoin() for device in visits])
        await self.until(
            lambda: all(device.visits > visits[device] and device.connected for device in visits)
            and not self.behind(self.heads, prompt=False),
            within=self.plan.settled_within,
            what="every device has come back and was told everything",
        )  # fmt: skip

    async def read_inboxes(self) -> None:
        """Every inbox, whole, as every node tells it."""
        readers = {device.user: device for device in self.staying()}
        for site in self._nodes():
            caller = Caller(site.port, patience=self.plan.patience)
            for user, device in readers.items():
                items: list[Item] = []
                at: int | None = 0
                while at is not None:
                    reply = await caller.ask("GET", f"/inbox?after={at}&limit=200", token=device.token)
                    assert reply.status == 200, reply
                    page = reply.json()
                    items += [Item(item["seq"], item["id"], digest(item)) for item in page["items"]]
                    at = page["next"]
                self.history.note(
                    Listed(self.history.now, site.name, user, page["epoch"], page["head"], page["rev"], tuple(items))
                )
            caller.close()

    async def _probe(self, site: Site) -> None:
        """/readyz, past any link, all the time."""
        caller = Caller(site.node.port, patience=2.0)
        try:
            while True:
                asked = self.history.now
                try:
                    reply = await caller.ask("GET", "/readyz")
                except Unanswered:
                    self.history.note(Probed(self.history.now, site.name, 0, asked))
                else:
                    degraded = reply.status == 200 and reply.json()["status"] == "degraded"
                    self.history.note(Probed(self.history.now, site.name, reply.status, asked, degraded))
                await asyncio.sleep(PROBE_EVERY)
        finally:
            caller.close()
