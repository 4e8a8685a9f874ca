"""A gateway whose handshakes can be held between the check of the token and the registration of the socket.

Run as a program (``held.py GATE serve``) it is that gateway: one statement is put into the source of the entrance
before it is compiled, and waits there as long as the file GATE is there. Everything else is the gateway as it is.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HELD = "gateway.sockets.entrance"


def command(gate: Path) -> list[str]:
    return [sys.executable, str(Path(__file__).resolve()), str(gate), "serve"]


def spawn(gate: Path, *, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """The gateway as a process; it holds handshakes while ``gate`` exists, and makes ``gate``.waiting when one is."""
    with log.open("ab") as out:
        return subprocess.Popen(
            command(gate), cwd=ROOT, env={**environment, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
            stdout=out, stderr=out,
        )  # fmt: skip


class _Insert(ast.NodeTransformer):
    """Puts ``await moment()`` before the statement that calls ``….attach(…)``: from there on the hub knows it."""

    found = 0

    def visit_Expr(self, node: ast.Expr) -> Any:
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "attach":
            self.found += 1
            return [ast.copy_location(ast.parse("await moment()").body[0], node), node]
        return node


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        insert = _Insert()
        tree = insert.visit(ast.parse(self.get_data(self.path)))
        if insert.found != 1:
            raise RuntimeError(f"{self.path} registers a connection in {insert.found} places, not in one")
        return compile(ast.fix_missing_locations(tree), self.path, "exec")


def _hold(gate: Path) -> None:
    def held() -> bool:
        if gate.exists():
            gate.with_suffix(".waiting").touch()
            return True
        return False

    async def moment() -> None:
        while held():  # noqa: ASYNC110 - another process opens it: there is no event to wait for
            await asyncio.sleep(0.005)

    package, _, name = HELD.rpartition(".")
    path = str(ROOT / f"{HELD.replace('.', '/')}.py")
    parent = importlib.import_module(package)
    spec = spec_from_file_location(HELD, path, loader=_Loader(HELD, path))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    vars(module)["moment"] = moment
    sys.modules[HELD] = module
    spec.loader.exec_module(module)
    setattr(parent, name, module)


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).resolve().parent))  # the support of the tests is nothing the gateway imports
    _hold(Path(sys.argv.pop(1)))
    os.environ.pop("PYTHONPATH", None)
    from gateway.cli import main

    main()
