"""One connection: every wait is bounded, and a peer that does not speak the protocol is dropped with a reason."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from buses import KINDS, listening, serving
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from freeport import free_port
from servers import Redis
from wire import called_off, eventually_async

from gateway.bus import line as module
from gateway.bus.line import Line, LineLost, Server, command, failed, open_line

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def peer(behave: Peer, **options: Any) -> AsyncIterator[int]:
    """A server of our own. Its port."""
    writers: list[asyncio.StreamWriter] = []

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(ConnectionError):
            await behave(reader, writer)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


def saying(*parts: bytes) -> Peer:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        for part in parts:
            writer.write(part)
        await writer.drain()

    return behave


OK = b"+OK\r\n"
PLAIN = OK + b"*1\r\n*-1\r\n" + b"-ERR no cluster\r\n"
SHARDED = OK + b"*1\r\n*1\r\n$8\r\nspublish\r\n" + b"-ERR no cluster\r\n"
CLUSTER = OK + b"*1\r\n*1\r\n$8\r\nspublish\r\n" + b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$0\r\n\r\n:7000\r\n$2\r\nid\r\n"


async def test_a_server_tells_what_it_is() -> None:
    for said, sharded, slots in (
        (PLAIN, False, ()),
        (SHARDED, True, ()),
        (CLUSTER, True, ((0, 16383, "127.0.0.1", 7000),)),
    ):
        async with peer(saying(said)) as port:
            line, greeting = await open_line(Server("127.0.0.1", port), name="n")
            assert (greeting.sharded, greeting.slots) == (sharded, slots)
            line.drop("done")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not the protocol"),
        (b"-NOAUTH Authentication required.\r\n" * 3, "NOAUTH"),
        (b"-LOADING Redis is loading\r\n" * 3, "LOADING"),
        (OK * 3, "fits no question"),
        (PLAIN + OK, "nobody asked for"),
        (b"$20000000\r\n" + b"x" * 17_000_000, "too large"),
    ],
)
async def test_a_peer_that_is_no_use_is_dropped_with_a_reason(said: bytes, why: str) -> None:
    async with peer(saying(said)) as port:
        assert why in await _end(port)


async def _end(port: int) -> str:
    try:
        line, _ = await open_line(Server("127.0.0.1", port), name="n")
    except LineLost as lost:
        return str(lost)
    await line.closed
    return line.why


async def test_a_peer_that_accepts_and_says_nothing_is_waited_for_no_longer_than_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CONNECT_S", 0.1)
    async with peer(saying()) as port:
        with pytest.raises(LineLost, match="no answer in time"):
            await open_line(Server("127.0.0.1", port), name="n")


async def test_nobody_there_is_told_with_the_address() -> None:
    port = free_port()
    with pytest.raises(LineLost, match=f"127.0.0.1:{port}"):
        await open_line(Server("127.0.0.1", port), name="n")
    with pytest.raises(LineLost, match="/no/such/socket"):
        await open_line(Server("", 0, path="/no/such/socket"), name="n")


async def opened(server: Redis) -> Line:
    line, _ = await open_line(Server("127.0.0.1", server.port), name="n")
    return line


@pytest.mark.parametrize("kind", KINDS)
async def test_calls_are_answered_in_order_and_an_error_is_a_value(kind: str) -> None:
    with serving(kind) as server:
        line = await opened(server)
        ping, nonsense = command(b"PING"), command(b"NONSENSE")
        first = asyncio.create_task(line.call(ping + nonsense, replies=2, within=5))
        second = asyncio.create_task(line.call(command(b"ECHO", b"x"), replies=1, within=5))
        pong, error = await first
        assert (pong, await second) == (b"PONG", [b"x"])
        assert "unknown command" in (failed(error) or "")
        assert failed(pong) is None
        server.kill()
        await line.closed
        with pytest.raises(LineLost, match="lost"):
            await line.call(ping, replies=1, within=5)


async def test_an_answer_too_late_or_a_call_called_off_is_the_end_of_the_line() -> None:
    with serving("redis") as server:
        line = await opened(server)
        server.suspend()
        with pytest.raises(LineLost, match="no answer in time"):
            await line.call(command(b"PING"), replies=1, within=0.05)
        server.resume()
        other = await opened(server)
        server.suspend()
        call = asyncio.create_task(other.call(command(b"PING"), replies=1, within=5))
        await eventually_async(lambda: other._calls)
        await called_off(call)
        server.resume()
        assert line.closed.done()
        assert other.closed.done()


async def test_a_lost_line_fails_whoever_waits_for_it() -> None:
    with serving("redis") as server:
        line = await opened(server)
        server.suspend()
        call = asyncio.create_task(line.call(command(b"PING"), replies=1, within=5))
        await eventually_async(lambda: line._calls)
        server.kill()
        with pytest.raises(LineLost, match="lost"):
            await call


# -- addresses -----------------------------------------------------------------------------------------------------


def test_an_address_is_read_as_redis_py_reads_it() -> None:
    assert Server.of("redis://u:p%40ss@example:7/2") == Server("example", 7, None, "u", "p@ss")
    assert Server.of("redis://example") == Server("example", 6379)
    assert Server.of("unix:///run/redis.sock").address == "/run/redis.sock"
    assert "p@ss" not in repr(Server.of("redis://u:p%40ss@example:7/2"))
    tls = Server.of("rediss://example").tls
    assert tls is not None
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://example", "cannot be read"),
        ("redis://:pa:s/word@example:1", "cannot be read"),
        ("rediss://example?ssl_ca_certs=/no/such/file", "ssl_ca_certs cannot be used"),
        ("rediss://example?ssl_cert_reqs=maybe", "ssl_cert_reqs cannot be used"),
        ("rediss://example?ssl_colour=red", "ssl_colour cannot be used"),
        ("redis://:x?pa=s@example", "cannot be read"),
        ("redis://example?decode_responses=true", "option decode_responses is not known"),
        ("redis://example?ssl_cert_reqs=none", "option ssl_cert_reqs is not known"),
    ],
)
def test_an_address_that_cannot_be_used_is_a_value_error_without_its_password(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as error:
        Server.of(url)
    assert "pa" not in str(error.value).replace("password", "")


async def test_over_a_unix_socket(tmp_path: Path) -> None:
    with serving("redis", options=("--unixsocket", "s.sock")) as server:
        async with listening(f"unix://{server.root}/s.sock"):
            pass


async def test_over_tls_and_only_to_whom_the_certificate_names(tmp_path: Path) -> None:
    certificate = tmp_path / "server.pem"
    _write_certificate(certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with serving("redis") as server:

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", server.port)
            await asyncio.gather(_pump(reader, to_writer), _pump(to_reader, writer))

        async with peer(forward, ssl=context) as port:
            async with listening(f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}"):
                pass
            async with listening(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}", up=False) as here:
                await eventually_async(lambda: "not valid for '127.0.0.1'" in (here.bus.trouble or ""), what="refused")
            async with listening(f"rediss://localhost:{port}/0", up=False) as here:
                await eventually_async(lambda: "self-signed" in (here.bus.trouble or ""), what="refused")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


def _write_certificate(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
