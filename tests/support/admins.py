"""The console at ``/console`` in a browser: what an administrator does there again and again. Asserts little."""

from __future__ import annotations

import json

from browser import Browser
from wire import ADMIN_PASSWORD, Node


class Console:
    """The console of ``node`` in a browser."""

    def __init__(self, node: Node, browser: Browser) -> None:
        self.node, self.browser = node, browser

    def open(self) -> None:
        """The page, anew: signed out."""
        self.browser.go("about:blank")
        self.browser.go(f"{self.node.url}/console")
        self.browser.until("!!document.querySelector('#field-username')")

    def sign_in(self, username: str = "admin", password: str = ADMIN_PASSWORD) -> None:
        self.browser.type("#field-username", username)
        self.browser.type("#field-password", password)
        self.browser.click("button[type=submit]")

    def enter(self) -> None:
        """Signed in, at the overview."""
        self.open()
        self.sign_in()
        self.sees("h1", "Overview")

    def visit(self, page: str, title: str) -> None:
        self.browser.run(f"location.hash = {json.dumps('#/' + page)}")
        self.sees("h1", title)

    def sees(self, selector: str, text: str) -> None:
        """Some element of these has this text in it."""
        found = f"[...document.querySelectorAll({json.dumps(selector)})]"
        self.browser.until(f"{found}.some(e => e.innerText.includes({json.dumps(text)}))")

    def press(self, text: str, *, within: str = "body", row: str = "") -> None:
        """Click the button or link with this text, in the table row that holds ``row`` if that is given."""
        place = f"document.querySelector({json.dumps(within)})"
        if row:
            place = f"[...document.querySelectorAll('tbody tr')].find(r => r.innerText.includes({json.dumps(row)}))"
        find = (
            f"[...({place}?.querySelectorAll('button, a') ?? [])].find(e => e.innerText.trim() === {json.dumps(text)})"
        )
        self.browser.until(f"!!{find} && !{find}.disabled")
        self.browser.run(f"{find}.click()")

    def fill(self, name: str, text: str) -> None:
        """Write into the field of this name, in the place of what stands there."""
        self.browser.until(f"!!document.querySelector('#field-{name}')")
        self.browser.run(f"document.querySelector('#field-{name}').select?.()")
        self.browser.type(f"#field-{name}", text)

    def look(self, width: int, *, dark: bool = False) -> None:
        """Through a window so wide."""
        self.browser.do(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.browser.do("Emulation.setEmulatedMedia", features=[scheme])

    def is_clean(self) -> None:
        """The policy was broken by nobody, nothing was complained about, and nothing came from elsewhere."""
        assert self.browser.run("window.violations") == []
        assert self.browser.said == []
        assert [url for url in self.browser.requested if not url.startswith((f"{self.node.url}/", "about:"))] == []
