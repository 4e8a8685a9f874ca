"""What the fuzz suites share: the seed, printed whatever comes of it, and how much is tried. Sends nothing.

FUZZ_SEED chooses the seed (without it a run of ``make test`` always takes the same one), FUZZ_FRAMES and FUZZ_EXAMPLES
how much: ``make fuzz`` takes a seed of its own and far more of both.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import AsyncIterator

import pytest
from wire import hang_up


@pytest.fixture(autouse=True)
async def _hang_up() -> AsyncIterator[None]:
    yield
    await hang_up()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    chosen = int(os.environ.get("FUZZ_SEED") or zlib.crc32(request.node.name.encode()))
    request.node.user_properties.append(("row", f"{request.node.name} FUZZ_SEED={chosen}"))
    return chosen
