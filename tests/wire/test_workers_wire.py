"""``gateway serve --workers``: several processes behind one port, as an operator, a client and Prometheus meet them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from forks import shared
from freeport import free_port
from servers import Postgres, Redis
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidMessage
from wire import Node, User, called_off, eventually, eventually_async

Begin = Callable[..., "Crew"]


class Crew(Node):
    """A gateway of several workers. ``pid`` is the parent's."""

    said_before = 0

    def start(self, *, wait: bool = True) -> Crew:
        self.said_before = len(self.log_text())
        super().start(wait=wait)
        return self

    def until_ready(self) -> None:
        def said() -> bool:
            assert self.process is not None
            ended = self.process.poll()
            assert ended is None, f"the gateway ended with {ended}:\n{self.log_text()[-3000:]}"
            said = self.log_text()[self.said_before :]
            return re.search(r"^(gateway ready at|The gateway is ready)", said, re.MULTILINE) is not None

        eventually(said, within=30, what="the line that says ready")

    def workers(self) -> dict[int, int]:
        """Number → pid of those that live; of two with one number the newer. The log knows the numbers."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        found = re.findall(r'"Started server process \[(\d+)\]", "worker": (\d+)', self.log_text())
        return {int(number): int(pid) for pid, number in found if pid in listed}

    def series(self, name: str, *, port: int | None = None) -> dict[str, float]:
        """Worker → value, of a metric without other labels."""
        return {
            worker: float(value)
            for worker, value in re.findall(rf'^{name}{{worker="(\d+)"}} (\S+)$', self.metrics(port=port), re.MULTILINE)
        }

    def metrics(self, *, port: int | None = None) -> str:
        if port is not None:
            return httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
        return self.request("GET", "/metrics", token=self.admin, expect=200).text


@pytest.fixture
def begin(tmp_path: Path, database: Callable[[], str]) -> Iterator[Begin]:
    """Starts gateways on a database of their own; all have to end well, and none may have failed inside."""
    crews: list[Crew] = []

    def one(*, workers: int = 2, wait: bool = True, **settings: Any) -> Crew:
        place = tmp_path / f"crew{len(crews)}"
        place.mkdir()
        settings = {"database_url": database(), "database_connections": 3, "connections_per_user": 500, **settings}
        crews.append(Crew(place, workers=workers, **settings))
        crews[-1].start(wait=wait)
        return crews[-1]

    yield one
    try:
        for crew in crews:
            if crew.process is not None and crew.process.poll() is None:
                assert crew.stop() == 0
    finally:
        for crew in crews:
            crew.kill()
    assert [line for crew in crews for line in crew.log_text().splitlines() if "Traceback" in line] == []


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return subprocess.CompletedProcess(arguments, *shared().run(*arguments, environment=kept | environment))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Device:
    """A user's device as one should be: it comes back wherever it finds a listener, with its place in the inbox."""

    def __init__(self, crew: Crew, user: User, token: str) -> None:
        self._crew, self._user, self._token = crew, user, token
        self.seqs: list[int] = []
        self.nodes: list[str] = []
        self.closed: Counter[tuple[int, str]] = Counter()
        self.refused = 0
        self._place: dict[str, Any] = {}

    async def run(self) -> None:
        while True:
            try:
                socket = await self._crew.open(self._token, **self._place)
            except (OSError, EOFError, InvalidMessage, ConnectionClosedError) as error:
                self.refused += getattr(error, "rcvd", None) is not None
                await asyncio.sleep(0.02)  # nobody listens, or who did has just gone: but a refusal ends this test
                continue
            self.nodes.append(socket.hello["node"])
            try:
                while True:
                    frame = await socket.receive(within=60)
                    if frame["type"] == "notification":
                        self.seqs.append(frame["seq"])
                        self._place = {"after": frame["seq"], "epoch": socket.hello["epoch"]}
            except ConnectionClosed as error:
                close = error.rcvd
                self.closed[(close.code, close.reason) if close else (1006, "")] += 1


class Producer:
    """Pushes one after the other, each until it is answered 201; every request has a connection of its own."""

    def __init__(self, crew: Crew, token: str, user: User) -> None:
        self._crew, self._token, self._user = crew, token, user
        self.done = 0
        self.answers: Counter[str] = Counter()

    async def run(self) -> None:
        while True:
            if await asyncio.to_thread(self._push, f"key-{self.done}"):
                self.done += 1
            else:
                await asyncio.sleep(0.02)

    def _push(self, key: str) -> bool:
        body = {"user_id": self._user.id, "title": str(self.done)}
        try:
            answer = self._crew.request(
                "POST", "/notifications", token=self._token, json=body, headers={"Idempotency-Key": key}
            )
        except httpx2.TransportError as error:
            self.answers[type(error).__name__] += 1
            return False
        self.answers[str(answer.status_code)] += 1
        return answer.status_code == 201


async def test_under_load_a_killed_worker_comes_back_and_a_hangup_replaces_all_and_nothing_is_lost(
    begin: Begin, redis_server: Redis
) -> None:
    crew = begin(workers=2, log_level="info", redis_url=redis_server.url())
    user, shop = crew.user(), crew.client_token()
    devices = [Device(crew, user, user.token()) for _ in range(20)]
    producer = Producer(crew, shop, user)
    tasks = [asyncio.create_task(one.run()) for one in devices]
    pushing = asyncio.create_task(producer.run())

    async def caught_up(what: str) -> None:
        goal = producer.done + 20
        await eventually_async(lambda: producer.done >= goal, what=f"pushes go on {what}")
        await eventually_async(lambda: all(len(one.seqs) >= goal for one in devices), what=f"all receive {what}")

    try:
        await caught_up("at first")
        before = crew.workers()
        assert set(before) == {1, 2}
        os.kill(before[2], signal.SIGKILL)
        await caught_up("beside a dead worker")
        await eventually_async(lambda: len(crew.workers()) == 2, what="it comes back")
        assert crew.workers()[1] == before[1]
        assert crew.workers()[2] != before[2]
        assert any(one.closed[1006, ""] for one in devices)

        for one in devices:
            one.closed.clear()
        before = crew.workers()
        os.kill(crew.pid, signal.SIGHUP)
        await eventually_async(
            lambda: len(found := crew.workers()) == 2 and set(found.values()).isdisjoint(before.values()),
            what="both are replaced",
        )
        await eventually_async(lambda: not any(alive(pid) for pid in before.values()), what="the old ones are gone")
        await caught_up("after all were replaced")
        assert sum(one.refused for one in devices) == 0, "who came back met nobody who was leaving"
        assert sum(one.closed.total() for one in devices) >= len(devices)
        assert set().union(*(one.closed for one in devices)) == {(1012, "draining")}
        await called_off(pushing)
        await eventually_async(
            lambda: all(one.seqs[-1] >= producer.done for one in devices), what="the last one is received"
        )
    finally:
        ended = [task for task in tasks if task.done()]
        await called_off(pushing, *tasks)
    assert ended == []
    name = re.escape(str(devices[0].nodes[0])[:-2])
    assert {re.sub(f"^{name}-", "", node) for one in devices for node in one.nodes} == {"1", "2"}
    for one in devices:
        assert one.seqs == list(range(1, len(one.seqs) + 1)), "each number once, in order, on every device"
    assert set(producer.answers) <= {"201", "503", "ConnectError", "ReadError", "RemoteProtocolError"}


async def test_a_stop_closes_every_socket_with_1012_and_ends_well_within_its_grace(begin: Begin) -> None:
    crew = begin(workers=3, drain_grace=3)
    user = crew.user()
    token = user.token()
    sockets = [await crew.open(token) for _ in range(30)]
    assert len({socket.hello["node"] for socket in sockets}) > 1
    workers = crew.workers().values()
    assert len(workers) == 3
    began = time.monotonic()
    os.kill(crew.pid, signal.SIGTERM)
    for pid in workers:  # as systemd does it: every process of the unit hears it
        os.kill(pid, signal.SIGTERM)
    ends = await asyncio.gather(*(socket.until_closed() for socket in sockets))
    assert {close for _, close in ends} == {(1012, "draining")}
    assert {frames[-1]["type"] for frames, _ in ends} == {"reconnect"}
    assert await asyncio.to_thread(crew.stop) == 0
    assert time.monotonic() - began < 3 + 5
    assert not any(alive(pid) for pid in workers)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", crew.port))


def test_the_first_admin_is_printed_once_however_many_begin_on_an_empty_database(
    begin: Begin, postgres: Postgres
) -> None:
    url = postgres.create(f"empty{time.monotonic_ns()}")
    crews = [begin(workers=3, wait=False, database_url=url, bootstrap_admin_password="") for _ in range(2)]
    for crew in crews:
        crew.until_ready()
    said = "".join(crew.log_text() for crew in crews)
    assert len(re.findall(r"^password +(\S+)", said, re.MULTILINE)) == 1
    assert len(re.findall(r"^The gateway is ready", said, re.MULTILINE)) == 1
    assert len(re.findall(r"^gateway ready at http://127.0.0.1:\d+ · node \S+ · 3 workers · ", said, re.MULTILINE)) == 1
    (password,) = re.findall(r"^password +(\S+)", said, re.MULTILINE)
    token = crews[0].sign_in("admin", password)["access_token"]
    for _ in range(6):  # whoever answers, of either: they sign and verify with the same keys
        for crew in crews:
            crew.request("GET", "/auth/me", token=token, expect=200)


async def test_every_worker_has_a_name_of_its_own_that_outlives_it(begin: Begin) -> None:
    crew = begin(workers=2, node="web1")
    token = crew.user().token()

    async def met() -> set[str]:
        return {(await crew.open(token)).hello["node"] for _ in range(20)}

    assert await met() == {"web1-1", "web1-2"}
    os.kill(crew.workers()[1], signal.SIGKILL)
    await eventually_async(lambda: crew.series("gateway_worker_up")["1"] == 0, what="it is gone")
    await eventually_async(lambda: crew.series("gateway_worker_up")["1"] == 1, what="it is back")
    assert await met() == {"web1-1", "web1-2"}


@pytest.mark.parametrize("count", [2, 4])
async def test_each_worker_gets_its_share_of_the_sockets_also_of_those_that_come_at_once(
    begin: Begin, count: int
) -> None:
    crew = begin(workers=count, log_level="warning")
    token = crew.user().token()
    one_by_one = [await crew.open(token) for _ in range(100)]
    at_once = await asyncio.gather(*(crew.open(token) for _ in range(100)))
    met = Counter(socket.hello["node"] for socket in (*one_by_one, *at_once))
    assert len(met) == count
    assert max(met.values()) <= 2 * min(met.values()), met


async def test_who_stands_still_keeps_no_new_socket_waiting(begin: Begin) -> None:
    crew = begin(workers=2)
    token = crew.user().token()
    stopped = crew.workers()[1]
    os.kill(stopped, signal.SIGSTOP)
    try:
        for _ in range(20):
            assert (await crew.open(token)).hello["node"].endswith("-2")
    finally:
        os.kill(stopped, signal.SIGCONT)


def test_sqlite_is_refused_with_what_to_set_instead(tmp_path: Path) -> None:
    ran = command("serve", "--workers", "2", GATEWAY_DATABASE_URL=f"sqlite+aiosqlite:///{tmp_path}/gateway.db")
    assert ran.returncode == 2
    assert "GATEWAY_WORKERS: several processes cannot serve one SQLite database" in ran.stderr
    assert "set GATEWAY_DATABASE_URL to postgresql+asyncpg://" in ran.stderr
    assert not (tmp_path / "gateway.db").exists()


@pytest.mark.parametrize("setting", ["GATEWAY_PORT", "GATEWAY_METRICS_PORT"])
def test_a_port_in_use_is_one_line_and_status_2(setting: str, database: Callable[[], str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = {"GATEWAY_PORT": str(free_port()), setting: str(taken.getsockname()[1])}
        ran = command("serve", "--workers", "2", GATEWAY_DATABASE_URL=database(), **port)
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1].startswith(f"gateway: {setting}: port {port[setting]} ")
    assert ran.stdout == ""


@pytest.mark.parametrize("refused", ["GATEWAY_DATABASE_URL", "GATEWAY_BOOTSTRAP_ADMIN_PASSWORD"])
def test_what_a_worker_refuses_is_said_once_with_its_status(
    refused: str, database: Callable[[], str], tmp_path: Path
) -> None:
    nowhere = f"postgresql+asyncpg://nobody@127.0.0.1:{free_port()}/nothing"
    given = {
        "GATEWAY_DATABASE_URL": nowhere if refused == "GATEWAY_DATABASE_URL" else database(),
        "GATEWAY_BOOTSTRAP_ADMIN_PASSWORD": "short",
        "GATEWAY_PORT": "0",
        "TMPDIR": str(tmp_path),
    }
    ran = command("serve", "--workers", "3", **given)
    assert ran.returncode == (1 if refused == "GATEWAY_DATABASE_URL" else 2)
    (said,) = [line for line in ran.stderr.splitlines() if line.startswith("gateway: ")]
    assert said.startswith(f"gateway: {refused}: ")
    assert list(tmp_path.iterdir()) == [], "it leaves nothing lying about"


def test_when_the_parent_is_killed_its_workers_die_and_the_port_is_free(begin: Begin) -> None:
    crew = begin(workers=2)
    workers = list(crew.workers().values())
    assert len(workers) == 2
    crew.kill()
    eventually(lambda: not any(alive(pid) for pid in workers), what="no orphans")
    crew.start()
    assert set(crew.workers()) == {1, 2}


async def test_a_scrape_of_any_worker_shows_all_of_them(begin: Begin) -> None:
    port = free_port()
    crew = begin(workers=3, metrics_port=port)
    user, shop = crew.user(), crew.client_token()
    token = user.token()
    sockets = [await crew.open(token) for _ in range(60)]
    there = Counter(socket.hello["node"].rpartition("-")[2] for socket in sockets)
    for _ in range(20):
        crew.push(shop, user_id=user.id)
    for place in (None, port):
        for _ in range(10):  # whoever of them answers
            assert crew.series("gateway_worker_up", port=place) == {"1": 1, "2": 1, "3": 1}
            opened = crew.series("gateway_connections", port=place)
            assert {number: value for number, value in opened.items() if value} == dict(there)
            assert sum(crew.series("gateway_notifications_stored_total", port=place).values()) == 20
    text = crew.metrics()
    described = re.findall(r"^# (?:HELP|TYPE) (\S+)", text, re.MULTILINE)
    assert set(Counter(described).values()) == {2}
    series = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))
    assert all('{worker="' in one for one in series)
    assert 'gateway_event_loop_lag_seconds_bucket{worker="1",le="0.001"}' in text

    os.kill(crew.workers()[2], signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert crew.series("gateway_worker_up", port=port) == {"1": 1, "2": 0, "3": 1}
        assert time.monotonic() - began < 2
        assert set(crew.series("gateway_connections", port=port)) == {"1", "3"}, "no ghost"
    finally:
        os.kill(crew.workers()[2], signal.SIGCONT)
    os.kill(crew.workers()[3], signal.SIGKILL)
    await eventually_async(lambda: crew.series("gateway_worker_up", port=port)["3"] == 0, what="it is seen to be gone")
    await eventually_async(lambda: crew.series("gateway_worker_up", port=port)["3"] == 1, what="it is back")
    assert crew.series("gateway_connections", port=port)["3"] == 0
    assert crew.series("gateway_connections_opened_total", port=port)["3"] == 0, "it counts from its own beginning"


def test_a_line_of_the_log_says_which_worker_it_is_of(begin: Begin) -> None:
    crew = begin(workers=2)
    crew.request("GET", "/nothing", headers={"X-Request-Id": "mine"})
    (line,) = eventually(
        lambda: [line for line in crew.log_text().splitlines() if '"mine"' in line], what="the line of a request"
    )
    assert re.search(r'"worker": [12]\b', line)


def test_workers_that_cannot_hear_each_other_say_so_and_serve(begin: Begin, tmp_path: Path) -> None:
    def readiness(crew: Crew) -> dict[str, Any]:
        return dict(crew.request("GET", "/readyz", expect=200).json())

    assert readiness(begin(workers=2)) == {"status": "degraded", "reasons": ["there is no Redis"]}
    redis = Redis(tmp_path).start()
    try:
        crew = begin(workers=2, redis_url=redis.url())
        eventually(lambda: readiness(crew) == {"status": "ready"}, what="they hear")
        redis.kill()
        degraded = {"status": "degraded", "reasons": ["Redis cannot be used"]}
        eventually(lambda: readiness(crew) == degraded, what="they are deaf")
        assert crew.push(crew.client_token(), user_id=crew.user().id)["seq"] == 1
        redis.start()
        eventually(lambda: readiness(crew) == {"status": "ready"}, what="they hear again")
    finally:
        redis.stop()


def test_readiness_names_the_schema_that_does_not_fit(begin: Begin, postgres: Postgres) -> None:
    crew = begin(workers=2)
    name = str(crew.settings["database_url"]).rpartition("/")[2]
    (before,) = postgres.sql("SELECT version_num FROM alembic_version", database=name)
    postgres.sql("UPDATE alembic_version SET version_num = '0999'", database=name)
    assert crew.request("GET", "/readyz").status_code == 200, "newer, and still fit for this version"
    postgres.sql("UPDATE meta SET value = '0998' WHERE name = 'compatible'", database=name)
    answer = crew.request("GET", "/readyz", expect=503).json()
    assert answer["reasons"] == [f"the database has schema 0999, this version needs {before['version_num']}"]
    postgres.sql(f"UPDATE alembic_version SET version_num = '{before['version_num']}'", database=name)
    assert crew.request("GET", "/readyz").status_code == 200
