"""Fixtures of the Python client's tests: what a test left open is closed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from wire import hang_up


@pytest.fixture(autouse=True)
async def _hang_up() -> AsyncIterator[None]:
    yield
    await hang_up()
