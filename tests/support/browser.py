"""Chromium without the Internet, driven by Playwright. For what only a browser decides; it knows no page of ours.

It is the Chromium of the system: Playwright brings its driver, and is never asked to download a browser. Playwright's
loop runs in a thread of its own, because the tests have loops of theirs: ``asyncio.run`` beside its synchronous
interface in one thread is refused.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from playwright.async_api import Browser as Process
from playwright.async_api import BrowserContext, ConsoleMessage, Error, Locator, Page, async_playwright

DEADLINE = 30.0
PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"), reason="no Chromium on this machine; on CI that is a failure"
)
_AS_ROOT = hasattr(os, "getuid") and os.getuid() == 0
# Every name but the loopback address is unknown: nothing can come from elsewhere.
_FLAGS = ("--no-proxy-server", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
_WATCH = """window.violations = []; addEventListener('securitypolicyviolation',
  ({violatedDirective, blockedURI, sample}) => violations.push(`${violatedDirective} ${blockedURI} ${sample}`))"""
T = TypeVar("T")


class Thread:
    """The thread that Playwright runs in."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal

    def do(self, method: Callable[..., Awaitable[T]], *args: Any, **named: Any) -> T:
        """Call a method of Playwright there; its result."""
        # Playwright gives up first, and says what it has waited for. A script is given up by nobody else.
        return self._portal.start_task_soon(partial(method, *args, **named)).result(DEADLINE + 1)


@contextlib.contextmanager
def launched(*, keeps_pages: bool = False) -> Iterator[Chromium]:
    """A browser with no page as yet. It costs half a second: one is enough for all tests of a process, except for those
    of pages that it keeps when one leaves them (``keeps_pages``): it does so for people, and Playwright forbids it."""
    assert PROGRAM is not None, "there is no Chromium"
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(async_playwright()) as playwright:
        thread = Thread(portal)
        process = thread.do(
            playwright.chromium.launch,
            executable_path=PROGRAM,
            chromium_sandbox=not _AS_ROOT,
            args=_FLAGS,
            ignore_default_args=["--hide-scrollbars", *(["--disable-back-forward-cache"] if keeps_pages else [])],
        )
        try:
            yield Chromium(thread, process)
        finally:
            thread.do(process.close)


class Chromium:
    """The process of a browser."""

    def __init__(self, thread: Thread, process: Process) -> None:
        self._thread, self._process = thread, process

    @contextlib.contextmanager
    def profile(self, **options: Any) -> Iterator[Callable[[], Browser]]:
        """Opens tabs that share cookies, storage and cache with each other and with nobody else. All are closed at the
        end. ``options``: those of Playwright's ``new_context``, as ``bypass_csp`` or ``is_mobile``."""
        context = self._thread.do(self._process.new_context, **{"viewport": {"width": 1280, "height": 1600}} | options)
        self._thread.do(context.add_init_script, _WATCH)
        try:
            yield lambda: Browser(self._thread, context)
        finally:
            self._thread.do(context.close)


class Browser:
    """One tab. ``requested``: every URL the page asked for; ``said``: errors on its console, and those nobody caught.

    ``selector`` is one of Playwright's: it also finds what is in open shadow roots, and has to find one element. What
    acts on an element waits until a person could do it, and does it with the mouse or the keys.
    """

    def __init__(self, thread: Thread, context: BrowserContext) -> None:
        self.requested: list[str] = []
        self.said: list[str] = []
        self._do = thread.do
        self.page = self._do(self._opened, context)

    async def _opened(self, context: BrowserContext) -> Page:
        page = await context.new_page()
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.said.append(str(error)))
        return page

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.said.append(message.text)

    def go(self, url: str) -> None:
        """Show ``url``; when this returns its scripts have run."""
        self._do(self.page.goto, url)

    def back(self) -> None:
        """To the page before this one, which the browser may have kept."""
        self._do(self.page.go_back, wait_until="commit")

    def run(self, script: str) -> Any:
        """The value of an expression, or of the promise it is, on the page. What it does at once may use ``eval``,
        whatever the policy of the page says."""
        return self._do(self.page.evaluate, script)

    def until(self, script: str) -> Any:
        """The value of an expression once it is true, in whatever document the tab shows then."""
        # As a function: it is compiled once, at once, when no policy of the page forbids it.
        found = self._do(self.page.wait_for_function, f"() => ({script})", polling=20)
        return self._do(found.json_value)

    def fill(self, selector: str, text: str) -> None:
        """Write into a field, in the place of what stands there."""
        self._do(self.page.locator(selector).fill, text)

    def click(self, target: str | Locator) -> None:
        self._do((self.page.locator(target) if isinstance(target, str) else target).click)

    def shows(self, selector: str, text: str = "") -> None:
        """Wait until some element of these is visible, with this text in it."""
        found = self.page.locator(selector).filter(has_text=text).filter(visible=True)
        self._do(found.first.wait_for)

    def press(self, key: str) -> None:
        """One key of the keyboard, wherever the focus is, as ``Enter`` or ``Shift+Tab``."""
        self._do(self.page.keyboard.press, key)

    def write(self, text: str) -> None:
        """On the keyboard, wherever the focus is."""
        self._do(self.page.keyboard.type, text)

    def look(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """The size of the window, and whether its user likes dark colours better."""
        self._do(self.page.set_viewport_size, {"width": width, "height": height})
        self._do(self.page.emulate_media, color_scheme="dark" if dark else "light")

    def picture(self, path: Path) -> None:
        """What it looks like now, as a PNG: for who wants to see why a test failed."""
        self._do(self.page.screenshot, path=path)

    def crash(self) -> None:
        """The process of its page ends at once, as one does that has run out of memory."""
        with contextlib.suppress(Error):
            self._do(self.page.goto, "chrome://crash")

    def shut(self) -> None:
        """As the user closes it. Its page gets no time to say anything."""
        self._do(self.page.close)
