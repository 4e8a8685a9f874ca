"""A peer that speaks bytes, and the process it speaks to. Knows the wire format only as far as a test must break it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
DEADLINE = 10.0


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bool = True, rsv: int = 0, length: int | None = None
) -> bytes:
    """A client frame; ``length`` declares another one than the payload has, in its longest form."""
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if mask else 0
    size = len(payload)
    if length is not None:
        head += bytes([bit | 127]) + struct.pack("!Q", length)
    elif size < 126:
        head += bytes([bit | size])
    else:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    if not mask:
        return head + payload
    key = b"\x01\x02\x03\x04"
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def head(path: str = "/echo", *lines: str, method: str = "GET", version: str = "1.1", without: str = "") -> bytes:
    """An upgrade request. ``lines`` replace or add fields, ``without`` leaves one out."""
    fields = {
        "host": "Host: gateway.test", "upgrade": "Upgrade: websocket", "connection": "Connection: Upgrade",
        "sec-websocket-key": f"Sec-WebSocket-Key: {KEY}", "sec-websocket-version": "Sec-WebSocket-Version: 13",
    }  # fmt: skip
    fields.pop(without, None)
    more = []
    for line in lines:
        name = line.partition(":")[0].lower()
        if name in fields:
            fields[name] = line
        else:
            more.append(line)
    return "\r\n".join([f"{method} {path} HTTP/{version}", *fields.values(), *more, "", ""]).encode("latin-1")


class Raw:
    """One TCP connection. Reads with a deadline."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self.sock = socket.socket()
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(("127.0.0.1", port))
        self.buffer = b""

    def send(self, data: bytes) -> Self:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # what it answered is still to be read
            self.sock.sendall(data)
        return self

    def more(self) -> bool:
        """Read what there is; False at the end of the stream. A reset counts as the end."""
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            return False
        self.buffer += data
        return bool(data)

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            assert self.more(), f"the stream ended after {self.buffer!r}"
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def response(self) -> tuple[int, dict[str, str]]:
        """Status and fields of an HTTP response head."""
        while b"\r\n\r\n" not in self.buffer:
            assert self.more(), f"the stream ended after {self.buffer!r}"
        text, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        first, *lines = text.decode("latin-1").split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        return int(first.split(" ")[1]), {name.lower(): value for name, value in pairs}

    def problem(self) -> tuple[int, dict[str, Any]]:
        """Status and members of a problem that ends the connection."""
        status, fields = self.response()
        assert fields["content-type"] == "application/problem+json"
        assert fields["connection"] == "close"
        members = json.loads(self.exactly(int(fields["content-length"])))
        assert members["status"] == status
        self.ended()
        return status, members

    def next(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame; server frames are never masked or fragmented here."""
        first, second = self.exactly(2)
        assert first & 0xF0 == 0x80
        assert second < 128
        size = second
        if size == 126:
            size = struct.unpack("!H", self.exactly(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", self.exactly(8))[0]
        return first & 0x0F, self.exactly(size)

    def said(self) -> tuple[int, bytes]:
        """As ``next``, but pings are passed over: a real gateway sends them whenever it is time."""
        while (found := self.next())[0] == PING:
            pass
        return found

    def text(self) -> str:
        opcode, payload = self.next()
        assert opcode == TEXT, (opcode, payload)
        return payload.decode()

    def closed(self) -> tuple[int, str]:
        """Code and reason of the close frame, which must be next."""
        opcode, payload = self.next()
        assert opcode == CLOSE, (opcode, payload[:100])
        return (struct.unpack("!H", payload[:2])[0], payload[2:].decode()) if payload else (1005, "")

    def ended(self, *, within: float = DEADLINE) -> None:
        """The peer hangs up, having said nothing more."""
        self.sock.settimeout(within)
        while self.more():
            pass
        assert self.buffer == b"", self.buffer[:200]

    def ended_after_close(self) -> None:
        """A close frame, then the end; and this end goes too."""
        self.closed()
        self.ended()
        self.shut()

    def reads_to_the_end(self) -> bool:
        """False if the peer reset the connection instead."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            return False
        return True

    def shut(self) -> None:
        self.sock.close()


def eventually(condition: Callable[[], Any], *, within: float = DEADLINE, what: str = "condition") -> Any:
    end = time.monotonic() + within
    while not (answer := condition()):
        assert time.monotonic() < end, f"{what}: not within {within} s"
        time.sleep(0.01)
    return answer


class EchoServer:
    """``echo_server.py`` in a process of its own."""

    def __init__(self, log: Path, **limits: object) -> None:
        self.log = log
        self._raws: list[Raw] = []
        program = Path(__file__).with_name("echo_server.py")
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(program), json.dumps(limits)], stdout=subprocess.PIPE, stderr=stderr
            )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline() or b"0")
        assert self.port, self.log_text()

    def dial(self, **options: Any) -> Raw:
        raw = Raw(self.port, **options)
        self._raws.append(raw)
        return raw

    def open(self, path: str = "/echo", *lines: str, **options: Any) -> Raw:
        """A connection that has been accepted."""
        raw = self.dial(**options).send(head(path, *lines))
        status, fields = raw.response()
        assert status == 101, status
        assert fields["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        return raw

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=DEADLINE) as answer:
            return json.loads(answer.read())

    def state(self) -> dict[str, Any]:
        return dict(self.get("/state"))

    def hang_up(self) -> None:
        """Close what a test left open and wait until the server has noticed: tests share it."""
        for raw in self._raws:
            raw.shut()
        self._raws.clear()
        eventually(lambda: self.state()["open"] == 0, what="no connection left")

    def sockets(self) -> int:
        """Open sockets of the process."""
        found = 0
        for name in os.listdir(f"/proc/{self.process.pid}/fd"):
            with contextlib.suppress(OSError):
                found += os.readlink(f"/proc/{self.process.pid}/fd/{name}").startswith("socket:")
        return found

    def resident(self) -> int:
        """Resident memory in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        for raw in self._raws:
            raw.shut()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(15)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
