"""The JavaScript client in a Node process, heard line by line; and what serves it to a browser. Asserts nothing."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from wire import DEADLINE, ROOT, Node, User, eventually

CLIENT = ROOT / "clients" / "js"


def _node() -> str | None:
    """A Node of version 20 or later."""
    program = next(filter(None, map(shutil.which, ("node", "nodejs"))), None)
    if program is None:
        return None
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)\.", version)
    return program if found and int(found[1]) >= 20 else None


PROGRAM = _node()
needs_node = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"), reason="no Node 20 on this machine; on CI that is a failure"
)
FLAGS = ("--experimental-websocket", "--no-warnings")
"""Node 20 has a WebSocket, but not without this."""


def run_node(*arguments: str, within: float = 120) -> str:
    """What it wrote; fails if it did."""
    assert PROGRAM is not None, "there is no Node 20"
    done = subprocess.run(
        [PROGRAM, *FLAGS, *arguments], cwd=CLIENT, capture_output=True, text=True, timeout=within, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    return done.stdout


class Listener:
    """``clients/js/test/listener.mjs``: one client. ``heard``: what it has written so far."""

    def __init__(self, node: Node, user: User, **options: Any) -> None:
        assert PROGRAM is not None, "there is no Node 20"
        self.heard: list[list[Any]] = []
        self.process = subprocess.Popen(
            [PROGRAM, *FLAGS, "test/listener.mjs"],
            cwd=CLIENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()
        self._say({"url": node.url, "refresh_token": user.sign_in()["refresh_token"], **options})

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.heard.append(json.loads(line))

    def _say(self, what: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def call(self, method: str, *arguments: object) -> None:
        self._say([method, *arguments])

    def of(self, kind: str) -> list[Any]:
        return [more[0] if more else None for what, *more in list(self.heard) if what == kind]

    def shown(self) -> list[int]:
        return [event["seq"] for event in self.of("notification")]

    def until(self, condition: Callable[[Listener], Any], *, within: float = DEADLINE, what: str = "") -> Any:
        try:
            return eventually(lambda: condition(self), within=within)
        except AssertionError:
            raise AssertionError(f"{what}: heard {self.heard[-20:]}") from None

    def until_open(self, count: int = 1) -> None:
        self.until(lambda it: sum(e["state"] == "open" for e in it.of("state")) >= count, what=f"open {count}")

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError, ValueError):
                assert pipe is not None
                pipe.close()


class Site:
    """A web site of its own origin: one page, ``clients/js`` beside it, and ``POST /token`` for who is signed in.

    ``scripts``: what else it has, by path.
    """

    def __init__(self, page: str) -> None:
        self.page = page
        self.node: Node | None = None
        self.refresh_token = ""
        self.scripts: dict[str, str] = {}
        self._turn = threading.Lock()
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def _answer(self, kind: str, body: bytes, status: int = 200) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):  # a page that was left does not wait for it
                    self.wfile.write(body)

            def do_GET(self) -> None:
                if script := site.scripts.get(self.path):
                    self._answer("text/javascript", script.encode())
                elif self.path.endswith(".js"):
                    self._answer("text/javascript", (CLIENT / self.path.lstrip("/")).read_bytes())
                elif self.path.startswith("/sign-in"):  # where a page goes whose client has ended for good
                    self._answer("text/html; charset=utf-8", b"<!doctype html><title>Sign in</title>")
                else:
                    self._answer("text/html; charset=utf-8", site.page.encode())

            def do_POST(self) -> None:
                self._answer("application/json", *site.token())

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def token(self) -> tuple[bytes, int]:
        """As a back end would: the refresh token stays there."""
        assert self.node is not None
        with self._turn:
            try:
                answer = self.node.request("POST", "/auth/refresh", json={"refresh_token": self.refresh_token})
            except Exception as error:  # the gateway is away: the page hears of it and tries again
                return json.dumps({"status": 503, "detail": str(error)}).encode(), 503
            if answer.status_code == 200:
                self.refresh_token = answer.json()["refresh_token"]
            return answer.content, answer.status_code

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def site_with(page: str | Path) -> Iterator[Site]:
    site = Site(page if isinstance(page, str) else page.read_text("utf-8"))
    try:
        yield site
    finally:
        site.close()
