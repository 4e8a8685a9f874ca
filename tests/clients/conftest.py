"""Tabs of a Chromium for the tests of what runs in pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browser import Browser, Chromium


@pytest.fixture
def profile_options() -> dict[str, Any]:
    """For a test to override: what ``tab`` opens its profile with."""
    return {}


@pytest.fixture
def tab(chromium: Chromium, profile_options: dict[str, Any]) -> Iterator[Callable[[], Browser]]:
    """Opens tabs of one profile, signed in nowhere; all are closed with the test."""
    with chromium.profile(**profile_options) as begin:
        yield begin
