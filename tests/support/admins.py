"""The console at ``/console`` in a browser: what an administrator does there again and again. Asserts little."""

from __future__ import annotations

import json
import re

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
        self.browser.shows("#field-username")

    def sign_in(self, username: str = "admin", password: str = ADMIN_PASSWORD) -> None:
        self.fill("username", username)
        self.fill("password", password)
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
        self.browser.shows(selector, text)

    def press(self, text: str, *, within: str = "body", row: str = "") -> None:
        """Click the button or link with this text, in the table row that holds ``row`` if that is given."""
        place = self.browser.page.locator("tbody tr").filter(has_text=row) if row else self.browser.page.locator(within)
        whole = re.compile(rf"^\s*{re.escape(text)}\s*$")
        self.browser.click(place.locator("button, a").filter(has_text=whole).first)

    def fill(self, name: str, text: str) -> None:
        """Write into the field of this name, in the place of what stands there."""
        self.browser.fill(f"#field-{name}", text)

    def look(self, width: int, *, dark: bool = False) -> None:
        """Through a window so wide."""
        self.browser.look(width, dark=dark)

    def is_clean(self) -> None:
        """The policy was broken by nobody, nothing was complained about, and nothing came from elsewhere."""
        assert self.browser.run("window.violations") == []
        assert self.browser.said == []
        assert [url for url in self.browser.requested if not url.startswith((f"{self.node.url}/", "about:"))] == []
