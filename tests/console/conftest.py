"""A tab of one's own for each module of the console's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from browser import Browser, Chromium
from wire import hang_up


@pytest.fixture(scope="module")
def browser(chromium: Chromium) -> Iterator[Browser]:
    with chromium.profile() as tab:
        yield tab()


@pytest.fixture(autouse=True)
async def _hang_up() -> AsyncIterator[None]:
    yield
    await hang_up()
