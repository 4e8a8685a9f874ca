"""A real gateway process and what its users do to it. No shortcut into its memory: only signals, sockets and HTTP."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, cast

import forks
import httpx2
from freeport import free_port
from jose import jws
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

ADMIN_PASSWORD = "correct horse battery staple"
ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 15.0
SECRET = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
HS256_KEYS = '[{"kid": "test", "alg": "HS256", "key": "' + SECRET + '"}]'
"""For ``signing_keys``: then a test can sign what ``forged`` makes."""


def claims_of(token: str) -> dict[str, Any]:
    """What a token says, whoever signed it."""
    body = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))))


def forged(token: str, **changed: object) -> str:
    """``token`` with other claims (None takes one away), signed with SECRET as the gateway would."""
    claims = {name: value for name, value in {**claims_of(token), **changed}.items() if value is not None}
    return str(jws.sign(claims, SECRET, headers={"kid": "test", "typ": "at+jwt"}, algorithm="HS256"))


_opened: list[ClientConnection] = []


async def hang_up() -> None:
    """Close every socket that a test has left open."""
    while _opened:
        connection = _opened.pop()
        if connection.loop is asyncio.get_running_loop():  # those of another suite's test went with its loop
            await connection.close()


async def called_off(*tasks: asyncio.Task[Any]) -> None:
    """Cancel these until they are done: a cancellation that meets the end of a ``wait_for`` is lost in it (3.11)."""
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=0.5)
    await asyncio.gather(*tasks, return_exceptions=True)  # what they raised is nobody's any more


def eventually(condition: Callable[[], Any], *, within: float = DEADLINE, what: str = "condition") -> Any:
    """The first true answer of ``condition``; fails after ``within`` seconds."""
    end = time.monotonic() + within
    while True:
        if answer := condition():
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {within} s")
        time.sleep(0.02)


async def eventually_async(condition: Callable[[], Any], *, within: float = DEADLINE, what: str = "condition") -> Any:
    """As ``eventually``, letting the event loop turn. ``condition`` may be a coroutine function."""
    end = time.monotonic() + within
    while True:
        answer = condition()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {within} s")
        await asyncio.sleep(0.02)


def new_database(directory: Path) -> str:
    """Where a test's node keeps its data: a file beside its log, or a PostgreSQL database (``pytest --postgres``)."""
    return f"sqlite+aiosqlite:///{directory}/gateway.db" if on_postgres is None else on_postgres()


on_postgres: Callable[[], str] | None = None


@contextlib.contextmanager
def running(directory: Path, **settings: Any) -> Iterator[Node]:
    """A gateway that has to end well and may not have failed inside."""
    node = Node(directory, **settings)
    try:
        yield node.start()
        assert node.stop() == 0
    finally:
        node.kill()
    assert "Traceback" not in node.log_text(), node.log_text()[-5000:]


class Node:
    """One ``gateway serve`` process on a free port, its data and its log in ``directory``. What stands before the
    command (``prefix``) is run with it."""

    def __init__(self, directory: Path, *, prefix: tuple[str, ...] = (), **settings: object) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / "gateway.log"
        self.prefix = prefix
        self.settings = {
            "host": "127.0.0.1",
            "port": self.port,
            "database_url": new_database(directory),
            "bootstrap_admin_password": ADMIN_PASSWORD,
            "log_level": "debug",
            "log_format": "json",
            "presence_linger": 0,  # who is gone is gone: what lingers has tests of its own
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self._admin: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        given = {f"GATEWAY_{name.upper()}": str(value) for name, value in self.settings.items()}
        return {**kept, **given, "PYTHONUNBUFFERED": "1"}

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, *, wait: bool = True) -> Self:
        """Forked from a process that has imported everything, if that will do: a second is spared."""
        if self.prefix:
            return self.spawn(wait=wait)
        child = forks.shared().start("serve", environment=self.environment, out=self.log)
        self.process = cast("subprocess.Popen[bytes]", child)
        if wait:
            self.until_ready()
        return self

    def spawn(self, *, wait: bool = True) -> Self:
        """A process from nothing, as an operator starts it: its command line, environment and imports are its own."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "gateway", "serve"],
                cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        if wait:
            self.until_ready()
        return self

    def until_ready(self) -> None:
        def ready() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"the gateway ended with {self.process.returncode}:\n{self.log_text()[-3000:]}")
            try:
                return httpx2.get(f"{self.url}/readyz", timeout=2, verify=False).status_code == 200
            except httpx2.HTTPError:
                return False

        eventually(ready, within=30, what="readyz")

    def command(
        self, *arguments: str, input: str = "", cwd: Path | None = None, within: float = 30
    ) -> tuple[int, str, str]:
        """``gateway <arguments>`` beside this node: exit status, stdout, stderr."""
        return forks.shared().run(*arguments, environment=self.environment, input=input, cwd=cwd, within=within)

    def stop(self, *, within: float = 20) -> int:
        """SIGTERM, and wait: the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def kill(self) -> None:
        """SIGKILL: nothing of it runs any more."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def resident(self) -> int:
        """Resident memory in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    # -- over HTTP -----------------------------------------------------------------------------------------------

    def request(
        self, method: str, path: str, *, token: str | None = None, expect: int | None = None, **more: Any
    ) -> httpx2.Response:
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        # There is no TLS here: reading the certificates of the world would cost 45 ms a request.
        answer = httpx2.request(method, self.url + path, headers=headers, timeout=30, verify=False, **more)
        if expect is not None:
            assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    def sign_in(self, username: str, password: str, **more: Any) -> dict[str, Any]:
        body = {"username": username, "password": password, **more}
        return dict(self.request("POST", "/auth/login", json=body, expect=200).json())

    @property
    def admin(self) -> str:
        """An access token of the admin."""
        if self._admin is None:
            self._admin = self.sign_in("admin", ADMIN_PASSWORD)["access_token"]
        return self._admin

    def forget_admin(self) -> None:
        self._admin = None

    def user(self, username: str | None = None, **more: Any) -> User:
        """A new user who has not signed in yet."""
        name = username or f"u-{uuid.uuid4().hex[:12]}"
        body = {"username": name, "password": f"pw of {name}", **more}
        answer = self.request("POST", "/admin/users", token=self.admin, json=body, expect=201).json()
        return User(self, str(answer["id"]), name, body["password"])

    def client(self, **more: Any) -> tuple[str, str]:
        """A new backend service: its id and secret."""
        body = {"name": "shop", "scopes": ["notifications:write"], **more}
        answer = self.request("POST", "/admin/clients", token=self.admin, json=body, expect=201).json()
        return answer["client_id"], answer["client_secret"]

    def client_token(self, client: tuple[str, str] | None = None) -> str:
        form = {"grant_type": "client_credentials"}
        answer = self.request("POST", "/auth/token", data=form, auth=client or self.client(), expect=200)
        return str(answer.json()["access_token"])

    def push(self, token: str, *, expect: int | None = 201, headers: dict[str, str] | None = None, **body: Any) -> Any:
        body.setdefault("title", "hello")
        answer = self.request("POST", "/notifications", token=token, json=body, expect=expect, headers=headers or {})
        return answer.json()

    def batch(self, token: str, *items: dict[str, Any], expect: int = 200) -> list[dict[str, Any]]:
        """The results of one ``POST /notifications/batch``."""
        body = {"notifications": [{"title": "hello", **item} for item in items]}
        answer = self.request("POST", "/notifications/batch", token=token, json=body, expect=expect)
        return list(answer.json()["results"])

    def inbox(self, token: str, **query: object) -> dict[str, Any]:
        return dict(self.request("GET", "/inbox", token=token, params=query, expect=200).json())

    def revoke(self, **target: str) -> dict[str, Any]:
        return dict(self.request("POST", "/admin/revocations", token=self.admin, json=target, expect=201).json())

    def connections(self, user: User) -> list[dict[str, Any]]:
        answer = self.request("GET", f"/admin/connections?user_id={user.id}", token=self.admin, expect=200)
        return list(answer.json()["items"])

    # -- sockets -------------------------------------------------------------------------------------------------

    def ws_url(self, **query: object) -> str:
        return f"ws://127.0.0.1:{self.port}/ws?" + "&".join(f"{name}={value}" for name, value in query.items())

    async def open(self, token: str, *, headers: dict[str, str] | None = None, **query: Any) -> Socket:
        """A socket that has been accepted and has heard ``hello``."""
        socket = Socket(await self.raw(token, headers=headers, **query))
        socket.hello = await socket.next("hello")
        return socket

    async def raw(
        self,
        token: str | None,
        *,
        headers: dict[str, str] | None = None,
        options: dict[str, Any] | None = None,
        **query: object,
    ) -> ClientConnection:
        """A socket of which nothing has been read yet. ``options``: more for ``websockets.connect``."""
        asked: dict[str, object] = {**query} if token is None else {"token": token, **query}
        connection = await connect(
            self.ws_url(**asked), compression=None, ping_interval=None, additional_headers=headers or {},
            proxy=None, open_timeout=DEADLINE,
            max_queue=None,  # it reads all the time: a test that stalls its reader does so with a raw socket
            **(options or {}),
        )  # fmt: skip
        _opened.append(connection)
        return connection

    async def refusal(
        self, token: str | None, *, headers: dict[str, str] | None = None, **query: Any
    ) -> tuple[int, str]:
        """Code and reason of the close that answers an upgrade; fails if any data frame came first."""
        frames, close = await Socket(await self.raw(token, headers=headers, **query)).until_closed()
        assert frames == [], "data frames on a refused socket"
        return close


class User:
    """A user with a password, and the devices that sign in with it."""

    def __init__(self, node: Node, id: str, username: str, password: str) -> None:
        self.node, self.id, self.username, self.password = node, id, username, password

    def sign_in(self, **more: Any) -> dict[str, Any]:
        return self.node.sign_in(self.username, self.password, **more)

    def token(self) -> str:
        """The access token of a new session."""
        return str(self.sign_in()["access_token"])


class Socket:
    """A ``/ws`` client that reads JSON frames with a deadline."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.hello: dict[str, Any] = {}

    async def receive(self, *, within: float = DEADLINE) -> dict[str, Any]:
        frame = json.loads(await asyncio.wait_for(self.connection.recv(), within))
        assert isinstance(frame, dict)
        return frame

    async def next(self, *types: str, within: float = DEADLINE) -> dict[str, Any]:
        """The next frame, which must be one of these types."""
        frame = await self.receive(within=within)
        assert frame["type"] in types, frame
        return frame

    async def notifications(self, count: int, *, within: float = DEADLINE) -> list[dict[str, Any]]:
        """The next ``count`` notifications; nothing else may come between them."""
        return [await self.next("notification", within=within) for _ in range(count)]

    async def send(self, **frame: Any) -> None:
        await self.connection.send(json.dumps(frame))

    async def ask(self, **frame: Any) -> dict[str, Any]:
        """Send with a ``ref`` and return the ``ok`` or ``error`` that echoes it; other frames are passed over."""
        ref = uuid.uuid4().hex
        await self.send(ref=ref, **frame)
        while True:
            answer = await self.receive()
            if answer.get("ref") == ref:
                return answer

    async def quiet(self) -> None:
        """Nothing is on its way: the answer to a ping is the next frame."""
        await self.send(type="ping", ref="quiet")
        answer = await self.receive()
        assert answer == {"type": "pong", "ref": "quiet"}, answer

    async def text(self, text: str | bytes) -> dict[str, Any]:
        """Send it as it is; the next frame."""
        await self.connection.send(text)
        return await self.receive()

    async def until_closed(self, *, within: float = DEADLINE) -> tuple[list[dict[str, Any]], tuple[int, str]]:
        """Every frame that still came, and how the gateway closed."""
        frames, end = [], time.monotonic() + within
        while True:
            try:
                frames.append(await self.receive(within=max(0.01, end - time.monotonic())))
            except ConnectionClosed as closed:
                return frames, (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")

    async def closed(self, *, within: float = DEADLINE) -> tuple[int, str]:
        """Code and reason with which the gateway closed; frames before it are passed over."""
        return (await self.until_closed(within=within))[1]

    async def close(self) -> None:
        await self.connection.close()
