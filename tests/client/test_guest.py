"""``gateway.client`` in a process of its own: what importing it loads, and that it says its types."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVER = {"fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "jose", "passlib", "redis", "asyncpg", "pydantic"}


def test_importing_the_client_loads_no_server() -> None:
    """Neither its libraries nor ours."""
    listed = "import gateway.client, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", listed], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"gateway.client.sending", "httpx2", "websockets"} <= loaded
    assert {name.partition(".")[0] for name in loaded} & SERVER == set()
    ours = {name for name in loaded if name.startswith("gateway.") and not name.startswith("gateway.client")}
    assert ours == {"gateway.closing"}


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "gateway" / "py.typed").is_file()
