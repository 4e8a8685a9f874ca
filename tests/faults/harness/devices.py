"""Devices of a workload: they connect, listen, acknowledge, come back elsewhere, note what they hear. No verdicts."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Sequence
from typing import Any

import orjson
from history import Acked, Closed, Dialled, Gapped, History, Opened, Received, Refused, SignedIn, Stated, digest
from plan import Habit, Plan, Site
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

ACK_EVERY = 0.15
"""Seconds: the gateway takes ten frames a second."""
NARROW = 4096
"""Bytes of receive buffer of a device that does not read as fast as it could: else the kernel reads for it."""
_FINAL = ("token_revoked", "token_invalid", "user_disabled", "token_missing", "insufficient_scope")


class Silent(Exception):
    """Nobody answered a ping."""


class Device:
    """One session that connects for as long as ``live`` runs. ``position``: everything up to it was told to it."""

    def __init__(
        self,
        name: str,
        user: str,
        token: str,
        session: str,
        habit: Habit,
        *,
        sites: Sequence[Site],
        history: History,
        plan: Plan,
    ) -> None:
        self.name, self.user, self.token, self.session, self.habit = name, user, token, session, habit
        self._sites, self._history, self._plan = sites, history, plan
        self._rng = random.Random(f"{history.seed}/{name}")
        self.position = 0
        self.epoch: str | None = None
        self.visits = 0
        self.connected = False
        self.hurried = False
        """No slowness and no leaving from now on: it is being drained."""
        self.over = False
        """It was told that its credential counts no more."""
        self.errors: list[str] = []
        self._number = 0
        self._socket: ClientConnection | None = None
        self.site: Site | None = None
        self._acked = 0
        self._ack_sent = 0.0
        self._come_back: float | None = None
        history.note(SignedIn(history.now, name, user, session, habit.prompt))

    def twin(self, habit: Habit) -> Device:
        """Another socket of the same session, with habits of its own."""
        return Device(
            f"{self.name}b", self.user, self.token, self.session, habit, sites=self._sites, history=self._history,
            plan=self._plan,
        )  # fmt: skip

    async def live(self) -> None:
        while not self.over:
            try:
                ws, connection = await self.dial(self._elsewhere())
            except ConnectionRefusedError:
                await asyncio.sleep(self._rng.uniform(0.05, 0.25))
                continue
            self._socket = ws
            try:
                await self._visit(ws, connection)
            finally:
                self.connected, self._socket = False, None
                ws.transport.abort()
            await asyncio.sleep(self._come_back or self._rng.uniform(0.0, self._away))
            self._come_back = None

    @property
    def _away(self) -> float:
        """Seconds at most until it comes back. For the difficult ones long enough that something has expired."""
        return 0.1 if self.habit.prompt or self.hurried else 3.0

    def _elsewhere(self) -> Site:
        others = [site for site in self._sites if site is not self.site] or list(self._sites)
        self.site = self._rng.choice(others)
        return self.site

    async def dial(self, site: Site, *, keeping: bool = True) -> tuple[ClientConnection, str]:
        """An upgraded socket, of which nothing was read yet, and its name. Raises ConnectionRefusedError.

        Whoever is refused by a close frame finds that in the socket: before hello, it counts as a refusal.
        """
        self._number += 1
        connection = f"{self.name}#{self._number}"
        keeps = keeping and self.habit.keeps and self.epoch is not None
        url = f"ws://127.0.0.1:{site.port}/ws?token={self.token}"
        note, now = self._history.note, self._history.now
        if keeps:
            url += f"&after={self.position}&epoch={self.epoch}"
            note(Dialled(now, self.name, self.session, connection, site.name, self.position, self.epoch))
        else:
            note(Dialled(now, self.name, self.session, connection, site.name))
        try:
            return await self._connect(url, site.port), connection
        except (OSError, EOFError, TimeoutError, WebSocketException) as error:
            self.refused(connection, site, 0, type(error).__name__)
            raise ConnectionRefusedError from None

    async def _connect(self, url: str, port: int) -> ClientConnection:
        options: dict[str, Any] = {}
        if not self.habit.prompt:
            narrow = socket.socket()
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
            narrow.setblocking(False)
            try:
                async with asyncio.timeout(self._plan.patience):
                    await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", port))
            except BaseException:
                narrow.close()
                raise
            options["sock"] = narrow
        return await connect(
            url, compression=None, ping_interval=None, proxy=None, open_timeout=self._plan.patience, close_timeout=1.0,
            max_queue=None if self.habit.prompt else 4, **options,
        )  # fmt: skip

    def refused(self, connection: str, site: Site, code: int, reason: str) -> None:
        now = self._history.now
        self._history.note(Refused(now, self.name, self.session, connection, site.name, code, reason))
        self.over = self.over or reason in _FINAL

    # -- one visit -----------------------------------------------------------------------------------------------

    async def _visit(self, ws: ClientConnection, connection: str) -> None:
        assert self.site is not None
        hello: dict[str, Any] | None = None
        try:
            hello = await self._next(ws)
            self.greeted(hello, connection, self.site)
            leaves = self._plan.leaves if self.habit.prompt else self._plan.leaves / 5
            while self._rng.random() * leaves >= 1 or self.hurried:
                await self._heard(ws, connection, await self._next(ws))
            if self._rng.random() < 0.5:
                await ws.close()  # the others just go: live() resets what is left
            self._closed(connection, 1000, "", ours=True)
        except ConnectionClosed as closed:
            code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
            if hello is None:
                self.refused(connection, self.site, code, reason)
            else:
                self._closed(connection, code, reason, ours=closed.rcvd_then_sent is False)
            if code in (1008, 1013):
                self._come_back = self._come_back or self._rng.uniform(0.2, 0.6)
        except Silent:
            if hello is None:
                self.refused(connection, self.site, 0, "silent")
            else:
                self._closed(connection, 1006, "silent", ours=True)

    async def _next(self, ws: ClientConnection) -> dict[str, Any]:
        """The next frame. After a silence it acknowledges what it owes, then asks whether anybody is there."""
        waited, asked = 0.0, False
        while True:
            owes = self.connected and not self.habit.keeps and self._acked < self.position
            step = ACK_EVERY if owes else self._plan.silence
            try:
                async with asyncio.timeout(step):
                    return dict(orjson.loads(await ws.recv(decode=False)))
            except TimeoutError:
                waited += step
            if waited > self._plan.silence + self._plan.patience:
                raise Silent
            if owes:
                await self._ack(ws)
            elif self.connected and not asked and waited >= self._plan.silence:
                asked = True
                await self._say(ws, type="ping")

    def let_in(self, frame: str | bytes, connection: str, site: Site) -> None:
        """Somebody else dialled for it and was greeted: noted, and no visit of its own."""
        self._note_hello(dict(orjson.loads(frame)), connection, site)
        self._closed(connection, 1006, "", ours=True)

    def greeted(self, hello: dict[str, Any], connection: str, site: Site) -> None:
        self._note_hello(hello, connection, site)
        self.epoch, self.position, self._acked = hello["epoch"], hello["after"], hello["cursor"]
        self.visits += 1
        self.connected = True

    def _note_hello(self, hello: dict[str, Any], connection: str, site: Site) -> None:
        assert hello["type"] == "hello", hello
        self._history.note(
            Opened(
                self._history.now,
                self.name,
                self.session,
                hello["user"],
                connection,
                site.name,
                hello["epoch"],
                hello["head"],
                hello["rev"],
                hello["cursor"],
                hello["after"],
                hello["reset"],
            )
        )

    async def _heard(self, ws: ClientConnection, connection: str, frame: dict[str, Any]) -> None:
        history, epoch = self._history, self.epoch or ""
        match frame["type"]:
            case "notification" if frame["seq"] is not None:  # the workload has nothing without a number
                seq, id = frame["seq"], frame["id"]
                history.note(Received(history.now, self.name, self.user, connection, epoch, seq, id, digest(frame)))
                self.position = seq
                await self._dawdle()
            case "gap":
                first, last = frame["from"], frame["to"]
                history.note(Gapped(history.now, self.name, self.user, connection, epoch, first, last))
                self.position = last
            case "read" | "withdrawn" | "changed":
                history.note(Stated(history.now, self.name, self.user, connection, frame["rev"]))
            case "ok":
                seq = int(frame["ref"])
                history.note(Acked(history.now, self.name, self.session, self.user, epoch, seq, confirmed=True))
            case "reconnect":
                self._come_back = min(frame["after_ms"] / 1000, 1.0)
            case "pong":
                return
            case "error" if frame["code"] in ("store_unavailable", "unavailable", "revocations_stale"):
                self._acked = 0  # it is owed still
            case _:
                self.errors.append(f"{connection}: {frame}")
        if not self.habit.keeps and asyncio.get_running_loop().time() - self._ack_sent > ACK_EVERY:
            await self._ack(ws)
        if self.habit is Habit.ACKS and self._rng.random() < 0.01 and self.position:
            await self._say(ws, type="read", up_to=self.position)

    async def _ack(self, ws: ClientConnection) -> None:
        if self._acked < self.position:
            self._acked, self._ack_sent = self.position, asyncio.get_running_loop().time()
            now, epoch = self._history.now, self.epoch or ""
            self._history.note(Acked(now, self.name, self.session, self.user, epoch, self.position, confirmed=False))
            await self._say(ws, type="ack", seq=self.position, ref=str(self.position))
            if self._plan.nervous:
                for seq in (self.position, self._rng.randint(1, self.position)):
                    await self._say(ws, type="ack", seq=seq, ref=str(seq))

    async def _say(self, ws: ClientConnection, **frame: Any) -> None:
        """Bounded: on a link that takes nothing, ``send`` waits for ever once the buffers are full."""
        try:
            async with asyncio.timeout(self._plan.patience):
                await ws.send(orjson.dumps(frame).decode())
        except TimeoutError:
            raise Silent from None

    async def _dawdle(self) -> None:
        if self.hurried:
            return
        if self.habit is Habit.SLOW:
            await asyncio.sleep(self._rng.uniform(0.005, 0.04))
        elif self.habit is Habit.STALLS and self._rng.random() < 0.02:
            await asyncio.sleep(self._rng.uniform(0.5, 2.0))

    def _closed(self, connection: str, code: int, reason: str, *, ours: bool) -> None:
        now = self._history.now
        self._history.note(Closed(now, self.name, self.session, connection, code, reason, ours))
        self.over = self.over or (code == 1008 and reason in _FINAL)

    async def rejoin(self) -> None:
        """Leave the socket it has, if any; it comes back by itself, from where it stands."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                await self._socket.close()
