"""Fixtures of the wire suite: what a test left open is closed. No server is started here."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from wire import hang_up


@pytest.fixture(autouse=True)
async def _hang_up() -> AsyncIterator[None]:
    yield
    await hang_up()
