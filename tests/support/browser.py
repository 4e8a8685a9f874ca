"""A real Chromium without the Internet, driven over its own protocol (CDP). For what only a browser decides."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rawpeer import eventually
from websockets.sync.client import ClientConnection, connect

DEADLINE = 30.0
PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"), reason="no Chromium on this machine; on CI that is a failure"
)
_FLAGS = (
    *("--headless=new", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"),
    *("--remote-debugging-port=0", "--window-size=1280,1600"),
    # Every name but the loopback address is unknown: nothing can come from elsewhere.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    *(("--no-sandbox",) if hasattr(os, "getuid") and os.getuid() == 0 else ()),
)
KEYS = {
    **{"Enter": (13, "\r"), "Space": (32, " "), "Tab": (9, ""), "Escape": (27, ""), "Delete": (46, "")},
    **{"Home": (36, ""), "End": (35, "")},
    **{"ArrowLeft": (37, ""), "ArrowUp": (38, ""), "ArrowRight": (39, ""), "ArrowDown": (40, "")},
}
"""What ``press`` knows: the code of a key, and what it types."""
_WATCH = "window.violations = []; addEventListener('securitypolicyviolation', e => violations.push(e.violatedDirective + ' ' + e.blockedURI + ' ' + e.sample));"  # noqa: E501


@contextlib.contextmanager
def browsing(directory: Path) -> Iterator[Browser]:
    """A browser, its profile and its log in ``directory``."""
    assert PROGRAM is not None, "there is no Chromium"
    with (directory / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [PROGRAM, *_FLAGS, f"--user-data-dir={directory / 'profile'}", "about:blank"], stdout=log, stderr=log
        )
    try:
        told = directory / "profile" / "DevToolsActivePort"
        eventually(lambda: told.exists() and "/devtools" in told.read_text(), within=DEADLINE, what="chromium")
        port, path = told.read_text().split()
        with connect(
            f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None, open_timeout=DEADLINE, ping_interval=None
        ) as connection:
            yield Browser(connection)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Browser:
    """One browser with one page. ``requested``: every URL the page asked for; ``said``: errors on its console."""

    def __init__(self, connection: ClientConnection) -> None:
        self.requested: list[str] = []
        self.said: list[str] = []
        self._ids = itertools.count(1)
        self._session: str | None = None
        self._socket = connection
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.do(f"{domain}.enable")
        self.do("Page.addScriptToEvaluateOnNewDocument", source=_WATCH)

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its result; events that come meanwhile are taken down."""
        number = next(self._ids)
        command = {"id": number, "method": method, "params": params}
        self._socket.send(json.dumps(command | ({"sessionId": self._session} if self._session else {})))
        while True:
            message = json.loads(self._socket.recv(timeout=DEADLINE))
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return dict(message["result"])
            self._heard(message.get("method"), message.get("params", {}))

    def _heard(self, event: str | None, params: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif event == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.said.append(params["entry"]["text"])
        elif event == "Runtime.exceptionThrown":
            self.said.append(json.dumps(params["exceptionDetails"])[:500])

    def go(self, url: str) -> None:
        """Show ``url``; when this returns its scripts have run."""
        answer = self.do("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        self.until("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression, or of the promise it is, on the page. A policy of the page binds it too."""
        answer = self.do(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            allowUnsafeEvalBlockedByCSP=False,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str) -> Any:
        """The value of an expression once it is true."""
        return eventually(lambda: self.run(script), within=DEADLINE, what=script)

    def type(self, selector: str, text: str) -> None:
        """As a keyboard would: the page sees the events it expects."""
        self.until(f"!!document.querySelector({json.dumps(selector)})")
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.do("Input.insertText", text=text)

    def click(self, selector: str, *, within: str = "body") -> None:
        find = f"document.querySelector({json.dumps(within)})?.querySelector({json.dumps(selector)})"
        self.until(f"!!{find}")
        self.run(f"{find}.click()")

    def another(self) -> Browser:
        """Another tab of the same browser. It is brought to the front."""
        return Browser(self._socket)

    def shut(self) -> None:
        """As the user closes it. Its page gets no time to say anything."""
        if self._session is None:
            return
        target = self.do("Target.getTargetInfo")["targetInfo"]["targetId"]
        self._session = None
        self.do("Target.closeTarget", targetId=target)

    def press(self, key: str, *, shift: bool = False) -> None:
        """One key of the keyboard, wherever the focus is: a name of ``KEYS``."""
        code, text = KEYS[key]
        what = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": code}
        what["modifiers"] = 8 if shift else 0
        self.do("Input.dispatchKeyEvent", type="keyDown", **what, **({"text": text} if text else {}))
        self.do("Input.dispatchKeyEvent", type="keyUp", **what)

    def look(self, width: int, height: int, *, dark: bool = False, calm: bool = False) -> None:
        """The size of the window, and what its user prefers: dark colours, little motion."""
        self.do(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        wanted = {"color-scheme": "dark" if dark else "light", "reduced-motion": "reduce" if calm else "no-preference"}
        features = [{"name": f"prefers-{name}", "value": value} for name, value in wanted.items()]
        self.do("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path) -> None:
        """What it looks like now, as a PNG: for who wants to see why a test failed."""
        path.write_bytes(base64.b64decode(self.do("Page.captureScreenshot", format="png")["data"]))
