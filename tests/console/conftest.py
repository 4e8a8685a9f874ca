"""A browser of one's own for each module of the console's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from browser import Browser, browsing
from wire import hang_up


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(Path(tmp_path_factory.mktemp("browser"))) as browser:
        yield browser


@pytest.fixture(autouse=True)
async def _hang_up() -> AsyncIterator[None]:
    yield
    await hang_up()
