"""A Chromium for all tests of what runs in pages, and tabs of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from browser import Browser, browsing


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def tab(chromium: Browser) -> Iterator[Callable[[], Browser]]:
    """Opens tabs of the one browser, signed in nowhere; all are closed with the test."""
    chromium.do("Network.clearBrowserCookies")
    tabs: list[Browser] = []

    def begin() -> Browser:
        tabs.append(chromium.another())
        return tabs[-1]

    yield begin
    for tab in tabs:
        tab.shut()
