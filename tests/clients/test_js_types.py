"""The types of the JavaScript client and of the inbox: a compiler takes them, and they say what the code does."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from jsclient import CLIENT, PROGRAM, needs_node, run_node
from wire import ROOT

HERE = Path(__file__).parent / "types"
COMPILER = ROOT / "tests" / "support" / "npm" / "node_modules" / "typescript" / "lib" / "tsc.js"
pytestmark = [
    needs_node,
    pytest.mark.skipif(
        not COMPILER.exists() and not os.environ.get("CI"),
        reason="no TypeScript (npm ci --prefix tests/support/npm); on CI that is a failure",
    ),
]


def test_a_program_in_typescript_compiles_and_its_mistakes_are_found(tmp_path: Path) -> None:
    """Against the package as it is installed: by its name, by its ``exports``."""
    assert PROGRAM is not None
    modules = tmp_path / "node_modules"
    modules.mkdir()
    (modules / "notification-gateway-client").symlink_to(CLIENT, target_is_directory=True)
    for name in ("consumer.ts", "tsconfig.json"):
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    done = subprocess.run(
        [PROGRAM, str(COMPILER), "-p", str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_types_say_what_the_code_does() -> None:
    assert run_node(str(HERE / "agrees.mjs")).split() == ["agrees"]
