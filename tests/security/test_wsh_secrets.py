"""WSH-02: canary credentials on every way in, at DEBUG and INFO, on requests served, refused, malformed and broken.

Afterwards not sixteen characters of any of them are found in the log, in a file, in an answer, in the metrics or in
what the process list shows. Only the answers that hand a credential out may hold it, and those are set apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rawpeer import CLOSE, Raw, frame, head
from servers import Postgres, short_directory
from streams import asking
from wire import ADMIN_PASSWORD, HS256_KEYS, Node, eventually, forged

from tests.security.keeping import InPostgres, InSqlite, Kept

PIECE = 16


@dataclass
class Canaries:
    """Secrets by name, and where they were looked for."""

    secrets: dict[str, str] = field(default_factory=dict)
    answers: list[tuple[str, bytes]] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    pieces: dict[bytes, str] = field(default_factory=dict)
    """Every piece of every secret, plain and percent-encoded, and what it is a piece of."""

    def keep(self, name: str, secret: str) -> str:
        assert len(secret) >= PIECE
        self.secrets[name] = secret
        for at in range(len(secret) - PIECE + 1):
            piece = secret[at : at + PIECE]
            for spelled in (piece, urllib.parse.quote(piece)):
                self.pieces[spelled.encode()] = f"{name}: {piece!r}"
        return secret

    def found(self, text: bytes) -> list[str]:
        """The names of the secrets of which ``text`` holds a piece, plain or percent-encoded."""
        return [
            self.pieces[part]
            for length in {len(piece) for piece in self.pieces}
            for part in (text[at : at + length] for at in range(len(text) - length + 1))
            if part in self.pieces
        ][:5]

    def answer(self, what: str, status: int, content: bytes) -> None:
        self.answers.append((what, content))
        self.statuses[status] = self.statuses.get(status, 0) + 1


class Prober:
    """Sends one canary in every way there is and keeps what was answered."""

    def __init__(self, node: Node, canaries: Canaries) -> None:
        self.node, self.canaries = node, canaries

    def http(self, method: str, path: str, *, keep: bool = True, **more: object) -> int:
        reply = self.node.request(method, path, **more)  # type: ignore[arg-type]
        if keep:
            text = b"\n".join(f"{name}: {value}".encode() for name, value in reply.headers.items())
            self.canaries.answer(f"{method} {path[:40]}", reply.status_code, text + b"\n" + reply.content)
        return reply.status_code

    def raw(self, what: str, data: bytes) -> None:
        """Bytes on a socket of their own; everything that comes back."""
        peer = Raw(self.node.port)
        peer.send(data)
        with contextlib.suppress(TimeoutError):
            while peer.more():
                peer.sock.settimeout(0.02)  # it answered; whether it also hangs up is another test's matter
        peer.shut()
        status = int(peer.buffer[9:12] or b"0") if peer.buffer.startswith(b"HTTP") else 0
        self.canaries.answer(what, status, peer.buffer)

    def everywhere(self, token: str) -> None:
        """A token, or what poses as one, as bearer, in the query, in the path, in bodies, in cookies, in fields."""
        bearer, query = {"Authorization": f"Bearer {token}"}, urllib.parse.quote(token)
        for path in (
            "/inbox",
            "/auth/me",
            "/nope",
            "/admin/users",
            "/metrics",
            "/readyz",
            "/inbox/nothing",
            "/auth/login",
        ):
            self.http("GET", path, headers=bearer)
            self.http("GET", f"{path}?token={query}")
            self.http("GET", f"{path}?access_token={query}&x=1")
        if token.startswith("eyJ"):  # a word in a path is a name unless it has the looks of a token
            for path in (f"/inbox/{token}", f"/nope/{token}?x=1", f"/auth/sessions/{token}"):
                self.http("GET", path, headers=bearer)
            self.http("POST", "/auth/refresh", json={token: 1, "refresh_token": {token: 2}})
            for line in ("X: y", "Sec-WebSocket-Version: 8"):
                self.raw("upgrade with a token in the path", head(f"/ws/{token}", line))
            self.raw("head too large", head(f"/{token}", "X: " + "y" * 20_000, without="upgrade"))
        self.http("GET", "/inbox", headers={"Authorization": f"Basic {token}"})
        self.http("GET", "/inbox", headers={"Authorization": token})
        self.http("GET", "/inbox", headers={"Authorization": f"bearer  {token}"})
        self.http("GET", "/inbox", headers={"Cookie": f"__Host-access={token}; token={token}"})
        self.http("DELETE", f"/auth/sessions?token={query}", headers=bearer)
        self.http("POST", "/notifications", headers=bearer, json={"user_id": "nobody", "title": "t"})
        oversized = {"user_id": "nobody", "title": token, "body": " " * 70_000}
        self.http("POST", "/notifications", headers=bearer, json=oversized)
        self.http("POST", "/notifications", headers=bearer, content=b"{broken")
        self.http("POST", "/admin/revocations", headers=bearer, json={"jti": token[:64], "surplus": token})
        self.http("POST", "/auth/refresh", json={"refresh_token": token})
        self.http("POST", "/auth/refresh", json={"refresh_token": [token]})
        self.http("POST", "/auth/refresh", json={"refresh_tokn": token})
        for grant in ("refresh_token", "client_credentials", "urn:x"):
            form = {"grant_type": grant, "refresh_token": token, "client_id": "c~x", "client_secret": token}
            self.http("POST", "/auth/token", data=form)
        self.http("POST", "/auth/token", data={"grant_type": token})
        exchange = "urn:ietf:params:oauth:grant-type:token-exchange"
        kind = "urn:ietf:params:oauth:token-type:jwt"
        form = {"grant_type": exchange, "subject_token": token, "subject_token_type": kind}
        self.http("POST", "/auth/token", data=form)
        self.http("POST", "/auth/token", data={**form, "subject_token_type": token, "actor_token": token})
        self.http("POST", "/auth/introspect", data={"token": token}, token=self.node.admin)
        self.http("POST", "/auth/introspect", data={"token": token}, auth=("c~x", token))
        self.http("POST", "/auth/revoke", data={"token": token, "token_type_hint": token}, auth=("c~x", token))
        self.http("POST", "/auth/token", data={"grant_type": "client_credentials"}, auth=("c~x", token))
        self.http("POST", "/auth/login", json={"username": "nobody", "password": token})
        self.http("POST", "/auth/login", json={"username": "nobody", "password": {"is": token}})
        # What only a socket of one's own can say.
        line = f"Authorization: Bearer {token}"
        for name, data in {
            "upgrade elsewhere": head(f"/nope?token={query}", line),
            "upgrade without a key": head(f"/ws?token={query}", without="sec-websocket-key"),
            "upgrade of another version": head(f"/ws?token={query}", "Sec-WebSocket-Version: 8"),
            "upgrade by HTTP/1.0": head(f"/ws?token={query}", version="1.0"),
            "upgrade with POST": head(f"/ws?token={query}", line, method="POST"),
            "another origin": head(f"/ws?token={query}", "Origin: https://evil.example"),
            "as a subprotocol": head("/ws", f"Sec-WebSocket-Protocol: bearer, {query}"),
            "twice": head(f"/ws?token={query}&token={query}"),
            "bad position": head(f"/ws?token={query}&after=x"),
            "a stream": asking(f"/events?token={query}"),
            "a stream by field": asking("/events", line),
            "a stream, twice": asking(f"/events?token={query}&token={query}", line),
            "a stream from there": asking(f"/events?token={query}", f"Last-Event-ID: {query[:200]}:1"),
            "a stream from nowhere": asking(f"/events?token={query}&after=x", f"Last-Event-ID: {query[:200]}"),
            "a stream by POST": asking(f"/events?token={query}").replace(b"GET", b"POST"),
            "a stream for another origin": asking(f"/events?token={query}", "Origin: https://evil.example"),
            "target too long": head(f"/ws?token={query}&x=" + "y" * 9000),
            "target much too long": head(f"/inbox?token={query}&x=" + "y" * 70_000, without="upgrade"),
            "head too large": head("/inbox", line, "X: " + "y" * 20_000, without="upgrade"),
            "no HTTP": f"GET /inbox?token={query}\r\n{line}\r\n\r\n".encode(),
            "bad field": head(f"/inbox?token={query}", line, "bad field\x01: x", without="upgrade"),
            "bad method": f"{token} / HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
            "bad target": f"GET {token} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        }.items():
            self.raw(name, data)

    async def sockets(self, token: str, good: str) -> None:
        """As the credential of an upgrade, and inside the frames of a socket that was opened with a good one."""
        bearer, query = f"Authorization: Bearer {token}", urllib.parse.quote(token)
        for target, lines in ((f"/ws?token={query}", []), ("/ws", [bearer]), (f"/ws?token={good}", [bearer])):
            peer = Raw(self.node.port).send(head(target, *lines))
            status, _ = peer.response()
            with contextlib.suppress(AssertionError):
                opcode, payload = peer.next() if status == 101 else (0, b"")
                code = int.from_bytes(payload[:2]) if opcode == CLOSE else status
                self.canaries.answer("upgrade", code, payload)
            peer.shut()
        socket = await self.node.open(good)
        for text in (
            json.dumps({"type": "token", "token": token, "ref": "r"}),
            json.dumps({"type": "token", "token": [token]}),
            json.dumps({"type": token}),
            json.dumps({"type": "ack", "seq": token}),
            json.dumps({"type": "read", "ids": [token], "ref": "r"}),
            token,
            '{"type": "token", "token": "' + token,
        ):
            await socket.connection.send(text)
            self.canaries.answer("frame", 0, json.dumps(await socket.receive()).encode())
        await socket.connection.send(token + "x" * 17_000)
        self.canaries.answer("frame too big", 0, repr(await socket.closed()).encode())
        peer = Raw(self.node.port).send(head(f"/ws?token={good}"))
        peer.response()
        peer.send(frame(1, token.encode(), mask=False))
        with contextlib.suppress(AssertionError):
            while True:
                self.canaries.answer("unmasked frame", 0, peer.next()[1])
        peer.shut()


@pytest.fixture(
    scope="module",
    params=["debug on SQLite", "info on PostgreSQL", pytest.param("debug on PostgreSQL", marks=pytest.mark.nightly)],
)
def aftermath(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Node, Canaries, Kept]]:
    """A gateway on which every canary has been used everywhere, at that log level, and where it keeps its data."""
    level, _, store = request.param.partition(" on ")
    with contextlib.ExitStack() as stack:
        directory = tmp_path_factory.mktemp("secrets")
        more: dict[str, Any] = {}
        kept: Kept = InSqlite(directory)
        if store == "PostgreSQL":
            server = Postgres(stack.enter_context(short_directory("pg"))).start()
            stack.callback(server.stop, how="immediate")
            kept = on_server = InPostgres(server)
            more["database_url"] = on_server.url
        node = Node(directory, signing_keys=HS256_KEYS, log_level=level, **more).spawn()
        stack.callback(node.kill)
        yield node, use_everywhere(node, kept), kept


def use_everywhere(node: Node, kept: Kept) -> Canaries:
    """The work itself: every canary on every way in, while all is well and while it is not."""
    canaries = Canaries()
    prober = Prober(node, canaries)
    user = node.user(password=canaries.keep("password", "canary-" + secrets.token_urlsafe(24)))
    signed_in = user.sign_in()
    valid = canaries.keep("access token", signed_in["access_token"])
    now = int(time.time())
    expired = canaries.keep("expired token", forged(valid, iat=now - 900, nbf=now - 900, exp=now - 60))
    future = canaries.keep("token of another audience", forged(valid, aud="elsewhere"))
    garbage = canaries.keep("garbage", "Canary" + secrets.token_urlsafe(32))
    tampered = canaries.keep("tampered token", f"{valid[:-20]}{secrets.token_urlsafe(15)}")
    spaced = canaries.keep("garbage with marks", f"canary'{secrets.token_hex(12)}\"<&{secrets.token_hex(12)}")
    ticket = canaries.keep("ticket", node.request("POST", "/auth/ticket", token=valid, expect=201).json()["ticket"])
    huge = canaries.keep("oversized token", secrets.token_urlsafe(2000))
    # Of a refresh token only the secret third is secret: the first names the session.
    refresh = signed_in["refresh_token"]
    canaries.keep("refresh token", refresh.rpartition(".")[2])
    client_id, secret = node.client()
    canaries.keep("client secret", secret)
    canaries.keep("admin's password", ADMIN_PASSWORD)
    canaries.keep("signing key", json.loads(HS256_KEYS)[0]["key"])
    canaries.keep("admin's token", node.admin)
    for token in (valid, expired, future, tampered, garbage, spaced, ticket):
        prober.everywhere(token)
    for method, path in (("GET", "/inbox"), ("GET", "/nope")):
        prober.http(method, path, headers={"Authorization": f"Bearer {huge}"})

    async def with_sockets() -> None:
        for token in (valid, expired, future, tampered, garbage, huge, ticket):
            await prober.sockets(token, valid)

    asyncio.run(with_sockets())
    # Passwords, refresh tokens and client secrets where they belong: right, wrong and malformed.
    for username in (user.username, "nobody"):
        prober.http(
            "POST", "/auth/login", json={"username": username, "password": canaries.secrets["password"], "x": 1}
        )
        prober.http("POST", "/auth/login", json={"username": username, "password": garbage})
    prober.http("PUT", "/auth/password", token=valid, json={"current_password": garbage, "new_password": "short"})
    prober.http("PUT", "/auth/password", token=valid, json={"current_password": garbage, "new_password": garbage})
    prober.http("POST", "/admin/users", token=node.admin, json={"username": "x", "password": garbage, "role": garbage})
    prober.http("POST", "/admin/clients", token=node.admin, json={"name": garbage[:20], "scopes": [garbage]})
    rotated = node.request("POST", "/auth/refresh", json={"refresh_token": refresh}, expect=200).json()
    canaries.keep("rotated refresh token", rotated["refresh_token"].rpartition(".")[2])
    canaries.keep("renewed access token", rotated["access_token"])
    oversized = {"user_id": user.id, "title": "t", "body": garbage * 2000}
    prober.http("POST", "/notifications", token=node.admin, json=oversized)
    for grant in ({"grant_type": "client_credentials", "scope": "admin"}, {"grant_type": garbage}):
        prober.http("POST", "/auth/token", data=grant, auth=(client_id, secret))
    # Now it breaks inside: a 500, and after that the database is away altogether.
    kept.break_sessions()
    prober.http("POST", "/auth/login", json={"username": user.username, "password": user.password})
    prober.http("POST", "/auth/refresh", json={"refresh_token": rotated["refresh_token"]})
    prober.http("POST", "/auth/token", data={"grant_type": "refresh_token", "refresh_token": rotated["refresh_token"]})
    prober.http("POST", "/auth/logout", token=valid)
    kept.mend_sessions()
    kept.leave()
    prober.http("POST", "/auth/login", json={"username": user.username, "password": user.password})
    prober.http("POST", "/auth/refresh", json={"refresh_token": rotated["refresh_token"]})
    prober.http("POST", "/notifications", token=node.admin, json={"user_id": user.id, "title": "t"})
    kept.come_back()
    eventually(lambda: node.request("GET", "/readyz").status_code == 200, what="ready again")
    # Reuse of the old refresh token after the grace is another path: the session ends.
    prober.http("POST", "/auth/logout", token=rotated["access_token"])
    prober.http("POST", "/auth/refresh", json={"refresh_token": rotated["refresh_token"]})
    prober.http("GET", "/inbox", token=valid)
    return canaries


def test_WSH_02_what_was_sent_reached_every_kind_of_end(aftermath: tuple[Node, Canaries, Kept]) -> None:
    node, canaries, _ = aftermath
    wanted = {101, 200, 400, 401, 403, 404, 405, 413, 414, 422, 431, 500, 503, 1008}
    assert wanted <= canaries.statuses.keys(), (wanted - canaries.statuses.keys(), canaries.statuses)
    assert node.process is not None
    assert node.process.poll() is None
    log = node.log_text()
    level = node.settings["log_level"]
    assert f'"level": "{level}"' in log, "as talkative as it was told to be"
    assert "Traceback" in log, "the failures inside were logged, with their tracebacks"
    assert canaries.found(f"x{canaries.secrets['garbage'][5:30]}y".encode()), "the measure itself"


def test_WSH_02_no_piece_of_a_credential_is_in_the_log(aftermath: tuple[Node, Canaries, Kept]) -> None:
    node, canaries, _ = aftermath
    for line in node.log.read_bytes().splitlines():
        assert canaries.found(line) == [], line[:2000]


def test_WSH_02_no_piece_of_a_credential_is_in_a_file_of_the_database(aftermath: tuple[Node, Canaries, Kept]) -> None:
    _, canaries, kept = aftermath
    for text, path in kept.words().items():
        assert canaries.found(text) == [], path


def test_WSH_02_no_piece_of_a_credential_is_in_an_answer_or_the_metrics(aftermath: tuple[Node, Canaries, Kept]) -> None:
    node, canaries, _ = aftermath
    metrics = node.request("GET", "/metrics", token=node.admin, expect=200).content
    assert b"gateway_" in metrics
    for what, content in [*canaries.answers, ("metrics", metrics)]:
        assert canaries.found(content) == [], (what, content[:2000])


def test_WSH_02_no_piece_of_a_credential_is_in_the_process_list(aftermath: tuple[Node, Canaries, Kept]) -> None:
    node, canaries, _ = aftermath
    line = Path(f"/proc/{node.pid}/cmdline").read_bytes()
    assert Path(sys.executable).name.encode() in line
    assert canaries.found(line) == []
    for task in Path(f"/proc/{node.pid}/task").iterdir():
        assert canaries.found((task / "comm").read_bytes()) == []
